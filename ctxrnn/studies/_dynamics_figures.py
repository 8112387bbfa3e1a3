"""Figures of the main job's dynamics, drawn from its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.analysis import Bifurcation, Branch, Branches, plots
from ctxrnn.studies._dynamics_tables import SUMMARIES

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, "pd.DataFrame"]

# Colours of two tasks, which are none of a mechanism.
_TASKS = tuple(plots.colours_of(range(2)).values())
_MARKS = {"stable": "o", "saddle": "X", "slow": "s", "marginal": "D", "unstable": "o"}


def dynamics_figures(tables: Tables) -> dict[str, Callable[[Tables], plots.Figure]]:
    """Return what draws the figures for which there are tables, by name."""
    found: dict[str, Callable[[Tables], plots.Figure]] = {}
    if {"trajectories", "fixed_points"} <= set(tables):
        found["dynamics"] = _dynamics
    if "paths" in tables:
        found["bifurcations"] = _bifurcations
    return found


def shown_network(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Return the rows of a variant's first network that has any."""
    rows = table[table["variant"] == variant]
    return rows[rows["seed"] == rows["seed"].min()]


def shown_pair(tables: Tables) -> tuple[str, str]:
    """Return the pair of twins that is shown, the first one."""
    first = tables["paths"].iloc[0]
    return str(first["from"]), str(first["to"])


def _dynamics(tables: Tables) -> plots.Figure:
    """Trajectories and fixed points of an example network; numbers over networks."""
    variants = list(dict.fromkeys(tables["trajectories"]["variant"]))
    columns = max(len(variants), 2)
    figure = plots.Figure(figsize=(max(7.2, 1.8 * columns), 4.9), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    upper = np.atleast_1d(top.subplots(1, len(variants)))
    for ax, variant in zip(upper, variants, strict=True):
        _plane(
            ax,
            shown_network(tables["trajectories"], variant),
            tables["fixed_points"],
            variant,
        )
    handles, texts = _plane_key(tables["trajectories"], tables["fixed_points"])
    top.legend(handles, texts, loc="outside lower center", ncols=len(texts))
    names = [name for name in list(SUMMARIES)[:4] if tables["networks"][name].notna().any()]
    lower = np.atleast_1d(bottom.subplots(1, len(names), sharey=False))
    for ax, name in zip(lower, names, strict=True):
        plots.interval_points(
            ax, tables["networks"], name, label=SUMMARIES[name], decimals=_decimals(name),
            across=True,
        )  # fmt: skip
        high = ax.get_xlim()[1]
        ax.set_xlim(-0.05 * high, 1.04 * high)
        ax.set_yticks(range(len(variants)), variants if ax is lower[0] else [""] * len(variants))
    plots.letters(*upper, *lower)
    return figure


def _decimals(name: str) -> int:
    return 2 if name == "state_dependence" else 1


def _plane(ax: plots.Axes, paths: pd.DataFrame, points: pd.DataFrame, variant: str) -> None:
    tasks = list(dict.fromkeys(paths["task"]))
    for task, colour in zip(tasks, _TASKS, strict=False):
        for _, path in paths[paths["task"] == task].groupby("path"):
            ax.plot(path["pc_1"], path["pc_2"], color=colour, linewidth=0.7, alpha=0.8)
            ax.plot(*path[["pc_1", "pc_2"]].iloc[0], ".", color="0.2", markersize=3, zorder=3)
    mine = points[(points["variant"] == variant) & (points["seed"] == paths["seed"].iloc[0])]
    looks = {**dict(zip(tasks, _TASKS, strict=False)), "no context": "0.4"}
    for task, colour in looks.items():
        for kind, rows in mine[mine["task"] == task].groupby("kind"):
            full = kind in ("stable", "saddle")
            ax.plot(
                rows["pc_1"], rows["pc_2"], _MARKS[str(kind)], color=colour, markersize=5.5,
                zorder=4, markerfacecolor=colour if full else "white",
                markeredgecolor="black" if full else colour, markeredgewidth=0.7, linestyle="",
            )  # fmt: skip
    ax.set_title(variant)
    for number, axis in ((1, ax.xaxis), (2, ax.yaxis)):
        axis.set_label_text(f"PC {number} ({100 * paths[f'share_{number}'].iloc[0]:.0f} %)")


def _plane_key(paths: pd.DataFrame, found: pd.DataFrame) -> tuple[list[Any], list[str]]:
    tasks = list(dict.fromkeys(paths["task"]))
    handles, _ = plots.key([("", {"color": colour}) for colour in _TASKS[: len(tasks)]])
    shown = found[found["task"].isin([*tasks, "no context"])]
    points, names = plots.point_key(list(shown["kind"]))
    return [*handles, *points], [*tasks, *names]


def _bifurcations(tables: Tables) -> plots.Figure:
    """Bifurcation diagrams of example networks, choices, and all paths together."""
    a, b = shown_pair(tables)
    networks = tables["networks"]
    variants = list(dict.fromkeys(tables["paths"]["variant"]))
    count = len(variants) + 1
    figure = plots.new_figure(2, count, size=(max(1.85 * count, 3.7), 4.4))
    grid = np.array(figure.axes, dtype=object).reshape(2, count)
    for (upper, lower), variant in zip(grid.T, variants, strict=False):
        _path(upper, lower, tables, variant, (a, b))
    for row in grid:
        for ax in row[1:-1]:
            ax.set_ylabel("")
    _against(grid[0, -1], tables["paths"])
    with_context = networks[networks["variant"].isin(variants)]
    plots.interval_points(
        grid[1, -1], with_context, "bifurcations", label="bifurcations per path", decimals=1
    )
    grid[1, -1].set_ylim(bottom=0)
    plots.letters(*grid.ravel())
    shown = tables["bifurcations"]
    kinds = list(shown.loc[shown["index"] == 0, "kind"]) if len(shown) else []
    handles, texts = plots.event_key(kinds)
    lines, names = _choice_key((a, b))
    figure.legend(
        [*handles, *lines], [*texts, *names], loc="outside lower center",
        ncols=len(texts) + len(names),
    )  # fmt: skip
    return figure


def _choice_key(pair: tuple[str, str]) -> tuple[list[Any], list[str]]:
    return plots.key(
        [
            (f"as {pair[0]}", {"color": "0.2"}),
            (f"as {pair[1]}", {"color": "0.2", "linestyle": (0, (5, 1.5))}),
            ("neither", {"color": "0.35", "linestyle": (0, (1, 1.2))}),
        ]
    )


def _path(
    upper: plots.Axes,
    lower: plots.Axes,
    tables: Tables,
    variant: str,
    pair: tuple[str, str],
) -> None:
    """Draw one network's diagram above, the choices of all networks below."""
    paths = _along(tables["paths"], variant, pair)
    network = paths["seed"].min()
    mine = {
        name: _along(tables[name], variant, pair)
        for name in ("branches", "bifurcations")
        if len(tables[name])
    }
    own = {name: table[table["seed"] == network] for name, table in mine.items()}
    plots.bifurcation_diagram(
        upper, as_branches(own["branches"], own.get("bifurcations")), 0, label="PC 1",
        parameter="", colour=plots.MECHANISM_COLOURS[plots.mechanism(variant)],
    )  # fmt: skip
    choices = tables["choices"]
    choices = choices[
        (choices["variant"] == variant)
        & (choices["task"] == pair[0])
        & (choices["other"] == pair[1])
    ]
    plots.choice_shares(
        lower, choices, shares=("as_task", "as_other", "neither"),
        names=(f"as {pair[0]}", f"as {pair[1]}", "neither"),
        label=rf"weight $\lambda$ of {pair[1]}",
    )  # fmt: skip
    star = float(paths.loc[paths["seed"] == network, "crossing"].iloc[0])
    for ax in (upper, lower):
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.5, 1])
        if np.isfinite(star):
            ax.axvline(star, color="black", linewidth=0.9, linestyle=(0, (1, 1)), zorder=0)
    upper.set_title(variant)
    lower.set_title("")


def _along(table: pd.DataFrame, variant: str, pair: tuple[str, str]) -> pd.DataFrame:
    return table[
        (table["variant"] == variant) & (table["from"] == pair[0]) & (table["to"] == pair[1])
    ]


def as_branches(points: pd.DataFrame, events: pd.DataFrame | None) -> Branches:
    """Make branches of a network's table, in the plane of two components.

    Args:
        points: Columns branch, step, parameter, index, leading, pc_1, pc_2.
        events: Of its bifurcations; of these those of stable points are taken.
    """
    found = []
    for number, rows in points.groupby("branch"):
        mine = [] if events is None else events[events["branch"] == number].to_dict("records")
        x = rows[["pc_1", "pc_2"]].to_numpy(dtype=float)
        found.append(
            Branch(
                parameter=rows["parameter"].to_numpy(dtype=float),
                x=x,
                index=rows["index"].to_numpy(dtype=int),
                leading=rows["leading"].to_numpy(dtype=float),
                bifurcations=tuple(
                    Bifurcation(
                        event["kind"], event["parameter"],
                        np.array([event["pc_1"], event["pc_2"]]), np.zeros(2),
                    )
                    for event in mine
                    if event["index"] == 0
                ),
                ends=("range", "range"),
            )
        )  # fmt: skip
    return Branches(tuple(found))


def _against(ax: plots.Axes, paths: pd.DataFrame) -> None:
    """Draw the nearest bifurcation of each path against the crossing of behaviour."""
    ax.plot([0, 1], [0, 1], color="0.75", linewidth=0.8, zorder=0)
    for variant, rows in paths.groupby("variant", sort=False):
        kind = plots.mechanism(str(variant))
        known = rows.dropna(subset=["crossing", "bifurcation"])
        ax.plot(
            known["crossing"], known["bifurcation"].astype(float), plots.MARKERS[kind],
            color=plots.MECHANISM_COLOURS[kind], markersize=3.5, alpha=0.75, linestyle="",
        )  # fmt: skip
    ax.set(
        xlim=(0, 1), ylim=(0, 1), xlabel=r"$\lambda$ where choices cross",
        ylabel=r"$\lambda$ of nearest bifurcation",
    )  # fmt: skip
    ax.set_aspect("equal")

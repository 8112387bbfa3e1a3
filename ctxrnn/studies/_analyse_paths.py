"""A part of `analyse`: fixed points between two contexts, beside the choices of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.analysis import Branches, choice_shares, compare_crossings, crossing, plots
from ctxrnn.studies._analyse_view import Part, View

if TYPE_CHECKING:
    import pandas as pd

Pair = tuple[str, str]


def continuation(view: View) -> Part:
    """Fixed points followed from one task's context to another's, above choices on the way."""
    import pandas as pd

    title = "From one context to another"
    if not view.pairs:
        return Part(title, "Left out: there is one task alone.")
    followed = {pair: view.followed(*pair) for pair in view.pairs}
    shares = _choices(view)
    levels = {} if shares is None else _crossings(shares)
    tables = {
        "branches": _joined({pair: found.table() for pair, found in followed.items()}),
        "bifurcations": _joined({pair: found.bifurcations() for pair, found in followed.items()}),
    }
    told = ""
    if shares is not None:
        rows = [
            {"from": a, "to": b, **_beside(followed[a, b], levels.get((a, b), float("nan")))}
            for a, b in view.pairs
        ]
        tables |= {"choices": shares, "paths": pd.DataFrame(rows)}
        told = _told(tables["paths"])
    count = len(view.pairs)
    figure = plots.new_figure(
        1 if shares is None else 2, count, size=(1.75 * count + 0.5, 2.4 if shares is None else 4.2)
    )
    grid = np.array(figure.axes, dtype=object).reshape(-1, count)
    for column, pair in zip(grid.T, view.pairs, strict=True):
        first = pair == view.pairs[0]
        _draw(column, view, followed[pair], pair, shares, levels.get(pair), first=first)
    _key(figure, tables["bifurcations"], shares is not None)
    caption = (
        "Fixed points along c = (1 - λ) a + λ b, stimulus off, projected on the first component; "
        "followed from the points found in both contexts. Solid: stable; dotted: not. "
        f"{_ends(followed)}{told}"
    )
    return Part(title, caption, tables, figure, None if shares is None else "paths")


def _choices(view: View) -> pd.DataFrame | None:
    """Return the answers on trials of both tasks of each pair of twins."""
    twins = [pair for pair in view.pairs if pair in view.tasks.twins]
    if not twins:
        return None
    shares = choice_shares(view.network, view.tasks, trials=view.trials, seed=view.seed)
    wanted = {*twins, *((b, a) for a, b in twins)}
    return shares[
        [pair in wanted for pair in zip(shares["task"], shares["other"], strict=True)]
    ].reset_index(drop=True)


def _crossings(shares: pd.DataFrame) -> dict[Pair, float]:
    """Return where choices cross on the way from a to b, the mean over trials of both."""
    levels = crossing(shares).set_index(["task", "other"])["level"]
    found = {}
    for a, b in levels.index:
        ends = np.array([levels[a, b], 1 - levels[b, a]], dtype=float)
        known = ends[~np.isnan(ends)]
        found[a, b] = float(known.mean()) if len(known) else float("nan")
    return found


def _beside(branches: Branches, level: float) -> dict[str, Any]:
    """Return a row of the table of paths."""
    events = branches.bifurcations()
    near = compare_crossings(events[events["index"] == 0], level, permutations=1).table.iloc[0]
    columns = ["crossing", "bifurcation", "kind", "distance", "bifurcations"]
    return {**near[columns].to_dict(), "all_bifurcations": len(events)}


def _told(paths: pd.DataFrame) -> str:
    known = paths.dropna(subset=["distance"])
    text = (
        " Below, answers on conflicting trials of the first task (solid: as that task, dashed: as "
        "the other, dotted: neither). The vertical line is where choices cross, on average over "
        "trials of both tasks."
    )
    if not len(known):
        return text + " No path has both a crossing and a bifurcation of a stable point."
    distance = known["distance"].abs().mean()
    return text + (
        f" The nearest bifurcation of a stable point is {distance:.2f} away on average ("
        f"{len(known)} of {len(paths)} paths; with several on a path one is near by chance)."
    )


def _ends(followed: dict[Pair, Branches]) -> str:
    told = []
    for (a, b), branches in followed.items():
        cut = sum("steps" in branch.ends for branch in branches)
        lost = sum("lost" in branch.ends for branch in branches)
        if cut or lost:
            told.append(f"{a} to {b}: {lost} branches ended where no step converged, {cut} cut")
        if not len(branches):
            told.append(f"{a} to {b}: no point to begin from")
    return "; ".join(told) + "." if told else "No branch was cut short."


def _joined(tables: dict[Pair, pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    named = [table.assign(**{"from": a, "to": b}) for (a, b), table in tables.items()]
    full = [table for table in named if len(table)]
    return pd.concat(full, ignore_index=True) if full else named[0]


def _draw(
    column: np.ndarray,
    view: View,
    branches: Branches,
    pair: Pair,
    shares: pd.DataFrame | None,
    level: float | None,
    *,
    first: bool,
) -> None:
    upper = column[0]
    parameter = rf"weight $\lambda$ of {pair[1]}"
    plots.bifurcation_diagram(
        upper, branches, view.plane.components[0], label="PC 1" if first else "",
        parameter=parameter, colour=view.colour,
    )  # fmt: skip
    upper.set_title(f"{pair[0]} to {pair[1]}")
    for ax in column:
        ax.set(xlim=(0, 1), xticks=[0, 0.5, 1])
        if level is not None and np.isfinite(level):
            ax.axvline(level, color="black", linewidth=0.9, linestyle=(0, (1, 1)), zorder=0)
    if shares is None:
        return
    upper.set_xlabel("")
    lower = column[1]
    mine = shares[(shares["task"] == pair[0]) & (shares["other"] == pair[1])]
    if not len(mine):
        lower.text(0.5, 0.5, "not the\nsame stimuli", ha="center", va="center", fontsize=7,
                   transform=lower.transAxes)  # fmt: skip
        lower.set_axis_off()
        upper.set_xlabel(parameter)
        return
    looks = (("as_task", view.colour, "-"), ("as_other", view.colour, (0, (5, 1.5))),
             ("neither", "0.35", (0, (1, 1.2))))  # fmt: skip
    for name, colour, dashes in looks:
        lower.plot(mine["level"], mine[name], color=colour, linestyle=dashes)
    lower.set(xlabel=parameter, ylabel="share of trials" if first else "", ylim=(-0.02, 1.02))


def _key(figure: plots.Figure, events: pd.DataFrame, answered: bool) -> None:
    handles, texts = plots.event_key(list(events["kind"]) if len(events) else [])
    if answered:
        lines, names = plots.key(
            [
                ("as the first task", {"color": "0.2"}),
                ("as the second", {"color": "0.2", "linestyle": (0, (5, 1.5))}),
                ("neither", {"color": "0.35", "linestyle": (0, (1, 1.2))}),
            ]
        )
        handles, texts = handles + lines, texts + names
    if texts:
        # Wide figures have room for all of them in one row.
        width = figure.get_size_inches()[0]
        figure.legend(
            handles, texts, loc="outside lower center", ncols=max(1, min(len(texts), int(width))),
            fontsize=6.5, columnspacing=1.0, handletextpad=0.5,
        )  # fmt: skip

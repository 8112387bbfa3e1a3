"""Figures: every function draws on the Axes it is given and returns it.

One colour and one line style per mechanism everywhere, from the colour-blind-safe palette of
Okabe and Ito (2008); fonts are embedded as editable text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes as Axes
from matplotlib.figure import Figure as Figure

from ._plots_calibration import grouped_similarity as grouped_similarity
from ._plots_calibration import reliability_diagram as reliability_diagram
from ._plots_comparison import Difference as Difference
from ._plots_comparison import choice_shares as choice_shares
from ._plots_comparison import difference_key as difference_key
from ._plots_comparison import difference_points as difference_points
from ._plots_comparison import relation as relation
from ._plots_demixed import demixed_component as demixed_component
from ._plots_demixed import demixed_variance as demixed_variance
from ._plots_dynamics import bifurcation_diagram as bifurcation_diagram
from ._plots_dynamics import colours_of as colours_of
from ._plots_dynamics import event_key as event_key
from ._plots_dynamics import flow as flow
from ._plots_dynamics import point_key as point_key
from ._plots_dynamics import spectrum as spectrum
from ._plots_dynamics import subspace_matrix as subspace_matrix
from ._plots_dynamics import trajectories as trajectories
from ._plots_packing import capacity_map as capacity_map
from ._plots_packing import load_scatter as load_scatter
from ._plots_packing import sizes_needed as sizes_needed
from ._plots_packing import timescale_map as timescale_map
from ._plots_style import MARKERS as MARKERS
from ._plots_style import MECHANISM_COLOURS as MECHANISM_COLOURS
from ._plots_style import STYLE as STYLE
from ._plots_style import WIDTHS as WIDTHS
from ._plots_style import band as band
from ._plots_style import interval_of as interval_of
from ._plots_style import key as key
from ._plots_style import letters as letters
from ._plots_style import line as line
from ._plots_style import mechanism as mechanism
from ._plots_style import new_figure as new_figure
from ._plots_style import replicates as replicates
from ._plots_style import save_figure as save_figure
from ._plots_style import style as style
from ._plots_style import variant_label as variant_label
from ._plots_units import psychometric_curve as psychometric_curve
from ._plots_units import similarity_map as similarity_map
from ._plots_units import task_variance_map as task_variance_map

if TYPE_CHECKING:
    import pandas as pd


def _curves(ax: Axes, table: pd.DataFrame, x: str, y: str, *, intervals: bool) -> None:
    """Draw one mean line per variant with its interval, and thin lines for single networks."""
    for variant, rows in table.groupby("variant", sort=False):
        look = line(str(variant))
        wide = rows.pivot_table(index=x, columns=replicates(rows), values=y)
        for network in wide.columns:
            single = wide[network].dropna()
            ax.plot(single.index, single, color=look["color"], linewidth=0.5, alpha=0.4)
        complete = wide.dropna()
        mean = complete.mean(axis=1)
        ax.plot(mean.index, mean, label=variant_label(str(variant)), **look)
        if intervals:
            band(ax, complete, color=look["color"], alpha=0.15)


def learning_curves(ax: Axes, learning: pd.DataFrame, *, target: float | None = None) -> Axes:
    """Draw accuracy relative to the ceiling, averaged over tasks, against optimiser steps.

    A thick line is the mean over networks, a thin line one network. A network that stopped at its
    criterion keeps its last value.

    Args:
        ax: Axes to draw on.
        learning: Columns variant, seed, step, relative_mean.
        target: Draw a line at this accuracy.
    """
    _curves(ax, _extended(learning, "relative_mean"), "step", "relative_mean", intervals=False)
    if target is not None:
        ax.axhline(target, color="0.75", linewidth=0.8, zorder=0)
        ax.annotate(
            f"{target:.2f}",
            (0.01, target),
            xycoords=("axes fraction", "data"),
            ha="left",
            va="bottom",
            fontsize="small",
            color="0.45",
        )
    ax.set(xlabel="optimiser step", ylabel="accuracy / ceiling, mean over tasks")
    ax.set_ylim(0, 1.02)
    ax.set_xlim(left=0)
    return ax


def _extended(learning: pd.DataFrame, value: str) -> pd.DataFrame:
    """Fill the steps after a network stopped with its last value."""
    steps = np.sort(learning["step"].unique())
    wide = learning.pivot_table(index=["variant", "seed"], columns="step", values=value, sort=False)
    filled = wide.reindex(columns=steps).ffill(axis=1)
    return filled.reset_index().melt(["variant", "seed"], var_name="step", value_name=value)


def ambiguity_curves(
    ax: Axes,
    ambiguity: pd.DataFrame,
    *,
    areas: pd.DataFrame | None = None,
    x: str = "level",
    label: str = r"weight $\lambda$ of another task's context",
    crossing: str = "lambda_50",
    mark: float | None = 0.5,
) -> Axes:
    """Draw normalised accuracy on the dominant task against the level of a corruption.

    A thick line is the mean over networks, a thin line one network, a band the 95 % t interval
    (from three networks on). With `areas`, a marker tells the mean crossing.

    Args:
        ax: Axes to draw on.
        ambiguity: Columns variant, seed (and order), `x`, normalised; one row per network and
            level.
        areas: Columns variant and `crossing`; one row per network.
        x: Column of the level, e.g. the weight of another context or the sd of its noise.
        label: Text of the x axis, with its unit.
        crossing: Column of the level at which accuracy fell to a set share, e.g. "sigma_80".
        mark: Draw a vertical line here; by default where two mixed contexts weigh the same.
    """
    _curves(ax, ambiguity, x, "normalised", intervals=True)
    first, last = float(ambiguity[x].min()), float(ambiguity[x].max())
    if mark is not None:
        ax.axvline(mark, color="0.75", linewidth=0.8, zorder=0)
    ax.axhline(0, color="0.75", linewidth=0.8, zorder=0)
    ax.annotate(
        "chance", (last, 0.0), ha="right", va="top", fontsize="small", color="0.45",
        bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.3, "linewidth": 0},
    )  # fmt: skip
    ax.set(xlabel=label, ylabel="normalised accuracy, dominant task")
    ax.set_xlim(first, last)
    ax.set_ylim(min(-0.08, float(ambiguity["normalised"].min()) - 0.03), 1.02)
    if areas is not None:
        for variant, rows in areas.groupby("variant", sort=False):
            found = rows[crossing].dropna()
            if len(found):
                ax.plot(
                    found.mean(),
                    _value_at(ambiguity, str(variant), x, float(found.mean())),
                    MARKERS[mechanism(str(variant))],
                    color=MECHANISM_COLOURS[mechanism(str(variant))],
                    markersize=4,
                )
    return ax


def _value_at(table: pd.DataFrame, variant: str, x: str, level: float) -> float:
    rows = table[table["variant"] == variant]
    mean = rows.groupby(x)["normalised"].mean()
    return float(np.interp(level, mean.index, mean))


def interval_points(
    ax: Axes,
    table: pd.DataFrame,
    value: str,
    *,
    label: str,
    decimals: int = 2,
    across: bool = False,
) -> Axes:
    """Draw one value per network beside its mean and 95 % t interval, by variant.

    Two networks have no interval worth drawing: their two points say what is known.

    Args:
        ax: Axes to draw on.
        table: Columns variant and `value`; one row per network.
        value: Column to draw; NaN rows are left out and counted in the tick's label.
        label: Text of the axis of the values, with its unit.
        decimals: Digits of the mean written beside the point.
        across: Put the variants below each other and the values along x, which leaves room for
            many variants.
    """
    variants = list(dict.fromkeys(table["variant"]))
    ticks = []

    def turned(place: Any, along: Any) -> tuple[Any, Any]:
        return (along, place) if across else (place, along)

    for place, variant in enumerate(variants):
        rows = table[table["variant"] == variant]
        known = rows.dropna(subset=[value])
        values = known[value].to_numpy(dtype=float)
        kind = mechanism(str(variant))
        colour = MECHANISM_COLOURS[kind]
        name = str(variant) + ", " if across else str(variant).replace("es-", "es-\n") + "\n"
        ticks.append(f"{name}n = {len(values)}" + ("" if len(values) == len(rows) else "*"))
        if not len(values):
            continue
        spread = np.linspace(-0.1, 0.1, len(values)) if len(values) > 1 else np.zeros(1)
        ax.plot(
            *turned(place - 0.2 + spread, values),
            MARKERS[kind],
            color=colour,
            markersize=3,
            alpha=0.6,
        )
        interval = interval_of(known, value)
        if len(values) > 2:
            reach = [[interval.mean - interval.low], [interval.high - interval.mean]]
            ax.errorbar(
                *turned(place + 0.12, interval.mean),
                xerr=reach if across else None,
                yerr=None if across else reach,
                color=colour,
                capsize=2,
                linewidth=1,
            )
        ax.plot(
            *turned(place + 0.12, interval.mean),
            "|" if across else "_",
            color=colour,
            markersize=9,
            markeredgewidth=2,
        )
        if across:
            ax.annotate(
                f"{interval.mean:.{decimals}f}", (1, place), xytext=(3, 0), va="center",
                xycoords=("axes fraction", "data"), textcoords="offset points", fontsize="small",
            )  # fmt: skip
        else:
            ax.annotate(
                f"{interval.mean:.{decimals}f}", (place + 0.12, interval.mean), xytext=(4, 2),
                textcoords="offset points", fontsize="small",
            )  # fmt: skip
    if across:
        ax.set_yticks(range(len(variants)), ticks)
        ax.set_ylim(len(variants) - 0.4, -0.6)
        ax.set_xlabel(label)
    else:
        ax.set_xticks(range(len(variants)), ticks)
        ax.set_xlim(-0.5, len(variants) - 0.4)
        ax.set_ylabel(label)
    return ax


def accuracy_by_task(ax: Axes, accuracy: pd.DataFrame, *, tasks: Sequence[str]) -> Axes:
    """Draw accuracy per task and variant: mean over networks with single networks as points.

    Horizontal ticks mark each task's chance and ceiling.

    Args:
        ax: Axes to draw on.
        accuracy: Columns variant, seed, task, accuracy, chance, ceiling.
        tasks: Tasks in the order in which they are drawn.
    """
    variants = list(dict.fromkeys(accuracy["variant"]))
    width = 0.8 / len(variants)
    for number, variant in enumerate(variants):
        rows = accuracy[accuracy["variant"] == variant]
        kind = mechanism(str(variant))
        places = np.arange(len(tasks)) + (number - (len(variants) - 1) / 2) * width
        means = [rows.loc[rows["task"] == task, "accuracy"].mean() for task in tasks]
        ax.bar(
            places,
            means,
            0.9 * width,
            color=MECHANISM_COLOURS[kind],
            alpha=0.75,
            label=f"{variant_label(str(variant))}, n = {int(rows.groupby('task').size().max())}",
        )
        for place, task in zip(places, tasks, strict=True):
            values = rows.loc[rows["task"] == task, "accuracy"]
            ax.plot([place] * len(values), values, ".", color="black", markersize=2)
    limits = accuracy.drop_duplicates("task").set_index("task")
    for place, task in enumerate(tasks):
        for column, dashes in (("chance", (0, (1, 1))), ("ceiling", "-")):
            ax.plot(
                [place - 0.45, place + 0.45],
                [limits.loc[task, column]] * 2,
                color="black",
                linewidth=0.7,
                linestyle=dashes,
                label=f"{column} level" if place == 0 else None,
            )
    ax.set_xticks(range(len(tasks)), tasks)
    ax.set(ylabel="fraction of correct trials")
    ax.set_ylim(0, 1.04)
    return ax

"""Figures that compare variants: differences, choices, relation to a covariate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import stats

from ._plots_style import (
    MARKERS,
    MECHANISM_COLOURS,
    band,
    groups_of,
    line,
    mechanism,
    replicates,
    variant_label,
)
from .statistics import Adjusted, Interval, Paired, Synergy

if TYPE_CHECKING:
    import pandas as pd

Difference = Interval | Paired | Synergy | Adjusted


def choice_shares(
    ax: Axes,
    table: pd.DataFrame,
    *,
    x: str = "level",
    shares: Sequence[str] = ("as_k", "as_j", "neither"),
    names: Sequence[str] = ("as task k", "as task j", "neither"),
    label: str = r"weight $\lambda$ of task j's context",
) -> Axes:
    """Draw the shares of trials answered as k, as j and as neither, for one variant.

    Lines are means over networks, bands 95 % t intervals (from three networks on).

    Args:
        ax: Axes to draw on.
        table: Columns variant, seed (and order), `x` and `shares`; one row per network and level.
        x: Column of the level.
        shares: Columns of the three shares.
        names: What the legend calls them.
        label: Text of the x axis.
    """
    variants = list(dict.fromkeys(table["variant"]))
    if len(variants) != 1:
        raise ValueError(f"shares are of one variant: got {', '.join(map(str, variants))}")
    colour = MECHANISM_COLOURS[mechanism(str(variants[0]))]
    looks = ((colour, "-"), (colour, (0, (5, 1.5))), ("0.35", (0, (1, 1.2))))
    count = 0
    for share, name, (own, dashes) in zip(shares, names, looks, strict=True):
        wide = table.pivot_table(index=x, columns=replicates(table), values=share).dropna()
        count = wide.shape[1]
        ax.plot(wide.index, wide.mean(axis=1), color=own, linestyle=dashes, label=name)
        band(ax, wide, color=own, alpha=0.15)
    ax.axvline(0.5, color="0.75", linewidth=0.8, zorder=0)
    ax.set(xlabel=label, ylabel="share of trials")
    ax.set_xlim(float(table[x].min()), float(table[x].max()))
    ax.set_ylim(-0.02, 1.02)
    ax.set_title(f"{variant_label(str(variants[0]))}, n = {count}")
    return ax


def difference_points(
    ax: Axes,
    entries: Sequence[tuple[str, Difference]],
    *,
    label: str = "difference",
    decimals: int = 3,
) -> Axes:
    """Draw differences with their intervals below each other, around a line at 0.

    Filled markers are differences that may be claimed, open ones those that may not, open black
    ones a synergy whose interval lies below 0; beside each stand the estimate and, where it is not
    the same for all, the number of pairs, which else stands in the label.

    Args:
        ax: Axes to draw on.
        entries: Text and result of each row, from the top.
        label: Text of the x axis, with its unit.
        decimals: Digits of the estimates.
    """
    if not entries:
        raise ValueError("entries must hold at least one difference: got none")
    counts = {_count(found) for _, found in entries}
    for place, (_, found) in enumerate(entries):
        interval = _interval(found)
        claim = found.excludes_zero if isinstance(found, Interval) else found.claim
        below = isinstance(found, Synergy) and found.below
        colour = "black" if claim or below else "0.45"
        if not np.isnan(interval.low):
            ax.plot([interval.low, interval.high], [place, place], color=colour, linewidth=1.2)
        ax.plot(
            interval.mean, place, "o", color=colour, markersize=5, zorder=3,
            markerfacecolor=colour if claim else "white",
        )  # fmt: skip
        text = f"{interval.mean:+z.{decimals}f}".replace("-", "−")
        text += "" if len(counts) == 1 else f", n = {_count(found)}"
        ax.annotate(
            text, (1.02, place),
            xycoords=("axes fraction", "data"), va="center", fontsize="small", color=colour,
        )  # fmt: skip
    ax.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(entries)), [text for text, _ in entries])
    ax.set_ylim(len(entries) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label + (f", n = {counts.pop()}" if len(counts) == 1 else ""))
    return ax


def difference_key(*, gains: bool = False) -> tuple[list[Line2D], list[str]]:
    """Return the handles and texts of a legend that explains `difference_points`.

    Args:
        gains: Whether a synergy is among the rows.
    """
    looks = (
        ("black", "black", "interval excludes 0"),
        ("0.45", "white", "no claim"),
        ("black", "white", "S below 0: no synergy"),
    )
    shown = looks if gains else looks[:2]
    handles = [
        Line2D([], [], marker="o", color=colour, markerfacecolor=face, markersize=5, linewidth=1.2)
        for colour, face, _ in shown
    ]
    return handles, [text for *_, text in shown]


def _count(found: Difference) -> int:
    return found.count if isinstance(found, Interval) else found.independent


def _interval(found: Difference) -> Interval:
    if isinstance(found, Interval):
        return found
    return found.synergy if isinstance(found, Synergy) else found.difference


def relation(
    ax: Axes,
    table: pd.DataFrame,
    covariate: str,
    value: str,
    *,
    label: str,
    covariate_label: str = "clean accuracy / ceiling",
    within: Sequence[str] = (),
) -> Axes:
    """Draw a measure of each network against a covariate, with a regression line per variant.

    Lines are least squares within a variant over its own range; bands are 95 % intervals of the
    mean response, y(x) +- t_{n-2} s sqrt(1 / n + (x - mean x)^2 / S_xx), where all networks are
    independent. With `within` both axes are deviations from the mean over all networks of the same
    condition, so that what moves both, such as the size, is no relation.

    Args:
        ax: Axes to draw on.
        table: Columns variant, `covariate`, `value`; one row per network; NaN is left out.
        covariate: Column of the x axis, e.g. clean accuracy.
        value: Column of the y axis.
        label: Text of the y axis.
        covariate_label: Text of the x axis.
        within: Columns that make a condition, e.g. size and tasks.
    """
    table = table.dropna(subset=[covariate, value])
    if within:
        means = table.groupby(list(within))[[covariate, value]].transform("mean")
        table = table.assign(**{name: table[name] - means[name] for name in (covariate, value)})
        apart = "deviation from the mean at equal " + ", ".join(
            {"size": "N", "tasks": "K"}.get(name, name) for name in within
        )
        label, covariate_label = f"{label},\n{apart}", f"{covariate_label},\n{apart}"
    for variant, rows in table.groupby("variant", sort=False):
        x, y = rows[covariate].to_numpy(dtype=float), rows[value].to_numpy(dtype=float)
        look, kind = line(str(variant)), mechanism(str(variant))
        ax.plot(
            x, y, MARKERS[kind], color=look["color"], markersize=3, alpha=0.6,
            label=f"{variant_label(str(variant))}, n = {len(x)}"
            + ("" if (groups := groups_of(rows)) is None else f" in {len(set(groups))} groups"),
        )  # fmt: skip
        if len(x) < 3 or np.ptp(x) == 0:
            continue
        fit = stats.linregress(x, y)
        grid = np.linspace(x.min(), x.max(), 50)
        spread = ((x - x.mean()) ** 2).sum()
        residual = np.sqrt(((y - fit.intercept - fit.slope * x) ** 2).sum() / (len(x) - 2))
        reach = stats.t.ppf(0.975, len(x) - 2) * residual
        reach = reach * np.sqrt(1 / len(x) + (grid - x.mean()) ** 2 / spread)
        mean = fit.intercept + fit.slope * grid
        ax.plot(grid, mean, **look)
        if groups_of(rows) is None and not within:
            ax.fill_between(
                grid, mean - reach, mean + reach, color=look["color"], alpha=0.12, linewidth=0
            )
    ax.set(xlabel=covariate_label, ylabel=label)
    return ax

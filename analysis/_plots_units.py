"""Figures of choices against evidence, of units by task, and of similarities."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from ._plots_dynamics import colours_of
from ._tables import check_columns
from .psychometric import Lapses, Link, Numbers, choice_table, fit_psychometric

if TYPE_CHECKING:
    import pandas as pd

# Colours alone tell contexts apart neither in grey print nor where points coincide.
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
# So many strengths are shown one by one.
_POINTS = 21


def psychometric_curve(
    ax: Axes,
    strengths: Numbers,
    chosen: Numbers,
    *,
    trials: Numbers | None = None,
    contexts: Sequence[Hashable] | np.ndarray | None = None,
    link: Link = "logistic",
    lapses: Lapses | None = "equal",
    level: float = 0.95,
    bins: int = 9,
    xlabel: str = "signed evidence",
    ylabel: str = "share of choices",
) -> Axes:
    """Draw the share of choices against signed evidence, per context, with a fitted curve.

    Points are shares with Wilson intervals; of more than 21 strengths they are pooled into bins of
    equal numbers of trials. The curve is fitted to the trials themselves
    (`fit_psychometric`). A context whose fit has no maximum has no curve, and the legend says so.

    Args:
        ax: Axes to draw on.
        strengths: Signed evidence of each trial, or group of trials.
        chosen: Whether the choice was made, or how often.
        trials: Number of trials in each group; None is 1 each.
        contexts: Context of each row; None for a single one.
        link: Of the curve, "logistic" or "gaussian".
        lapses: Of the curve; None leaves curves out.
        level: Confidence level of the intervals.
        bins: Number of bins.
        xlabel: Text of the x axis, with the unit of the evidence.
        ylabel: Text of the y axis: which choice.
    """
    s, k = np.asarray(strengths, dtype=float), np.asarray(chosen, dtype=float)
    n = np.ones_like(k) if trials is None else np.asarray(trials, dtype=float)
    labels = [None] * len(s) if contexts is None else list(contexts)
    if len(labels) != len(s):
        raise ValueError(
            f"contexts must name the context of each of {len(s)} rows: got {len(labels)}"
        )
    names = list(dict.fromkeys(labels))
    for number, (name, colour) in enumerate(colours_of(names).items()):
        rows = np.array([label == name for label in labels])
        data = s[rows], k[rows], n[rows]
        pooled = bins if len(np.unique(data[0])) > _POINTS else None
        table = choice_table(*data, level=level, bins=pooled)
        text = f"{'' if name is None else f'{name}, '}n = {int(table['trials'].sum())}"
        if lapses is not None:
            fit = fit_psychometric(*data, link=link, lapses=lapses)
            if fit.converged:
                grid = np.linspace(data[0].min(), data[0].max(), 200)
                ax.plot(grid, fit(grid), color=colour, linestyle=_DASHES[number % len(_DASHES)])
            else:
                text += ", no fit"
        share = table["share"]
        ax.errorbar(
            table["strength"], share,
            yerr=np.maximum([share - table["low"], table["high"] - share], 0),
            fmt=_MARKS[number % len(_MARKS)], color=colour, markersize=3.5, linewidth=0.9,
            label=text,
        )  # fmt: skip
    ax.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
    ax.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(-0.03, 1.03))
    return ax


def task_variance_map(
    ax: Axes,
    variances: pd.DataFrame,
    clusters: pd.DataFrame | None = None,
    *,
    bar: Axes | None = None,
    label: str = "normalised task variance",
) -> Axes:
    """Draw the task variance of all units, one column per unit, ordered by cluster.

    Bars below the map are the clusters with their numbers. Within a cluster, and without clusters
    everywhere, units are ordered by the task in which they vary most, then by how much of their
    variance that is.

    Args:
        ax: Axes to draw on.
        variances: (unit, task), from `normalised_variance`.
        clusters: Columns unit and cluster, from `unit_clusters`; units without one come last.
        bar: Axes for the colour bar; None leaves it out.
        label: Its text.
    """
    if not variances.size:
        raise ValueError("variances must have at least one unit and one task: got none")
    values = variances.to_numpy(dtype=float)
    groups = np.full(len(values), np.inf)
    if clusters is not None:
        check_columns(clusters, ["unit", "cluster"])
        foreign = set(clusters["unit"]) - set(variances.index)
        if foreign:
            raise ValueError(
                f"clusters must be those of the units in variances: got unit {min(foreign)} besides"
            )
        known = clusters.set_index("unit")["cluster"]
        found = known.reindex(variances.index).to_numpy(dtype=float)
        groups[~np.isnan(found)] = found[~np.isnan(found)]
    order = np.lexsort((-values.max(axis=1) / values.sum(axis=1), values.argmax(axis=1), groups))
    image = ax.imshow(
        values[order].T, cmap="viridis", vmin=0, vmax=max(1.0, float(values.max())), aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    ax.set_yticks(range(values.shape[1]), [str(name) for name in variances.columns])
    ax.set_xticks([])
    ax.tick_params(length=0)
    below = 4
    if clusters is not None:
        _cluster_bars(ax, groups[order])
        below = 20
    counted = f"{len(values)} units"
    ax.set_xlabel(counted if clusters is None else f"{counted}, by cluster", labelpad=below)
    if bar is not None:
        drawn = ax.figure.colorbar(image, cax=bar)
        drawn.set_label(label)
        drawn.outline.set_visible(False)  # type: ignore[operator]
    return ax


def _cluster_bars(ax: Axes, groups: np.ndarray) -> None:
    """Draw a numbered bar below each run of columns of one cluster."""
    names = [group for group in np.unique(groups) if np.isfinite(group)]
    inches = ax.figure.dpi_scale_trans
    below = ax.get_xaxis_transform() + ScaledTranslation(0, -5 / 72, inches)
    for name, colour in colours_of(names).items():
        places = np.flatnonzero(groups == name)
        ends = [places[0] - 0.5, places[-1] + 0.5]
        # An artist, since a line that is plotted moves the limits.
        ax.add_artist(
            Line2D(
                ends, [0, 0], transform=below, clip_on=False, color=colour, linewidth=4,
                solid_capstyle="butt",
            )
        )  # fmt: skip
        ax.annotate(
            f"{name:g}", (sum(ends) / 2, 0), xycoords=below, xytext=(0, -4),
            textcoords="offset points", ha="center", va="top", fontsize="small",
        )  # fmt: skip
        if places[0]:
            ax.axvline(ends[0], color="white", linewidth=0.8)


def similarity_map(
    ax: Axes,
    similarity: pd.DataFrame,
    *,
    bar: Axes | None = None,
    label: str = "cosine",
    limits: tuple[float, float] = (-1.0, 1.0),
    values: bool | None = None,
) -> Axes:
    """Draw a matrix of similarities between contexts, or tasks.

    Colours diverge from white where limits lie on both sides of 0; NaN is grey.

    Args:
        ax: Axes to draw on.
        similarity: (context, context), e.g. one of `context_similarity`.
        bar: Axes for the colour bar; None leaves it out.
        label: Its text.
        limits: Ends of the colour scale.
        values: Whether to write the numbers; None writes them for up to eight contexts.
    """
    low, high = limits
    if not low < high:
        raise ValueError(f"limits must be a rising pair: got {limits}")
    wide = similarity.to_numpy(dtype=float)
    diverging = low < 0 < high
    norm = mpl.colors.TwoSlopeNorm(0, low, high) if diverging else None
    ax.set_facecolor("0.75")
    image = ax.imshow(
        wide, cmap="RdBu_r" if diverging else "cividis", norm=norm,
        vmin=None if diverging else low, vmax=None if diverging else high,
    )  # fmt: skip
    if max(wide.shape) <= 8 if values is None else values:
        for (row, column), value in np.ndenumerate(wide):
            if np.isfinite(value):
                r, g, b, _ = image.cmap(image.norm(value))
                light = 0.299 * r + 0.587 * g + 0.114 * b
                ax.text(
                    column, row, f"{value:.2f}".replace("-0.00", "0.00"), ha="center", va="center",
                    fontsize="small", color="black" if light > 0.5 else "white",
                )  # fmt: skip
    ax.set_xticks(range(wide.shape[1]), [str(name) for name in similarity.columns], rotation=90)
    ax.set_yticks(range(wide.shape[0]), [str(name) for name in similarity.index])
    ax.tick_params(length=0)
    if bar is not None:
        drawn = ax.figure.colorbar(image, cax=bar)
        drawn.set_label(label)
        drawn.outline.set_visible(False)  # type: ignore[operator]
    return ax

"""Figures of calibration, and of contexts in groups."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from ._plots_units import similarity_map

if TYPE_CHECKING:
    import pandas as pd

_LOOKS = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", (0, (5, 1.5))),
    ("#009E73", "^", (0, (1, 1.2))),
    ("#CC79A7", "D", (0, (4, 1, 1, 1))),
    ("#E69F00", "v", (0, (3, 1, 1, 1, 1, 1))),
    ("0.35", "P", "-"),
)


def reliability_diagram(
    ax: Axes,
    table: pd.DataFrame,
    *,
    by: str | None = None,
    kind: str = "confidence",
    looks: Mapping[Any, tuple[str, str, Any]] | None = None,
) -> Axes:
    """Draw accuracy against confidence by bin, with the diagonal and the number of forecasts.

    Bars are 95 % Wilson intervals of a share, as if forecasts of a bin were independent. The strip
    above counts the forecasts of each bin, on a logarithmic axis.

    Args:
        ax: Axes to draw on.
        table: From `reliability_table`; of several attributes pooled.
        by: Column that tells several tables apart, e.g. "condition"; they are drawn into one.
        kind: That of the table, for the axes' texts.
        looks: Value of `by` -> colour, marker and line style, to keep them the same in all figures.
    """
    parts = [("", table)] if by is None else list(table.groupby(by, sort=False))
    if not parts or len(parts) > len(_LOOKS):
        raise ValueError(f"one to {len(_LOOKS)} tables can be drawn into one: got {len(parts)}")
    low = float(table["low"].min())
    strip = ax.inset_axes((0, 1.04, 1, 0.2), sharex=ax)
    ax.plot([low, 1], [low, 1], color="0.6", linewidth=0.8, zorder=0)
    most = 1.0
    for (name, rows), usual in zip(parts, _LOOKS, strict=False):
        colour, marker, dashes = (looks or {}).get(name, usual)
        if rows["bin"].duplicated().any():
            raise ValueError(
                "table must have each bin once: use reliability_table(..., pooled=True), or name "
                "the column that tells tables apart as `by`"
            )
        held = rows[rows["count"] > 0]
        x, y = held["confidence"].to_numpy(), held["accuracy"].to_numpy()
        ends = _wilson(y, held["count"].to_numpy())
        ax.errorbar(
            x, y, yerr=np.maximum([y - ends[0], ends[1] - y], 0), color=colour, marker=marker,
            markersize=3.5, linewidth=1.2, linestyle=dashes, elinewidth=0.8, label=str(name),
        )  # fmt: skip
        edges = np.append(rows["low"].to_numpy(), rows["high"].iloc[-1])
        count = rows["count"].to_numpy(dtype=float)
        most = max(most, float(count.max()))
        look: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1}
        if len(parts) == 1:
            look = {"color": colour, "alpha": 0.4, "fill": True}
        strip.stairs(count, edges, baseline=0.5, **look)
    strip.set(yscale="log", ylim=(0.5, 2 * most), ylabel="count")
    strip.tick_params(labelbottom=False)
    strip.minorticks_off()
    ax.set_xlim(low - 0.01, 1.01)
    ax.set_ylim(-0.02, 1.02)
    positive = kind == "positive"
    ax.set_xlabel("probability given to the attribute" if positive else "confidence")
    ax.set_ylabel("frequency of the attribute" if positive else "accuracy")
    return ax


def _wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return centre - reach, centre + reach


def grouped_similarity(
    ax: Axes, similarity: pd.DataFrame, groups: Sequence[Hashable], **options: Any
) -> Axes:
    """Draw a matrix of similarities with contexts sorted by group and groups framed.

    Args:
        ax: Axes to draw on.
        similarity: (context, context), e.g. from `cosine_similarity`.
        groups: Group of each context; groups are drawn in the order of their first context.
        options: Of `similarity_map`.
    """
    if len(groups) != len(similarity):
        raise ValueError(
            f"groups must be one for each of {len(similarity)} contexts: got {len(groups)}"
        )
    names = list(dict.fromkeys(groups))
    numbers = np.array([names.index(group) for group in groups])
    order = np.argsort(numbers, kind="stable")
    similarity_map(ax, similarity.iloc[order, order], **options)
    ends = np.cumsum(np.bincount(numbers)) - 0.5
    starts = np.append(-0.5, ends[:-1])
    for start, end in zip(starts, ends, strict=True):
        box = [start, end, end, start, start], [start, start, end, end, start]
        ax.plot(*box, color="black", linewidth=1, clip_on=False)
    # Beside the matrix, since the axes name the contexts.
    for name, place in zip(names, (starts + ends) / 2, strict=True):
        ax.annotate(
            str(name),
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize="small",
        )  # fmt: skip
    return ax

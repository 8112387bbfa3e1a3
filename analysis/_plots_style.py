"""The look of all figures: one colour, line and marker per mechanism; saving."""

from __future__ import annotations

import io
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctxrnn._checkpoint import write_atomically

from ._bootstrap import Interval, mean_interval

if TYPE_CHECKING:
    import pandas as pd

# The colour-blind-safe palette of Okabe and Ito (2008).
MECHANISM_COLOURS: Mapping[str, str] = {
    "none": "#666666",
    "excitability": "#0072B2",
    "synaptic": "#D55E00",
    "gated": "#CC79A7",
    "both": "#009E73",
}
LINES: Mapping[str, Any] = {
    "none": (0, (1, 1.5)),
    "excitability": "-",
    "synaptic": (0, (5, 1.5)),
    "gated": (0, (2, 1)),
    "both": (0, (5, 1.2, 1, 1.2)),
}
MARKERS: Mapping[str, str] = {
    "none": "x",
    "excitability": "o",
    "synaptic": "s",
    "gated": "^",
    "both": "D",
}
NAMES: Mapping[str, str] = {
    "none": "no context",
    "excitability": "excitability",
    "synaptic": "synaptic",
    "gated": "synaptic, gated",
    "both": "both pathways",
}

STYLE: Mapping[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "savefig.dpi": 200,
    "figure.dpi": 100,
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the package's style within a `with` block."""
    with mpl.rc_context(dict(STYLE)):
        yield


def new_figure(rows: int = 1, columns: int = 1, *, size: tuple[float, float]) -> Figure:
    """Make a figure that belongs to no window; call within `style()`.

    Args:
        rows: Rows of Axes.
        columns: Columns of Axes.
        size: Width and height in inches.
    """
    figure = Figure(figsize=size, layout="constrained")
    figure.subplots(rows, columns)
    return figure


def key(looks: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[list[Any], list[str]]:
    """Return handles and texts of a legend, of lines or markers that need not be drawn.

    Args:
        looks: Text and look of each entry, as of `Axes.plot`.
    """
    from matplotlib.lines import Line2D

    return [Line2D([], [], **look) for _, look in looks], [text for text, _ in looks]


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Save a figure as PDF and PNG beside each other, each whole or not at all.

    Args:
        figure: The figure.
        path: File name without its ending.
    """
    written = []
    with style():
        for ending, metadata in ((".pdf", {"CreationDate": None}), (".png", None)):
            target = Path(path).with_name(Path(path).name + ending)
            drawn = io.BytesIO()
            figure.savefig(drawn, format=ending[1:], metadata=metadata)
            write_atomically(target, drawn.getvalue())
            written.append(target)
    return written


def mechanism(variant: str) -> str:
    """Return the mechanism of a variant id: "none", "excitability", "synaptic", "gated" or "both".

    "gated" are the synaptic variants whose weights vanish without context (`s-gate-R`).
    """
    if variant.startswith("s-gate"):
        return "gated"
    prefixes = {"e": "excitability", "s": "synaptic", "es": "both"}
    return prefixes.get(variant.split("-")[0], "none")


def variant_label(variant: str) -> str:
    """Return a legend's text for a variant, e.g. "synaptic (s-sym)"."""
    kind = mechanism(variant)
    return NAMES[kind] if variant == "none" else f"{NAMES[kind]} ({variant})"


def line(variant: str) -> dict[str, Any]:
    """Return colour and line style of a variant's mechanism."""
    kind = mechanism(variant)
    return {"color": MECHANISM_COLOURS[kind], "linestyle": LINES[kind]}


def replicates(table: pd.DataFrame) -> list[str]:
    """Return the columns that tell the networks of one variant apart."""
    return [column for column in ("order", "seed") if column in table.columns]


def groups_of(table: pd.DataFrame) -> list[Hashable] | None:
    """Return the group of each row within which networks are not independent, or None.

    Networks of one task order have their tasks in common; of a single order, those of one seed
    their trials.
    """
    for column in replicates(table):
        if 1 < table[column].nunique() < len(table):
            return list(table[column])
        if column == "order" and table[column].nunique() == len(table):
            return None
    return None


def interval_of(table: pd.DataFrame, value: str) -> Interval:
    """Return the 95 % t interval of a mean over the rows of a table, one per network."""
    return mean_interval(table[value].to_numpy(dtype=float), groups=groups_of(table))


def band(ax: Axes, wide: pd.DataFrame, **look: Any) -> None:
    """Draw 95 % t intervals of the mean over columns, one per network, from three on.

    Args:
        ax: Axes to draw on.
        wide: One row per place, one column per network, named by its order and seed.
        look: Colour and opacity.
    """
    if wide.shape[1] < 3:
        return
    groups = groups_of(wide.columns.to_frame(index=False))
    found = [mean_interval(row, groups=groups) for row in wide.to_numpy(dtype=float)]
    low, high = np.array([(i.low, i.high) for i in found]).T
    ax.fill_between(wide.index, low, high, linewidth=0, **look)

"""The look of all figures: one colour, line and marker per mechanism; saving."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ctxrnn._checkpoint import write_atomically

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

"""The look of all figures: one colour, line and marker per mechanism; saving."""

from __future__ import annotations

import io
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from ctxrnn._checkpoint import write_atomically
from ctxrnn._checks import unknown_name

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

# The same palette for lines of no mechanism.
_CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")

STYLE: Mapping[str, Any] = {
    "axes.prop_cycle": cycler(color=_CYCLE),
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


WIDTHS: Mapping[str, float] = {"single": 3.5, "double": 7.2, "slide": 10.0}
"""Widths of figures in inches: 89 mm and 183 mm, a journal's one and two columns, and a slide."""

# Text and lines of a slide are read from the back of the room.
_SLIDES = 2.0


@contextmanager
def style(medium: Literal["paper", "slides"] = "paper") -> Iterator[None]:
    """Apply the package's style within a `with` block.

    Args:
        medium: "paper", or "slides" with text and lines of twice the size.

    Raises:
        ValueError: For another medium.
    """
    if medium not in ("paper", "slides"):
        raise unknown_name("medium", medium, ("paper", "slides"))
    scale = _SLIDES if medium == "slides" else 1.0
    sized = {
        name: value * scale if name.endswith(("size", "linewidth")) else value
        for name, value in STYLE.items()
    }
    with mpl.rc_context(sized):
        yield


class Page(Figure):
    """A figure that belongs to no window, and is shown where a notebook's cell ends with it.

    It keeps the style that it was made in: ticks and fonts are settled only when it is drawn.
    """

    def __init__(self, **options: Any) -> None:
        self._look = {name: mpl.rcParams[name] for name in STYLE}
        super().__init__(**options)

    def draw(self, renderer: Any) -> None:
        """Draw in the style that the figure was made in."""
        with mpl.rc_context(self._look):
            super().draw(renderer)

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """Save in the style that the figure was made in."""
        with mpl.rc_context(self._look):
            super().savefig(*arguments, **options)

    def _repr_mimebundle_(self, **ignored: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=2 * _SHOWN)
        width, height = (round(_SHOWN * inches) for inches in self.get_size_inches())
        return {"image/png": drawn.getvalue()}, {"image/png": {"width": width, "height": height}}


# Pixels an inch takes in a notebook; drawn at twice as many.
_SHOWN = 100


def new_figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float | str, float], **options: Any
) -> Figure:
    """Make a figure that belongs to no window; call within `style()`.

    Args:
        rows: Rows of Axes.
        columns: Columns of Axes.
        size: Width and height in inches; the width may be "single" (89 mm), "double" (183 mm)
            or "slide".
        options: Further arguments of `Figure.subplots`, such as `sharey=True`.

    Raises:
        ValueError: For another name of a width.
    """
    width, height = size
    if isinstance(width, str):
        if width not in WIDTHS:
            raise unknown_name("width", width, WIDTHS)
        width = WIDTHS[width]
    figure = Page(figsize=(width, height), layout="constrained")
    figure.subplots(rows, columns, **options)
    return figure


def letters(*axes: Axes) -> None:
    """Put a, b, c, ... above the left corner of panels, in bold.

    Args:
        axes: The panels in their order.
    """
    for letter, ax in zip(ascii_lowercase, axes, strict=False):
        size = 9 * mpl.rcParams["font.size"] / STYLE["font.size"]
        ax.set_title(letter, loc="left", fontweight="bold", fontsize=size)


def key(looks: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[list[Any], list[str]]:
    """Return handles and texts of a legend, of lines or markers that need not be drawn.

    Args:
        looks: Text and look of each entry, as of `Axes.plot`.
    """
    from matplotlib.lines import Line2D

    return [Line2D([], [], **look) for _, look in looks], [text for text, _ in looks]


# The same figure gives the same bytes: no date, and names of parts that do not change.
_STAMPS: Mapping[str, Mapping[str, Any] | None] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": None,
}


def save_figure(
    figure: Figure, path: str | Path, *, formats: Sequence[str] = ("pdf", "png")
) -> list[Path]:
    """Save a figure as PDF and PNG beside each other, each whole or not at all.

    Text of PDF and SVG stays text, so that it can be edited; PDF holds its fonts.

    Args:
        figure: The figure.
        path: File name without its ending.
        formats: "pdf", "png" or "svg".

    Raises:
        ValueError: For another format.
        OSError: If a file cannot be written.
    """
    for name in formats:
        if name not in _STAMPS:
            raise unknown_name("format", name, _STAMPS)
    written = []
    with style(), mpl.rc_context({"svg.hashsalt": "ctxrnn"}):
        for name in formats:
            target = Path(path).with_name(f"{Path(path).name}.{name}")
            drawn = io.BytesIO()
            figure.savefig(drawn, format=name, metadata=_STAMPS[name])
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
    if kind == "none":
        return NAMES["none"] if variant == "none" else variant
    return f"{NAMES[kind]} ({variant})"


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

"""Figures of the few-shot study, drawn from its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctxrnn.analysis import plots
from ctxrnn.studies._comodulation_fewshot_settings import MODES, STOCHASTIC, TASKS
from ctxrnn.studies._comodulation_fewshot_verdict import READING_ERROR

if TYPE_CHECKING:
    import pandas as pd

LOOKS: Mapping[str, tuple[str, str, str]] = {
    "weights": ("#000000", "o", "weights"),
    "decoder": ("#E69F00", "s", "decoder"),
    "gain": ("#0072B2", "^", "gain"),
    "stoch-blank": ("#D55E00", "v", "(i) stoch, blank image"),
    "stoch-images": ("#009E73", "D", "(ii) stoch, task images"),
    "stoch-exp": ("#CC79A7", "P", "(iii) stoch, blank, exp"),
    "stoch-permuted": ("#56B4E9", "X", "(iv) stoch, (i) exchanged"),
}
_NOTE = "digits: 4,000 of MNIST, not 60,000"


def fewshot_figures(tables: Mapping[str, pd.DataFrame]) -> dict[str, plots.Figure]:
    """Draw accuracy against the number of samples, by task, and paired differences."""
    return {
        "accuracy": _accuracy(tables["curves"]),
        "tasks": _tasks(tables["tasks"]),
        "differences": _differences(tables["comparisons"]),
    }


def _accuracy(curves: pd.DataFrame) -> plots.Figure:
    figure = plots.new_figure(1, 2, size=(7.0, 3.5))
    modes = [mode for mode in MODES if mode in set(curves["mode"])]
    panels = (
        [mode for mode in modes if mode not in STOCHASTIC],
        [mode for mode in modes if mode == "gain" or mode in STOCHASTIC],
    )
    for ax, mine in zip(figure.axes, panels, strict=True):
        for place, mode in enumerate(mine):
            shift = 3.0 * (place - (len(mine) - 1) / 2)
            _curve(ax, curves[curves["mode"] == mode], mode, shift)
        _published(ax, curves, mine)
        _frame(ax, sorted(curves["samples"].unique()))
    plots.letters(*figure.axes)
    _key(figure, figure.axes)
    return figure


def _curve(ax: plots.Axes, rows: pd.DataFrame, mode: str, shift: float) -> None:
    colour, marker, label = LOOKS[mode]
    rows = rows.sort_values("samples")
    y = rows["accuracy"]
    reach = [(y - rows["accuracy_low"]).fillna(0), (rows["accuracy_high"] - y).fillna(0)]
    ax.errorbar(
        rows["samples"] + shift, y, yerr=reach, color=colour, marker=marker, label=label,
        linewidth=1.0, markersize=3.5, capsize=1.5, elinewidth=0.7,
    )  # fmt: skip


def _published(ax: plots.Axes, curves: pd.DataFrame, modes: Sequence[str]) -> None:
    """Overlay the published values with their reading error, once for all stochastic arms."""
    drawn = set()
    for mode in modes:
        name = "stoch" if mode in STOCHASTIC else mode
        rows = curves[(curves["mode"] == mode) & curves["published"].notna()]
        if name in drawn or rows.empty:
            continue
        drawn.add(name)
        colour = "0.35" if name == "stoch" else LOOKS[mode][0]
        ax.errorbar(
            rows["samples"], rows["published"], yerr=READING_ERROR, color=colour, fmt="_",
            linestyle=":", linewidth=0.9, markersize=9, markeredgewidth=1.6, elinewidth=0.7,
            label=f"published {name}, digitised", zorder=1,
        )  # fmt: skip


def _tasks(table: pd.DataFrame) -> plots.Figure:
    figure = plots.new_figure(1, len(TASKS), size=(7.0, 3.2))
    for number, ax in enumerate(figure.axes):
        rows = table[table["task"] == number]
        for mode in [mode for mode in MODES if mode in set(rows["mode"])]:
            colour, marker, label = LOOKS[mode]
            mine = rows[rows["mode"] == mode].sort_values("samples")
            ax.plot(
                mine["samples"], mine["accuracy"], color=colour, marker=marker, label=label,
                linewidth=1.0, markersize=3.5,
            )  # fmt: skip
        _frame(ax, sorted(table["samples"].unique()))
        (first, second), location = TASKS[number]
        ax.set_title(f"orientations {first}, {second} at {location}", fontsize=7)
        if number:
            ax.set_ylabel("")
    _key(figure, figure.axes[:1])
    return figure


def _frame(ax: plots.Axes, sizes: Sequence[int]) -> None:
    """Label the axes; few sizes get a tick each."""
    if len(sizes) <= 6:
        ax.set_xticks(sizes)
    margin = 0.06 * max(sizes)
    ax.set_xlim(min(sizes) - margin, max(sizes) + margin)
    ax.axhline(50, color="0.75", linewidth=0.8, zorder=0)
    ax.annotate(
        "either class at random", (0.99, 49), xycoords=("axes fraction", "data"), ha="right",
        va="top", fontsize=6, color="0.45",
    )  # fmt: skip
    ax.set(xlabel="samples, half of them to validate", ylabel="accuracy, % (one of 10)")
    ax.set_ylim(0, 101)


def _differences(comparisons: pd.DataFrame) -> plots.Figure:
    """Draw paired differences at up to three sizes, with 95 % intervals over seeds."""
    known = comparisons[comparisons["n"] > 0]
    pairs = list(dict.fromkeys(zip(known["a"], known["b"], strict=True)))
    sizes = sorted(known["samples"].unique())
    shown = sizes if len(sizes) <= 3 else [sizes[0], sizes[len(sizes) // 2], sizes[-1]]
    height = 1.2 + 0.22 * max(1, len(pairs))
    figure = plots.new_figure(1, max(1, len(shown)), size=(7.0, height))
    for ax, samples in zip(figure.axes, shown, strict=False):
        for row in known[known["samples"] == samples].to_dict("records"):
            y = -pairs.index((row["a"], row["b"]))
            mean, low, high = (row[f"difference{end}"] for end in ("", "_low", "_high"))
            colour = LOOKS[row["a"]][0]
            ax.plot([low, high], [y, y], color=colour, linewidth=1.2)
            filled = colour if row["claim"] else "white"
            ax.plot(mean, y, "o", color=colour, markerfacecolor=filled, markersize=4)
        ax.axvline(0, color="0.75", linewidth=0.8, zorder=0)
        ax.set_yticks([-k for k in range(len(pairs))], [])
        ax.set_ylim(0.6 - len(pairs), 0.6)
        ax.set_title(f"{samples} samples", fontsize=8)
        ax.set_xlabel("difference, points")
    figure.axes[0].set_yticks(
        [-k for k in range(len(pairs))], [f"{a} − {b}" for a, b in pairs], fontsize=6.5
    )
    figure.supxlabel(
        "filled: the 95 % interval excludes 0, at least five pairs; open: no claim", fontsize=6.5
    )
    return figure


def _key(figure: plots.Figure, axes: Sequence[plots.Axes]) -> None:
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        list(found.values()), list(found), loc="outside lower center", ncols=4, fontsize=6.5,
        title=_NOTE, title_fontsize=6.5,
    )  # fmt: skip

"""Figures of the study of Poisson neurons with a shared modulator, drawn from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.analysis import plots
from ctxrnn.studies._study_figures import legend

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, "pd.DataFrame"]

# Colour, marker and line of each decoder.
LOOKS: Mapping[str, tuple[str, str, Any]] = {
    "ml-aware": ("0.0", "", "-"),
    "ml": ("0.5", "", (0, (5, 1.5))),
    "modulator-guided, right signs": ("#56B4E9", "^", (0, (1, 1.2))),
    "modulator-guided": ("#0072B2", "o", "-"),
    "rate-guided": ("#D55E00", "s", (0, (5, 1.5))),
    "sign-only": ("#009E73", "D", (0, (2, 1))),
}


def figures(tables: Tables) -> dict[str, plots.Figure]:
    """Draw couplings, variances, and all decoders by accuracy and by area under the ROC curve."""
    return {
        "couplings": _couplings(tables["estimates"], tables["correlations"]),
        "variance": _variance(tables["variances"], tables["ratios"]),
        "accuracy": _decoders(tables["accuracies"], "accuracy", "accuracy"),
        "auc": _decoders(tables["accuracies"], "auc", "area under the ROC curve"),
    }


def _couplings(estimates: pd.DataFrame, correlations: pd.DataFrame) -> plots.Figure:
    """Draw w-hat against w for few and for many trials, and their correlation against trials."""
    figure = plots.new_figure(1, 3, size=(7.4, 3.2))
    neurons = int(np.sort(estimates["neurons"].unique())[len(estimates["neurons"].unique()) // 2])
    sigma = float(estimates["sigma"].min())
    shown = estimates[(estimates["neurons"] == neurons) & (estimates["sigma"] == sigma)]
    counts = np.sort(shown["trials"].unique())
    few = counts[(len(counts) - 1) // 2]
    for ax, trials in zip(figure.axes, (few, counts[-1]), strict=False):
        mine = shown[shown["trials"] == trials]
        top = float(mine["w"].max()) * 1.05
        ax.plot([0, top], [0, top], color="0.6", linewidth=0.8, zorder=0)
        ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        ax.plot(mine["w"], mine["w_hat"], ".", color="#0072B2", markersize=3, alpha=0.5)
        ax.set(xlabel="coupling, w", ylabel=r"estimate, $\hat w$")
        ax.set_title(rf"T = {trials}, N = {neurons}, $\sigma$ = {sigma:g}")
    _against_trials(figure.axes[2], correlations, "correlation", r"correlation of $\hat w$ with w")
    figure.axes[2].set_ylim(top=1.02)
    plots.letters(*figure.axes)
    legend(figure, figure.axes[2:], 3)
    return figure


_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "0.2")


def _against_trials(ax: plots.Axes, table: pd.DataFrame, value: str, label: str) -> None:
    """Draw a quality of w-hat against trials, a line per size and modulator."""
    dashes = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
    sizes, sigmas = (list(dict.fromkeys(table[name])) for name in ("neurons", "sigma"))
    for (neurons, sigma), mine in table.groupby(["neurons", "sigma"], sort=False):
        colour = _COLOURS[sizes.index(neurons) % len(_COLOURS)]
        style = dashes[sigmas.index(sigma) % len(dashes)]
        name = rf"N = {neurons}, $\sigma$ = {sigma:g}"
        ax.plot(mine["trials"], mine[value], color=colour, linestyle=style, label=name)
        _band(ax, mine, value, colour)
    ax.set(xscale="log", xlabel="trials, T", ylabel=label)


def _band(ax: plots.Axes, rows: pd.DataFrame, value: str, colour: str) -> None:
    """Draw 95 % intervals, from three populations on."""
    if rows["n"].min() > 2:
        low, high = rows[f"{value}_low"], rows[f"{value}_high"]
        ax.fill_between(rows["trials"], low, high, color=colour, alpha=0.13, linewidth=0)


def _variance(variances: pd.DataFrame, ratios: pd.DataFrame) -> plots.Figure:
    """Draw the measured variance of w-hat of each neuron against theory, and their ratio."""
    figure = plots.new_figure(1, 2, size=(6.4, 3.0))
    scatter, points = figure.axes
    ends = [float(variances["theory"].min()) * 0.8, float(variances["theory"].max()) * 1.25]
    for colour, (trials, mine) in zip(_COLOURS, variances.groupby("trials"), strict=False):
        x, y = mine["theory"], mine["variance"]
        scatter.plot(x, y, ".", color=colour, markersize=2, alpha=0.3, label=f"T = {trials}")
    scatter.plot(ends, ends, color="black", linewidth=0.8)
    scatter.set(xscale="log", yscale="log")
    scatter.set(xlabel=r"variance of $\hat w$, theory", ylabel=r"variance of $\hat w$, measured")
    for handle in scatter.legend().legend_handles:
        handle.set(alpha=1, markersize=5)  # type: ignore[union-attr]
    rows = ratios.sort_values(["trials", "sigma", "neurons"]).to_dict("records")
    for place, row in enumerate(rows):
        reach = [[row["ratio"] - row["ratio_low"]], [row["ratio_high"] - row["ratio"]]]
        points.errorbar(
            row["ratio"], place, xerr=np.nan_to_num(np.maximum(reach, 0)), fmt="o", color="black",
            markersize=4, capsize=2,
        )  # fmt: skip
    names = [
        rf"T = {row['trials']}, $\sigma$ = {row['sigma']:g}, N = {row['neurons']}" for row in rows
    ]
    points.set_yticks(range(len(rows)), names)
    points.invert_yaxis()
    points.axvline(1, color="0.6", linewidth=0.8, zorder=0)
    points.set_xlabel(f"measured / theory, n = {rows[0]['n']}")
    plots.letters(*figure.axes)
    return figure


def _decoders(table: pd.DataFrame, value: str, label: str) -> plots.Figure:
    """Draw a score of every decoder against trials, a panel per size and modulator."""
    sizes, sigmas = (sorted(table[name].unique()) for name in ("neurons", "sigma"))
    figure = plots.Figure(
        figsize=(1.0 + 2.1 * len(sizes), 0.9 + 1.9 * len(sigmas)), layout="constrained"
    )
    axes = figure.subplots(len(sigmas), len(sizes), sharex=True, sharey=True, squeeze=False)
    for row, sigma in zip(axes, sigmas, strict=True):
        for ax, neurons in zip(row, sizes, strict=True):
            mine = table[(table["neurons"] == neurons) & (table["sigma"] == sigma)]
            for name, (colour, marker, dashes) in LOOKS.items():
                one = mine[mine["decoder"] == name]
                ax.plot(
                    one["trials"], one[value], color=colour, marker=marker, markersize=3.5,
                    linestyle=dashes, label=name,
                )  # fmt: skip
                _band(ax, one, value, colour)
            ax.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
            ax.set_xscale("log")
            ax.set_title(rf"N = {neurons}, $\sigma$ = {sigma:g}, n = {one['n'].max()}")
    # A label of the whole figure would lie below the legend.
    axes[-1, len(sizes) // 2].set_xlabel("trials that couplings are learned from, T")
    figure.supylabel(label, fontsize=8)
    legend(figure, axes.ravel(), 3)
    return figure

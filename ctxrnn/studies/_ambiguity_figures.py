"""Figures of the study `ambiguity`, drawn from its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctxrnn.analysis import plots
from ctxrnn.studies._study_figures import Tables, difference_key, legend, points

if TYPE_CHECKING:
    import pandas as pd


_LEVELS = {
    "mix2": r"weight $\lambda$ of another task",
    "mixU": r"uniform part $\lambda$",
    "noise-frozen": r"frozen noise $\sigma$",
    "noise-ou": r"OU noise $\sigma$",
    "atten": r"missing part $\lambda$",
    "swap": "wrong context first (ms)",
    "posterior": r"error of the evidence, $1 - a$",
    "noise matched in effect": r"effect, $\Vert\Delta F\Vert / \Vert F\Vert$",
}


def ambiguity_figures(
    tables: Tables, variants: Sequence[str], sizes: Sequence[int], matched: str
) -> dict[str, plots.Figure]:
    """Draw the curves of all corruptions, choices, comparisons, and area against accuracy."""
    networks = tables["networks"]
    passing = networks[networks["passes"]]
    keys = ["order", "seed", "size", "variant"]
    curves = tables["curves"].merge(passing[keys], on=keys)
    curves.loc[curves["corruption"] == "posterior", "level"] = (
        1 - curves.loc[curves["corruption"] == "posterior", "level"]
    )
    drawn: dict[str, plots.Figure] = {}
    both = curves[curves["pathway"] == "both"]
    for size in sizes:
        mine = both[both["size"] == size]
        if len(mine):
            drawn[f"curves-N{size}"] = _curve_panels(mine, variants)
    single = curves[curves["variant"].str.startswith("es")]
    if (single["pathway"] != "both").any():
        drawn["pathways"] = _pathway_panels(single, sizes)
    if "choices" in tables:
        choices = tables["choices"].merge(passing[keys], on=keys)
        if len(choices):
            drawn["choices"] = _choice_panels(choices, variants)
    rows = tables["comparisons"]
    if len(rows):
        drawn["comparisons"] = _comparison_panels(rows[rows["size"] == "all"])
    relation = plots.new_figure(1, 2, size=(7.0, 3.0))
    for ax, value, label in zip(
        relation.axes,
        ("mix2_area", "noise-frozen_area"),
        (r"area $\mathcal{A}$, mix2", r"area up to $\sigma$ = 0.5, frozen noise"),
        strict=True,
    ):
        if value in networks:
            plots.relation(
                ax, networks, "normalised_mean", value, label=label,
                covariate_label="normalised clean accuracy", within=["size"],
            )  # fmt: skip
    plots.letters(*relation.axes)
    legend(relation, relation.axes[:1], 2)
    drawn["relation"] = relation
    return drawn


def _curve_panels(curves: pd.DataFrame, variants: Sequence[str]) -> plots.Figure:
    levels = curves.groupby("corruption")["level"].nunique()
    names = [name for name in _LEVELS if levels.get(name, 0) > 1]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = plots.new_figure(lines, columns, size=(0.4 + 1.75 * columns, 0.4 + 2.1 * lines))
    for ax, name in zip(figure.axes, names, strict=False):
        rows = curves[curves["corruption"] == name]
        mark = 0.5 if name == "mix2" else None
        plots.ambiguity_curves(ax, rows, label=_LEVELS[name], mark=mark)
        ax.set_ylabel("normalised accuracy" if ax in figure.axes[::columns] else "")
    for ax in figure.axes[len(names) :]:
        ax.set_visible(False)
    plots.letters(*figure.axes[: len(names)])
    counts = curves.groupby("variant", sort=False).apply(
        lambda part: len(part[["order", "seed"]].drop_duplicates()), include_groups=False
    )
    handles, labels = figure.axes[0].get_legend_handles_labels()
    told = [
        f"{label}, n = {counts.get(variant, 0)}"
        for label, variant in zip(labels, dict.fromkeys(curves["variant"]), strict=True)
    ]
    figure.legend(handles, told, loc="outside lower center", ncols=2)
    return figure


def _pathway_panels(curves: pd.DataFrame, sizes: Sequence[int]) -> plots.Figure:
    """Draw combinations corrupted in both pathways, or in one."""
    names = [name for name in ("mix2", "noise-frozen") if (curves["corruption"] == name).any()]
    figure = plots.new_figure(len(names), len(sizes), size=(7.0, 2.3 * len(names)))
    looks = {
        "both": (plots.MECHANISM_COLOURS["both"], "-"),
        "excitability": (plots.MECHANISM_COLOURS["excitability"], "--"),
        "synaptic": (plots.MECHANISM_COLOURS["synaptic"], ":"),
    }
    axes = iter(figure.axes)
    for name in names:
        for size in sizes:
            ax = next(axes)
            part = curves[(curves["corruption"] == name) & (curves["size"] == size)]
            for pathway, (colour, dashes) in looks.items():
                mine = part[part["pathway"] == pathway]
                if not len(mine):
                    continue
                wide = mine.pivot_table(
                    index="level", columns=["variant", "order", "seed"], values="normalised"
                )
                mean = wide.mean(axis=1)
                ax.plot(mean.index, mean, color=colour, linestyle=dashes, label=f"in {pathway}")
                plots.band(ax, wide, color=colour, alpha=0.12)
                ax.set_title(f"N {size}, n = {wide.shape[1]}")
            ax.set(xlabel=_LEVELS[name], ylim=(-0.1, 1.02))
            if size == sizes[0]:
                ax.set_ylabel("normalised accuracy")
    plots.letters(*figure.axes)
    legend(figure, figure.axes, 3, title="corrupted", title_fontsize=7)
    return figure


def _choice_panels(choices: pd.DataFrame, variants: Sequence[str]) -> plots.Figure:
    there = [variant for variant in variants if (choices["variant"] == variant).any()]
    figure = plots.new_figure(1, len(there), size=(0.4 + 1.9 * len(there), 2.6))
    keys = ["variant", "order", "seed", "level"]
    shares = ["as_task", "as_other", "neither"]
    mean = choices.groupby(keys, as_index=False, sort=False)[shares].mean()
    for ax, variant in zip(figure.axes, there, strict=True):
        plots.choice_shares(ax, mean[mean["variant"] == variant], shares=shares)
        ax.set_title(f"{variant}, n = {ax.get_title().partition(', n = ')[2]}")
        if variant != there[0]:
            ax.set_ylabel("")
    plots.letters(*figure.axes)
    legend(figure, figure.axes[:1], 3 if len(there) > 1 else 1)
    return figure


def _comparison_panels(rows: pd.DataFrame) -> plots.Figure:
    measures = list(dict.fromkeys(rows["measure"]))
    columns = 2
    lines = -(-len(measures) // columns)
    count = len(rows) / max(len(measures), 1)
    figure = plots.new_figure(lines, columns, size=(7.4, lines * (0.75 + 0.19 * count)))
    for ax, measure in zip(figure.axes, measures, strict=False):
        points(ax, rows[rows["measure"] == measure].to_dict("records"), measure)
    for ax in figure.axes[len(measures) :]:
        ax.set_visible(False)
    plots.letters(*figure.axes[: len(measures)])
    difference_key(figure, rows)
    return figure

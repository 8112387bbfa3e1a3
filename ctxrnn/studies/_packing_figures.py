"""Figures of the study `packing`, drawn from its tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctxrnn.analysis import plots
from ctxrnn.studies._study_figures import Tables, difference_key, points

if TYPE_CHECKING:
    import pandas as pd


def packing_figures(
    tables: Tables,
    theta: float,
    matchings: Sequence[str],
    variants: Sequence[str],
    sizes: Sequence[int],
) -> dict[str, plots.Figure]:
    """Draw the maps f(K, N), the sizes needed, and the comparisons."""
    best = tables["best"]
    column = f"solved_{theta:g}"
    drawn: dict[str, plots.Figure] = {}
    capacity, needed = tables["capacity"], tables["sizes"]
    for matching in matchings:
        rows = best[(best["matching"] == matching) & best["size"].isin(sizes)]
        there = [variant for variant in variants if (rows["variant"] == variant).any()]
        figure = plots.Figure(figsize=(0.6 + 2.15 * len(there), 2.6), layout="constrained")
        *maps, bar = figure.subplots(1, len(there) + 1, width_ratios=[*([1] * len(there)), 0.06])
        stairs = capacity[(capacity["matching"] == matching) & (capacity["theta"] == theta)]
        marks = needed[(needed["matching"] == matching) & (needed["theta"] == theta)]
        for ax, variant in zip(maps, there, strict=True):
            plots.capacity_map(
                ax,
                rows[rows["variant"] == variant],
                bar=bar if variant == there[-1] else None,
                value=column,
                units="size",
                capacity=stairs.rename(columns={"units": "size"}),
                sizes=marks,
                label=f"fraction of tasks at {theta:g} of ceiling, f",
            )
            title = ax.get_title().partition(", n = ")[2]
            ax.set_title(f"{variant}, n = {title}")
            if matching == "M2":
                ax.set_xlabel("N of e-add, equal parameters")
        plots.letters(*maps)
        drawn[f"map-{matching}"] = figure
    drawn["sizes"] = _sizes(tables, theta, matchings)
    if len(tables["comparisons"]):
        drawn["comparisons"] = _packing_comparisons(tables["comparisons"], matchings)
    return drawn


def _sizes(tables: Tables, theta: float, matchings: Sequence[str]) -> plots.Figure:
    figure = plots.new_figure(1, len(matchings), size=(0.6 + 2.2 * len(matchings), 3.0))
    for ax, matching in zip(figure.axes, matchings, strict=True):
        sizes, exponents = (
            table[(table["matching"] == matching) & (table["theta"] == theta)]
            for table in (tables["sizes"], tables["exponents"])
        )
        plots.sizes_needed(ax, sizes, exponents=exponents)
        ax.set_title(f"{matching}, n = {int(sizes['replicates'].max())}")
        handles, labels = ax.get_legend_handles_labels()
        short = [re.sub(r".*\((.*)\), n = \d+", r"\1", label) for label in labels]
        ax.legend(
            handles, short, loc="upper left", bbox_to_anchor=(-0.2, -0.22), fontsize=6,
            handletextpad=0.4,
        )  # fmt: skip
    plots.letters(*figure.axes)
    return figure


def _packing_comparisons(rows: pd.DataFrame, matchings: Sequence[str]) -> plots.Figure:
    measures = list(dict.fromkeys(rows["measure"]))
    figure = plots.new_figure(1, len(measures), size=(7.4, 0.9 + 0.24 * len(rows) / len(measures)))
    first = matchings[0]
    single = ~rows["a"].str.startswith("es")
    shown = rows[~single | (rows["matching"] == first)]
    for ax, measure in zip(figure.axes, measures, strict=True):
        mine = shown[shown["measure"] == measure]
        points(ax, mine.to_dict("records"), f"difference in {measure}", where="{matching}: ")
    plots.letters(*figure.axes)
    difference_key(figure, shown)
    return figure

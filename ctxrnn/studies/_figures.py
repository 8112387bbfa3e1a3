"""Figures of the main job, drawn from its tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ctxrnn.analysis import ambiguity_curve, plots
from ctxrnn.studies._desk import stops
from ctxrnn.studies._dynamics_figures import dynamics_figures

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("ctxrnn")


def reproduce_figures(
    tables: Mapping[str, pd.DataFrame], tasks: Sequence[str]
) -> dict[str, plots.Figure]:
    """Draw the figures of the main job, by name; one that fails is told, in its own place too."""
    wanted: dict[str, Callable[[Mapping[str, pd.DataFrame]], plots.Figure]] = {
        "learning": _learning,
        "ambiguity": _ambiguity,
        "tasks": lambda tables: _tasks(tables, tasks),
        **dynamics_figures(tables),
    }
    return {name: _drawn(name, draw, tables) for name, draw in wanted.items()}


def _drawn(
    name: str,
    draw: Callable[[Mapping[str, pd.DataFrame]], plots.Figure],
    tables: Mapping[str, pd.DataFrame],
) -> plots.Figure:
    try:
        with plots.style():
            return draw(tables)
    except Exception as error:
        if stops(error):
            raise
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        logger.warning("the figure %s could not be drawn: %s. The records are whole", name, told)
        logger.debug("traceback", exc_info=True)
    # In place of one that an earlier run may have left there.
    with plots.style():
        figure = plots.new_figure(size=(7.0, 0.8))
        (ax,) = figure.axes
        ax.set_axis_off()
        ax.text(0.5, 0.5, f"This figure could not be drawn.\n{told}", ha="center", va="center",
                wrap=True)  # fmt: skip
    return figure


def _learning(tables: Mapping[str, pd.DataFrame]) -> plots.Figure:
    with plots.style():
        figure = plots.new_figure(1, 2, size=(7.0, 2.8))
        left, right = figure.axes
        plots.learning_curves(left, tables["learning"])
        plots.interval_points(
            right, tables["networks"], "relative_mean", label="accuracy / ceiling, fresh trials"
        )
        right.set_ylim(0, 1.05)
        plots.letters(left, right)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _ambiguity(tables: Mapping[str, pd.DataFrame]) -> plots.Figure:
    curves = (
        tables["ambiguity"]
        .groupby(["variant", "seed"], sort=False)
        .apply(ambiguity_curve, include_groups=False)
        .reset_index(["variant", "seed"])
    )
    networks = tables["networks"]
    with plots.style():
        figure = plots.new_figure(1, 3, size=(7.0, 2.8))
        left, middle, right = figure.axes
        plots.ambiguity_curves(left, curves, areas=networks)
        plots.interval_points(middle, networks, "area", label=r"area $\mathcal{A}$ up to 0.5")
        middle.set_ylim(min(0.0, float(networks["area"].min()) - 0.05), 1.0)
        with_context = networks[networks["variant"] != "none"]
        plots.interval_points(
            right, with_context, "lambda_50", label=r"half-way point $\lambda_{50}$"
        )
        right.set_ylim(0, 1.0)
        plots.letters(left, middle, right)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _tasks(tables: Mapping[str, pd.DataFrame], tasks: Sequence[str]) -> plots.Figure:
    with plots.style():
        figure = plots.new_figure(size=(7.0, 2.6))
        (ax,) = figure.axes
        plots.accuracy_by_task(ax, tables["accuracy"], tasks=tasks)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure

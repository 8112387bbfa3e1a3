"""Epochs of trials, and a part of `analyse`: how far contexts lie apart in each of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.analysis import centroid_distances, plots
from ctxrnn.studies._analyse_view import Part, View

if TYPE_CHECKING:
    import pandas as pd

# Epoch -> the periods of tasks that are one.
EPOCHS: Mapping[str, tuple[str, ...]] = {
    "fixation": ("fixation",),
    "stimulus": ("stimulus", "sample", "stim1"),
    "delay": ("delay",),
    "2nd stimulus": ("test", "stim2"),
    "response": ("response",),
}


def inside(view: View, epoch: str) -> np.ndarray:
    """Return which steps of which trials belong to an epoch, (trial, time) bool."""
    steps = np.arange(view.states.shape[1])
    found = np.zeros(view.states.shape[:2], dtype=bool)
    for name in EPOCHS[epoch]:
        if name in view.batch.periods:
            span = view.batch.periods[name].numpy()
            found |= (steps >= span[:, :1]) & (steps < span[:, 1:])
    return found & view.batch.valid.numpy()


def epochs_of(view: View) -> dict[str, list[int]]:
    """Return the epochs that there are, each with the numbers of the tasks that have it."""
    found = {
        epoch: [k for k in range(len(view.names)) if inside(view, epoch)[view.rows(k)].any()]
        for epoch in EPOCHS
    }
    return {epoch: tasks for epoch, tasks in found.items() if tasks}


def representative(view: View, task: int, epoch: str) -> np.ndarray:
    """Return the input of a task's first trial that has the epoch, its mean over it, (input,)."""
    there = inside(view, epoch)
    row = next(row for row in view.rows(task) if there[row].any())
    inputs = view.batch.inputs[row].double().numpy()
    return np.asarray(inputs[there[row]].mean(axis=0))


def centroid_table(view: View) -> pd.DataFrame:
    """Return distances of the tasks' mean states against their spread, in each epoch."""
    import pandas as pd

    tables = []
    for epoch, tasks in epochs_of(view).items():
        there = inside(view, epoch)
        states: dict[Hashable, Any] = {}
        for k in tasks:
            rows = view.rows(k)
            states[view.names[k]] = view.states[rows][there[rows]]
        states = {name: x for name, x in states.items() if len(x) > 1}
        if len(states) > 1:
            tables.append(centroid_distances(states).assign(epoch=epoch))
    return pd.concat(tables, ignore_index=True) if tables else centroid_distances({})


def separation(view: View) -> Part:
    """How far the tasks' mean states lie apart in each epoch, against the spread within."""
    table = centroid_table(view)
    title = "Distance of contexts in each epoch"
    if not len(table):
        return Part(title, "Left out: no two tasks share an epoch.")
    twins = {frozenset(pair) for pair in view.tasks.twins}
    epochs = list(dict.fromkeys(table["epoch"]))
    figure = plots.new_figure(size=(1.0 * len(epochs) + 1.6, 2.6))
    (ax,) = figure.axes
    scatter = np.random.default_rng(0)
    for place, epoch in enumerate(epochs):
        rows = table[(table["epoch"] == epoch) & np.isfinite(table["ratio"])]
        pairs = [frozenset(pair) for pair in zip(rows["a"], rows["b"], strict=True)]
        same = np.array([pair in twins for pair in pairs], dtype=bool)
        for mask, mark, fill in ((~same, "o", "none"), (same, "D", "full")):
            x = place + scatter.uniform(-0.22, 0.22, int(mask.sum()))
            ax.plot(x, rows["ratio"][mask], mark, color=view.colour, markersize=3.5,
                    fillstyle=fill, markeredgewidth=0.7, alpha=0.8)  # fmt: skip
        if len(rows):
            mean = float(rows["ratio"].mean())
            ax.plot([place - 0.32, place + 0.32], [mean, mean], color="black", linewidth=1.4)
    ax.axhline(1, color="0.75", linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(epochs)), epochs)
    ax.set_xlim(-0.5, len(epochs) - 0.5)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("distance / spread")
    _key(figure, view.colour, bool(twins))
    means = table.replace([np.inf], np.nan).groupby("epoch", sort=False)["ratio"].mean()
    told = ", ".join(f"{epoch} {value:.2f}" for epoch, value in means.items())
    caption = (
        "Distance of two tasks' mean states over the spread of states within each (root of the "
        "summed variance, mean of both), one marker per pair of tasks; line: mean over pairs "
        f"({told}). Above 1 contexts lie further apart than states within them."
    )
    return Part(title, caption, {"centroids": table}, figure)


def _key(figure: plots.Figure, colour: str, twins: bool) -> None:
    look = {"color": colour, "linestyle": "", "markersize": 3.5}
    looks = [
        ("other tasks" if twins else "two tasks", {**look, "marker": "o", "fillstyle": "none"})
    ]
    if twins:
        looks.insert(0, ("same stimuli, other answers", {**look, "marker": "D"}))
    figure.legend(*plots.key(looks), loc="outside lower center", ncols=2)

"""Parts of `analyse`: the spaces of trajectories, and how contexts change the flow."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.analysis import (
    centroid_distances,
    compare_subspaces,
    fit_pca,
    participation_ratio,
    plots,
    state_dependence,
    tangling,
    vector_field,
)
from ctxrnn.studies._analyse_view import Part, View

if TYPE_CHECKING:
    import pandas as pd

EPOCHS = ("fixation", "stimulus", "delay", "decision", "response")


def geometry(view: View) -> Part:
    """Spaces of the tasks' trajectories."""
    import pandas as pd

    states: dict[Hashable, Any] = {name: view.visited(k) for k, name in enumerate(view.names)}
    dimensions = pd.DataFrame(
        {
            "task": view.names,
            "participation_ratio": [participation_ratio(x) for x in states.values()],
            "dimensions_90": [len(fit_pca(x).leading(0.9)) for x in states.values()],
            "tangling_within": [np.quantile(_tangled(view, k, k), 0.9) for k in range(len(states))],
        }
    )
    tables: dict[str, pd.DataFrame] = {"dimensions": dimensions}
    if len(states) < 2:
        return Part("Geometry", "Dimensions of the states.", tables, shown="dimensions")
    tables["subspaces"] = compare_subspaces(states)
    tables["centroids"] = _centroids(view)
    tables["tangling"] = pd.DataFrame(
        [
            {"a": a, "b": b, "tangling_90": np.quantile(_tangled(view, i, j), 0.9)}
            for i, a in enumerate(view.names)
            for j, b in enumerate(view.names)
            if i != j
        ]
    )
    figure = plots.new_figure(1, 2, size=(6.8, 3.2))
    plots.subspace_matrix(figure.axes[0], tables["subspaces"], "mean")
    plots.subspace_matrix(figure.axes[1], tables["subspaces"], "captured")
    for ax in figure.axes[:2]:
        image = ax.images[0]
        label = "mean angle (degrees)" if ax is figure.axes[0] else "variance captured"
        figure.colorbar(image, ax=ax, label=label, shrink=0.8)
        ax.tick_params(axis="x", rotation=60)
    caption = (
        "Left, mean principal angle between the leading spaces (90 % of the variance) of two "
        "tasks' potentials. Right, share of the row's variance in the column's space. Tables: "
        "participation ratio, distances of centroids by epoch, tangling within and between tasks "
        "(90th percentile, per ms², of the flow with the stimulus off)."
    )
    return Part("Geometry", caption, tables, figure, "dimensions")


def _tangled(view: View, a: int, b: int) -> np.ndarray:
    field_ = vector_field(view.network, view.contexts, view.stimulus)
    x, y = view.few(view.visited(a)), view.few(view.visited(b))
    place = (lambda k: k) if view.modulated else (lambda k: 0)
    v = field_.velocity(x, place(a)).numpy()
    w = field_.velocity(y, place(b)).numpy()
    scale = 0.1 * float(np.concatenate([x, y]).var(axis=0).sum())
    return tangling(x, v, others=(y, w), epsilon=scale)


def _centroids(view: View) -> pd.DataFrame:
    import pandas as pd

    tables = []
    for epoch in EPOCHS:
        if epoch not in view.batch.periods:
            continue
        steps = np.arange(view.states.shape[1])
        span = view.batch.periods[epoch].numpy()
        inside = (steps >= span[:, :1]) & (steps < span[:, 1:]) & view.batch.valid.numpy()
        states: dict[Hashable, Any] = {
            name: view.states[view.rows(k)][inside[view.rows(k)]]
            for k, name in enumerate(view.names)
        }
        states = {name: x for name, x in states.items() if len(x) > 1}
        if len(states) > 1:
            tables.append(centroid_distances(states).assign(epoch=epoch))
    return pd.concat(tables, ignore_index=True) if tables else centroid_distances({})


def vector_fields(view: View) -> Part:
    """How a change of context changes the flow: by a shift, or by its shape."""
    field_ = vector_field(view.network, view.contexts, view.stimulus)
    states = view.few(np.concatenate([view.visited(k) for k in range(len(view.names))]))
    table = state_dependence(field_, states)
    names = dict(enumerate(view.names))
    table = table.assign(a=table["a"].map(names), b=table["b"].map(names))
    matrix = np.full((len(names), len(names)), np.nan)
    for row in table.itertuples():
        i, j = view.names.index(row.a), view.names.index(row.b)
        matrix[i, j] = matrix[j, i] = row.state_dependence
    figure = plots.new_figure(size=(3.6, 3.0))
    ax = figure.axes[0]
    image = ax.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    ax.set_xticks(range(len(names)), view.names, rotation=60, ha="right")
    ax.set_yticks(range(len(names)), view.names)
    figure.colorbar(image, ax=ax, label="state dependence", shrink=0.8)
    caption = (
        "1 - |⟨ΔF⟩|² / ⟨|ΔF|²⟩ of the difference of the flow in two "
        f"contexts, over {len(states)} visited states: 0 where a context adds the same everywhere, "
        f"towards 1 where it deforms the flow. Mean over pairs "
        f"{table['state_dependence'].mean():.3f}."
    )
    return Part("Vector field", caption, {"state_dependence": table}, figure)

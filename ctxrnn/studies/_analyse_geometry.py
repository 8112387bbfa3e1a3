"""Parts of `analyse`: spaces and tangling of trajectories, and how contexts change the flow."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from ctxrnn.analysis import (
    PCA,
    compare_subspaces,
    fit_pca,
    participation_ratio,
    plots,
    state_dependence,
    tangling,
    vector_field,
)
from ctxrnn.studies._analyse_view import Part, View

# Components up to which the variance is drawn.
_SHOWN = 12


def geometry(view: View) -> Part:
    """Spaces of the tasks' trajectories."""
    import pandas as pd

    states: dict[Hashable, Any] = {name: view.visited(k) for k, name in enumerate(view.names)}
    means = {name: np.concatenate(view.averages(k)) for k, name in enumerate(view.names)}
    fitted = {name: fit_pca(x) for name, x in means.items()}
    pooled = fit_pca(np.concatenate(list(means.values())))
    everything = np.concatenate(list(states.values()))
    averages = np.concatenate(list(means.values()))
    tables: dict[str, pd.DataFrame] = {
        "dimensions": pd.DataFrame(
            [
                {
                    "task": name, "participation_ratio": participation_ratio(x),
                    "dimensions_90": len(fit_pca(x).leading(0.9)),
                    "participation_ratio_averages": participation_ratio(y),
                    "dimensions_90_averages": len(plane.leading(0.9)),
                }
                for name, x, y, plane in (
                    *((name, states[name], means[name], fitted[name]) for name in view.names),
                    ("all", everything, averages, pooled),
                )
            ]
        )
    }  # fmt: skip
    several = len(states) > 1
    figure = plots.new_figure(1, 3 if several else 1, size=(7.2 if several else 2.6, 3.1))
    _variance(figure.axes[0], fitted, pooled, view.colour)
    if several:
        tables["subspaces"] = compare_subspaces(states)
        _matrices(figure, tables["subspaces"])
    caption = (
        "Left, variance of trial-averaged trajectories (averages over trials of one answer) held "
        "by the first principal components: thin lines each task's own, thick all tasks together. "
    )
    if several:
        angle = np.degrees(tables["subspaces"]["mean"].mean())
        caption += (
            "Middle, mean principal angle between the leading spaces (90 % of the variance) of two "
            f"tasks' {view.state}, {angle:.0f}° on average. Right, share of the row's variance in "
            "the leading space of the column."
        )
    return Part("Geometry", caption, tables, figure, "dimensions")


def _variance(ax: plots.Axes, fitted: dict[str, PCA], pooled: PCA, colour: str) -> None:
    looks: tuple[tuple[list[PCA], dict[str, Any]], ...] = (
        (list(fitted.values()), {"color": colour, "linewidth": 0.7, "alpha": 0.7}),
        ([pooled], {"color": "black", "linewidth": 1.6}),
    )
    for planes, look in looks:
        for plane in planes:
            held = np.concatenate([[0], np.cumsum(plane.ratios)])[: _SHOWN + 1]
            ax.plot(range(len(held)), held, **look)
    ax.axhline(0.9, color="0.75", linewidth=0.8, zorder=0)
    ax.set(xlabel="principal components", ylabel="share of variance", ylim=(0, 1.02),
           xlim=(0, _SHOWN))  # fmt: skip


def _matrices(figure: plots.Figure, table: Any) -> None:
    for ax, value, label, ticks in (
        (figure.axes[1], "mean", "mean angle (°)", (0, 45, 90)),
        (figure.axes[2], "captured", "variance captured", (0, 0.5, 1)),
    ):  # fmt: skip
        plots.subspace_matrix(ax, table, value)
        figure.colorbar(ax.images[0], ax=ax, label=label, ticks=ticks, shrink=0.7, location="top")
    figure.axes[2].set(xlabel="", ylabel="")


def tangled(view: View) -> Part:
    """How often close states of mean trajectories move apart, within and between tasks."""
    import pandas as pd

    paths = [_moving(view, k) for k in range(len(view.names))]
    values = np.full((len(paths), len(paths)), np.nan)
    for i, (x, v) in enumerate(paths):
        for j, (y, w) in enumerate(paths):
            scale = 0.1 * float(np.concatenate([x, y]).var(axis=0).sum())
            if scale > 0:
                found = tangling(x, v, others=(y, w), epsilon=scale)
                values[i, j] = np.quantile(found, 0.9)
    # Per ms^2: in units of the network's time constant, numbers are of the order of 1.
    values *= float(view.network.tau.detach().mean()) ** 2
    names = list(view.names)
    table = pd.DataFrame(
        [
            {"a": a, "b": b, "tangling_90": values[i, j]}
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        ]
    )
    size = 0.2 * len(names) + 1.6
    figure = plots.new_figure(size=(size + 0.9, size))
    (ax,) = figure.axes
    most = float(np.nanmax([*values.flat, 1e-9]))
    matrix = pd.DataFrame(values, index=names, columns=names)
    plots.similarity_map(ax, matrix, limits=(0, most), values=False)
    ax.set(ylabel="states of", xlabel="against states of")
    figure.colorbar(ax.images[0], ax=ax, label="tangling (τ⁻²)", shrink=0.8)
    within = float(np.nanmean(np.diag(values)))
    between = (
        float(np.nanmean(values[~np.eye(len(names), dtype=bool)])) if len(names) > 1 else np.nan
    )
    caption = (
        "Tangling (Russo et al. 2018) of trial-averaged trajectories, 90th percentile over states, "
        "with ε a tenth of the variance of both tasks: on the diagonal within a task "
        f"(mean {within:.2f} τ⁻²), elsewhere the row's states against the column's "
        f"(mean {between:.2f} τ⁻²). High where close states move apart."
    )
    return Part("Tangling within and between contexts", caption, {"tangling": table}, figure)


def _moving(view: View, task: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the states of a task's mean trajectories but the last, and dx/dt there, per ms."""
    paths = view.averages(task)
    states = np.concatenate([path[:-1] for path in paths])
    return states, np.concatenate([np.diff(path, axis=0) for path in paths]) / view.tasks.dt


def vector_fields(view: View) -> Part:
    """How a change of context changes the flow: by a shift, or by its shape."""
    if len(view.names) < 2:
        return Part("Vector field", "Left out: there is one task alone.")
    field_ = vector_field(view.network, view.contexts, view.stimulus)
    states = view.few(np.concatenate([view.visited(k) for k in range(len(view.names))]))
    table = state_dependence(field_, states)
    names = dict(enumerate(view.names))
    table = table.assign(a=table["a"].map(names), b=table["b"].map(names))
    matrix = np.full((len(names), len(names)), np.nan)
    for row in table.itertuples():
        i, j = view.names.index(row.a), view.names.index(row.b)
        matrix[i, j] = matrix[j, i] = row.state_dependence
    size = 0.2 * len(names) + 1.6
    figure = plots.new_figure(size=(size + 0.9, size))
    ax = figure.axes[0]
    ax.set_facecolor("0.85")
    image = ax.imshow(matrix, vmin=0, vmax=1, cmap="cividis")
    ax.set_xticks(range(len(names)), view.names, rotation=90)
    ax.set_yticks(range(len(names)), view.names)
    ax.tick_params(length=0)
    figure.colorbar(image, ax=ax, label="state dependence", shrink=0.8)
    caption = (
        "1 - |⟨ΔF⟩|² / ⟨|ΔF|²⟩ of the difference of the flow in two "
        f"contexts, over {len(states)} visited states: 0 where a context adds the same everywhere, "
        f"towards 1 where it deforms the flow. Mean over pairs "
        f"{table['state_dependence'].mean():.3f}."
    )
    return Part("Vector field", caption, {"state_dependence": table}, figure)

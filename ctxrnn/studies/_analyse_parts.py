"""What `analyse` measures and draws, a part at a time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctxrnn import CTRNN, evaluate, make_generator
from ctxrnn.analysis import (
    PCA,
    Branches,
    ContextPath,
    FixedPoints,
    centroid_distances,
    compare_subspaces,
    context_similarity,
    find_fixed_points,
    fit_pca,
    follow_fixed_points,
    lesion_clusters,
    modulation_rank,
    normalised_variance,
    participation_ratio,
    plots,
    readout_alignment,
    state_dependence,
    tangling,
    task_variance,
    unit_clusters,
    vector_field,
    visited_states,
)
from ctxrnn.tasks import TaskSet

if TYPE_CHECKING:
    import pandas as pd

# The order in which kinds are stacked, and their shades.
_KINDS = {
    "stable": "#0072B2", "marginal": "#56B4E9", "saddle": "#D55E00", "unstable": "#CC79A7",
    "slow": "#999999",
}  # fmt: skip
_EPOCHS = ("fixation", "stimulus", "delay", "decision", "response")
# States that are compared with each other pair by pair.
_COMPARED = 400


@dataclass(frozen=True)
class Part:
    """A part of the analysis.

    Attributes:
        title: Heading.
        caption: What it shows, of how many, and how it was computed.
        tables: Name of a file -> table.
        figure: The matplotlib Figure, or None.
        shown: Name of the table that the page shows, or None.
    """

    title: str
    caption: str
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figure: Any = None
    shown: str | None = None


class View:
    """A network with trials of its tasks, run without noise; what several parts need, once.

    Args:
        network: The network.
        tasks: Its tasks; task k has the context e_k.
        trials: Trials per task.
        starts: Starts of the search for fixed points in each context.
        pairs: Pairs of tasks between whose contexts points are followed.
        seed: Seed of trials and starts.
    """

    def __init__(
        self,
        network: CTRNN,
        tasks: TaskSet,
        *,
        trials: int,
        starts: int,
        pairs: tuple[tuple[str, str], ...],
        seed: int,
    ) -> None:
        self.network, self.tasks, self.seed = network.cpu().eval(), tasks, seed
        self.trials, self.starts, self.pairs = trials, starts, pairs
        self.names = tasks.names
        self.modulated = network.variant != "none"
        self.contexts = np.eye(len(self.names)) if self.modulated else None
        self.batch = tasks.sample(
            trials * len(self.names), generator=make_generator(seed, "analysis")
        )
        with torch.no_grad():
            run = network(
                self.batch.inputs, self.batch.context if self.modulated else None, noise=0.0
            )
        self.states = (run.potentials if network.form == "current" else run.rates).double().numpy()
        # The stimulus is off and the fixation cue is on, as in the first step of every trial.
        self.stimulus = self.batch.inputs[:, 0].double().median(dim=0).values.numpy()

    def rows(self, task: int) -> np.ndarray:
        """Return the trials of a task."""
        return np.flatnonzero(self.batch.task.numpy() == task)

    def visited(self, task: int) -> np.ndarray:
        """Return the states of a task's trials, (sample, unit), without padding."""
        rows = self.rows(task)
        return np.asarray(self.states[rows][self.batch.valid[rows].numpy()])

    def averages(self, task: int) -> list[np.ndarray]:
        """Return mean trajectories over the trials of one correct answer, each (time, unit).

        The answer is what is wanted at the end of a trial.
        """
        rows = self.rows(task)
        valid = self.batch.valid[rows].numpy()
        last = valid.shape[1] - 1 - valid[:, ::-1].argmax(axis=1)
        wanted = self.batch.targets[rows, last].numpy()
        answers = wanted.argmax(axis=-1) if wanted.ndim > 1 else wanted
        found = []
        for answer in np.unique(answers):
            mine = answers == answer
            steps = int(valid[mine].sum(axis=1).min())
            found.append(self.states[rows[mine], :steps].mean(axis=0))
        return found

    @functools.cached_property
    def plane(self) -> PCA:
        """Principal components of all visited states."""
        return fit_pca(np.concatenate([self.visited(k) for k in range(len(self.names))]))

    @functools.cached_property
    def points(self) -> FixedPoints:
        """Fixed points in every context, from states visited in any, stimulus off."""
        states = np.concatenate([self.visited(k) for k in range(len(self.names))])
        starts = visited_states(states, self.starts, seed=self.seed)
        return find_fixed_points(self.network, self.contexts, self.stimulus, starts)

    def few(self, states: np.ndarray) -> np.ndarray:
        """Return as many states as can be compared pair by pair."""
        return states[:: max(1, len(states) // _COMPARED)][:_COMPARED]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions in which fixed points were sought."""
        return self.names if self.modulated else ("no context",)


def accuracy(view: View) -> Part:
    """Accuracy of each task beside chance and ceiling."""
    import pandas as pd

    count = max(200, view.trials * 4)
    generator = make_generator(view.seed, "analysis", "accuracy")
    found = evaluate(view.network, view.tasks, count * len(view.names), generator=generator)
    table = pd.DataFrame(
        {
            "task": list(found), "accuracy": list(found.values()),
            "chance": [view.tasks.chance[k] for k in found],
            "ceiling": [view.tasks.ceiling[k] for k in found],
        }
    )  # fmt: skip
    caption = f"Share of correct trials, {count} fresh trials per task, with noise."
    return Part("Accuracy", caption, {"accuracy": table}, shown="accuracy")


def trajectories(view: View) -> Part:
    """Mean trajectories of each task in the plane of the pooled principal components."""
    columns = min(5, len(view.names))
    rows = -(-len(view.names) // columns)
    figure = plots.new_figure(rows, columns, size=(1.55 * columns + 0.3, 1.6 * rows + 0.3))
    points = view.points
    for number, (name, ax) in enumerate(zip(view.names, figure.axes, strict=False)):
        mine = points.select(points.condition == (number if view.modulated else 0))
        paths = view.averages(number)
        for path in paths:
            coordinates = view.plane.project(path)[:, :2]
            ax.plot(*coordinates.T, color="#0072B2", linewidth=0.8, alpha=0.8)
            ax.plot(*coordinates[0], ".", color="0.2", markersize=4)
        places = view.plane.project(mine.x)[:, :2]
        kinds = _kinds(mine)
        for kind, colour in _KINDS.items():
            these = kinds == kind
            mark = {"stable": "o", "saddle": "x", "slow": "s"}.get(kind, "D")
            ax.plot(
                *places[these].T, mark, color=colour, markersize=4, fillstyle="none",
                markeredgewidth=0.9,
            )  # fmt: skip
        ax.set_title(name)
        ax.set(xlabel="PC 1" if number >= len(view.names) - columns else "",
               ylabel="PC 2" if number % columns == 0 else "")  # fmt: skip
    for ax in figure.axes[len(view.names) :]:
        ax.remove()
    share = 100 * view.plane.ratios[:2]
    caption = (
        f"Potentials on the first two principal components of all tasks ({share[0]:.0f} and "
        f"{share[1]:.0f} % of the variance), averaged over trials with the same answer ("
        f"{view.trials} trials per task, no noise); a dot is where they begin. Fixed points in the "
        "task's context with the stimulus off: circles stable, crosses saddles, squares slow "
        "points, diamonds others."
    )
    return Part("Trajectories and fixed points", caption, figure=figure)


def _kinds(points: FixedPoints) -> np.ndarray:
    words = np.array([str(kind).split()[0] for kind in points.kind], dtype=object)
    words[points.slow] = "slow"
    return words


def fixed_points(view: View) -> Part:
    """Numbers of points by kind, and their spectra."""
    import pandas as pd

    points = view.points
    table = points.table()
    names = dict(enumerate(view.conditions))
    table.insert(1, "task", table["condition"].map(names))
    starts = points.starts.assign(task=points.starts["condition"].map(names))
    kinds = _kinds(points)
    counts = pd.DataFrame(
        {
            kind: [int(((points.condition == c) & (kinds == kind)).sum()) for c in names]
            for kind in _KINDS
        },
        index=list(names.values()),
    )
    figure = plots.new_figure(1, 2, size=(6.8, 2.6))
    left, right = figure.axes
    below = np.zeros(len(counts))
    for kind, colour in _KINDS.items():
        if counts[kind].any():
            left.bar(counts.index, counts[kind], bottom=below, color=colour, label=kind)
            below += counts[kind].to_numpy()
    left.set(ylabel="fixed and slow points")
    left.tick_params(axis="x", rotation=60)
    left.legend(fontsize=6, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))
    stable = np.flatnonzero(points.stable & ~points.slow)
    plots.spectrum(right, points, rows=stable if len(stable) else None)
    ends = starts["end"].value_counts()
    told = ", ".join(f"{n} {end}" for end, n in ends.items())
    caption = (
        f"Left, points found from {view.starts} visited states (noise of sd 0.05) in each context, "
        "stimulus off, by kind. Right, eigenvalues of the linearisation at the "
        f"{'stable' if len(stable) else ''} points. Ends of all starts: {told} (slow: a minimum of "
        "the speed that is no root; stalled: the flow comes to no point)."
    )
    return Part(
        "Fixed points", caption,
        {"fixed_points": table, "starts": starts, "kinds": counts.reset_index(names="task")},
        figure, "kinds",
    )  # fmt: skip


def continuation(view: View) -> Part:
    """Fixed points followed from one task's context to another's."""
    import pandas as pd

    figure = plots.new_figure(1, len(view.pairs), size=(1.9 * len(view.pairs) + 0.4, 2.3))
    tables, events, told = [], [], []
    for (a, b), ax in zip(view.pairs, figure.axes, strict=True):
        ends = [view.names.index(name) for name in (a, b)]
        assert view.contexts is not None
        path = ContextPath(
            view.network, view.contexts[ends[0]], view.contexts[ends[1]], view.stimulus
        )
        known = view.points
        begin = [
            (float(place), x)
            for place, k in enumerate(ends)
            for x in known.x[(known.condition == k) & ~known.slow]
        ]
        branches = follow_fixed_points(path, points=begin) if begin else Branches(())
        plots.bifurcation_diagram(
            ax, branches, view.plane.components[0], label="PC 1" if a == view.pairs[0][0] else ""
        )
        ax.set_title(f"{a} to {b}")
        ax.set_xlabel(r"weight $\lambda$ of the second")
        pair = {"from": a, "to": b}
        tables.append(branches.table().assign(**pair))
        events.append(branches.bifurcations().assign(**pair))
        cut = sum("steps" in branch.ends for branch in branches)
        lost = sum("lost" in branch.ends for branch in branches)
        if cut or lost:
            told.append(f"{a} to {b}: {lost} branches ended where no step converged, {cut} cut")
    caption = (
        "Fixed points along c = (1 - λ) a + λ b, stimulus off, projected on the first "
        "component; followed from the points found in both contexts. Solid: stable; dotted: not. "
        "Circles: folds, diamonds: pitchforks, squares: other crossings, triangles: Hopf points. "
        + ("; ".join(told) + "." if told else "No branch was cut short.")
    )
    return Part(
        "From one context to another", caption,
        {
            "branches": pd.concat(tables, ignore_index=True),
            "bifurcations": pd.concat(events, ignore_index=True),
        },
        figure,
    )  # fmt: skip


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
    for epoch in _EPOCHS:
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


def units(view: View) -> Part:
    """Which units serve which tasks."""
    variance = task_variance(view.network, view.tasks, trials=view.trials, seed=view.seed)
    normalised = normalised_variance(variance)
    tables = {"task_variance": variance.reset_index()}
    if len(view.names) < 2 or len(normalised) < 4:
        return Part("Units", "Task variance of the units.", tables)
    most = min(12, len(normalised) - 1)
    clusters = unit_clusters(normalised, clusters=tuple(range(2, most + 1)), seed=view.seed)
    lesions = lesion_clusters(
        view.network, view.tasks, clusters, trials=view.trials, seed=view.seed
    )
    tables |= {"clusters": clusters, "lesions": lesions}
    figure = plots.new_figure(size=(6.8, 0.22 * len(view.names) + 1.0))
    plots.task_variance_map(figure.axes[0], normalised, clusters)
    caption = (
        f"Variance of rates over {view.trials} trials of each task after fixation, over each "
        f"unit's largest; {len(normalised)} of {view.network.units} units vary. "
        f"{clusters['cluster'].nunique()} clusters (k-means, number by the silhouette, "
        f"{clusters['silhouette'].mean():.2f}). Table lesions: accuracy without each cluster."
    )
    return Part("Units", caption, tables, figure)


def weights(view: View) -> Part:
    """What contexts do in the parameters."""
    similarity = context_similarity(view.network, names=view.names)
    tables = {
        f"similarity_{name}": table.reset_index(names="task") for name, table in similarity.items()
    }
    told = ""
    # Each measure is of one kind of effect, which this network's pathways may not have.
    with contextlib.suppress(ValueError):
        tables["readout_alignment"] = readout_alignment(view.network, names=view.names)
        told += (
            " Table readout_alignment: share of each effect on the current that the read-out does "
            "not see, beside that of a random direction."
        )
    with contextlib.suppress(ValueError):
        rank = modulation_rank(view.network, names=view.names).across.participation
        told += f" Rank of W(c) - W over contexts (participation ratio): {rank:.1f}."
    figure = plots.new_figure(1, len(similarity), size=(3.3 * len(similarity) + 0.3, 3.0))
    for (name, table), ax in zip(similarity.items(), list(figure.axes), strict=True):
        plots.similarity_map(ax, table)
        ax.set_title(name)
        figure.colorbar(ax.images[0], ax=ax, label="cosine", shrink=0.8)
    caption = (
        "Cosine between the effects of two contexts on the parameters, by kind of effect." + told
    )
    return Part("Weights", caption, tables, figure)


PARTS: tuple[tuple[str, Callable[[View], Part], bool], ...] = (
    ("accuracy", accuracy, False),
    ("fixed_points", fixed_points, False),
    ("trajectories", trajectories, False),
    ("continuation", continuation, True),
    ("geometry", geometry, False),
    ("vector_field", vector_fields, True),
    ("units", units, False),
    ("weights", weights, True),
)
"""Name, function, and whether the part needs contexts."""

"""Parts of `analyse`: what units serve which tasks, what contexts do to the weights."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from ctxrnn.analysis import (
    context_similarity,
    lesion_clusters,
    modulation_rank,
    normalised_variance,
    plots,
    readout_alignment,
    similarity_of_tasks,
    unit_clusters,
)
from ctxrnn.studies._analyse_view import Part, View

if TYPE_CHECKING:
    import pandas as pd


def units(view: View) -> Part:
    """Which units serve which tasks."""
    normalised = normalised_variance(view.variance)
    tables = {"task_variance": view.variance.reset_index()}
    clusters = _clusters(view, normalised)
    if clusters is None:
        return Part("Units", "Task variance of the units; too few vary to group them.", tables)
    tables["clusters"] = clusters
    figure = plots.new_figure(size=(6.8, 0.2 * len(view.names) + 1.0))
    (ax,) = figure.axes
    plots.task_variance_map(ax, normalised, clusters)
    figure.colorbar(ax.images[0], ax=ax, label="normalised task\nvariance", aspect=10)
    caption = (
        f"Variance of rates over {view.trials} trials of each task after fixation, over each "
        f"unit's largest; {len(normalised)} of {view.network.units} units vary. "
        f"{clusters['cluster'].nunique()} clusters (k-means, number by the silhouette, "
        f"{clusters['silhouette'].mean():.2f})."
    )
    return Part("Units", caption, tables, figure)


def _clusters(view: View, normalised: pd.DataFrame) -> pd.DataFrame | None:
    """Return the clusters of the units; None if there are too few to group."""
    if len(view.names) < 2 or len(normalised) < 4:
        return None
    most = min(12, len(normalised) - 1)
    return unit_clusters(normalised, clusters=tuple(range(2, most + 1)), seed=view.seed)


def lesions(view: View) -> Part:
    """What each task loses when the units of a cluster are silenced."""
    import pandas as pd

    clusters = _clusters(view, normalised_variance(view.variance))
    if clusters is None:
        return Part("Lesions", "Left out: too few units vary to group them.")
    table = lesion_clusters(view.network, view.tasks, clusters, trials=view.trials, seed=view.seed)
    lost = table[table["cluster"] >= 0]
    wide = lost.pivot_table(index="cluster", columns="task", values="change", sort=False)
    wide = wide[list(view.names)]
    sizes = lost.groupby("cluster")["units"].first()
    wide.index = pd.Index(
        [f"{c}: {sizes[c]} unit{'' if sizes[c] == 1 else 's'}" for c in wide.index]
    )
    reach = max(1.0, float(np.abs(wide.to_numpy()).max()))
    figure = plots.new_figure(size=(0.42 * len(view.names) + 1.9, 0.3 * len(wide) + 1.1))
    (ax,) = figure.axes
    plots.similarity_map(ax, wide, limits=(-reach, reach), values=True)
    ax.set(ylabel="silenced cluster")
    figure.colorbar(ax.images[0], ax=ax, label="change", shrink=0.9)
    caption = (
        f"Change of the normalised accuracy of each task, {view.trials} trials, when all units of "
        "a cluster are silent (clusters of the figure above, numbered by size); 0: nothing lost, "
        "-1: from the ceiling to chance."
    )
    return Part("Lesions", caption, {"lesions": table}, figure)


def weights(view: View) -> Part:
    """What contexts do in the parameters, and whether similar tasks have similar contexts."""
    similarity = context_similarity(view.network, names=view.names)
    tables = {
        f"similarity_{name}": table.reset_index(names="task") for name, table in similarity.items()
    }
    told = ""
    # Each measure is of one kind of effect, which this network's pathways may not have.
    with contextlib.suppress(ValueError):
        tables["readout_alignment"] = readout_alignment(view.network, names=view.names)
        mean = tables["readout_alignment"].mean(numeric_only=True)
        told += (
            f" The read-out does not see {100 * mean['share']:.0f} % of the effects on the current "
            f"and of their differences, of random directions {100 * mean['expected']:.0f} % "
            "(table readout_alignment)."
        )
    with contextlib.suppress(ValueError):
        rank = modulation_rank(view.network, names=view.names).across.participation
        told += f" Rank of W(c) - W over contexts (participation ratio): {rank:.1f}."
    alike = view.variance.corr()
    several = len(view.names) > 2 and bool(np.isfinite(alike.to_numpy()).all())
    count = len(similarity)
    figure = plots.new_figure(
        2 if several else 1, count, size=(2.9 * count + 0.6, 5.0 if several else 2.8)
    )
    grid = np.array(figure.axes, dtype=object).reshape(-1, count)
    tests = []
    for column, (name, table) in zip(grid.T, similarity.items(), strict=True):
        plots.similarity_map(column[0], table, values=len(view.names) <= 6)
        column[0].set_title(name)
        figure.colorbar(column[0].images[0], ax=column[0], label="cosine", shrink=0.8)
        if several:
            tests.append({"effect": name, **_beside(column[1], table, alike, view)})
    if tests:
        import pandas as pd

        tables["similarity_of_tasks"] = pd.DataFrame(tests)
        rows = "; ".join(
            f"{row['effect']}: rho = {row['correlation']:.2f}, p = {row['p']:.2g}" for row in tests
        )
        told = (
            " Below, the same against the similarity of the tasks, the correlation of their task "
            f"variance over units, one dot per pair (Spearman, Mantel test: {rows}).{told}"
        )
    caption = (
        "Cosine between the effects of two contexts on the parameters, by kind of effect." + told
    )
    return Part("Weights", caption, tables, figure)


def _beside(
    ax: plots.Axes, similarity: pd.DataFrame, alike: pd.DataFrame, view: View
) -> dict[str, float]:
    """Draw the similarity of contexts against that of tasks; return their correlation."""
    upper = np.triu_indices(len(alike), 1)
    x, y = alike.to_numpy()[upper], similarity.to_numpy()[upper]
    ax.plot(x, y, "o", color=view.colour, markersize=3, alpha=0.7)
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.set(xlabel="similarity of tasks (correlation)", ylabel="cosine of contexts")
    found = similarity_of_tasks(
        alike.to_numpy(), similarity.to_numpy(), permutations=2000, seed=view.seed
    )
    return {"correlation": found.correlation, "p": found.p}

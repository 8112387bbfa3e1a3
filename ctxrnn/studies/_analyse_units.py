"""Parts of `analyse`: accuracy, what units serve which tasks, what contexts do to the weights."""

from __future__ import annotations

import contextlib

from ctxrnn import evaluate, make_generator
from ctxrnn.analysis import (
    context_similarity,
    lesion_clusters,
    modulation_rank,
    normalised_variance,
    plots,
    readout_alignment,
    task_variance,
    unit_clusters,
)
from ctxrnn.studies._analyse_view import Part, View


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

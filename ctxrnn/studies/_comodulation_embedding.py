"""Where tuning moves the decoder's activity: a plane of the untuned network, images by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.analysis import fit_pca, plots
from ctxrnn.comodulation import ComodulatedNetwork, Examples, Tuned
from ctxrnn.studies._comodulation_measures import activities

if TYPE_CHECKING:
    import pandas as pd

ARMS = ("attention", "comod", "decoder")
"""Conditions of which images are shown, for the first network."""
_IMAGES = 400
_CLASSES = 10
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_MARKERS = "osD^vP*X"


def embedding(
    before: ComodulatedNetwork, tuned: Tuned, test: Examples, meaning: Mapping[str, Any]
) -> pd.DataFrame:
    """Return images in the two leading principal components of the activity before tuning.

    The activity is that of the last hidden layer of the decoder, times the decoder gain. With
    contexts that are attributes it is that of one of them, whose label splits the images most
    evenly. Only images of the first ten classes are shown.

    Args:
        before: The network before it was tuned.
        tuned: The tuned one.
        test: Images of the test split.
        meaning: Names of "outputs"; of classes also the "superclass" of each.

    Returns:
        Columns "label", "group", "before_1", "before_2", "after_1", "after_2", "before_share" and
        "after_share", the share of the variance of either that lies in the plane.
    """
    import pandas as pd

    attributes = test.labels.ndim == 2
    labels = np.asarray(test.labels)
    context = 0
    rows: np.ndarray
    if attributes:
        chosen = int(np.abs(labels.mean(axis=0) - 0.5).argmin())
        context = tuned.network.head.row[chosen]
        rows = np.arange(min(_IMAGES, len(labels)))
        name = meaning["outputs"][chosen]
        told = np.array([f"not {name}", name])[labels[rows, chosen].astype(int)]
        group = np.full(len(rows), "")
    else:
        rows = np.flatnonzero(labels < _CLASSES)[:_IMAGES]
        told = np.array(meaning["outputs"])[labels[rows]]
        group = np.array(meaning["superclass"])[labels[rows]]
    some = test.take(rows.tolist())
    old = activities(before, some)[:, 0]
    new = activities(tuned.network, some, tuned)
    new = new[:, min(context, new.shape[1] - 1)]
    plane = fit_pca(old, 2)
    a, b = plane.project(old), plane.project(new)
    inside = float(b.var(axis=0, ddof=1).sum() / max(new.var(axis=0, ddof=1).sum(), 1e-300))
    return pd.DataFrame(
        {
            "label": told, "group": group,
            "before_1": a[:, 0], "before_2": a[:, 1], "after_1": b[:, 0], "after_2": b[:, 1],
            "before_share": float(plane.ratios.sum()), "after_share": inside,
        }
    )  # fmt: skip


def representations(images: pd.DataFrame, cells: pd.DataFrame) -> plots.Figure:
    """Draw images before and after tuning, in the plane of the network before.

    Args:
        images: The table "embedding" of one base, with "arm".
        cells: Cells of all networks, for the mean change and CKA of each arm.
    """
    arms = [arm for arm in ARMS if arm in set(images["arm"])]
    figure = plots.new_figure(1, 1 + len(arms), size=(1.75 * (1 + len(arms)), 2.75))
    first = images[images["arm"] == arms[0]]
    looks = _looks(first)
    _scatter(figure.axes[0], first, "before", looks)
    figure.axes[0].set_title(f"before\n{first['before_share'].iloc[0]:.0%} in the plane")
    for ax, arm in zip(figure.axes[1:], arms, strict=True):
        mine = images[images["arm"] == arm]
        _scatter(ax, mine, "after", looks)
        row = cells[cells["arm"] == arm]
        ax.set_title(
            f"{arm}\nchange {row['change'].mean():.2f}, CKA {row['cka'].mean():.2f}\n"
            f"{mine['after_share'].iloc[0]:.0%} in the plane"
        )
    low = min(ax.get_xlim()[0] for ax in figure.axes), min(ax.get_ylim()[0] for ax in figure.axes)
    high = max(ax.get_xlim()[1] for ax in figure.axes), max(ax.get_ylim()[1] for ax in figure.axes)
    for ax in figure.axes:
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="component 1")
    figure.axes[0].set_ylabel("component 2")
    for ax in figure.axes[1:]:
        ax.tick_params(labelleft=False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 5), fontsize=6.5,
        markerscale=2,
    )  # fmt: skip
    return figure


def _looks(images: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Give every label a colour and a marker: groups by colour, members by marker."""
    pairs = images.drop_duplicates("label").sort_values(["group", "label"])
    groups = list(dict.fromkeys(pairs["group"]))
    if len(groups) == 1:
        return {
            label: (_COLOURS[k % len(_COLOURS)], _MARKERS[k % len(_MARKERS)])
            for k, label in enumerate(pairs["label"])
        }
    looks, members = {}, dict.fromkeys(groups, 0)
    for label, group in zip(pairs["label"], pairs["group"], strict=True):
        place = groups.index(group) % len(_COLOURS)
        looks[label] = (_COLOURS[place], _MARKERS[members[group] % len(_MARKERS)])
        members[group] += 1
    return looks


def _scatter(
    ax: plots.Axes, images: pd.DataFrame, when: str, looks: Mapping[str, Sequence[str]]
) -> None:
    for label, (colour, marker) in looks.items():
        mine = images[images["label"] == label]
        x, y = mine[f"{when}_1"], mine[f"{when}_2"]
        ax.plot(
            x, y, marker, color=colour, markersize=2.2, alpha=0.6, markeredgewidth=0, label=label
        )

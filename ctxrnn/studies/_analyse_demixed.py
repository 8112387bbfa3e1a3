"""A part of `analyse`: what of the activity depends on the context, the answer, both, or time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ctxrnn import TrialBatch, make_generator
from ctxrnn.analysis import DemixedPCA, condition_averages, fit_dpca, plots
from ctxrnn.studies._analyse_view import Part, View

# Trials per answer that are drawn of each task, and that a combination must have: one is held out
# in cross-validation, two are left to estimate noise.
_DRAWN, _LEAST = 16, 3
_COMPONENTS, _FOLDS = 5, 5
AXES = ("context", "answer")


@dataclass(frozen=True)
class Design:
    """Trials of tasks that share answers, cut to one window, in which all are valid.

    Attributes:
        rows: Trials of the batch, (trial,).
        steps: Their steps, (trial, step).
        labels: "context" -> number of the task of each trial, "answer" -> its correct answer.
        start: First step, counted from the event.
        event: What the trials are aligned to.
    """

    rows: np.ndarray
    steps: np.ndarray
    labels: dict[str, np.ndarray]
    start: int
    event: str


def demixed(view: View) -> Part:
    """Components that depend on the context, the correct answer, both, or time alone."""
    title = "Demixed components"
    batch = view.tasks.sample(
        max(view.trials, _DRAWN * view.tasks.outputs) * len(view.names),
        generator=make_generator(view.seed, "analysis", "demixed"),
    )
    design = balanced_design(batch)
    if design is None:
        return Part(title, "Left out: no two tasks share two answers or more, which needs "
                    f"{_LEAST} trials of each answer in each task.")  # fmt: skip
    with torch.no_grad():
        run = view.network(batch.inputs, batch.context if view.modulated else None, noise=0.0)
    states = (run.potentials if view.network.form == "current" else run.rates).double().numpy()
    states = states[design.rows[:, None], design.steps]
    model = fit_dpca(
        states, AXES, labels=design.labels, components=_COMPONENTS, folds=_FOLDS, seed=view.seed
    )
    averages = condition_averages(states, design.labels, AXES)
    times = (design.start + np.arange(states.shape[1])) * view.tasks.dt
    contexts = [view.names[k] for k in averages.levels["context"]]
    answers = averages.levels["answer"].tolist()
    parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in model.marginal.items())
    caption = (
        f"Demixed principal components (Kobak et al. 2016) of {len(contexts)} contexts "
        f"({', '.join(contexts)}) x {len(answers)} correct answers x {states.shape[1]} steps, "
        f"{len(states)} trials ({averages.counts.min()} or more per combination, no noise in the "
        f"network) aligned to {design.event}. Lines are averages of one combination; bars the "
        f"variance that a component explains, split by what it depends on. Of the variance: "
        f"{parts}; all components together explain {100 * model.explained:.0f} %. "
        f"Ridge {model.ridge:.2g}, by cross-validation."
    )
    levels = {"context": contexts, "answer": answers}
    figure = _figure(model, averages.states, levels, times, f"time from {design.event} (ms)")
    return Part(title, caption, {"demixed": model.table()}, figure)


def balanced_design(batch: TrialBatch) -> Design | None:
    """Choose tasks and answers such that every combination has trials, or None.

    Tasks are taken by falling number of answers, as many as give most degrees of freedom,
    (tasks - 1) (answers - 1).
    """
    task, ends = batch.task.numpy(), batch.lengths.numpy()
    wanted = batch.last(batch.targets).numpy()
    answers = wanted.argmax(axis=-1) if wanted.ndim > 1 else wanted
    known: dict[int, set[int]] = {}
    for k in range(len(batch.names)):
        found, counts = np.unique(answers[task == k], return_counts=True)
        known[k] = set(found[counts >= _LEAST].tolist())
    order = sorted(known, key=lambda k: -len(known[k]))
    choices = [
        (order[:number], set.intersection(*(known[k] for k in order[:number])))
        for number in range(2, len(order) + 1)
    ]
    chosen, shared = max(
        choices, key=lambda choice: (len(choice[0]) - 1) * (len(choice[1]) - 1),
        default=([], set()),
    )  # fmt: skip
    if len(shared) < 2:
        return None
    rows = np.flatnonzero(np.isin(task, chosen) & np.isin(answers, sorted(shared)))
    onset, event = ends[rows], "the end of the trial"
    for name, about in (("decision", "the go cue"), ("response", "the response")):
        span = batch.periods.get(name)
        if span is not None and (span[rows, 0] >= 0).all():
            onset, event = span[rows, 0].numpy(), about
            break
    start, stop = -int(onset.min()), int((ends[rows] - onset).min())
    labels = {"context": task[rows], "answer": answers[rows]}
    return Design(rows, onset[:, None] + np.arange(start, stop), labels, start, event)


def _figure(
    model: DemixedPCA, states: np.ndarray, levels: dict[str, Any], times: np.ndarray, label: str
) -> plots.Figure:
    figure = plots.new_figure(2, 3, size=(6.8, 4.2))
    *lines, bars, key = figure.axes
    for ax, group in zip(lines, ("time", *AXES, " x ".join(AXES)), strict=True):
        if not len(model.encoders[group]):
            ax.set_axis_off()
            continue
        plots.demixed_component(ax, model, states, group, levels=levels, times=times, label=label)
        if times[0] < 0 < times[-1]:
            ax.axvline(0, color="0.85", linewidth=0.8, zorder=0)
    plots.demixed_variance(bars, model)
    # Room for the legend above the bars.
    bars.set_ylim(top=1.45 * bars.get_ylim()[1])
    bars.legend(fontsize=6, loc="upper right", handlelength=1.4, borderaxespad=0)
    key.set_axis_off()
    for place, (axis, names) in enumerate(levels.items()):
        shades = plots.colours_of(range(len(names))).values()
        handles = [key.plot([], [], color=shade)[0] for shade in shades]
        legend = key.legend(
            handles, names, title=axis, loc="upper left", bbox_to_anchor=(0.5 * place, 1),
            fontsize=6, title_fontsize=7, alignment="left", handlelength=1.4,
            ncols=1 + len(names) // 13,
        )  # fmt: skip
        if not place:
            key.add_artist(legend)
    return figure

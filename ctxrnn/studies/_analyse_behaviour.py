"""Parts of `analyse`: accuracy, and choices against evidence."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctxrnn import TrialBatch, evaluate, make_generator
from ctxrnn.analysis import fit_psychometric, plots
from ctxrnn.studies._analyse_view import Part, View

if TYPE_CHECKING:
    import pandas as pd

# Trials of each decision task.
_DRAWN = 400
# Modalities whose evidence may count.
_RELEVANT: tuple[tuple[int, ...], ...] = ((1,), (2,), (1, 2))


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


def psychometric(view: View) -> Part:
    """Choices of the first of two stimuli against the difference of their strengths."""
    import pandas as pd

    title = "Choices against evidence"
    if "coh1_mod1" not in view.batch.conditions:
        return Part(title, "Left out: no task shows two stimuli of different strength.")
    source = make_generator(view.seed, "analysis", "psychometric")
    batch = view.tasks.sample(_DRAWN * len(view.names), generator=source)
    tables = []
    for k, name in enumerate(view.names):
        mine = batch.select(np.flatnonzero(batch.task.numpy() == k))
        table = _choices(view, mine, source)
        if table is not None:
            tables.append(table.assign(task=name))
    if not tables:
        return Part(title, "Left out: no task shows two stimuli of different strength.")
    trials = pd.concat(tables, ignore_index=True)
    fits, figure = _drawn(view, trials)
    neither = 1 - trials["first"].notna().mean()
    caption = (
        "Share of trials on which the first of two stimuli was chosen, against the difference of "
        "their strengths in the modality that counts (where it is both: their sum) and, where "
        "there is one, in that which does not. Points: shares with Wilson 95 % intervals; curves: "
        "logistic with equal lapses, none where there is no best fit (table). "
        f"{_DRAWN} fresh trials per task, with noise; {100 * neither:.1f} % of all answers were "
        "neither stimulus and are left out."
    )
    return Part(title, caption, {"psychometric": fits}, figure, "psychometric")


def _choices(view: View, batch: TrialBatch, source: torch.Generator) -> pd.DataFrame | None:
    """Return evidence and choice (1: the first, 0: the second, NaN: neither) of each trial."""
    import pandas as pd

    columns = {
        m: np.asarray(batch.conditions[f"coh1_mod{m}"], dtype=float)
        - np.asarray(batch.conditions[f"coh2_mod{m}"], dtype=float)
        for m in (1, 2)
    }
    shown = [m for m in columns if not np.isnan(columns[m]).any()]
    if not shown:
        return None
    turns = [
        np.rint(np.asarray(batch.conditions[f"theta{n}"], dtype=float) / (2 * np.pi) * 1e6)
        for n in (1, 2)
    ]
    wanted = batch.last(batch.targets)
    # What is wanted for each direction, learnt from the trials themselves.
    relevant, places = _relevant(columns, shown, turns, wanted)
    with torch.no_grad():
        context = batch.context if view.modulated else None
        outputs = view.network(batch.inputs, context, generator=source).outputs
    chosen = [
        view.tasks.correct(outputs, _wanting(batch, wanted, turn, places)).numpy() for turn in turns
    ]
    first = np.where(chosen[0] == chosen[1], np.nan, chosen[0].astype(float))
    left = [m for m in shown if m not in relevant]
    return pd.DataFrame(
        {
            "relevant": sum(columns[m] for m in relevant),
            "irrelevant": columns[left[0]] if left else np.nan,
            "first": first,
        }
    )


def _relevant(
    columns: dict[int, np.ndarray], shown: list[int], turns: list[np.ndarray], wanted: torch.Tensor
) -> tuple[tuple[int, ...], dict[float, int]]:
    """Return the modalities that count, and for each direction a trial on which it is right."""
    best: Any = None
    for modalities in _RELEVANT:
        if not set(modalities) <= set(shown):
            continue
        balance = sum(columns[m] for m in modalities)
        right = np.where(balance > 0, turns[0], turns[1])
        places: dict[float, int] = {}
        agree = 0
        for row in np.flatnonzero(np.abs(balance) > 1e-6):
            known = places.setdefault(float(right[row]), int(row))
            agree += bool((wanted[row] == wanted[known]).all())
        if best is None or agree > best[0]:
            best = agree, modalities, places
    return best[1], best[2]


def _wanting(
    batch: TrialBatch, wanted: torch.Tensor, turn: np.ndarray, places: dict[float, int]
) -> TrialBatch:
    """Return the batch as if a direction were right on each trial."""
    rows = [places.get(float(value), place) for place, value in enumerate(turn)]
    targets = batch.targets.clone()
    targets[torch.arange(len(batch)), batch.lengths - 1] = wanted[rows]
    return dataclasses.replace(batch, targets=targets)


def _drawn(view: View, trials: pd.DataFrame) -> tuple[pd.DataFrame, plots.Figure]:
    import pandas as pd

    names = list(dict.fromkeys(trials["task"]))
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = plots.new_figure(rows, columns, size=(1.65 * columns + 0.4, 1.7 * rows + 0.4))
    fits = []
    for number, (name, ax) in enumerate(zip(names, figure.axes, strict=False)):
        mine = trials[(trials["task"] == name) & trials["first"].notna()]
        strengths, chosen, kinds = [], [], []
        for kind in ("relevant", "irrelevant"):
            known = mine[mine[kind].notna()]
            if not len(known):
                continue
            strengths.append(known[kind])
            chosen.append(known["first"])
            kinds += [kind] * len(known)
            fits.append({"task": name, "evidence": kind, **_fit(known[kind], known["first"])})
        if strengths:
            plots.psychometric_curve(
                ax, np.concatenate(strengths), np.concatenate(chosen), contexts=kinds,
                xlabel="difference of strengths" if number >= len(names) - columns else "",
                ylabel="chose the first" if number % columns == 0 else "",
            )  # fmt: skip
        ax.set_title(name)
    for ax in figure.axes[len(names) :]:
        ax.remove()
    looks = plots.colours_of(["relevant", "irrelevant"])
    told = ("evidence that counts", "evidence that does not")
    handles, texts = plots.key(
        [
            (text, {"color": colour, "marker": mark, "markersize": 3.5})
            for text, colour, mark in zip(told, looks.values(), "os", strict=True)
        ]
    )
    figure.legend(handles, texts, loc="outside lower center", ncols=2)
    return pd.DataFrame(fits), figure


def _fit(strengths: pd.Series, chosen: pd.Series) -> dict[str, Any]:
    try:
        found = fit_psychometric(strengths.to_numpy(), chosen.to_numpy())
    except ValueError as error:
        return {"trials": len(chosen), "why_not": str(error)}
    return {
        "trials": len(chosen), "slope": found.slope, "bias": found.bias, "lapses": found.low,
        "converged": found.converged, "why_not": found.reason,
    }  # fmt: skip

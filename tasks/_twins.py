"""Tasks that show the same stimuli, and what each of them wants on the very same trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ._encoding import vector_targets
from ._recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from ctxrnn import TrialBatch

    from ._neurogym import Source

UNDEFINED = -1
"""Class that stands for "no answer is defined"."""

_TIE = 1e-6
# neurogym breaks ties of the summed strengths with a random number of up to this size.


class Twins:
    """Which tasks of a set are twins, and what a twin would want.

    Two yang19 tasks are twins if a trial of one could be a trial of the other: the same periods and
    durations, cue, directions and modalities, and in match tasks the same rule for the test. They
    are: go and anti, with and without delay or reaction; the decision tasks on both modalities
    (ctxdm1, ctxdm2, multidm) and, apart, the delayed ones; dms and dnms; dmc and dnmc. Tasks that
    show one modality (dm1, dm2) have none, as each shows what the other never does. Options that
    change the stimuli of one of them end the relation.

    Args:
        sources: The tasks.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._recipes = [read_recipe(source) if source.native else None for source in sources]
        self._weights = [
            (getattr(s.core, "w_mod1", 0.0), getattr(s.core, "w_mod2", 0.0)) for s in sources
        ]
        count = len(self._recipes)
        self.related = np.zeros((count, count), dtype=bool)
        for i, one in enumerate(self._recipes):
            for j, other in enumerate(self._recipes):
                if i != j and one is not None and other is not None:
                    self.related[i, j] = _show_the_same(one, other)

    def answers(self, batch: TrialBatch, others: np.ndarray) -> np.ndarray:
        """Return the class that task `others[i]` wants on trial i, (trial,) int64.

        0 is to withhold, 1 + k direction k, -1 where the trial is not one of that task's, or has no
        right answer there (a tie). A trial's own task is left at -1 too.

        Args:
            batch: The trials, with neurogym's conditions.
            others: Index of a task per trial.
        """
        task = batch.task.cpu().numpy()
        found = np.full(len(batch), UNDEFINED, dtype=np.int64)
        for i, j in np.argwhere(self.related):
            rows = np.flatnonzero((task == i) & (others == j))
            recipe = self._recipes[j]
            if len(rows) and recipe is not None:
                find = {"reach": _reach, "decision": self._decision, "match": _match}
                given = _Conditions(batch, rows, len(recipe.theta))
                found[rows] = find[recipe.family](recipe, int(j), given)
        return found

    def _decision(self, recipe: Recipe, index: int, given: _Conditions) -> np.ndarray:
        """Choose the direction whose strengths, weighted by the task, have the larger sum."""
        weights = self._weights[index]
        balance = sum(
            weight * (given.number(f"coh1_mod{m}") - given.number(f"coh2_mod{m}"))
            for m, weight in enumerate(weights, 1)
        )
        chosen = np.where(balance > 0, given.direction("theta1"), given.direction("theta2"))
        return np.where(np.abs(balance) > _TIE, 1 + chosen, UNDEFINED)


class _Conditions:
    """Conditions of some trials of a batch."""

    def __init__(self, batch: TrialBatch, rows: np.ndarray, ring: int) -> None:
        self._batch, self._rows, self.ring = batch, rows, ring

    def number(self, name: str) -> np.ndarray:
        known = self._batch.conditions
        values = known[name][self._rows].astype(float) if name in known else np.array([np.nan])
        if np.isnan(values).any():
            raise ValueError(
                f"the batch must hold the condition {name!r} of its trials, as those drawn by a "
                f"task set do: got {', '.join(known) or 'no conditions'}"
            )
        return values

    def direction(self, name: str) -> np.ndarray:
        """Return the index of an angle on the ring."""
        turns = self.number(name) / (2 * np.pi)
        return np.rint(turns * self.ring).astype(np.int64) % self.ring


def _show_the_same(one: Recipe, other: Recipe) -> bool:
    same = (
        "family",
        "periods",
        "durations",
        "cue",
        "shows",
        "sigma",
        "shown",
        "category",
        "border",
    )
    return (
        all(getattr(one, key) == getattr(other, key) for key in same)
        and np.array_equal(one.theta, other.theta)
        # Both modalities must differ in strength for a decision to depend on the task.
        and (one.family != "decision" or all(one.shown))
    )


def _reach(recipe: Recipe, index: int, given: _Conditions) -> np.ndarray:
    """Point to the stimulus or, with `anti`, to its opposite; `ground_truth` is the answer."""
    turned = given.number("anti").astype(bool) != recipe.anti
    truth = given.number("ground_truth").astype(np.int64)
    return 1 + (truth + given.ring // 2 * turned) % given.ring


def _match(recipe: Recipe, index: int, given: _Conditions) -> np.ndarray:
    """Point to the test where the task asks for an answer."""
    answer = given.number("match").astype(bool) == recipe.go_on_match
    return np.where(answer, 1 + given.direction("test_theta"), 0)


def wanted(
    twins: Twins, batch: TrialBatch, others: Tensor, names: tuple[str, ...], ring: int, kind: str
) -> Tensor:
    """Return the last step's target of other tasks; see `TaskSet.wanted`.

    Args:
        twins: The twins of the set.
        batch: The trials.
        others: Index of a task per trial.
        names: Tasks of the set.
        ring: Directions on the ring.
        kind: Kind of the set's targets.
    """
    if batch.names != names:
        raise ValueError(
            f"the batch must be of these tasks, {', '.join(names)}: got {', '.join(batch.names)}"
        )
    others = torch.as_tensor(others).cpu()
    if others.dtype != torch.int64 or tuple(others.shape) != (len(batch),):
        raise ValueError(
            f"others must have shape ({len(batch)},) and type int64: got {tuple(others.shape)} "
            f"{others.dtype}"
        )
    if not 0 <= int(others.min()) <= int(others.max()) < len(names):
        raise ValueError(
            f"others must lie in [0, {len(names) - 1}]: got {int(others.min())} to "
            f"{int(others.max())}"
        )
    own = batch.last(batch.targets).clone()
    foreign = (others != batch.task.cpu()).to(own.device)
    own[foreign] = UNDEFINED if kind == "class" else torch.nan
    answers = twins.answers(batch, others.numpy())
    known = np.flatnonzero(answers != UNDEFINED)
    if len(known):
        values = answers[known] if kind == "class" else vector_targets(answers[known], ring)
        own[torch.from_numpy(known)] = torch.from_numpy(values).to(own)
    return own

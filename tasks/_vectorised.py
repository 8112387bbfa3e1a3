"""Batches of yang19 trials, drawn and rendered at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctxrnn import TrialBatch
from ctxrnn._checks import derive_seed

from ._assemble import free_steps
from ._conditions import NUMBERS, Conditions, Tables, draw_conditions
from ._recipe import DECISION, FIRST, SLOTS, Recipe
from ._render import render_inputs, render_mask, render_targets, slot_ends
from ._seeding import hashed_uniforms

if TYPE_CHECKING:
    from ._neurogym import Source

_REACH = ("ground_truth", "anti", "modality")
_DECISION = ("theta1", "theta2", "stim_period")
_COHERENCES = ("coh1_mod1", "coh2_mod1", "coh1_mod2", "coh2_mod2")
_MATCH = ("sample_theta", "test_theta", "modality", "match")

# Columns of the values that conditions are picked from; the last one is for absent conditions.
_ANSWER, _ANTI, _MODALITY, _THETA_A, _THETA_B, _LASTING, _SAME, _STRENGTH = range(8)
_COLUMN = {
    "ground_truth": _ANSWER, "anti": _ANTI, "modality": _MODALITY, "theta1": _THETA_A,
    "theta2": _THETA_B, "sample_theta": _THETA_A, "test_theta": _THETA_B,
    "stim_period": _LASTING, "match": _SAME,
    **{name: _STRENGTH + index for index, name in enumerate(_COHERENCES)},
}  # fmt: skip
_ABSENT = _STRENGTH + len(_COHERENCES)


def condition_names(recipe: Recipe) -> tuple[str, ...]:
    """List the conditions of a task's trials."""
    if recipe.family == "reach":
        return _REACH
    if recipe.family == "match":
        return _MATCH
    lasting = recipe.periods[FIRST] == "stimulus"
    return (*_DECISION[: 2 + lasting], *(
        name for index, name in enumerate(_COHERENCES) if recipe.shown[index // 2]
    ))  # fmt: skip


class VectorisedSource:
    """Several yang19 tasks as a source of batches, each a pure function of its seed."""

    def __init__(
        self, sources: Sequence[Source], recipes: Sequence[Recipe], *, dt: float, vector: bool
    ) -> None:
        self._sources = tuple(sources)
        self._names = tuple(source.name for source in sources)
        self._tables = Tables(recipes)
        self._dt, self._vector = dt, vector
        # Seeding these again is far faster than making new ones for every batch.
        self._noise = [torch.Generator() if n else None for n in self._tables.noise]
        self._called = [
            [slot for slot, duration in enumerate(recipe.durations) if duration.function]
            for recipe in recipes
        ]
        periods = dict.fromkeys(p for r in recipes for p in r.periods if p is not None)
        self._periods = tuple(periods)
        self._slot_of = np.array(
            [[_index(r.periods, name, SLOTS) for name in periods] for r in recipes]
        )
        known = [condition_names(r) for r in recipes]
        self._known = tuple(dict.fromkeys(name for names in known for name in names))
        self._column_of = np.array(
            [[_COLUMN[name] if name in names else _ABSENT for name in self._known]
             for names in known]
        )  # fmt: skip

    def draw(self, task: np.ndarray, seed: int) -> Conditions:
        """Draw the conditions of one trial for every entry of `task`, which must ascend.

        A task's trials depend on the seed, on its name and on their number alone.
        """
        counts = np.bincount(task, minlength=len(self._names)).tolist()
        uniform = hashed_uniforms(
            (f"{seed}\x1f{name}", count * NUMBERS)
            for name, count in zip(self._names, counts, strict=True)
            if count
        )
        drawn = draw_conditions(self._tables, task, uniform.reshape(len(task), NUMBERS), self._dt)
        for index, slots in enumerate(self._called):
            if slots and counts[index]:
                source = self._sources[index]
                periods = [self._tables.recipes[index].periods[slot] for slot in slots]
                own = derive_seed(seed, source.name)
                called = source.durations(periods, counts[index], own)  # type: ignore[arg-type]
                drawn.durations[np.ix_(task == index, slots)] = called
        return drawn

    def render(self, drawn: Conditions, seed: int, grace: float) -> dict[str, Any]:
        """Return the arrays of a batch by the names that `TrialBatch` has for them.

        Args:
            drawn: The trials, sorted by task.
            seed: Seed of the noise.
            grace: Start of the response without weight, in ms.
        """
        for index in self._present(drawn.task):
            generator = self._noise[index]
            if generator is not None:
                generator.manual_seed(derive_seed(seed, self._names[index], "noise"))
        ends = slot_ends(drawn.durations, self._dt)
        lengths = ends[:, DECISION]
        steps = int(lengths.max())
        free = free_steps(ends[:, DECISION - 1], lengths, dt=self._dt, grace=grace)
        tables, vector = self._tables, self._vector
        inputs = render_inputs(tables, drawn, ends, steps, self._noise, vector=vector)
        targets = render_targets(drawn, ends, steps, tables.ring, vector=vector)
        return {
            "inputs": torch.from_numpy(inputs),
            "targets": torch.from_numpy(targets),
            "mask": torch.from_numpy(render_mask(ends, free, steps)),
            "lengths": torch.from_numpy(lengths.copy()),
            "periods": self._periods_of(drawn.task, ends),
            "conditions": self._conditions_of(drawn),
        }

    def _present(self, task: np.ndarray) -> list[int]:
        return np.flatnonzero(np.bincount(task)).tolist()

    def _periods_of(self, task: np.ndarray, ends: np.ndarray) -> dict[str, torch.Tensor]:
        """Return first step and the one after the last; -1, -1 where a trial has no such period."""
        pairs = np.full((len(task), SLOTS + 1, 2), -1, dtype=np.int64)
        pairs[:, 1:SLOTS, 0] = ends[:, :-1]
        pairs[:, 0, 0] = 0
        pairs[:, :SLOTS, 1] = ends
        pairs[pairs[..., 0] == pairs[..., 1]] = -1
        found = pairs[np.arange(len(task)), self._slot_of[task].T]
        some = (found[..., 0] >= 0).any(1)
        response = torch.from_numpy(pairs[:, DECISION].copy())
        periods = dict(zip(self._periods, torch.from_numpy(found).unbind(), strict=True))
        kept = {name: periods[name] for name, one in zip(self._periods, some, strict=True) if one}
        return {**kept, "response": response}

    def _conditions_of(self, drawn: Conditions) -> dict[str, np.ndarray]:
        """Return the conditions by neurogym's names; NaN where a trial has none."""
        task, tables = drawn.task, self._tables
        values = np.full((_ABSENT + 1, len(task)), np.nan)
        values[_ANSWER] = drawn.answer - 1
        values[_ANTI] = tables.anti[task]
        values[_MODALITY] = drawn.modality + 1
        values[_THETA_A] = tables.theta[task, drawn.first]
        values[_THETA_B] = tables.theta[task, drawn.second]
        values[_LASTING] = drawn.durations[:, FIRST]
        values[_SAME] = drawn.match
        values[_STRENGTH:_ABSENT] = drawn.strengths.reshape(-1, 4).T
        columns = self._column_of[task].T
        found = values[columns, np.arange(len(task))]
        kept = np.flatnonzero((self._column_of[self._present(task)] < _ABSENT).any(0))
        return {self._known[k]: found[k] for k in kept.tolist()}


def _index(names: Sequence[str | None], name: str, absent: int) -> int:
    return names.index(name) if name in names else absent


def to_batch(
    arrays: dict[str, Any], task: torch.Tensor, names: tuple[str, ...], dt: float
) -> TrialBatch:
    """Complete the arrays of a batch by its tasks and their context, one-hot over `names`."""
    context = torch.from_numpy(np.eye(len(names), dtype=np.float32)[task.numpy()])
    return TrialBatch(context=context, task=task, names=names, dt=dt, **arrays)

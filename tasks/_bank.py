"""A pool of trials, drawn once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrnn import TrialBatch
from ctxrnn._checks import check_count

from ._flat import FlatTrials
from ._seeding import hashed_uniforms
from ._task_set import TaskSet


class TrialBank(TaskSet):
    """A pool of trials from which batches are picked with replacement; made by `TaskSet.bank`.

    It is sampled and scored as the task set itself. Trials are picked evenly, so that over pools
    each picked trial has the distribution of a fresh one; but within one pool trials come back, and
    a network trained long on a small pool can learn its noise by heart. So evaluate on the task
    set. Memory is bounded by the pool, which is stored without padding.

    Example:
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["go", "anti"], dt=50, ring=8)
        >>> bank = tasks.bank(100, generator=0)  # 100 trials of each task, drawn once
        >>> len(bank.pool)
        200
        >>> bank.sample(64, generator=1).task.bincount().tolist()  # then picked, tasks balanced
        [32, 32]
    """

    def __init__(
        self, source: TaskSet, trials_per_task: int, *, generator: torch.Generator | int
    ) -> None:
        """Draw the pool.

        Args:
            source: The tasks.
            trials_per_task: Trials of each task in the pool.
            generator: Source of randomness, or a seed.

        Raises:
            ValueError: If `trials_per_task` is below one.
        """
        check_count("trials_per_task", trials_per_task)
        self.__dict__.update(vars(source))
        self.trials_per_task = int(trials_per_task)
        total = self.trials_per_task * len(source.names)
        task, seed = source._request(total, generator, None, True)
        # A task's trials do not depend on the others', so each can be drawn by itself.
        self._stored = FlatTrials.join(
            source._draw(part, seed) for part in task.split(self.trials_per_task)
        )

    @property
    def pool(self) -> TrialBatch:
        """All trials, grouped by task: what `sample` of the task set would have drawn."""
        return self._stored.take(np.arange(len(self._stored)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._settings(), self.trials_per_task, self._stored)

    def _draw(self, task: Tensor, seed: int) -> TrialBatch:
        uniform = hashed_uniforms([(f"{seed}\x1fpick", len(task))])
        row = (uniform * self.trials_per_task).astype(np.int64)
        return self._stored.take(task.numpy() * self.trials_per_task + row)


def _restore(settings: dict[str, Any], trials_per_task: int, stored: FlatTrials) -> TrialBank:
    from ._factory import task_set

    bank = TrialBank.__new__(TrialBank)
    bank.__dict__.update(vars(task_set(**settings)))
    bank.trials_per_task = trials_per_task
    bank._stored = stored
    return bank

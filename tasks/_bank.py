"""A pool of trials, drawn once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxrnn import TrialBatch
from ctxrnn._checks import check_count

from ._task_set import TaskSet


class TrialBank(TaskSet):
    """A pool of trials from which batches are picked with replacement; made by `TaskSet.bank`.

    It is sampled and scored as the task set itself. Each picked trial has the distribution of a
    fresh one, but trials come back: a network trained long on a small pool can learn its noise
    by heart, so evaluate on the task set. Memory is bounded by the pool.

    Attributes:
        pool: All trials, grouped by task.
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
        self.pool = source.sample(self.trials_per_task * len(source.names), generator=generator)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._settings(), self.trials_per_task, self.pool)

    def _draw(self, task: Tensor, seed: int) -> TrialBatch:
        generator = torch.Generator().manual_seed(seed)
        row = torch.randint(self.trials_per_task, (len(task),), generator=generator)
        return self.pool.select(task * self.trials_per_task + row)


def _restore(settings: dict[str, Any], trials_per_task: int, pool: TrialBatch) -> TrialBank:
    from ._factory import task_set

    bank = TrialBank.__new__(TrialBank)
    bank.__dict__.update(vars(task_set(**settings)))
    bank.trials_per_task = trials_per_task
    bank.pool = pool
    return bank

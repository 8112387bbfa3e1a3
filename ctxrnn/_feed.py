"""Trials for training: drawn once for all networks that see the same, and a step ahead."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch

from ctxrnn._checks import make_generator
from ctxrnn._config import TaskSource
from ctxrnn._network import CTRNN
from ctxrnn._step import Prepared
from ctxrnn._trials import TrialBatch

_one_at_a_time = threading.Lock()
"""Task sources need not be safe to use from two threads at once."""


def check_dt(network: CTRNN, batch: TrialBatch) -> None:
    """Raise ValueError unless a network and its trials have the same time step."""
    if not math.isclose(network.dt, batch.dt, rel_tol=1e-9):
        raise ValueError(
            f"network and tasks must have the same dt: got {network.dt:g} ms and {batch.dt:g} ms"
        )


class Feed:
    """The trials of one seed.

    Those of a step depend on the seed and the number of the step alone, so that networks trained
    with the same seed see the same trials, together or apart.

    Args:
        tasks: Where training trials come from.
        evaluation_tasks: Where those of evaluations come from.
        seed: Seed.
        trials: Trials of a step.
        evaluation_trials: Trials of an evaluation.
        steps: Number of steps.
        device: Device of the networks.
        dtype: Their type.
        ahead: Draws the trials of the next step in the background, or None.
    """

    def __init__(
        self,
        tasks: TaskSource,
        evaluation_tasks: TaskSource,
        seed: int,
        *,
        trials: int,
        evaluation_trials: int,
        steps: int,
        device: torch.device,
        dtype: torch.dtype,
        ahead: ThreadPoolExecutor | None,
    ) -> None:
        self.tasks, self.evaluation_tasks, self.seed = tasks, evaluation_tasks, seed
        self.trials, self.evaluation_trials, self.steps = trials, evaluation_trials, steps
        self.device, self.dtype, self.ahead = device, dtype, ahead
        self._now: tuple[int, Prepared] | None = None
        self._next: tuple[int, Future[Prepared]] | None = None
        self._evaluation: tuple[int, TrialBatch] | None = None

    def training(self, step: int) -> Prepared:
        """Return the trials of a step, counted from 0."""
        if self._now is not None and self._now[0] == step:
            return self._now[1]
        if self._next is not None and self._next[0] == step:
            prepared = self._next[1].result()
        else:
            prepared = self._draw(step)
        self._now, self._next = (step, prepared), None
        if self.ahead is not None and step + 1 < self.steps:
            self._next = (step + 1, self.ahead.submit(self._draw, step + 1))
        return prepared

    def settle(self) -> None:
        """Wait until nothing is drawn in the background, so that others may use the tasks."""
        if self._next is not None:
            wait([self._next[1]])

    def _draw(self, step: int) -> Prepared:
        with _one_at_a_time:
            generator = make_generator(self.seed, "trials", step)
            batch = self.tasks.sample(self.trials, generator=generator)
        return Prepared(batch, device=self.device, dtype=self.dtype)

    def evaluation(self, step: int) -> TrialBatch:
        """Return fresh trials for the evaluation after a step."""
        if self._evaluation is None or self._evaluation[0] != step:
            with _one_at_a_time:
                generator = make_generator(self.seed, "evaluation", step)
                batch = self.evaluation_tasks.sample(self.evaluation_trials, generator=generator)
            self._evaluation = (step, batch)
        return self._evaluation[1]

"""Trials of a task set run in contexts of one's own, and judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ctxrnn import CTRNN, Contexts, TrialBatch, make_generator
from ctxrnn._checks import check_count, check_integer, check_not_negative, check_number
from ctxrnn._feed import check_dt
from ctxrnn._integrate import integrate

if TYPE_CHECKING:
    import pandas as pd

Numbers = float | Sequence[float] | np.ndarray

NUMBERS = 2**24
"""Most numbers of one array that a run makes for its contexts; longer runs are parted."""


class Tasks(Protocol):
    """What is asked of a task set."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks."""

    @property
    def chance(self) -> Mapping[str, float]:
        """Accuracy without knowing the task."""

    @property
    def ceiling(self) -> Mapping[str, float]:
        """Best possible accuracy."""

    def sample(self, trials: int, *, generator: torch.Generator) -> TrialBatch:
        """Draw a balanced batch."""

    def correct(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        """Judge each trial."""


def pathways_of(network: CTRNN) -> set[str]:
    """Return which of "excitability" and "synaptic" a network has."""
    return {pathway.pathway for pathway in network.modulation}


def need_pathways(network: CTRNN, *wanted: str) -> None:
    """Raise ValueError unless a network has these pathways."""
    found = pathways_of(network)
    for pathway in wanted:
        if pathway not in found:
            raise ValueError(
                f"network must have the {' and the '.join(wanted)} pathway: {network.variant!r} "
                f"has {' and '.join(sorted(found)) or 'neither'}; take e.g. 'es-add-sym'"
            )


@dataclass(frozen=True)
class Trials:
    """The same trials with the same recurrent noise, in one set of contexts after another.

    Attributes:
        network: The network; it is not changed.
        tasks: Task set.
        batch: The trials, (trial, ...).
        seed: Seed of the noise.
        parts: Trials that run at once.
    """

    network: CTRNN
    tasks: Tasks
    batch: TrialBatch
    seed: int
    parts: tuple[slice, ...]

    @classmethod
    def draw(
        cls, network: CTRNN, tasks: Tasks, trials: int, seed: int, *, varying: bool = True
    ) -> Trials:
        """Draw trials and check that they fit the network.

        Args:
            network: The network.
            tasks: Task set, K >= 2.
            trials: Trials per task.
            seed: Seed of trials and noise.
            varying: Whether there will be contexts that vary in time.

        Raises:
            ValueError: For fewer than two tasks, or tasks that do not fit the network.
        """
        count = len(tasks.names)
        if count < 2:
            raise ValueError(f"another task's context needs at least two tasks: got {count}")
        check_count("trials", trials)
        check_integer("seed", seed)
        if network.contexts not in (None, count):
            raise ValueError(
                f"network must have as many contexts as there are tasks: got {network.contexts} "
                f"contexts and {count} tasks"
            )
        batch = tasks.sample(trials * count, generator=make_generator(seed, "trials"))
        check_dt(network, batch)
        # A context that varies in time makes up to K factors of N numbers per trial and step.
        size = max(1, NUMBERS // (count * network.units * batch.inputs.shape[1]))
        size = size if varying else len(batch)
        bounds = range(0, len(batch), size)
        parts = tuple(slice(first, min(first + size, len(batch))) for first in bounds)
        return cls(network, tasks, batch.to(device=network.device), seed, parts)

    @cached_property
    def clean(self) -> Tensor:
        """e_k of each trial, (trial, context), of the network's type."""
        return self.of(self.batch.task)

    def of(self, task: Tensor) -> Tensor:
        """Return the one-hot contexts of tasks by their index, (trial, context)."""
        eye = torch.eye(len(self.tasks.names), dtype=self.network.dtype, device=task.device)
        return eye[task]

    def correct(self, contexts: Callable[[slice], Contexts]) -> np.ndarray:
        """Run all trials and judge them, (trial,) bool.

        Args:
            contexts: From a part of the trials to what the pathways see, filtered already: (trial,
                context) or (trial, time, context). Filters of the network's own stay out of it.
        """
        found = []
        for part in self.parts:
            inputs = self.batch.inputs[part].to(self.network.dtype)
            with torch.no_grad():
                noise = make_generator(self.seed, "noise", part.start)
                run = self.network.prepare_run(
                    contexts(part), *inputs.shape[:2], generator=noise, checked=True
                )
                found.append(integrate(self.network, inputs, *run).outputs.cpu())
        return self.tasks.correct(torch.cat(found), self.batch.to(device="cpu")).cpu().numpy()

    def accuracy(self, correct: np.ndarray) -> list[float]:
        """Return the fraction of correct trials of each task."""
        task = self.batch.task.cpu().numpy()
        return [float(correct[task == k].mean()) for k in range(len(self.tasks.names))]

    def normalised(self, accuracy: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return (p - chance) / (ceiling - chance) of each task; NaN where those are equal."""
        chance, ceiling = (
            np.array([levels[name] for name in self.tasks.names])
            for levels in (self.tasks.chance, self.tasks.ceiling)
        )
        span = np.where(ceiling == chance, np.nan, ceiling - chance)
        return (np.asarray(accuracy) - chance) / span


def mean_over_tasks(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Average over the other tasks, then over tasks."""
    by_task = table.groupby([*by, "task"], as_index=False)[list(columns)].mean()
    return by_task.groupby(list(by), as_index=False)[list(columns)].mean()


def shifts_of(count: int, others: int | None, seed: int) -> Iterator[int]:
    """Return by how many places the other task j lies behind k: all, or some drawn at random.

    So every task serves as the other task equally often.

    Args:
        count: K.
        others: How many other tasks for each; None for all.
        seed: Seed of the draw.
    """
    if others is None:
        return iter(range(1, count))
    check_count("others", others)
    if others > count - 1:
        raise ValueError(
            f"others must be at most {count - 1}, as there are {count} tasks: got {others}"
        )
    drawn = torch.randperm(count - 1, generator=make_generator(seed, "others"))
    return iter(sorted(int(shift) + 1 for shift in drawn[:others]))


def number_row(
    name: str, values: Numbers, *, negative: bool = False, unit: str = "ms"
) -> list[float]:
    """Check one number or a row of them; return them once each.

    Args:
        name: What they are, for errors.
        values: The numbers.
        negative: Whether they may be below zero.
        unit: Their unit, for errors.
    """
    many = isinstance(values, Iterable) and not isinstance(values, str)
    row = list(values) if many else [values]  # type: ignore[arg-type]
    if not row:
        raise ValueError(f"{name} must be at least one number: got none")
    numbers = [check_number(name, value) for value in row]
    for number in numbers:
        if not negative:
            check_not_negative(name, number, unit)
        elif not math.isfinite(number):
            raise ValueError(f"{name} must be finite: got {number} {unit}".rstrip())
    return list(dict.fromkeys(numbers))

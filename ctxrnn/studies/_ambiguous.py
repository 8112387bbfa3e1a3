"""Training under ambiguity: tasks whose contexts are mixed with those of other tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ctxrnn._checks import check_fraction, make_generator, unknown_name
from ctxrnn._config import TaskSource
from ctxrnn._trials import TrialBatch

_PASSED_ON = ("inputs", "outputs", "dt", "kind", "chance", "ceiling", "correct", "normalised")
"""What is the same with and without mixed contexts, where the tasks have it."""


class AmbiguousTasks:
    """Tasks whose trials come with mixed contexts (`mix2`), for training.

    In every batch the trials of task k see c = (1 - lambda_k) e_k + lambda_k e_j, with one other
    task j and one level lambda_k ~ U(levels) for each task, drawn anew for each batch. So a batch
    holds no more different contexts than a clean one, and a training step costs about the same.
    Stimuli, targets and the order of trials are those of the clean tasks for the same generator.

    Networks are judged on clean contexts: `train(network, AmbiguousTasks(tasks), ...,
    evaluation_tasks=tasks)`.

    Args:
        tasks: A task set or a bank of trials, K >= 2, with one-hot contexts.
        levels: Smallest and largest lambda, in [0, 1].
        pathway: Which pathway sees the mixture. Only "both": a batch holds one context per trial.

    Raises:
        ValueError: For fewer than two tasks, levels that are not a range within [0, 1], or a
            pathway other than "both".
    """

    def __init__(
        self,
        tasks: TaskSource,
        *,
        levels: tuple[float, float] = (0.0, 0.5),
        pathway: str = "both",
    ) -> None:
        if len(tasks.names) < 2:
            raise ValueError(f"a mixture needs at least two tasks: got {len(tasks.names)}")
        _check_pathway(pathway)
        self.tasks, self.pathway = tasks, pathway
        self.levels = _checked_levels(levels)

    def __repr__(self) -> str:
        low, high = self.levels
        return f"{type(self).__name__}({self.tasks!r}, levels=({low:g}, {high:g}))"

    def __getattr__(self, name: str) -> Any:
        if name in _PASSED_ON:
            return getattr(self.tasks, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the context."""
        return self.tasks.names

    def sample(self, trials: int, *, generator: torch.Generator | int) -> TrialBatch:
        """Draw a batch.

        Args:
            trials: Number of trials in all.
            generator: Source of randomness, or a seed. The trials take from it what they take
                without mixtures; one more number is then drawn for the mixtures.
        """
        batch = self.tasks.sample(trials, generator=generator)  # type: ignore[arg-type]
        mixtures = self.mixtures(make_generator(generator, "mixtures"))
        index = batch.task.to(mixtures.device)
        return dataclasses.replace(batch, context=mixtures[index].to(batch.context))

    def mixtures(self, generator: torch.Generator) -> Tensor:
        """Draw the context of each task, (task, context); row k is that of task k.

        Args:
            generator: Source of randomness.
        """
        count, (low, high) = len(self.names), self.levels
        level = low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)
        step = torch.randint(1, count, (count,), generator=generator)
        clean = torch.eye(count, dtype=torch.float64)
        other = clean[(torch.arange(count) + step) % count]
        return (1 - level[:, None]) * clean + level[:, None] * other

    def accuracy(self, outputs: Tensor, batch: TrialBatch) -> Mapping[str, float]:
        """Return the fraction of correct trials of each task in the batch."""
        return self.tasks.accuracy(outputs, batch)

    def relative(self, accuracy: Mapping[str, float]) -> Mapping[str, float]:
        """Return each accuracy divided by the ceiling of its task."""
        return self.tasks.relative(accuracy)

    def config(self) -> dict[str, Any]:
        """Return what describes the tasks and their mixtures; can be written as JSON.

        Raises:
            TypeError: If the tasks cannot be described.
        """
        describe = getattr(self.tasks, "config", None)
        if describe is None:
            raise TypeError(
                f"tasks must have a method config to be described: got {type(self.tasks).__name__}"
            )
        mixture = {"kind": "mix2", "levels": list(self.levels), "pathway": self.pathway}
        return {"tasks": describe(), "mixture": mixture}


def _check_pathway(pathway: str) -> None:
    if pathway in ("excitability", "synaptic"):
        raise ValueError(
            f"pathway must be 'both' in training, as a batch holds one context per trial, which "
            f"all pathways see: got {pathway!r}. To mix the context of one pathway alone at test, "
            "use ctxrnn.analysis.ambiguity_sweep"
        )
    if pathway != "both":
        raise unknown_name("pathway", pathway, ("both",))


def _checked_levels(levels: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = levels
    except (TypeError, ValueError):
        raise ValueError(
            f"levels must be the smallest and the largest level: got {levels!r}"
        ) from None
    check_fraction("the smallest level", low)
    check_fraction("the largest level", high)
    if low > high:
        raise ValueError(f"levels must run from the smallest to the largest: got {low} to {high}")
    return float(low), float(high)

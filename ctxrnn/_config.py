"""What training is told and what it tells: tasks, settings, history."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from ctxrnn._checks import (
    check_count,
    check_fraction,
    check_not_negative,
    check_positive,
    unknown_name,
)
from ctxrnn._network import CTRNN
from ctxrnn._trials import TrialBatch

if TYPE_CHECKING:
    import pandas as pd


class TaskSource(Protocol):
    """What `train` and `evaluate` need of a task set."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the context."""

    def sample(self, trials: int, *, generator: torch.Generator) -> TrialBatch:
        """Draw a balanced batch."""

    def accuracy(self, outputs: Tensor, batch: TrialBatch) -> Mapping[str, float]:
        """Return the fraction of correct trials of each task in the batch."""

    def relative(self, accuracy: Mapping[str, float]) -> Mapping[str, float]:
        """Return each accuracy divided by the ceiling of its task."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: Optimiser steps at most.
        batch: Trials per step, tasks mixed and balanced.
        learning_rate: Adam's rate.
        decay: The rate is multiplied by this for the last part of the steps.
        decay_after: Fraction of the steps after which that happens.
        clip: Largest global norm of the gradient; infinity for no clipping.
        rate_penalty: beta_r, times the mean squared rate.
        weight_penalty: beta_w, times the squared norm of W; not for variants that replace W.
        evaluate_every: Steps between evaluations on fresh trials.
        evaluation_trials: Trials of each evaluation, tasks balanced.
        target: Stop once the minimum over tasks of p / p_ceil reaches this; None never stops.
        patience: At that many evaluations in a row.
        keep: "best" keeps the weights with the highest mean of p / p_ceil at an evaluation, the
            later ones on ties; "last" keeps the last.

    Raises:
        ValueError: If a setting is out of range.

    Example:
        >>> from ctxrnn import TrainConfig
        >>> config = TrainConfig(steps=1000, learning_rate=1e-3)
        >>> config.rate(0), config.rate(700)  # a fifth for the last 30 % of the steps
        (0.001, 0.0002)
    """

    steps: int = 5000
    batch: int = 64
    learning_rate: float = 1e-3
    decay: float = 0.2
    decay_after: float = 0.7
    clip: float = 1.0
    rate_penalty: float = 0.0
    weight_penalty: float = 0.0
    evaluate_every: int = 250
    evaluation_trials: int = 512
    target: float | None = 0.97
    patience: int = 3
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "evaluation_trials", "patience"):
            check_count(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        check_fraction("decay", self.decay)
        check_fraction("decay_after", self.decay_after)
        if not (self.clip > 0):
            raise ValueError(f"clip must be positive (infinity for none): got {self.clip}")
        check_not_negative("rate_penalty", self.rate_penalty)
        check_not_negative("weight_penalty", self.weight_penalty)
        if self.target is not None:
            check_fraction("target", self.target)
        if self.keep not in ("best", "last"):
            raise unknown_name("keep", self.keep, ("best", "last"))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Rebuild from `to_dict`; unknown keys are refused."""
        known = {item.name for item in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise unknown_name("setting of TrainConfig", name, known)
        return cls(**values)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        late = step >= self.decay_after * self.steps
        return self.learning_rate * (self.decay if late else 1.0)


@dataclass
class TrainingHistory:
    """What happened in training.

    Attributes:
        rows: One per evaluation: step, loss (mean since the one before), gradient norm, seconds,
            of which waiting for trials (since the run was taken up), mean and minimum of
            p / p_ceil, and accuracy per task as "accuracy.NAME".
        stopped: Why training ended: "steps", "criterion", "diverged", or "" while it runs.
        message: The same in words, where there is more to say.
        kept_step: Step of the weights that the network was left with.

    Example: that of `train`.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    stopped: str = ""
    message: str = ""
    kept_step: int = 0

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows)


Callback = Callable[[CTRNN, dict[str, float]], None]
"""Called as `callback(network, row)` after each evaluation."""

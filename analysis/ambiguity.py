"""Robustness to an ambiguous context: mixtures of two contexts, area and half-way point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch

from ctxrnn import CTRNN, Contexts, TrialBatch, make_generator
from ctxrnn._checks import check_count, check_fraction, unknown_name

if TYPE_CHECKING:
    import pandas as pd

Pathway = Literal["both", "excitability", "synaptic"]


class _Tasks(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def chance(self) -> Mapping[str, float]: ...
    @property
    def ceiling(self) -> Mapping[str, float]: ...
    def sample(self, trials: int, *, generator: torch.Generator) -> TrialBatch: ...
    def correct(self, outputs: torch.Tensor, batch: TrialBatch) -> torch.Tensor: ...


def mixed_context(context: torch.Tensor, other: torch.Tensor, level: float) -> torch.Tensor:
    """Mix each trial's context with that of another task: (1 - lambda) e_k + lambda e_j (`mix2`).

    Args:
        context: e_k, (trial, context).
        other: Index j of the other task, (trial,) int64.
        level: lambda, in [0, 1].
    """
    check_fraction("level", level)
    foreign = torch.nn.functional.one_hot(other, context.shape[-1]).to(context)
    return (1 - level) * context + level * foreign


def ambiguity_sweep(
    network: CTRNN,
    tasks: _Tasks,
    *,
    levels: Sequence[float] | np.ndarray,
    trials: int,
    seed: int,
    pathway: Pathway = "both",
) -> pd.DataFrame:
    """Measure accuracy on each task while its context is mixed with that of every other task.

    The trials are the same at every level and for every other task; so is the noise.

    Args:
        network: The network.
        tasks: Task set, K >= 2.
        levels: Values of lambda in [0, 1].
        trials: Fresh trials per task.
        seed: Seed of trials and noise.
        pathway: Which pathway sees the mixture; the other one keeps the clean context.

    Returns:
        One row per (task k, other j, level): accuracy, and normalised accuracy
        (p - chance) / (ceiling - chance) of task k.

    Raises:
        ValueError: For fewer than two tasks, levels outside [0, 1], or an unknown pathway.
    """
    import pandas as pd

    count = len(tasks.names)
    if count < 2:
        raise ValueError(f"a mixture needs at least two tasks: got {count}")
    check_count("trials", trials)
    levels = np.atleast_1d(np.asarray(levels, dtype=float))
    if levels.ndim != 1 or levels.size == 0:
        raise ValueError(f"levels must be a row of at least one number: got shape {levels.shape}")
    if pathway not in ("both", "excitability", "synaptic"):
        raise unknown_name("pathway", pathway, ("both", "excitability", "synaptic"))
    batch = tasks.sample(trials * count, generator=make_generator(seed, "ambiguity trials"))
    rows = []
    for level in (float(value) for value in levels):
        for shift in range(1, count):
            other = (batch.task + shift) % count
            context = _contexts(batch.context, mixed_context(batch.context, other, level), pathway)
            with torch.no_grad():
                noise = make_generator(seed, "ambiguity noise")
                outputs = network(batch.inputs, context, generator=noise).outputs
            correct = tasks.correct(outputs.cpu(), batch).to(torch.float64)
            for index, name in enumerate(tasks.names):
                rows.append(
                    {
                        "task": name,
                        "other": tasks.names[(index + shift) % count],
                        "level": level,
                        "accuracy": float(correct[batch.task == index].mean()),
                    }
                )
    table = pd.DataFrame(rows)
    chance = table["task"].map(dict(tasks.chance))
    ceiling = table["task"].map(dict(tasks.ceiling))
    table["normalised"] = (table["accuracy"] - chance) / (ceiling - chance)
    return table


def _contexts(clean: torch.Tensor, mixed: torch.Tensor, pathway: Pathway) -> Contexts:
    if pathway == "both":
        return Contexts.of(mixed)
    if pathway == "excitability":
        return Contexts(mixed, clean)
    return Contexts(clean, mixed)


def ambiguity_curve(table: pd.DataFrame) -> pd.DataFrame:
    """Average a sweep over the other tasks, then over tasks: columns level, normalised, accuracy.

    Args:
        table: What `ambiguity_sweep` returned for one network.
    """
    by_task = table.groupby(["level", "task"], as_index=False)[["accuracy", "normalised"]].mean()
    return by_task.groupby("level", as_index=False)[["accuracy", "normalised"]].mean()


def _curve(
    levels: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray
) -> np.ndarray:
    x, y = np.asarray(levels, dtype=float), np.asarray(values, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or x.size < 2:
        raise ValueError(
            f"levels and values must be two equally long rows of at least 2: got {x.shape} "
            f"and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("levels and values must be finite")
    order = np.argsort(x)
    curve = np.stack([x[order], y[order]])
    if (np.diff(curve[0]) <= 0).any():
        raise ValueError("levels must differ from each other")
    return curve


def robustness_area(
    levels: Sequence[float] | np.ndarray,
    normalised: Sequence[float] | np.ndarray,
    *,
    upto: float = 0.5,
) -> float:
    """Area under a robustness curve: A = (1 / upto) int_0^upto p~(lambda) d lambda.

    Trapezoid rule between the levels given; p~ at `upto` is interpolated if it is not one.

    Args:
        levels: lambda, must include 0 and reach `upto`.
        normalised: p~ at each level.
        upto: Upper limit; 0.5 is where both contexts weigh the same.
    """
    x, y = _curve(levels, normalised)
    if x[0] != 0 or x[-1] < upto:
        raise ValueError(f"levels must run from 0 to at least {upto}: got {x[0]} to {x[-1]}")
    inside = x < upto
    grid = np.append(x[inside], upto)
    values = np.append(y[inside], np.interp(upto, x, y))
    return float(np.trapezoid(values, grid) / upto)


def lambda_50(
    levels: Sequence[float] | np.ndarray, normalised: Sequence[float] | np.ndarray
) -> float:
    """Level at which normalised accuracy first falls to half of its clean value.

    Linear interpolation between levels; NaN if it never does, or if the clean value is not above
    zero.

    Args:
        levels: lambda, must include 0.
        normalised: p~ at each level.
    """
    x, y = _curve(levels, normalised)
    if x[0] != 0:
        raise ValueError(f"levels must start at 0: got {x[0]}")
    half = y[0] / 2
    below = np.flatnonzero(y <= half)
    if y[0] <= 0 or below.size == 0:
        return float("nan")
    after = int(below[0])
    before = after - 1
    share = (y[before] - half) / (y[before] - y[after])
    return float(x[before] + share * (x[after] - x[before]))

"""From single trials to a padded batch: mask, periods and conditions."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ctxrnn import TrialBatch, pad_trials

from ._encoding import input_projection, vector_targets
from ._raw import RawTrial


def free_steps(start: np.ndarray, end: np.ndarray, *, dt: float, grace: float) -> np.ndarray:
    """Return how many steps of each response have no weight (see `loss_mask`)."""
    # The tolerance keeps 100 ms / 0.1 ms from becoming 1001 steps.
    return np.minimum(math.ceil(grace / dt - 1e-9), end - start - 1)


def loss_mask(
    response: np.ndarray, lengths: np.ndarray, steps: int, *, dt: float, grace: float
) -> np.ndarray:
    """Weight every step: 1 before the response, 0 in its first `grace` ms, 5 afterwards.

    A step belongs to the grace if it begins less than `grace` after the response does. Where
    that would take the whole response, the grace is cut so that the last step keeps its weight.

    Args:
        response: First step of the response and the one after its last, (trial, 2).
        lengths: Steps per trial, (trial,).
        steps: Steps of the padded batch.
        dt: Time step in ms.
        grace: Length of the grace in ms.

    Returns:
        Weights, (trial, time) float32; 0 in the padding.
    """
    start, end = response[:, :1], response[:, 1:]
    free = free_steps(start, end, dt=dt, grace=grace)
    step = np.arange(steps)
    mask = np.where(step < start, 1.0, np.where(step < start + free, 0.0, 5.0))
    return (mask * (step < lengths[:, None])).astype(np.float32)


def assemble(
    trials: Sequence[RawTrial],
    task: torch.Tensor,
    names: tuple[str, ...],
    *,
    dt: float,
    grace: float,
    ring: int | None = None,
) -> TrialBatch:
    """Pad trials into a batch.

    Args:
        trials: The trials.
        task: Index of each trial's task, (trial,) int64.
        names: All tasks of the set; the context is one-hot over them.
        dt: Time step in ms.
        grace: Start of the response without weight, in ms.
        ring: Size of the ring if the batch shall hold vectors instead, else None.
    """
    lengths = np.array([len(trial.inputs) for trial in trials])
    inputs = pad_trials([trial.inputs for trial in trials])
    truth = pad_trials([trial.truth for trial in trials])
    steps = inputs.shape[1]
    if ring is not None:
        inputs = inputs @ input_projection(ring)
        valid = np.arange(steps) < lengths[:, None]
        truth = vector_targets(truth, ring) * valid[..., None]
    periods = _periods(trials)
    mask = loss_mask(periods["response"], lengths, steps, dt=dt, grace=grace)
    return TrialBatch(
        inputs=torch.from_numpy(inputs),
        targets=torch.from_numpy(truth),
        mask=torch.from_numpy(mask),
        context=torch.nn.functional.one_hot(task, len(names)).to(torch.float32),
        task=task,
        lengths=torch.from_numpy(lengths),
        names=names,
        dt=dt,
        periods={name: torch.from_numpy(value) for name, value in periods.items()},
        conditions=_conditions(trials),
    )


def merge(parts: Sequence[tuple[np.ndarray, TrialBatch]]) -> TrialBatch:
    """Join batches of one task set into one.

    Args:
        parts: Batches, each with the positions of its trials in the whole.
    """
    if len(parts) == 1:
        return parts[0][1]
    trials = sum(len(batch) for _, batch in parts)
    steps = max(batch.inputs.shape[1] for _, batch in parts)
    first = parts[0][1]
    joined: dict[str, Any] = {}
    for key in ("inputs", "targets", "mask", "context", "task", "lengths"):
        like = getattr(first, key)
        long = key in ("inputs", "targets", "mask")
        shape = (trials, steps, *like.shape[2:]) if long else (trials, *like.shape[1:])
        joined[key] = like.new_zeros(shape)
        for rows, batch in parts:
            part = getattr(batch, key)
            where = (torch.from_numpy(rows), slice(part.shape[1])) if long else rows
            joined[key][where] = part
    periods = {name: torch.full((trials, 2), -1) for _, b in parts for name in b.periods}
    columns: dict[str, list[Any]] = {
        name: [None] * trials for _, batch in parts for name in batch.conditions
    }
    for rows, batch in parts:
        for name, value in batch.periods.items():
            periods[name][rows] = value
        for name, values in batch.conditions.items():
            for row, item in zip(rows, values, strict=True):
                columns[name][row] = item
    conditions = {name: _column(values) for name, values in columns.items()}
    return replace(first, **joined, periods=periods, conditions=conditions)


def _periods(trials: Sequence[RawTrial]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for trial in trials for name in trial.periods)
    absent = (-1, -1)
    return {
        name: np.array([trial.periods.get(name, absent) for trial in trials], dtype=np.int64)
        for name in names
    }


def _conditions(trials: Sequence[RawTrial]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for trial in trials for name in trial.conditions)
    return {name: _column([trial.conditions.get(name) for trial in trials]) for name in names}


def _column(values: list[Any]) -> np.ndarray:
    """Numbers become float64 with NaN where absent, anything else objects with None."""
    if all(value is None or isinstance(value, numbers.Real | np.bool_) for value in values):
        return np.array([np.nan if value is None else float(value) for value in values])
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column

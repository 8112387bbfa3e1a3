"""Trials as they come from a task, before they are padded into a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class RawTrial(NamedTuple):
    """One trial.

    Attributes:
        inputs: What the task shows, (time, input) float32.
        truth: Right action per step, (time,) int64, or (time, output) float32.
        periods: Name -> first step and the one after the last, for periods that have a step.
        conditions: What was drawn for the trial.
    """

    inputs: np.ndarray
    truth: np.ndarray
    periods: Mapping[str, tuple[int, int]]
    conditions: Mapping[str, Any]


def response_of(periods: Mapping[str, tuple[int, int]], truth: np.ndarray) -> tuple[int, int]:
    """Find the response of a trial: its first step and the one after its last.

    It is the period "decision" or, in tasks that have none, everything from the first step whose
    right action differs from fixation (class 0; for continuous actions, from the first step's).
    A trial in which that never happens responds in its last period.
    """
    steps = len(truth)
    if "decision" in periods:
        return periods["decision"]
    rest = 0 if truth.ndim == 1 else truth[0]
    active = truth != rest if truth.ndim == 1 else (truth != rest).any(-1)
    if active.any():
        return int(np.argmax(active)), steps
    starts = [start for start, _ in periods.values() if start < steps]
    return max(starts, default=0), steps


def copy_out(core: Any, conditions: dict[str, Any]) -> RawTrial:
    """Copy a trial out of an environment, whose arrays the next trial replaces."""
    truth = np.array(core.gt, dtype=np.float32 if core.gt.dtype.kind == "f" else np.int64)
    periods = {
        name: (int(start), int(core.end_ind[name]))
        for name, start in core.start_ind.items()
        if core.end_ind[name] > start
    }
    return RawTrial(
        inputs=np.array(core.ob, dtype=np.float32),
        truth=truth,
        periods={**periods, "response": response_of(periods, truth)},
        conditions=conditions,
    )

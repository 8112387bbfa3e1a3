"""When a trial counts as correct."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ctxrnn import TrialBatch

HALF_WINDOW = 0.2 * math.pi
"""Largest angle in radians between answer and target of a correct trial, exclusive."""

_LINE = 0.5


def check_outputs(outputs: Tensor, batch: TrialBatch, channels: int) -> None:
    """Raise ValueError unless the outputs fit the batch."""
    wanted = (*batch.inputs.shape[:2], channels)
    if tuple(outputs.shape) != wanted:
        raise ValueError(
            f"outputs must have shape {wanted} (trial, time, output) to match the batch: "
            f"got {tuple(outputs.shape)}"
        )


def _fixating(outputs: Tensor, kind: str) -> Tensor:
    if kind == "vector":
        return outputs[..., 0] > _LINE
    return outputs.argmax(-1) == 0


BAND = 0.1
"""Largest error of a correct continuous action, as a fraction of the action's range, exclusive."""


def correct(outputs: Tensor, batch: TrialBatch, kind: str, spans: Tensor | None = None) -> Tensor:
    """Judge each trial by its last step, (trial,) bool.

    For "class", the largest output must be that of the right class. For "vector", with outputs
    (f, s, c) and target (f', s', c'): if f' > 0.5 (withhold), f > 0.5; otherwise f < 0.5 and
    the angle between (s, c) and (s', c') is below 0.2 pi. An answer of length zero has no angle
    and is wrong. For "regression" (continuous actions, no criterion in the literature), every
    output must be within a tenth of its range of the target.

    Args:
        outputs: The network's outputs, (trial, time, output).
        batch: The trials.
        kind: Kind of the task set.
        spans: Ranges of continuous actions, (task, output).
    """
    last = batch.last(outputs)
    target = batch.last(batch.targets).to(last.device)
    if kind == "class":
        return last.argmax(-1) == target
    if spans is not None:
        allowed = BAND * spans.to(last)[batch.task.to(last.device)]
        return ((last - target).abs() < allowed).all(-1)
    sine, cosine = last[:, 1], last[:, 2]
    cross = sine * target[:, 2] - cosine * target[:, 1]
    dot = sine * target[:, 1] + cosine * target[:, 2]
    near = (torch.atan2(cross, dot).abs() < HALF_WINDOW) & ((sine != 0) | (cosine != 0))
    answered = (last[:, 0] < _LINE) & near
    return torch.where(target[:, 0] > _LINE, last[:, 0] > _LINE, answered)


def fixation_kept(outputs: Tensor, batch: TrialBatch, kind: str) -> Tensor:
    """Tell whether the network fixates at every step before the response, (trial,) bool.

    True for "regression", where there is no fixation to break.
    """
    if kind == "regression":
        return torch.ones(len(batch), dtype=torch.bool, device=outputs.device)
    steps = torch.arange(outputs.shape[1], device=outputs.device)
    before = steps < batch.periods["response"][:, :1].to(outputs.device)
    return (_fixating(outputs, kind) | ~before).all(-1)

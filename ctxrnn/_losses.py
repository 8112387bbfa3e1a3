"""Masked losses, averaged within each task first, then over tasks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ctxrnn._trials import TrialBatch


def _average_by_task(errors: Tensor, batch: TrialBatch) -> Tensor:
    """Return the mean over tasks of sum(mask * error) / sum(mask) within the task.

    Args:
        errors: (trial, time).
        batch: Its mask and task indices weigh them.
    """
    tasks = len(batch.names)
    weighted = (errors * batch.mask).sum(1)
    total = torch.zeros(tasks, dtype=errors.dtype, device=errors.device)
    total = total.index_add(0, batch.task, weighted)
    mask = torch.zeros_like(total).index_add(0, batch.task, batch.mask.sum(1).to(errors.dtype))
    present = mask > 0
    if not bool(present.any()):
        raise ValueError("mask must weigh at least one step: got zeros only")
    return (total[present] / mask[present]).mean()


def cross_entropy(outputs: Tensor, batch: TrialBatch) -> Tensor:
    """Masked cross-entropy over discrete actions (loss A).

    Args:
        outputs: Logits, (trial, time, action).
        batch: Targets are classes, (trial, time) int64.

    Returns:
        The loss, a scalar in nats.
    """
    _check(outputs, batch, classes=True)
    logits, classes = outputs.flatten(0, 1), batch.targets.flatten()
    errors = functional.cross_entropy(logits, classes, reduction="none")
    return _average_by_task(errors.view(batch.targets.shape), batch)


def squared_error(outputs: Tensor, batch: TrialBatch) -> Tensor:
    """Masked mean squared error over continuous outputs (loss B).

    Args:
        outputs: (trial, time, output).
        batch: Targets are wanted outputs, (trial, time, output).

    Returns:
        The loss, a scalar: the mean over outputs of the squared difference.
    """
    _check(outputs, batch, classes=False)
    return _average_by_task((outputs - batch.targets).square().mean(-1), batch)


def task_loss(outputs: Tensor, batch: TrialBatch) -> Tensor:
    """Return `cross_entropy` where the targets are classes, `squared_error` where they are not."""
    if batch.targets.is_floating_point():
        return squared_error(outputs, batch)
    return cross_entropy(outputs, batch)


def _check(outputs: Tensor, batch: TrialBatch, *, classes: bool) -> None:
    fits = batch.targets.dtype == torch.int64 if classes else batch.targets.is_floating_point()
    if not fits:
        kind = "classes (int64)" if classes else "floating point"
        raise TypeError(f"targets must be {kind} for this loss: got {batch.targets.dtype}")
    want = tuple(batch.targets.shape)
    got = tuple(outputs.shape[:2] if classes else outputs.shape)
    if outputs.ndim != 3 or got != want:
        raise ValueError(f"outputs must match targets {want}: got shape {tuple(outputs.shape)}")

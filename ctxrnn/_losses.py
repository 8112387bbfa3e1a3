"""Masked losses, averaged within each task first, then over tasks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ctxrnn._trials import TrialBatch


def step_weights(batch: TrialBatch) -> Tensor:
    """Return how much each step of each trial counts in the loss, (trial, time).

    mask / (sum of the mask within the task * number of tasks with any weight): with them, the sum
    of weighted errors is the mean within each task, averaged over tasks.

    Raises:
        ValueError: If nothing has any weight.
    """
    mask = batch.mask if batch.mask.is_floating_point() else batch.mask.float()
    total = mask.new_zeros(len(batch.names)).index_add(0, batch.task, mask.sum(1))
    present = (total > 0).sum()
    if not bool(present):
        raise ValueError("mask must weigh at least one step: got zeros only")
    share = torch.where(total > 0, 1 / (total * present), torch.zeros_like(total))
    return mask * share[batch.task].unsqueeze(-1)


def _average_by_task(errors: Tensor, batch: TrialBatch) -> Tensor:
    """Return the mean over tasks of sum(mask * error) / sum(mask) within the task.

    Args:
        errors: (trial, time).
        batch: Its mask and task indices weigh them.
    """
    return (errors * step_weights(batch).to(errors.dtype)).sum()


def cross_entropy(outputs: Tensor, batch: TrialBatch) -> Tensor:
    """Masked cross-entropy over discrete actions (loss A).

    Args:
        outputs: Logits, (trial, time, action).
        batch: Targets are classes, (trial, time) int64.

    Returns:
        The loss, a scalar in nats.

    Raises:
        TypeError: If the targets are not classes.
        ValueError: If shapes do not fit, or the mask is zero everywhere.

    Example:
        >>> import torch
        >>> from ctxrnn import cross_entropy
        >>> from ctxrnn.tasks import task_set
        >>> batch = task_set("go", ring=8).sample(4, generator=0)  # fixate, or one of 8 directions
        >>> undecided = torch.zeros(*batch.targets.shape, 9)
        >>> round(cross_entropy(undecided, batch).item(), 3)  # log 9
        2.197
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

    Raises:
        TypeError: If the targets are classes.
        ValueError: If shapes do not fit, or the mask is zero everywhere.

    Example:
        >>> from ctxrnn import squared_error
        >>> from ctxrnn.tasks import task_set
        >>> batch = task_set("go", encoding="vector").sample(4, generator=0)
        >>> batch.targets.shape[-1]  # fixation, sine, cosine
        3
        >>> round(squared_error(batch.targets + 0.5, batch).item(), 3)
        0.25
    """
    _check(outputs, batch, classes=False)
    return _average_by_task((outputs - batch.targets).square().mean(-1), batch)


def task_loss(outputs: Tensor, batch: TrialBatch) -> Tensor:
    """Return `cross_entropy` where the targets are classes, `squared_error` where they are not.

    Args:
        outputs: (trial, time, output).
        batch: Its targets say which loss it is.

    Example:
        >>> from ctxrnn import squared_error, task_loss
        >>> from ctxrnn.tasks import task_set
        >>> batch = task_set("go", encoding="vector").sample(4, generator=0)
        >>> outputs = batch.targets + 0.5
        >>> task_loss(outputs, batch) == squared_error(outputs, batch)
        tensor(True)
    """
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

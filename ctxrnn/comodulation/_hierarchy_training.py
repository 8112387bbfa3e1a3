"""Training of hierarchical networks, many at once: each as if it were trained alone.

Networks of a stack meet batches of the same size and number, and are otherwise independent. Every
epoch goes through the same batches in the same order; the copy with the lowest validation loss is
kept, the one before training included. A network that has not improved for `patience` epochs
leaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ctxrnn._checks import check_count, check_fraction

from ._local import adam_step


def split_batches(
    samples: int, count: int, batch: int, fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose samples, put them into batches, and split these.

    The first ceil(fraction x batches) batches train, the others validate; samples that fill no
    batch are left out.

    Args:
        samples: Number of samples to choose from, without replacement.
        count: Number of samples chosen.
        batch: Size of a batch.
        fraction: Share of the batches that train.
        generator: Which samples, in which batch.

    Returns:
        Rows to train on, (batch, sample), and to validate with, (sample,).

    Raises:
        ValueError: If there are too few samples, or no batch is left to train or to validate.
    """
    check_count("batch", batch)
    check_fraction("fraction", fraction)
    if count > samples:
        raise ValueError(f"count must not exceed the {samples} samples there are: got {count}")
    batches = count // batch
    train = math.ceil(round(fraction * batches, 9))
    if not 0 < train < batches:
        raise ValueError(
            f"{count} samples in batches of {batch} must leave batches to train and to validate: "
            f"got {train} and {batches - train} with fraction={fraction:g}"
        )
    rows = torch.randperm(samples, generator=generator)[: batches * batch].view(batches, batch)
    return rows[:train], rows[train:].flatten()


@dataclass(frozen=True)
class Examples:
    """What the networks of a stack are trained on; one set for each task.

    Attributes:
        train: (task, batch, image, ...): drives, or activity of the last hidden layer.
        train_labels: (task, batch, image).
        validation: (task, image, ...).
        validation_labels: (task, image).
    """

    train: Tensor
    train_labels: Tensor
    validation: Tensor
    validation_labels: Tensor


def examples_of(
    inputs: Sequence[Tensor], labels: Sequence[Tensor], splits: Sequence[tuple[Tensor, Tensor]]
) -> Examples:
    """Gather the rows of each task's split from its inputs (image, ...) and labels (image,)."""
    tasks = list(zip(inputs, labels, splits, strict=True))
    return Examples(
        torch.stack([x[train] for x, _, (train, _) in tasks]),
        torch.stack([y[train] for _, y, (train, _) in tasks]),
        torch.stack([x[held] for x, _, (_, held) in tasks]),
        torch.stack([y[held] for _, y, (_, held) in tasks]),
    )


class Adam:
    """Adam (Kingma and Ba 2015) on stacked parameters (network, ...) that start together."""

    def __init__(self, values: Tensor, rate: float) -> None:
        self.values, self.rate, self.count = values.contiguous(), rate, 0
        self.mean, self.square = torch.zeros_like(values), torch.zeros_like(values)

    def step(self, gradient: Tensor) -> None:
        """Take one step along a gradient of the shape of the parameters."""
        self.count += 1
        state = (self.values, self.mean, self.square)
        adam_step(*state, gradient.contiguous(), self.count, self.rate)

    def keep(self, rows: Tensor) -> None:
        """Go on with some networks only."""
        self.values, self.mean, self.square = (
            part[rows] for part in (self.values, self.mean, self.square)
        )


class Stack(Protocol):
    """Networks that are trained together."""

    def __len__(self) -> int: ...

    def epoch(self) -> None:
        """Go through all batches once."""

    def validation(self) -> Tensor:
        """Return the validation loss of each network."""

    def state(self) -> tuple[Tensor, ...]:
        """Return what training changes, each with the network first."""

    def keep(self, rows: Tensor) -> None:
        """Go on with some networks only."""


@dataclass(frozen=True)
class Fitted:
    """The copies with the lowest validation loss.

    Attributes:
        state: As `Stack.state` of the chosen copies.
        loss: Their validation loss, (network,).
        epoch: The epochs after which they were taken, 0 for the one before training, (network,).
        wait: Most epochs without improvement before the chosen one, (network,): any patience above
            it chooses the same copy.
        ran: Epochs that were run, (network,).
    """

    state: tuple[Tensor, ...]
    loss: Tensor
    epoch: Tensor
    wait: Tensor
    ran: Tensor


def fit(
    stack: Stack,
    epochs: int,
    patience: int | None = None,
    report: Callable[[float], None] | None = None,
) -> Fitted:
    """Train a stack and return the copies with the lowest validation loss; of equals the last.

    Args:
        stack: The networks.
        epochs: Most epochs.
        patience: Epochs without improvement after which a network is done; None for no such end.
        report: Told the share of the epochs that is done.
    """
    check_count("epochs", epochs)
    if patience is not None:
        check_count("patience", patience)
    here = torch.arange(len(stack))
    loss = stack.validation().clone()
    state = tuple(part.clone() for part in stack.state())
    chosen, wait, ran = (torch.zeros(len(stack), dtype=torch.long) for _ in range(3))
    for epoch in range(1, epochs + 1):
        stack.epoch()
        found = stack.validation()
        ran[here] = epoch
        better = found <= loss[here]
        place = here[better]
        wait[place] = torch.maximum(wait[place], epoch - chosen[place])
        loss[place], chosen[place] = found[better], epoch
        for kept, now in zip(state, stack.state(), strict=True):
            kept[place] = now[better]
        if report is not None:
            report(epoch / epochs)
        if patience is None:
            continue
        going = epoch - chosen[here] < patience
        if not going.any():
            break
        if not going.all():
            stack.keep(going.nonzero()[:, 0])
            here = here[going]
    return Fitted(state, loss, chosen, wait, ran)

"""Stacks of hierarchical networks whose weights are trained: of all layers, or of the output."""

from __future__ import annotations

import torch
from torch import Tensor

from ._hierarchy import (
    HierarchyConfig,
    Weights,
    hidden,
    hidden_gradient,
    log_probabilities,
    logit_gradient,
    loss_of,
    readout,
    unpack,
)
from ._hierarchy_training import Adam, Examples
from ._local import local_weight_gradient


class OutputStack:
    """Networks whose output layer is trained on fixed activity, (task, ..., unit).

    Args:
        out: Weights and biases of the output layer, (network, class, unit) and (network, class).
        examples: Activity of the last hidden layer.
        tasks: Task of each network.
        rate: Learning rate.
    """

    def __init__(
        self, out: tuple[Tensor, Tensor], examples: Examples, tasks: Tensor, rate: float
    ) -> None:
        self.examples, self.tasks = examples, tasks
        flat = torch.cat([part.flatten(1) for part in out], dim=1).contiguous()
        self.classes = out[1].shape[1]
        self.optimiser = Adam(flat, rate)

    def __len__(self) -> int:
        return len(self.tasks)

    def _log_p(self, activity: Tensor) -> Tensor:
        out, bias = self._parts(self.optimiser.values)
        return torch.log_softmax(activity @ out.mT + bias[:, None], dim=2)

    def _parts(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        bias = flat[:, -self.classes :]
        return flat[:, : -self.classes].view(len(flat), self.classes, -1), bias

    def epoch(self) -> None:
        """Go through all batches once."""
        gradient = torch.empty_like(self.optimiser.values)
        d_out, d_bias = self._parts(gradient)
        for batch in range(self.examples.train.shape[1]):
            activity = self.examples.train[self.tasks, batch]
            d = logit_gradient(self._log_p(activity), self.examples.train_labels[self.tasks, batch])
            torch.bmm(d.mT, activity, out=d_out)
            torch.sum(d, dim=1, out=d_bias)
            self.optimiser.step(gradient)

    def validation(self) -> Tensor:
        """Return the validation loss of each network."""
        log_p = self._log_p(self.examples.validation[self.tasks])
        return loss_of(log_p, self.examples.validation_labels[self.tasks])

    def state(self) -> tuple[Tensor, ...]:
        """Return weights and biases of the output layer."""
        return self._parts(self.optimiser.values)

    def keep(self, rows: Tensor) -> None:
        """Go on with some networks only."""
        self.optimiser.keep(rows)
        self.tasks = self.tasks[rows]


class WeightStack:
    """Networks whose hidden and output weights are trained, at m = 0 and g = 1.

    Args:
        flat: Parameters of each network, (network, number); see `unpack`.
        config: Sizes.
        examples: Drives.
        tasks: Task of each network.
        rate: Learning rate.
    """

    def __init__(
        self,
        flat: Tensor,
        config: HierarchyConfig,
        examples: Examples,
        tasks: Tensor,
        rate: float,
    ) -> None:
        self.config, self.examples, self.tasks = config, examples, tasks
        self.optimiser = Adam(flat.clone(), rate)

    def __len__(self) -> int:
        return len(self.tasks)

    def epoch(self) -> None:
        """Go through all batches once."""
        weights = unpack(self.optimiser.values, self.config)
        gradient = torch.empty_like(self.optimiser.values)
        into = unpack(gradient, self.config)
        for batch in range(self.examples.train.shape[1]):
            drive = self.examples.train[self.tasks, batch]
            labels = self.examples.train_labels[self.tasks, batch]
            weight_gradient(weights, drive, labels, into)
            self.optimiser.step(gradient)

    def validation(self) -> Tensor:
        """Return the validation loss of each network."""
        weights = unpack(self.optimiser.values, self.config)
        found = []
        for place, task in enumerate(self.tasks.tolist()):
            own = Weights(*(part[place, None] for part in weights))
            log_p = log_probabilities(own, self.examples.validation[task])[None]
            found.append(loss_of(log_p, self.examples.validation_labels[task, None]))
        return torch.cat(found)

    def state(self) -> tuple[Tensor, ...]:
        """Return the parameters."""
        return (self.optimiser.values,)

    def keep(self, rows: Tensor) -> None:
        """Go on with some networks only."""
        self.optimiser.keep(rows)
        self.tasks = self.tasks[rows]


def weight_gradient(weights: Weights, drive: Tensor, labels: Tensor, into: Weights) -> None:
    """Write the gradient of the mean loss at m = 0, g = 1 with respect to all weights.

    Args:
        weights: Each network its own.
        drive: (network, image, row, column, orientation).
        labels: (network, image).
        into: Where the gradient goes.
    """
    activity = hidden(weights, drive)
    flat = activity.h2.flatten(2)
    d = logit_gradient(readout(weights, activity.h2), labels)
    torch.bmm(d.mT, flat, out=into.out)
    torch.sum(d, dim=1, out=into.bias)
    da2, da1 = hidden_gradient(weights, activity, (d @ weights.out).view_as(activity.h2))
    into.w2.copy_(local_weight_gradient(da2, activity.h1))
    into.w1.copy_(local_weight_gradient(da1, drive[:, :, None]))
    torch.sum(da2, dim=1, out=into.b2)
    torch.sum(da1, dim=1, out=into.b1)

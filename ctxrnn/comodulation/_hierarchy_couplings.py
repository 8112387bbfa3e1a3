"""Stacks of hierarchical networks whose couplings are trained, with and without a noise pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrnn._checks import check_count, check_positive, unknown_name

from . import _passes
from ._hierarchy import (
    HierarchyConfig,
    Smoothing,
    Weights,
    hidden,
    hidden_gradient,
    log_probabilities,
    logit_gradient,
    loss_of,
    readout,
)
from ._hierarchy_noise import (
    ARMS,
    BlankCovariance,
    covariance_weights,
    genuine_covariance,
    updated_gain,
)
from ._hierarchy_training import Adam, Examples
from ._local import local_gradient


@dataclass(frozen=True)
class NoisePass:
    """How the decoder gain is measured.

    Attributes:
        sigma: Standard deviation of m, drawn around 0.
        draws: T.
        nodes: Nodes of the Gauss rule of the draws; None takes every draw.
    """

    sigma: float = 0.1
    draws: int = 500
    nodes: int | None = 4

    def __post_init__(self) -> None:
        check_positive("sigma", self.sigma)
        check_count("draws", self.draws, 2)
        if self.nodes is not None and not 2 <= self.nodes <= self.draws:
            raise ValueError(
                f"nodes must be in [2, draws={self.draws}], or None for every draw: got "
                f"{self.nodes}"
            )


@dataclass(frozen=True)
class Member:
    """A network of a `CouplingStack`.

    Attributes:
        task: Number of its task.
        arm: What its noise pass shows (see `ARMS`); None for a deterministic gain, g = 1.
    """

    task: int
    arm: str | None = None

    def __post_init__(self) -> None:
        if self.arm is not None and self.arm not in ARMS:
            raise unknown_name("arm", self.arm, ARMS)


class CouplingStack:
    """Networks with the same weights whose couplings theta are trained, at m = 1.

    After every minibatch a noise pass around m = 0 measures g, without gradient.

    Args:
        weights: Shared weights, first axis of length 1.
        config: Sizes.
        examples: Drives.
        members: The networks.
        rate: Learning rate.
        noise: How g is measured.
        generators: Random numbers of each task: the draws of m, shared by its members.
        orders: Exchanged places of the units for "permuted", (task, unit).
    """

    def __init__(
        self,
        weights: Weights,
        config: HierarchyConfig,
        examples: Examples,
        members: Sequence[Member],
        rate: float,
        noise: NoisePass,
        generators: Sequence[torch.Generator],
        orders: Tensor,
    ) -> None:
        self.weights, self.config, self.examples = weights, config, examples
        self.members, self.noise, self.generators = tuple(members), noise, tuple(generators)
        self.orders, self.tau = orders, 1
        self.tasks = torch.tensor([member.task for member in members])
        dtype = examples.train.dtype
        self.smoothing = Smoothing(config, dtype)
        self.optimiser = Adam(torch.ones(len(members), *config.shape, dtype=dtype), rate)
        self.gain = torch.ones(len(members), config.sizes[2], dtype=dtype)
        self._blank = BlankCovariance(weights, noise.draws)

    def __len__(self) -> int:
        return len(self.members)

    def _spans(self) -> list[tuple[str, slice]]:
        """Return the places of neighbours with the same arm, for arms with a noise pass."""
        found: list[tuple[str, slice]] = []
        first = 0
        for last in range(1, len(self.members) + 1):
            arm = self.members[first].arm
            if last < len(self.members) and self.members[last].arm == arm:
                continue
            if arm is not None:
                found.append((arm, slice(first, last)))
            first = last
        return found

    def epoch(self) -> None:
        """Go through all batches once."""
        batches = self.examples.train.shape[1]
        draws = torch.stack(
            [
                self.noise.sigma
                * torch.randn(batches, self.noise.draws, generator=own, dtype=torch.float64)
                for own in self.generators
            ]
        )
        values, factors = covariance_weights(draws.flatten(0, 1), self.noise.nodes)
        values, factors = (part.view(len(draws), batches, -1) for part in (values, factors))
        for batch in range(batches):
            drive = self.examples.train[self.tasks, batch]
            self.descend(drive, self.examples.train_labels[self.tasks, batch])
            if any(member.arm for member in self.members):
                self.measure(drive, draws[:, batch], values[:, batch], factors[:, batch])

    def descend(self, drive: Tensor, labels: Tensor) -> None:
        """Take one step of theta."""
        theta = self.optimiser.values
        self.optimiser.step(
            coupling_gradient(self.weights, self.smoothing, theta, self.gain, drive, labels)
        )

    def measure(self, drive: Tensor, draws: Tensor, values: Tensor, factors: Tensor) -> None:
        """Update g after a minibatch.

        Args:
            drive: The images of the minibatch, (network, image, row, column, orientation).
            draws: m of each task, (task, draw).
            values: Values of m at which h is computed, (task, node).
            factors: Their factors in q, (task, node).
        """
        c = self.smoothing.couplings(self.optimiser.values)
        later = self.tau
        for arm, span in self._spans():
            tasks = self.tasks[span]
            if arm in ("images", "blank-exp"):
                shown = drive[span] if arm == "images" else torch.ones_like(drive[span, :1])
                q = genuine_covariance(
                    self.weights, shown, c[span], values[tasks], factors[tasks], self.noise.sigma**2
                )
            else:
                q = self._blank(draws[tasks])
                if arm == "permuted":
                    q = q.gather(1, self.orders[tasks])
            self.gain[span], later = updated_gain(self.gain[span], q, self.tau)
        self.tau = later

    def validation(self) -> Tensor:
        """Return the validation loss of each network."""
        drives = self.examples.validation
        log_p = self.log_probabilities(self.optimiser.values, self.gain, drives, self.members)
        return loss_of(log_p, self.examples.validation_labels[self.tasks])

    def log_probabilities(
        self, theta: Tensor, gain: Tensor, drives: Tensor, members: Sequence[Member]
    ) -> Tensor:
        """Return log probabilities at m = 1, (network, image, class).

        Args:
            theta: (network, ...).
            gain: (network, unit).
            drives: (task, image, row, column, orientation).
            members: The networks that theta and g belong to.
        """
        factor = self.smoothing.couplings(theta).exp()
        return torch.stack(
            [
                log_probabilities(self.weights, drives[member.task], gain[row], factor[row])
                for row, member in enumerate(members)
            ]
        )

    def state(self) -> tuple[Tensor, ...]:
        """Return theta and g."""
        return self.optimiser.values, self.gain

    def keep(self, rows: Tensor) -> None:
        """Go on with some networks only."""
        self.optimiser.keep(rows)
        self.gain, self.tasks = self.gain[rows], self.tasks[rows]
        self.members = tuple(self.members[row] for row in rows.tolist())


def coupling_gradient(
    weights: Weights,
    smoothing: Smoothing,
    theta: Tensor,
    gain: Tensor,
    drive: Tensor,
    labels: Tensor,
) -> Tensor:
    """Return the gradient of the mean loss at m = 1, Var(m) = 0 with respect to theta.

    Args:
        weights: Shared, first axis of length 1.
        smoothing: F.
        theta: (network, row, column, orientation).
        gain: g, (network, unit); no gradient passes through it.
        drive: (network, image, row, column, orientation).
        labels: (network, image).
    """
    factor = smoothing.couplings(theta).exp()
    found = _passes.descend(weights, drive, labels, factor, gain)
    if found is not None:
        return smoothing.gradient(theta, found)
    activity = hidden(weights, drive * factor[:, None])
    d = logit_gradient(readout(weights, activity.h2, gain), labels)
    dh2 = (d.flatten(0, 1) @ weights.out[0]).view(*d.shape[:2], -1) * gain[:, None]
    _, da1 = hidden_gradient(weights, activity, dh2.view_as(activity.h2))
    back = local_gradient(da1, weights.w1)[:, :, 0]
    return smoothing.gradient(theta, (back * activity.modulated).sum(1))

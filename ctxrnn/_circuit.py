"""The effective parameters of a network in one context, and how its weights act on rates.

Synaptic factors stay factored: no N x N matrix is formed for each trial. `dense` forms one for
each of a few contexts, which many trials share, and for the Jacobian at single states.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor


class Recurrence(ABC):
    """A linear map on rates, (..., trial, unit) -> (..., trial, unit), that may differ by trial.

    A new one is a frozen dataclass of tensors and of other recurrences.

    Attributes:
        by_trial: Names of the tensors whose axis before the last is the trial.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> network = CTRNN(inputs=3, units=16, outputs=2, modulation="s-sym", contexts=4)
        >>> recurrent = network.circuit(torch.eye(4)).recurrent  # four trials, a context each
        >>> rates = torch.rand(4, 16)
        >>> by_matrix = torch.einsum("tij,tj->ti", recurrent.dense(), rates)
        >>> torch.allclose(recurrent(rates), by_matrix, atol=1e-5)  # but no matrix is formed
        True
    """

    by_trial: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __call__(self, rates: Tensor) -> Tensor:
        """Return the recurrent current that `rates` cause."""

    def onto(self, current: Tensor, rates: Tensor) -> Tensor:
        """Return `current` and the recurrent current together, (trial, unit)."""
        return current + self(rates)

    def pullback(self, gradient: Tensor) -> Tensor:
        """Return the transposed map of `gradient`, (..., trial, unit): from currents to rates.

        A recurrence that does not say it is differentiated by autograd, step by step.
        """
        raise NotImplementedError(f"{type(self).__name__} has no pullback")

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the map as a matrix, (unit, unit) or (trial, unit, unit), `[post, pre]`."""


@dataclass(frozen=True)
class Dense(Recurrence):
    """W r, with one W `[post, pre]` for all trials."""

    weight: Tensor

    def __call__(self, rates: Tensor) -> Tensor:
        return rates @ self.weight.mT

    def onto(self, current: Tensor, rates: Tensor) -> Tensor:
        if rates.ndim == 2 and current.shape == rates.shape:
            return torch.addmm(current, rates, self.weight.mT)
        return current + self(rates)

    def pullback(self, gradient: Tensor) -> Tensor:
        return gradient @ self.weight

    def dense(self) -> Tensor:
        return self.weight


@dataclass(frozen=True)
class Scaled(Recurrence):
    """(base * S) r with S = [1 +] sum_f post_f pre_f^T, as sum_f post_f * (base (pre_f * r)).

    Attributes:
        base: The map whose weights are scaled.
        post: Post-synaptic factors, (factor, trial, unit).
        pre: Pre-synaptic factors, (factor, trial, unit).
        keep_base: Whether the ones are part of S (base-preserving) or not (base-gated).
    """

    by_trial: ClassVar[tuple[str, ...]] = ("post", "pre")

    base: Recurrence
    post: Tensor
    pre: Tensor
    keep_base: bool

    def __call__(self, rates: Tensor) -> Tensor:
        scaled = self._scaled(rates)
        return self.base.onto(scaled, rates) if self.keep_base else scaled

    def onto(self, current: Tensor, rates: Tensor) -> Tensor:
        total = current + self._scaled(rates)
        return self.base.onto(total, rates) if self.keep_base else total

    def _scaled(self, rates: Tensor) -> Tensor:
        if self.post.shape[0] == 1:
            return self.post[0] * self.base(self.pre[0] * rates)
        return (self.post * self.base(self.pre * rates.unsqueeze(-3))).sum(-3)

    def pullback(self, gradient: Tensor) -> Tensor:
        if self.post.shape[0] == 1:
            total = self.pre[0] * self.base.pullback(self.post[0] * gradient)
        else:
            total = (self.pre * self.base.pullback(self.post * gradient.unsqueeze(-3))).sum(-3)
        return total + self.base.pullback(gradient) if self.keep_base else total

    def dense(self) -> Tensor:
        factor = torch.einsum("fti,ftj->tij", self.post, self.pre)
        return self.base.dense() * (factor + 1 if self.keep_base else factor)


@dataclass(frozen=True)
class WithLowRank(Recurrence):
    """(base + sum_f left_f right_f^T) r; `base` may be missing.

    Attributes:
        base: The map that the low-rank part is added to, or None.
        left: (factor, trial, unit) or (factor, 1, unit).
        right: (factor, trial, unit) or (factor, 1, unit).
    """

    by_trial: ClassVar[tuple[str, ...]] = ("left", "right")

    base: Recurrence | None
    left: Tensor
    right: Tensor

    def __call__(self, rates: Tensor) -> Tensor:
        projected = (self.right * rates.unsqueeze(-3)).sum(-1, keepdim=True)
        low_rank = (self.left * projected).sum(-3)
        return low_rank if self.base is None else self.base(rates) + low_rank

    def pullback(self, gradient: Tensor) -> Tensor:
        projected = (self.left * gradient.unsqueeze(-3)).sum(-1, keepdim=True)
        low_rank = (self.right * projected).sum(-3)
        return low_rank if self.base is None else self.base.pullback(gradient) + low_rank

    def dense(self) -> Tensor:
        low_rank = torch.einsum("fti,ftj->tij", *torch.broadcast_tensors(self.left, self.right))
        return low_rank if self.base is None else self.base.dense() + low_rank


@dataclass(frozen=True)
class Components(Recurrence):
    """U diag(s) V^T r: shared components, weighted by trial.

    Attributes:
        left: U, (unit, rank).
        right: V, (unit, rank).
        strength: s, (trial, rank).
    """

    by_trial: ClassVar[tuple[str, ...]] = ("strength",)

    left: Tensor
    right: Tensor
    strength: Tensor

    def __call__(self, rates: Tensor) -> Tensor:
        return (self.strength * (rates @ self.right)) @ self.left.mT

    def pullback(self, gradient: Tensor) -> Tensor:
        return (self.strength * (gradient @ self.left)) @ self.right.mT

    def dense(self) -> Tensor:
        return torch.einsum("ir,tr,jr->tij", self.left, self.strength, self.right)


@dataclass(frozen=True)
class Mixture(Recurrence):
    """[base r +] sum_l z_l W_l r: shared matrices, weighted by trial.

    Attributes:
        base: Added to the mixture, or None.
        weights: W_l, (matrix, unit, unit), `[post, pre]`.
        coefficients: z, (trial, matrix).
    """

    by_trial: ClassVar[tuple[str, ...]] = ("coefficients",)

    base: Recurrence | None
    weights: Tensor
    coefficients: Tensor

    def __call__(self, rates: Tensor) -> Tensor:
        matrices, units, _ = self.weights.shape
        parts = rates @ self.weights.reshape(matrices * units, units).mT
        parts = parts.unflatten(-1, (matrices, units))
        mixed = (self.coefficients.unsqueeze(-1) * parts).sum(-2)
        return mixed if self.base is None else self.base(rates) + mixed

    def pullback(self, gradient: Tensor) -> Tensor:
        matrices, units, _ = self.weights.shape
        parts = self.coefficients.unsqueeze(-1) * gradient.unsqueeze(-2)
        mixed = parts.flatten(-2) @ self.weights.reshape(matrices * units, units)
        return mixed if self.base is None else self.base.pullback(gradient) + mixed

    def dense(self) -> Tensor:
        mixed = torch.einsum("tl,lij->tij", self.coefficients, self.weights)
        return mixed if self.base is None else self.base.dense() + mixed


@dataclass(frozen=True)
class Rescaled(Recurrence):
    """(factor * base) r with one number per trial.

    Attributes:
        base: The map that is scaled.
        factor: (trial, 1).
    """

    by_trial: ClassVar[tuple[str, ...]] = ("factor",)

    base: Recurrence
    factor: Tensor

    def __call__(self, rates: Tensor) -> Tensor:
        return self.factor * self.base(rates)

    def pullback(self, gradient: Tensor) -> Tensor:
        return self.base.pullback(self.factor * gradient)

    def dense(self) -> Tensor:
        return self.factor.unsqueeze(-1) * self.base.dense()


@dataclass(frozen=True)
class Circuit:
    """Effective parameters of a network in the context in force.

    A pathway takes one and returns another (`dataclasses.replace`); it never changes one in place.

    Attributes:
        recurrent: W(c) as a map on rates; None until a pathway that brings its own matrix
            (`s-lowrankW`, `s-full`) has set it.
        input_weight: B, (unit, input).
        current: b + E c, (unit,) or (trial, unit).
        gain: G(c), (trial, unit); None stands for 1.
        threshold: Theta c, (trial, unit); None stands for 0.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> network = CTRNN(inputs=3, units=16, outputs=2, modulation="s-sym", contexts=4)
        >>> network.circuit(torch.eye(4)).dense_weight().shape  # W(c) of each context
        torch.Size([4, 16, 16])
        >>> neutral = network.circuit(torch.zeros(1, 4))
        >>> torch.equal(neutral.dense_weight()[0], network.weight)  # c = 0 leaves W as it is
        True
    """

    by_trial: ClassVar[tuple[str, ...]] = ("current", "gain", "threshold")

    recurrent: Recurrence | None
    input_weight: Tensor
    current: Tensor
    gain: Tensor | None = None
    threshold: Tensor | None = None

    def propagate(self, rates: Tensor, current: Tensor | None = None) -> Tensor:
        """Return W(c) r [+ current], (..., trial, unit): the one place where weights act."""
        if self.recurrent is None:
            raise ValueError("the circuit has no recurrent weights: no pathway has set them")
        return self.recurrent(rates) if current is None else self.recurrent.onto(current, rates)

    def pull_back(self, gradient: Tensor) -> Tensor:
        """Return W(c)^T of `gradient`: the transpose of `propagate`."""
        if self.recurrent is None:
            raise ValueError("the circuit has no recurrent weights: no pathway has set them")
        return self.recurrent.pullback(gradient)

    def excite(self, currents: Tensor) -> Tensor:
        """Return G(c) * (x - Theta c), what the nonlinearity is applied to."""
        if self.threshold is not None:
            currents = currents - self.threshold
        return currents if self.gain is None else self.gain * currents

    def dense_weight(self) -> Tensor:
        """Return W(c), (unit, unit) or (trial, unit, unit); for contexts, not for each trial."""
        if self.recurrent is None:
            raise ValueError("the circuit has no recurrent weights: no pathway has set them")
        return self.recurrent.dense()


Part = TypeVar("Part", Recurrence, Circuit)


def tensors_of(part: Recurrence | Circuit) -> Iterator[Tensor]:
    """Go through all tensors of a circuit or of a recurrence, in a fixed order."""
    for item in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, item.name)
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Recurrence):
            yield from tensors_of(value)


def structure(part: Recurrence | Circuit) -> tuple[Any, ...]:
    """Return all of a circuit or of a recurrence but the values of its tensors, to compare by."""
    found: list[Any] = [type(part)]
    for item in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, item.name)
        if isinstance(value, Recurrence):
            found.append(structure(value))
        else:
            found.append(None if isinstance(value, Tensor) else value)
    return tuple(found)


def with_tensors(part: Part, tensors: Iterator[Tensor]) -> Part:
    """Return a copy with other tensors, in the order of `tensors_of`."""
    changed: dict[str, Any] = {}
    for item in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, item.name)
        if isinstance(value, Tensor):
            changed[item.name] = next(tensors)
        elif isinstance(value, Recurrence):
            changed[item.name] = with_tensors(value, tensors)
    return dataclasses.replace(part, **changed)  # type: ignore[type-var]


def of_trials(part: Part, trials: slice) -> Part:
    """Return a circuit or a recurrence of some of its trials."""
    changed: dict[str, Any] = {}
    for item in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, item.name)
        if isinstance(value, Recurrence):
            changed[item.name] = of_trials(value, trials)
        elif item.name in part.by_trial and isinstance(value, Tensor) and _has_trials(value):
            changed[item.name] = value[..., trials, :]
    return dataclasses.replace(part, **changed)  # type: ignore[type-var]


def at_trials(part: Part, index: Tensor) -> Part:
    """Return a circuit or a recurrence of the trials of an index, (new trial,)."""
    changed: dict[str, Any] = {}
    for item in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, item.name)
        if isinstance(value, Recurrence):
            changed[item.name] = at_trials(value, index)
        elif item.name in part.by_trial and isinstance(value, Tensor) and value.ndim > 1:
            changed[item.name] = value.index_select(-2, index)
    return dataclasses.replace(part, **changed)  # type: ignore[type-var]


def _has_trials(value: Tensor) -> bool:
    return value.ndim > 1 and value.shape[-2] > 1

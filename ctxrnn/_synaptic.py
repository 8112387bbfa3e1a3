"""Synaptic strength: context acts on the recurrent weights, by factors that stay factored.

With `on`, Hadamard and Additive act on a part of the units only, by default the last ones: factors
exist for those alone and start at the values that they have in the pathway that acts on all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxrnn._checks import check_count, check_not_negative, make_generator
from ctxrnn._circuit import (
    Circuit,
    Components,
    Dense,
    Mixture,
    Recurrence,
    Rescaled,
    Scaled,
    WithLowRank,
)
from ctxrnn._modulation import AbstractModulation, Seed, normal, resolve_seed
from ctxrnn._share import On, check_on, normal_on, spread, units_on

Interpolation = Literal["outer-linear", "factor-linear"]


def _active(context: Tensor) -> tuple[Tensor, Tensor | None]:
    """Find the contexts that weigh in: (weights (active, trial), index (active, trial) or None).

    None stands for all contexts in order. Contexts that need a gradient are all kept, since the
    gradient of a zero entry is not zero.
    """
    contexts = context.shape[-1]
    # At least one, though its weight may be zero: maps with no factor at all are a trap.
    count = contexts if context.requires_grad else max(1, int((context != 0).sum(-1).max()))
    if count == contexts:
        return context.mT, None
    index = context.abs().topk(count, dim=-1).indices
    return context.gather(-1, index).mT, index.mT


def _outer_linear(context: Tensor, post: Tensor, pre: Tensor) -> tuple[Tensor, Tensor]:
    """Return c_k m_k and n_k of the active contexts, (active * rank, trial, unit) each."""
    weights, index = _active(context)
    chosen = slice(None) if index is None else index
    left, right = post[chosen], pre[chosen]
    if index is None:
        left, right = left.unsqueeze(1), right.unsqueeze(1)
    left = weights[..., None, None] * left
    right = right.expand_as(left)
    return left.transpose(1, 2).flatten(0, 1), right.transpose(1, 2).flatten(0, 1)


def _factors(
    context: Tensor, post: Tensor, pre: Tensor, interpolation: Interpolation
) -> tuple[Tensor, Tensor]:
    """Return post- and pre-synaptic factors in force, (factor, trial, unit) each.

    Args:
        context: c, (trial, context).
        post: m, (context, rank, unit).
        pre: n, (context, rank, unit).
        interpolation: "outer-linear" mixes the outer products, sum_k c_k m_k n_k^T;
            "factor-linear" mixes the factors first, (sum_k c_k m_k)(sum_k c_k n_k)^T.
    """
    if interpolation == "outer-linear":
        return _outer_linear(context, post, pre)
    left = torch.einsum("tk,krn->rtn", context, post)
    return left, left if pre is post else torch.einsum("tk,krn->rtn", context, pre)


def _check_interpolation(interpolation: str) -> None:
    if interpolation not in ("outer-linear", "factor-linear"):
        raise ValueError(
            f"interpolation must be 'outer-linear' or 'factor-linear': got {interpolation!r}"
        )


def _present(circuit: Circuit, pathway: str) -> Recurrence:
    if circuit.recurrent is None:
        raise ValueError(
            f"{pathway} scales recurrent weights and must come after the pathway that sets them"
        )
    return circuit.recurrent


class Hadamard(AbstractModulation):
    """Element-wise scaling of the recurrent weights, low rank and set by context.

    W * ([1 1^T +] sum_k c_k sum_rho m_krho n_krho^T): `s-sym` (m = n = h, rank 1),
    `s-asym-R`, and without the ones `s-gate-R`.

    Args:
        units: N.
        contexts: K.
        rank: R.
        symmetric: Whether m = n = h.
        gated: Whether to leave out the ones (base-gated: the weights vanish at c = 0).
        interpolation: "outer-linear" or "factor-linear"; they differ for soft contexts only.
        nonnegative: Pass m and n through softplus, so that no synapse changes its sign.
        sd: Standard deviation of the initial factors, around 0, or around 1 if gated.
        on: Fraction of the units that it acts on, the last ones, or (first, stop); None for all.
            The others have factors 0, which leaves their weights as they are, or R^-1/2 if gated,
            so that weights between two of them are scaled by sum_k c_k.
        seed: Seed or generator of the initial values.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, Hadamard
        >>> scaling = Hadamard(units=8, contexts=2, symmetric=True)
        >>> network = CTRNN(inputs=3, units=8, outputs=1, modulation=scaling)
        >>> circuit = network.circuit(torch.tensor([[0.0, 1.0]]))
        >>> h = scaling.h[1, 0]
        >>> factor = 1 + torch.outer(h, h)
        >>> torch.allclose(circuit.dense_weight()[0], network.weight * factor, atol=1e-6)
        True
    """

    pathway = "synaptic"

    h: Tensor
    m: Tensor
    n: Tensor

    def __init__(
        self,
        units: int,
        contexts: int,
        *,
        rank: int = 1,
        symmetric: bool = False,
        gated: bool = False,
        interpolation: Interpolation = "outer-linear",
        nonnegative: bool = False,
        sd: float = 0.3,
        on: On | None = None,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_count("rank", rank)
        check_not_negative("sd", sd)
        _check_interpolation(interpolation)
        self.rank, self.symmetric, self.gated = rank, symmetric, gated
        self.interpolation, self.nonnegative, self.sd = interpolation, nonnegative, sd
        self.on = check_on(on)
        self.span = units_on(self.on, units, "last")
        base = resolve_seed(seed)
        shape = (contexts, rank, units)
        names = ("h",) if symmetric else ("m", "n")
        for name in names:
            factor = normal_on(shape, sd, base, name, axis=-1, span=self.span)
            if gated:
                # sum_rho m n^T starts near the ones for any rank.
                factor.data.add_(1).mul_(rank**-0.5)
            if nonnegative:
                # Inverse of softplus, so that the magnitudes start as they would without it.
                factor.data.copy_(factor.data.abs().clamp_min(1e-4).expm1().log())
            setattr(self, name, factor)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return m and n, (context, rank, unit) each; the same tensor if symmetric."""
        if self.symmetric:
            both = self._factor(self.h)
            return both, both
        return self._factor(self.m), self._factor(self.n)

    def _factor(self, values: Tensor) -> Tensor:
        if self.nonnegative:
            values = functional.softplus(values)
        neutral = self.rank**-0.5 if self.gated else 0.0
        return spread(values, self.span, self.units, neutral)

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with its recurrent weights scaled."""
        post, pre = _factors(context, *self.factors(), self.interpolation)
        recurrent = Scaled(_present(circuit, "Hadamard"), post, pre, keep_base=not self.gated)
        return replace(circuit, recurrent=recurrent)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ["units", "contexts", "rank", "symmetric", "gated"]
        names += ["interpolation", "nonnegative", "sd", "on"]
        return {name: getattr(self, name) for name in names}


class Additive(AbstractModulation):
    """Additive low rank: W + sum_k c_k sum_rho m_krho n_krho^T (`s-add-R`).

    Args:
        units: N.
        contexts: K.
        rank: R.
        interpolation: "outer-linear" or "factor-linear"; they differ for soft contexts only.
        sd: Standard deviation of the initial m and n; None for 1 / sqrt(N).
        on: Fraction of the units that it acts on, the last ones, or (first, stop); None for all.
        seed: Seed or generator of the initial values.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, Additive
        >>> pathway = Additive(units=32, contexts=4, rank=2)
        >>> network = CTRNN(inputs=3, units=32, outputs=1, modulation=pathway)
        >>> change = network.circuit(torch.eye(4)).dense_weight() - network.weight
        >>> torch.linalg.matrix_rank(change, atol=1e-3).tolist()  # in each of the four contexts
        [2, 2, 2, 2]
    """

    pathway = "synaptic"

    def __init__(
        self,
        units: int,
        contexts: int,
        *,
        rank: int = 1,
        interpolation: Interpolation = "outer-linear",
        sd: float | None = None,
        on: On | None = None,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_count("rank", rank)
        _check_interpolation(interpolation)
        self.rank, self.interpolation = rank, interpolation
        self.sd = units**-0.5 if sd is None else sd
        check_not_negative("sd", self.sd)
        self.on = check_on(on)
        self.span = units_on(self.on, units, "last")
        base, shape = resolve_seed(seed), (contexts, rank, units)
        self.m = normal_on(shape, self.sd, base, "m", axis=-1, span=self.span)
        self.n = normal_on(shape, self.sd, base, "n", axis=-1, span=self.span)

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with the low-rank part added to its recurrent weights."""
        post, pre = (spread(factor, self.span, self.units) for factor in (self.m, self.n))
        left, right = _factors(context, post, pre, self.interpolation)
        base = _present(circuit, "Additive")
        return replace(circuit, recurrent=WithLowRank(base, left, right))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("units", "contexts", "rank", "interpolation", "sd", "on")
        return {name: getattr(self, name) for name in names}


class LowRank(AbstractModulation):
    """Context scales the components of a low-rank matrix: U diag(s(c)) V^T (`s-lowrankW`).

    s(c) = sigmoid(A c + a_0); after Costacurta et al. (2024). Takes the place of W.

    Args:
        units: N.
        contexts: K.
        rank: R.
        sd: Standard deviation of the initial entries of A; a_0 starts at 0.
        g: Spread of the initial matrix at s = 1/2: its entries have standard deviation
            g / sqrt(N).
        seed: Seed or generator of the initial values.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, LowRank
        >>> pathway = LowRank(units=32, contexts=4, rank=3)
        >>> network = CTRNN(inputs=3, units=32, outputs=1, modulation=pathway)
        >>> weights = network.circuit(torch.eye(4)).dense_weight()
        >>> torch.linalg.matrix_rank(weights, atol=1e-3).tolist()  # in each of the four contexts
        [3, 3, 3, 3]
        >>> network.weight is None  # there is no W besides
        True
    """

    pathway = "synaptic"

    replaces_weight = True

    def __init__(
        self,
        units: int,
        contexts: int,
        *,
        rank: int = 8,
        sd: float = 0.5,
        g: float = 1.0,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_count("rank", rank)
        check_not_negative("sd", sd)
        check_not_negative("g", g)
        self.rank, self.sd, self.g = rank, sd, g
        base = resolve_seed(seed)
        part = (2 * g / (units * rank) ** 0.5) ** 0.5
        self.U = normal((units, rank), part, base, "U")
        self.V = normal((units, rank), part, base, "V")
        self.A = normal((rank, contexts), sd, base, "A")
        self.a0 = nn.Parameter(torch.zeros(rank))

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with U diag(s(c)) V^T as its recurrent weights."""
        strength = torch.sigmoid(context @ self.A.mT + self.a0)
        return replace(circuit, recurrent=Components(self.U, self.V, strength))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("units", "contexts", "rank", "sd", "g")
        return {name: getattr(self, name) for name in names}


class Masks(AbstractModulation):
    """Scaling by shared masks: W * (1 1^T + sum_l z_l M_l), z = A c (`s-mask`).

    After Bulygin et al. (2024). Must act on the network's own W, so it comes before other
    synaptic pathways in a Chain.

    Args:
        units: N.
        contexts: K.
        masks: L.
        learn: Whether the masks are learnt; otherwise they are fixed, each entry 0 or 1 with
            probability 1/2.
        sd: Standard deviation of the initial entries of A, (mask, context).
        seed: Seed or generator of the initial values.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, Masks
        >>> pathway = Masks(units=32, contexts=4, masks=2)
        >>> network = CTRNN(inputs=3, units=32, outputs=1, modulation=pathway)
        >>> weights = network.circuit(torch.eye(4)).dense_weight()
        >>> outside = (pathway.M == 0).all(0)  # synapses that no mask holds
        >>> torch.equal(weights[2][outside], network.weight[outside])
        True
    """

    pathway = "synaptic"

    def __init__(
        self,
        units: int,
        contexts: int,
        *,
        masks: int = 4,
        learn: bool = False,
        sd: float = 0.3,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_count("masks", masks)
        check_not_negative("sd", sd)
        self.masks, self.learn, self.sd = masks, learn, sd
        base = resolve_seed(seed)
        self.A = normal((masks, contexts), sd, base, "A")
        generator = make_generator(base, "M")
        drawn = torch.rand((masks, units, units), generator=generator, dtype=torch.float64)
        initial = (drawn < 0.5).to(torch.get_default_dtype())
        if learn:
            self.M = nn.Parameter(initial)
        else:
            self.register_buffer("M", initial)

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with its recurrent weights scaled by the masks."""
        base = _present(circuit, "Masks")
        if not isinstance(base, Dense):
            raise ValueError(
                "Masks act on the network's own W: put them before other synaptic pathways"
            )
        mixture = Mixture(base, base.weight * self.M, context @ self.A.mT)
        return replace(circuit, recurrent=mixture)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("units", "contexts", "masks", "learn", "sd")
        return {name: getattr(self, name) for name in names}


class Scalar(AbstractModulation):
    """Global scaling of the recurrent weights: (1 + f^T c) W (`s-scalar`).

    After Tsuda et al. (2021).

    Args:
        units: N.
        contexts: K.
        sd: Standard deviation of the initial entries of f, (context,).
        seed: Seed or generator of the initial values.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, Scalar
        >>> pathway = Scalar(units=32, contexts=1)
        >>> _ = torch.nn.init.ones_(pathway.f)
        >>> network = CTRNN(inputs=3, units=32, outputs=1, modulation=pathway)
        >>> torch.equal(network.circuit(torch.ones(1, 1)).dense_weight()[0], 2 * network.weight)
        True
    """

    pathway = "synaptic"

    def __init__(
        self, units: int, contexts: int, *, sd: float = 0.3, seed: Seed | None = None
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("sd", sd)
        self.sd = sd
        self.f = normal((contexts,), sd, resolve_seed(seed), "f")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with its recurrent weights scaled by one number."""
        factor = 1 + (context @ self.f).unsqueeze(-1)
        return replace(circuit, recurrent=Rescaled(_present(circuit, "Scalar"), factor))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"units": self.units, "contexts": self.contexts, "sd": self.sd}


class Full(AbstractModulation):
    """A matrix of its own for every context: sum_k c_k W_k (`s-full`), the upper bound.

    Takes the place of W. Each step costs K products.

    Args:
        units: N.
        contexts: K.
        g: The entries of each W_k start with standard deviation g / sqrt(N).
        seed: Seed or generator of the initial values.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, Full
        >>> pathway = Full(units=32, contexts=2)
        >>> network = CTRNN(inputs=3, units=32, outputs=1, modulation=pathway)
        >>> between = network.circuit(torch.tensor([[0.5, 0.5]])).dense_weight()[0]
        >>> torch.allclose(between, pathway.W.mean(0), atol=1e-6)  # halfway between both matrices
        True
    """

    pathway = "synaptic"

    replaces_weight = True

    def __init__(
        self, units: int, contexts: int, *, g: float = 1.0, seed: Seed | None = None
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("g", g)
        self.g = g
        self.W = normal((contexts, units, units), g * units**-0.5, resolve_seed(seed), "W_k")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with sum_k c_k W_k as its recurrent weights."""
        return replace(circuit, recurrent=Mixture(None, self.W, context))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"units": self.units, "contexts": self.contexts, "g": self.g}

"""The context pathways: each takes a circuit and a context and returns the modulated circuit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxrnn._checks import check_count, check_integer, check_not_negative, make_generator
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
from ctxrnn._context import Contexts

Seed = int | torch.Generator
Interpolation = Literal["outer-linear", "factor-linear"]


class AbstractModulation(nn.Module, ABC):
    """A context pathway.

    A new one states its options in `config`, holds its parameters, and implements `modulate`.

    Attributes:
        pathway: Which of the two context signals it sees, "excitability" or "synaptic".
        replaces_weight: Whether it brings a recurrent matrix of its own in place of the network's.
        units: N.
        contexts: K.
    """

    pathway: ClassVar[Literal["excitability", "synaptic"]]
    replaces_weight: bool = False

    def __init__(self, units: int, contexts: int) -> None:
        super().__init__()
        check_count("units", units)
        check_count("contexts", contexts)
        self.units = units
        self.contexts = contexts

    def forward(self, circuit: Circuit, context: Tensor | Contexts) -> Circuit:
        """Modulate a circuit.

        Args:
            circuit: Effective parameters so far.
            context: c, (trial, context), or one for each pathway.
        """
        seen = getattr(Contexts.of(context), self.pathway)
        if seen.shape[-1] != self.contexts:
            raise ValueError(
                f"context must have {self.contexts} entries in its last axis: "
                f"got shape {tuple(seen.shape)}"
            )
        return self.modulate(circuit, seen)

    @abstractmethod
    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit in this context, (trial, context)."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments (without the seed) as JSON-able values."""


def _normal(shape: tuple[int, ...], sd: float, seed: Seed, name: str) -> nn.Parameter:
    # Drawn in float64, so that networks of either precision start from the same numbers.
    drawn = torch.randn(shape, generator=make_generator(seed, name), dtype=torch.float64)
    return nn.Parameter(drawn.mul_(sd).to(torch.get_default_dtype()))


def _resolve(seed: Seed | None) -> int:
    """Turn a seed or a generator into one integer, so that each parameter draws by its name."""
    if seed is None or isinstance(seed, torch.Generator):
        device = None if seed is None else seed.device
        return int(torch.randint(2**62, (), generator=seed, device=device))
    check_integer("seed", seed)
    return int(seed)


class _Excitability(AbstractModulation):
    pathway = "excitability"


class _Synaptic(AbstractModulation):
    pathway = "synaptic"


class Drive(_Excitability):
    """Additive drive of the neurons, a rule input: current + E c (`e-add`, `e-rankR`).

    Args:
        units: N.
        contexts: K.
        rank: None for a free E, (unit, context); R for E = U A with U (unit, R), A (R, context).
        sd: Standard deviation of the initial entries of E.
        seed: Seed or generator of the initial values.
    """

    def __init__(
        self,
        units: int,
        contexts: int,
        *,
        rank: int | None = None,
        sd: float = 0.5,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("sd", sd)
        self.rank, self.sd = rank, sd
        base = _resolve(seed)
        if rank is None:
            self.E = _normal((units, contexts), sd, base, "E")
        else:
            check_count("rank", rank)
            # sqrt(sd / sqrt(rank)) each, so that the entries of U A have standard deviation sd.
            part = (sd / rank**0.5) ** 0.5
            self.U = _normal((units, rank), part, base, "U_e")
            self.A = _normal((rank, contexts), part, base, "A_e")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with E c added to its current."""
        drive = context @ self.E.mT if self.rank is None else context @ self.A.mT @ self.U.mT
        return replace(circuit, current=circuit.current + drive)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"units": self.units, "contexts": self.contexts, "rank": self.rank, "sd": self.sd}


class Threshold(_Excitability):
    """Threshold shift: phi(G (x - Theta c)) (`e-thr`).

    In the rate form this is a drive with E = -Theta.

    Args:
        units: N.
        contexts: K.
        sd: Standard deviation of the initial entries of Theta, (unit, context).
        seed: Seed or generator of the initial values.
    """

    def __init__(
        self, units: int, contexts: int, *, sd: float = 0.5, seed: Seed | None = None
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("sd", sd)
        self.sd = sd
        self.Theta = _normal((units, contexts), sd, _resolve(seed), "Theta")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with Theta c added to its threshold."""
        shift = context @ self.Theta.mT
        before = circuit.threshold
        return replace(circuit, threshold=shift if before is None else before + shift)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"units": self.units, "contexts": self.contexts, "sd": self.sd}


class Gain(_Excitability):
    """Intrinsic gain: phi(G(c) x) with G = 1 + Gamma c, or exp(Gamma c) (`e-gain`).

    Args:
        units: N.
        contexts: K.
        positive: Whether to use exp(Gamma c), which stays above zero.
        sd: Standard deviation of the initial entries of Gamma, (unit, context).
        seed: Seed or generator of the initial values.
    """

    def __init__(
        self,
        units: int,
        contexts: int,
        *,
        positive: bool = False,
        sd: float = 0.3,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("sd", sd)
        self.positive, self.sd = positive, sd
        self.Gamma = _normal((units, contexts), sd, _resolve(seed), "Gamma")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with its gain multiplied by G(c)."""
        gain = context @ self.Gamma.mT
        gain = gain.exp() if self.positive else gain + 1
        before = circuit.gain
        return replace(circuit, gain=gain if before is None else before * gain)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "units": self.units,
            "contexts": self.contexts,
            "positive": self.positive,
            "sd": self.sd,
        }


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


class Hadamard(_Synaptic):
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
        seed: Seed or generator of the initial values.
    """

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
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_count("rank", rank)
        check_not_negative("sd", sd)
        _check_interpolation(interpolation)
        self.rank, self.symmetric, self.gated = rank, symmetric, gated
        self.interpolation, self.nonnegative, self.sd = interpolation, nonnegative, sd
        base = _resolve(seed)
        shape = (contexts, rank, units)
        names = ("h",) if symmetric else ("m", "n")
        for name in names:
            factor = _normal(shape, sd, base, name)
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
            both = functional.softplus(self.h) if self.nonnegative else self.h
            return both, both
        if self.nonnegative:
            return functional.softplus(self.m), functional.softplus(self.n)
        return self.m, self.n

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with its recurrent weights scaled."""
        post, pre = _factors(context, *self.factors(), self.interpolation)
        recurrent = Scaled(_present(circuit, "Hadamard"), post, pre, keep_base=not self.gated)
        return replace(circuit, recurrent=recurrent)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ["units", "contexts", "rank", "symmetric", "gated"]
        names += ["interpolation", "nonnegative", "sd"]
        return {name: getattr(self, name) for name in names}


class Additive(_Synaptic):
    """Additive low rank: W + sum_k c_k sum_rho m_krho n_krho^T (`s-add-R`).

    Args:
        units: N.
        contexts: K.
        rank: R.
        interpolation: "outer-linear" or "factor-linear"; they differ for soft contexts only.
        sd: Standard deviation of the initial m and n; None for 1 / sqrt(N).
        seed: Seed or generator of the initial values.
    """

    def __init__(
        self,
        units: int,
        contexts: int,
        *,
        rank: int = 1,
        interpolation: Interpolation = "outer-linear",
        sd: float | None = None,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_count("rank", rank)
        _check_interpolation(interpolation)
        self.rank, self.interpolation = rank, interpolation
        self.sd = units**-0.5 if sd is None else sd
        check_not_negative("sd", self.sd)
        base = _resolve(seed)
        self.m = _normal((contexts, rank, units), self.sd, base, "m")
        self.n = _normal((contexts, rank, units), self.sd, base, "n")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with the low-rank part added to its recurrent weights."""
        left, right = _factors(context, self.m, self.n, self.interpolation)
        base = _present(circuit, "Additive")
        return replace(circuit, recurrent=WithLowRank(base, left, right))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("units", "contexts", "rank", "interpolation", "sd")
        return {name: getattr(self, name) for name in names}


class LowRank(_Synaptic):
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
    """

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
        base = _resolve(seed)
        part = (2 * g / (units * rank) ** 0.5) ** 0.5
        self.U = _normal((units, rank), part, base, "U")
        self.V = _normal((units, rank), part, base, "V")
        self.A = _normal((rank, contexts), sd, base, "A")
        self.a0 = nn.Parameter(torch.zeros(rank))

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with U diag(s(c)) V^T as its recurrent weights."""
        strength = torch.sigmoid(context @ self.A.mT + self.a0)
        return replace(circuit, recurrent=Components(self.U, self.V, strength))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("units", "contexts", "rank", "sd", "g")
        return {name: getattr(self, name) for name in names}


class Masks(_Synaptic):
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
    """

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
        base = _resolve(seed)
        self.A = _normal((masks, contexts), sd, base, "A")
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


class Scalar(_Synaptic):
    """Global scaling of the recurrent weights: (1 + f^T c) W (`s-scalar`).

    After Tsuda et al. (2021).

    Args:
        units: N.
        contexts: K.
        sd: Standard deviation of the initial entries of f, (context,).
        seed: Seed or generator of the initial values.
    """

    def __init__(
        self, units: int, contexts: int, *, sd: float = 0.3, seed: Seed | None = None
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("sd", sd)
        self.sd = sd
        self.f = _normal((contexts,), sd, _resolve(seed), "f")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with its recurrent weights scaled by one number."""
        factor = 1 + (context @ self.f).unsqueeze(-1)
        return replace(circuit, recurrent=Rescaled(_present(circuit, "Scalar"), factor))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"units": self.units, "contexts": self.contexts, "sd": self.sd}


class Full(_Synaptic):
    """A matrix of its own for every context: sum_k c_k W_k (`s-full`), the upper bound.

    Takes the place of W. Each step costs K products.

    Args:
        units: N.
        contexts: K.
        g: The entries of each W_k start with standard deviation g / sqrt(N).
        seed: Seed or generator of the initial values.
    """

    replaces_weight = True

    def __init__(
        self, units: int, contexts: int, *, g: float = 1.0, seed: Seed | None = None
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("g", g)
        self.g = g
        self.W = _normal((contexts, units, units), g * units**-0.5, _resolve(seed), "W_k")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with sum_k c_k W_k as its recurrent weights."""
        return replace(circuit, recurrent=Mixture(None, self.W, context))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"units": self.units, "contexts": self.contexts, "g": self.g}


class Chain(nn.Module):
    """Pathways one after another, left to right; an empty chain leaves the circuit as it is.

    Args:
        pathways: Any number of pathways of equal `units` and `contexts`.
    """

    def __init__(self, *pathways: AbstractModulation) -> None:
        super().__init__()
        for pathway in pathways:
            if not isinstance(pathway, AbstractModulation):
                raise TypeError(
                    f"pathways of a Chain must be pathways: got {type(pathway).__name__}; "
                    "pass those of another Chain as *chain"
                )
        for name in ("units", "contexts"):
            sizes = {getattr(pathway, name) for pathway in pathways}
            if len(sizes) > 1:
                raise ValueError(f"pathways of a Chain must agree in {name}: got {sorted(sizes)}")
        for pathway in pathways[1:]:
            if pathway.replaces_weight and any(
                earlier.pathway == "synaptic" for earlier in pathways[: pathways.index(pathway)]
            ):
                raise ValueError(
                    f"{type(pathway).__name__} brings its own recurrent matrix and must be the "
                    "first synaptic pathway of a Chain"
                )
        self.pathways = nn.ModuleList(pathways)

    def __iter__(self) -> Iterator[AbstractModulation]:
        return (pathway for pathway in self.pathways if isinstance(pathway, AbstractModulation))

    def __len__(self) -> int:
        return len(self.pathways)

    @property
    def units(self) -> int | None:
        """N, or None for an empty chain."""
        return next((pathway.units for pathway in self), None)

    @property
    def contexts(self) -> int | None:
        """K, or None for an empty chain."""
        return next((pathway.contexts for pathway in self), None)

    @property
    def replaces_weight(self) -> bool:
        """Whether a pathway brings its own recurrent matrix."""
        return any(pathway.replaces_weight for pathway in self.pathways)

    def forward(self, circuit: Circuit, context: Tensor | Contexts) -> Circuit:
        """Modulate a circuit by each pathway in turn."""
        for pathway in self.pathways:
            circuit = pathway(circuit, context)
        return circuit


PATHWAYS: dict[str, Callable[..., AbstractModulation]] = {
    kind.__name__: kind
    for kind in (Drive, Threshold, Gain, Hadamard, Additive, LowRank, Masks, Scalar, Full)
}

"""Excitability: context acts on neurons, as a drive, a threshold or a gain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ctxrnn._checks import check_count, check_not_negative
from ctxrnn._circuit import Circuit
from ctxrnn._modulation import AbstractModulation, Seed, normal, resolve_seed


class Drive(AbstractModulation):
    """Additive drive of the neurons, a rule input: current + E c (`e-add`, `e-rankR`).

    Args:
        units: N.
        contexts: K.
        rank: None for a free E, (unit, context); R for E = U A with U (unit, R), A (R, context).
        sd: Standard deviation of the initial entries of E.
        seed: Seed or generator of the initial values.
    """

    pathway = "excitability"

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
        base = resolve_seed(seed)
        if rank is None:
            self.E = normal((units, contexts), sd, base, "E")
        else:
            check_count("rank", rank)
            # sqrt(sd / sqrt(rank)) each, so that the entries of U A have standard deviation sd.
            part = (sd / rank**0.5) ** 0.5
            self.U = normal((units, rank), part, base, "U_e")
            self.A = normal((rank, contexts), part, base, "A_e")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with E c added to its current."""
        drive = context @ self.E.mT if self.rank is None else context @ self.A.mT @ self.U.mT
        return replace(circuit, current=circuit.current + drive)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"units": self.units, "contexts": self.contexts, "rank": self.rank, "sd": self.sd}


class Threshold(AbstractModulation):
    """Threshold shift: phi(G (x - Theta c)) (`e-thr`).

    In the rate form this is a drive with E = -Theta.

    Args:
        units: N.
        contexts: K.
        sd: Standard deviation of the initial entries of Theta, (unit, context).
        seed: Seed or generator of the initial values.
    """

    pathway = "excitability"

    def __init__(
        self, units: int, contexts: int, *, sd: float = 0.5, seed: Seed | None = None
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("sd", sd)
        self.sd = sd
        self.Theta = normal((units, contexts), sd, resolve_seed(seed), "Theta")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with Theta c added to its threshold."""
        shift = context @ self.Theta.mT
        before = circuit.threshold
        return replace(circuit, threshold=shift if before is None else before + shift)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"units": self.units, "contexts": self.contexts, "sd": self.sd}


class Gain(AbstractModulation):
    """Intrinsic gain: phi(G(c) x) with G = 1 + Gamma c, or exp(Gamma c) (`e-gain`).

    Args:
        units: N.
        contexts: K.
        positive: Whether to use exp(Gamma c), which stays above zero.
        sd: Standard deviation of the initial entries of Gamma, (unit, context).
        seed: Seed or generator of the initial values.
    """

    pathway = "excitability"

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
        self.Gamma = normal((units, contexts), sd, resolve_seed(seed), "Gamma")

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

"""Excitability: context acts on neurons, as a drive, a threshold or a gain.

With `on`, a pathway acts on a part of the units only: it has parameters for those alone, and the
others keep the neutral value (no drive, threshold 0, gain 1). A fraction stands for the first share
of the units. Their initial values are those of the pathway that acts on all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ctxrnn._checks import check_count, check_not_negative
from ctxrnn._circuit import Circuit
from ctxrnn._modulation import AbstractModulation, Seed, normal, resolve_seed
from ctxrnn._share import On, check_on, normal_on, spread, units_on


class Drive(AbstractModulation):
    """Additive drive of the neurons: current + E c (`e-add`, `e-rankR`).

    `e-add` is the rule input of Yang et al. (2019).

    Args:
        units: N.
        contexts: K.
        rank: None for a free E, (unit, context); R for E = U A with U (unit, R), A (R, context).
        sd: Standard deviation of the initial entries of E.
        on: Fraction of the units that it acts on, the first ones, or (first, stop); None for all.
        seed: Seed or generator of the initial values.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, Drive
        >>> drive = Drive(units=8, contexts=2)
        >>> network = CTRNN(inputs=3, units=8, outputs=1, modulation=drive)
        >>> circuit = network.circuit(torch.tensor([[0.0, 1.0]]))
        >>> torch.equal(circuit.current[0], network.bias + drive.E[:, 1])  # b + E c
        True
    """

    pathway = "excitability"

    def __init__(
        self,
        units: int,
        contexts: int,
        *,
        rank: int | None = None,
        sd: float = 0.5,
        on: On | None = None,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("sd", sd)
        self.rank, self.sd, self.on = rank, sd, check_on(on)
        self.span = units_on(self.on, units, "first")
        base = resolve_seed(seed)
        if rank is None:
            self.E = normal_on((units, contexts), sd, base, "E", axis=0, span=self.span)
        else:
            check_count("rank", rank)
            # sqrt(sd / sqrt(rank)) each, so that the entries of U A have standard deviation sd.
            part = (sd / rank**0.5) ** 0.5
            self.U = normal_on((units, rank), part, base, "U_e", axis=0, span=self.span)
            self.A = normal((rank, contexts), part, base, "A_e")

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with E c added to its current."""
        drive = context @ self.E.mT if self.rank is None else context @ self.A.mT @ self.U.mT
        return replace(circuit, current=circuit.current + spread(drive, self.span, self.units))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("units", "contexts", "rank", "sd", "on")
        return {name: getattr(self, name) for name in names}


class Threshold(AbstractModulation):
    """Threshold shift: phi(G (x - Theta c)) (`e-thr`).

    In the rate form this is a drive with E = -Theta.

    Args:
        units: N.
        contexts: K.
        sd: Standard deviation of the initial entries of Theta, (unit, context).
        on: Fraction of the units that it acts on, the first ones, or (first, stop); None for all.
        seed: Seed or generator of the initial values.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, Threshold
        >>> threshold = Threshold(units=1, contexts=1)
        >>> _ = torch.nn.init.ones_(threshold.Theta)
        >>> network = CTRNN(1, 1, 1, modulation=threshold, nonlinearity="relu")
        >>> circuit = network.circuit(torch.tensor([[0.0], [1.0], [2.0]]))
        >>> x = torch.full((3, 1), 1.5)
        >>> network.rates(circuit, x).flatten().tolist()  # max(x - Theta c, 0)
        [1.5, 0.5, 0.0]
    """

    pathway = "excitability"

    def __init__(
        self,
        units: int,
        contexts: int,
        *,
        sd: float = 0.5,
        on: On | None = None,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("sd", sd)
        self.sd, self.on = sd, check_on(on)
        self.span = units_on(self.on, units, "first")
        base = resolve_seed(seed)
        self.Theta = normal_on((units, contexts), sd, base, "Theta", axis=0, span=self.span)

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with Theta c added to its threshold."""
        shift = spread(context @ self.Theta.mT, self.span, self.units)
        before = circuit.threshold
        return replace(circuit, threshold=shift if before is None else before + shift)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {name: getattr(self, name) for name in ("units", "contexts", "sd", "on")}


class Gain(AbstractModulation):
    """Intrinsic gain: phi(G(c) x) with G = 1 + Gamma c, or exp(Gamma c) (`e-gain`).

    Args:
        units: N.
        contexts: K.
        positive: Whether to use exp(Gamma c), which stays above zero.
        sd: Standard deviation of the initial entries of Gamma, (unit, context).
        on: Fraction of the units that it acts on, the first ones, or (first, stop); None for all.
        seed: Seed or generator of the initial values.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, Gain
        >>> gain = Gain(units=1, contexts=1)
        >>> _ = torch.nn.init.ones_(gain.Gamma)
        >>> network = CTRNN(1, 1, 1, modulation=gain, nonlinearity="relu")
        >>> circuit = network.circuit(torch.tensor([[0.0], [1.0]]))
        >>> x = torch.full((2, 1), 1.5)
        >>> network.rates(circuit, x).flatten().tolist()  # G = 1, then 1 + 1
        [1.5, 3.0]
    """

    pathway = "excitability"

    def __init__(
        self,
        units: int,
        contexts: int,
        *,
        positive: bool = False,
        sd: float = 0.3,
        on: On | None = None,
        seed: Seed | None = None,
    ) -> None:
        super().__init__(units, contexts)
        check_not_negative("sd", sd)
        self.positive, self.sd, self.on = positive, sd, check_on(on)
        self.span = units_on(self.on, units, "first")
        base = resolve_seed(seed)
        self.Gamma = normal_on((units, contexts), sd, base, "Gamma", axis=0, span=self.span)

    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit with its gain multiplied by G(c)."""
        gain = context @ self.Gamma.mT
        gain = gain.exp() if self.positive else gain + 1
        gain = spread(gain, self.span, self.units, neutral=1.0)
        before = circuit.gain
        return replace(circuit, gain=gain if before is None else before * gain)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("units", "contexts", "positive", "sd", "on")
        return {name: getattr(self, name) for name in names}

"""The gains of one condition: couplings of channels to the modulator, and the decoder gain."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ctxrnn._checks import check_count, make_generator

from ._conditions import Condition, ModulationConfig


class Table(nn.Module):
    """c = theta^2, one row per context.

    Args:
        contexts: K.
        channels: C.
        start: Initial theta.
    """

    def __init__(self, contexts: int, channels: int, start: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.full((contexts, channels), float(start)))

    def forward(self) -> Tensor:
        """Return c, (context, channel), not negative."""
        return self.theta.square()


class Mlp(nn.Module):
    """c = softplus(V relu(U e_k + u) + v): a hidden layer between one-hot context and couplings.

    Args:
        contexts: K.
        channels: C.
        hidden: Hidden units.
        start: Initial c, about.
        seed: Of the initial weights.
    """

    def __init__(self, contexts: int, channels: int, hidden: int, start: float, seed: int) -> None:
        super().__init__()
        source = make_generator(seed, "controller")
        self.into = nn.Parameter(torch.randn(contexts, hidden, generator=source))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.out = nn.Parameter(
            torch.randn(hidden, channels, generator=source) * 0.1 / math.sqrt(hidden)
        )
        # The inverse of softplus, which is its argument where exp would overflow.
        shift = start if start > 30 else math.log(math.expm1(start))
        self.shift = nn.Parameter(torch.full((channels,), shift))

    def forward(self) -> Tensor:
        """Return c, (context, channel), not negative."""
        hidden = torch.relu(self.into + self.bias)
        return nn.functional.softplus(hidden @ self.out + self.shift)


class Film(nn.Module):
    """A scale and a shift of every channel in every context (Perez et al. 2018).

    Args:
        contexts: K.
        channels: C.
    """

    def __init__(self, contexts: int, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(contexts, channels))
        self.beta = nn.Parameter(torch.zeros(contexts, channels))


class Modulation(nn.Module):
    """What a condition adds to a pretrained network.

    Args:
        condition: The condition; `mu` and `gain_grad` of the config replace its own.
        config: Its unknowns.
        contexts: K.
        channels: C, of the modulated layer.
        units: H, of the decoder's last layer.
        seed: Of the permutation and of the controller's initial weights.

    Raises:
        ValueError: If a size is below one, or no gradient would reach the couplings.

    Example:
        >>> import math
        >>> import torch
        >>> from ctxrnn.comodulation import Modulation, ModulationConfig, condition
        >>> sizes = {"contexts": 2, "channels": 3, "units": 4}
        >>> attention = Modulation(condition("attention"), ModulationConfig(), **sizes)
        >>> _ = torch.nn.init.constant_(attention.controller.theta, math.log(2) ** 0.5)  # c = log 2
        >>> attention.scale(1.0, variance=0.0).round(decimals=3).tolist()  # exp(m c)
        [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """

    g: Tensor
    tau: Tensor
    order: Tensor

    def __init__(
        self,
        condition: Condition,
        config: ModulationConfig,
        contexts: int,
        channels: int,
        units: int,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("contexts", contexts), ("channels", channels), ("units", units)):
            check_count(name, value)
        condition = config.applied(condition)
        self.condition, self.config = condition, config
        self.controller: Table | Mlp | None = None
        if "controller" in condition.trained:
            start = config.theta_init
            self.controller = (
                Table(contexts, channels, start)
                if config.controller == "table"
                else Mlp(contexts, channels, config.hidden, start**2, seed)
            )
        self.film = Film(contexts, channels) if "film" in condition.trained else None
        # g = exp(eta) over its mean.
        self.eta = (
            nn.Parameter(torch.zeros(contexts, units)) if condition.gain == "learned" else None
        )
        self.register_buffer("g", torch.ones(contexts, units, dtype=torch.float64))
        self.register_buffer("tau", torch.ones(contexts, dtype=torch.float64))
        source = make_generator(seed, "permutation")
        rows = [torch.randperm(units, generator=source) for _ in range(contexts)]
        order = (
            torch.stack(rows) if condition.gain == "permuted" else torch.empty(0, dtype=torch.long)
        )
        self.register_buffer("order", order)

    def couplings(self) -> Tensor | None:
        """Return c, (context, channel), or None where channels are not coupled."""
        return None if self.controller is None else self.controller()

    def scale(self, m: Tensor | float, variance: float) -> Tensor | None:
        """Return the gain of channels, exp(m c - s^2 c^2 / 2) or 1 + m c.

        Args:
            m: The modulator: a number, or (..., context).
            variance: s^2, passed explicitly: 0 in a decision.

        Returns:
            (context, channel), or (..., context, channel); None for no modulation.
        """
        c = self.couplings()
        if c is None:
            return None
        value = m[..., None].to(c) * c if isinstance(m, Tensor) else m * c
        if self.config.gain_form == "linear":
            return 1 + value
        return (value - variance / 2 * c.square()).exp()

    def decision_gain(self) -> Tensor:
        """Return the decoder gain of decisions, (context, unit): the running one, or learnt."""
        if self.eta is not None:
            grown = (self.eta - self.eta.amax(dim=1, keepdim=True)).exp()
            return grown / grown.mean(dim=1, keepdim=True)
        return self.shown(self.g)

    def shown(self, g: Tensor) -> Tensor:
        """Return a gain as the decoder gets it: permuted where the condition says so."""
        return g.gather(1, self.order) if self.condition.gain == "permuted" else g

    @torch.no_grad()
    def update(self, fresh: Tensor, seen: Tensor | None = None) -> None:
        """Move the running gain: g <- (tau g + fresh) / (tau + 1), mean 1, tau <- tau + 1.

        Args:
            fresh: Gain of a batch, (context, unit).
            seen: Which contexts had images, (context,); the others stay. None for all.
        """
        moved = (self.tau[:, None] * self.g + fresh.to(self.g)) / (self.tau[:, None] + 1)
        moved = moved / moved.mean(dim=1, keepdim=True)
        later = (self.tau + 1).clamp_max(self.config.tau_max)
        if seen is not None:
            moved = torch.where(seen[:, None], moved, self.g)
            later = torch.where(seen, later, self.tau)
        self.g.copy_(moved)
        self.tau.copy_(later)

    def parameter_count(self) -> int:
        """Return the number of parameters that the condition adds."""
        return sum(parameter.numel() for parameter in self.parameters())

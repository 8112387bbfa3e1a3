"""Initial recurrent weights; Dale's law, sparsity and missing self-connections."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctxrnn._checks import check_count, check_fraction, check_not_negative, check_positive


class Masked(nn.Module):
    """Parametrization: weights outside a mask are zero.

    Args:
        mask: (unit, unit), 1 where a connection exists, `[post, pre]`.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weights."""
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return a raw weight that maps onto `weight`."""
        return weight * self.mask


class Dale(nn.Module):
    """Parametrization: all weights from one neuron share its sign, |raw| * sign (Dale's law).

    Args:
        sign: (unit,), +1 for an excitatory and -1 for an inhibitory presynaptic neuron.
    """

    sign: Tensor

    def __init__(self, sign: Tensor) -> None:
        super().__init__()
        self.register_buffer("sign", sign)

    def forward(self, weight: Tensor) -> Tensor:
        """Return |raw| * sign, by presynaptic neuron."""
        return weight.abs() * self.sign

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return a raw weight that maps onto `weight`."""
        if (weight * self.sign < 0).any():
            raise ValueError(
                "weights must obey Dale's law: an excitatory column holds a negative entry, or an "
                "inhibitory one a positive entry"
            )
        return weight.abs()


def dale_signs(units: int, excitatory: float) -> Tensor:
    """Return +1 for the first round(excitatory * N) neurons and -1 for the rest, (unit,).

    Args:
        units: N.
        excitatory: Fraction of excitatory neurons, in [0, 1].
    """
    check_fraction("excitatory", excitatory)
    count = round(excitatory * units)
    return torch.cat([torch.ones(count), -torch.ones(units - count)])


def connection_mask(
    units: int, *, density: float, self_connections: bool, generator: torch.Generator
) -> Tensor:
    """Draw which connections exist, (unit, unit) of 0 and 1, `[post, pre]`.

    Args:
        units: N.
        density: Probability that a connection exists, in (0, 1].
        self_connections: Whether a neuron may project to itself.
        generator: Source of the random numbers.
    """
    check_fraction("density", density)
    check_positive("density", density)
    drawn = torch.rand((units, units), generator=generator, dtype=torch.float64)
    mask = (drawn < density).to(torch.get_default_dtype())
    return mask if self_connections else mask.fill_diagonal_(0)


def initial_weight(
    units: int,
    *,
    kind: str,
    g: float,
    generator: torch.Generator,
    mask: Tensor | None = None,
    sign: Tensor | None = None,
    spectral_radius: float | None = None,
) -> Tensor:
    """Draw the initial recurrent weights, (unit, unit), `[post, pre]`.

    Args:
        units: N.
        kind: "gaussian" for N(0, g^2 / N), "identity" for g / 2 times the identity.
        g: Spread; 1 gives a spectral radius near 1 for the Gaussian.
        generator: Source of the random numbers.
        mask: Connections that exist; Gaussian weights grow by 1 / sqrt(density) to make up.
        sign: Signs of the presynaptic neurons under Dale's law. Inhibition is scaled up so that
            excitation and inhibition balance on average where both exist.
        spectral_radius: Scale the result to this spectral radius; None leaves it.
    """
    check_count("units", units)
    check_not_negative("g", g)
    if kind == "gaussian":
        weight = torch.randn((units, units), generator=generator, dtype=torch.float64)
        weight *= g * units**-0.5
    elif kind == "identity":
        weight = 0.5 * g * torch.eye(units, dtype=torch.float64)
    else:
        raise ValueError(f"initial weight must be 'gaussian' or 'identity': got {kind!r}")
    if mask is not None:
        density = float(mask.double().mean())
        grow = kind == "gaussian" and density > 0
        weight = weight * mask.double() * (density**-0.5 if grow else 1.0)
    if sign is not None:
        weight = _balance(weight.abs() * sign.double(), sign)
    if spectral_radius is not None:
        check_positive("spectral_radius", spectral_radius)
        radius = float(torch.linalg.eigvals(weight).abs().max())
        if radius == 0:
            raise ValueError("spectral_radius cannot be set: the initial weights are all zero")
        weight = weight * (spectral_radius / radius)
    return weight.to(torch.get_default_dtype())


def _balance(weight: Tensor, sign: Tensor) -> Tensor:
    excitation, inhibition = weight[:, sign > 0].sum(), -weight[:, sign < 0].sum()
    if excitation == 0 or inhibition == 0:
        return weight
    scale = torch.where(sign > 0, torch.ones_like(excitation), excitation / inhibition)
    return weight * scale

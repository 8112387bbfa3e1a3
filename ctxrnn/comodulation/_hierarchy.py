"""The hierarchical network of Haimerl et al. (2022): local layers over a modulated bank of filters.

    c = (theta * theta) F,   r~ = d * exp(m c - Var(m) c^2 / 2),   d = relu(r) or exp(r),
    h1 = relu(W1 r~ + b1),   h2 = relu(W2 h1 + b2),   y = softmax(W (g * h2) + b)

r are fixed responses at positions x positions x orientations. A unit of a hidden layer sees a 2 x 2
window of positions at one orientation. The gain is positive, so that it may be applied before or
after the rectification of r; d ("drive") is therefore computed once for each image.

Axes: network, image, unit of the position, row, column, orientation. Weights that networks share
have a first axis of length 1. Gradients are written out, since batches of two images leave no time
for anything else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ctxrnn._checks import check_count, check_positive

from . import _passes
from ._local import local, local_gradient


@dataclass(frozen=True)
class HierarchyConfig:
    """Sizes of the network.

    Attributes:
        positions: Positions of the filters along each side.
        orientations: Their orientations, over [0, pi).
        units: Units at each position and orientation of a hidden layer.
        classes: Outputs.
        smoothing: Standard deviation of F, in units of the image's coordinates and in radians.
        extent: Side of the image in its coordinates; the outer filters are centred on its edges.
    """

    positions: int = 16
    orientations: int = 10
    units: int = 4
    classes: int = 10
    smoothing: float = 0.1
    extent: float = 4 * math.pi

    def __post_init__(self) -> None:
        for name in ("orientations", "units", "classes"):
            check_count(name, getattr(self, name))
        if self.positions < 3:
            raise ValueError(
                "positions must be at least 3, for two windows of 2 after another: got "
                f"{self.positions}"
            )
        check_positive("smoothing", self.smoothing)
        check_positive("extent", self.extent)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the responses: row, column, orientation."""
        return (self.positions, self.positions, self.orientations)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of encoder units and of units of both hidden layers."""
        squares = ((self.positions - step) ** 2 * self.orientations for step in range(3))
        first, second, third = squares
        return first, second * self.units, third * self.units

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter of one network.

        Weights of a hidden layer are (unit, place of the window, unit below, row, column,
        orientation).
        """
        below, own = self.positions - 1, self.positions - 2
        n, o = self.units, self.orientations
        return {
            "w1": (n, 4, 1, below, below, o),
            "b1": (n, below, below, o),
            "w2": (n, 4, n, own, own, o),
            "b2": (n, own, own, o),
            "out": (self.classes, self.sizes[2]),
            "bias": (self.classes,),
        }


class Weights(NamedTuple):
    """Views of the parameters of some networks, each with a first axis for the network."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    out: Tensor
    bias: Tensor


def unpack(flat: Tensor, config: HierarchyConfig) -> Weights:
    """Return views of the parameters that are laid out one after another, (network, number)."""
    views, first = [], 0
    for shape in config.shapes().values():
        last = first + math.prod(shape)
        views.append(flat[:, first:last].view(len(flat), *shape))
        first = last
    return Weights(*views)


def parameter_total(config: HierarchyConfig) -> int:
    """Return the number of parameters of one network, without theta."""
    return sum(math.prod(shape) for shape in config.shapes().values())


def draw_parameters(
    config: HierarchyConfig, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw one network's parameters, (1, number).

    As a dense linear layer that is masked afterwards: uniform within 1 / sqrt(units below), for
    all units below and not for the few that a unit sees.
    """
    fan_in = dict(zip(("1", "2", "t"), config.sizes, strict=True))
    parts = []
    for name, shape in config.shapes().items():
        below = fan_in["t" if name in ("out", "bias") else name[-1]]
        drawn = torch.rand(math.prod(shape), generator=generator, dtype=torch.float64)
        parts.append((2 * drawn - 1) / math.sqrt(below))
    return torch.cat(parts)[None].to(dtype)


def smoothing_factors(config: HierarchyConfig) -> tuple[Tensor, Tensor]:
    """Return F as its factors over one axis of positions and over orientations, float64.

    F[k, j] is a Gaussian of the distance between units k and j, rows normalised first, then
    columns. The Gaussian and both sums are products over the axes, and so is F: row x column x
    orientation, the first two alike. Orientations are not taken as a circle.
    """
    places = torch.linspace(0, config.extent, config.positions, dtype=torch.float64)
    angles = torch.arange(config.orientations, dtype=torch.float64) * math.pi / config.orientations
    return _normalised(places, config.smoothing), _normalised(angles, config.smoothing)


def _normalised(places: Tensor, sd: float) -> Tensor:
    kernel = torch.exp(-((places[:, None] - places) ** 2) / (2 * sd**2))
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    return kernel / kernel.sum(dim=0)


class Smoothing:
    """The map theta -> c = (theta * theta) F and its gradient.

    A factor that is the identity in the precision at hand is left out.

    Args:
        config: Sizes.
        dtype: Of theta.
    """

    def __init__(self, config: HierarchyConfig, dtype: torch.dtype = torch.float32) -> None:
        self.position, self.orientation = (
            None if _is_identity(factor, dtype) else factor.to(dtype)
            for factor in smoothing_factors(config)
        )

    def couplings(self, theta: Tensor) -> Tensor:
        """Return c, (network, row, column, orientation)."""
        return self._apply(theta * theta, transpose=False)

    def gradient(self, theta: Tensor, dc: Tensor) -> Tensor:
        """Return the gradient with respect to theta, given that with respect to c."""
        return 2 * theta * self._apply(dc, transpose=True)

    def _apply(self, values: Tensor, *, transpose: bool) -> Tensor:
        place, angle = self.position, self.orientation
        if place is not None:
            place = place.mT if transpose else place
            values = torch.einsum("nyxo,yz,xw->nzwo", values, place, place)
        return values if angle is None else _times(values, angle.mT if transpose else angle)


def _times(values: Tensor, factor: Tensor) -> Tensor:
    """Return values @ factor, diagonal by diagonal: most of F lies on a few."""
    out = values * factor.diagonal()
    size = len(factor)
    for offset in range(1, size):
        above, below = factor.diagonal(offset), factor.diagonal(-offset)
        if max(above.max(), below.max()) < torch.finfo(factor.dtype).eps / 4:
            break
        out[..., offset:].addcmul_(values[..., :-offset], above)
        out[..., :-offset].addcmul_(values[..., offset:], below)
    return out


def _is_identity(factor: Tensor, dtype: torch.dtype) -> bool:
    rest = (factor - torch.eye(len(factor), dtype=factor.dtype)).abs().max()
    return bool(rest < torch.finfo(dtype).eps / 4)


def drive_of(responses: Tensor, *, exponential: bool = False) -> Tensor:
    """Return d, which the gain multiplies: relu(r), or exp(r)."""
    return responses.exp() if exponential else responses.clamp_min(0)


def modulated(drive: Tensor, c: Tensor, m: Tensor | float, variance: float) -> Tensor:
    """Return r~ = d exp(m c - variance c^2 / 2); the variance of m is given, never estimated."""
    exponent = m * c
    if variance:
        exponent = exponent - (variance / 2) * c * c
    return drive * exponent.exp()


class Activity(NamedTuple):
    """Modulated responses and rectified activity of both hidden layers."""

    modulated: Tensor
    h1: Tensor
    h2: Tensor


def hidden(weights: Weights, responses: Tensor) -> Activity:
    """Run the hidden layers on modulated responses, (network, image, row, column, orientation)."""
    h1 = local(responses[:, :, None], weights.w1, weights.b1)
    h2 = local(h1, weights.w2, weights.b2)
    return Activity(responses, h1, h2)


def readout(weights: Weights, h2: Tensor, gain: Tensor | None = None) -> Tensor:
    """Return log probabilities, (network, image, class).

    Args:
        weights: The output layer's.
        h2: (network, image, ...), of any shape behind.
        gain: g, (network, unit); None for 1.
    """
    flat = h2.flatten(2)
    if gain is not None:
        flat = flat * gain[:, None]
    if len(weights.out) == 1:
        shared = torch.nn.functional.linear(flat.flatten(0, 1), weights.out[0], weights.bias[0])
        return torch.log_softmax(shared.view(*flat.shape[:2], -1), dim=2)
    return torch.log_softmax(torch.baddbmm(weights.bias[:, None], flat, weights.out.mT), dim=2)


def loss_of(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return the mean negative log likelihood of each network, (network,)."""
    return -log_p.gather(2, labels[:, :, None]).mean(dim=(1, 2))


def logit_gradient(log_p: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of `loss_of` with respect to the logits."""
    found = log_p.exp()
    found.scatter_add_(2, labels[:, :, None], -torch.ones_like(found[:, :, :1]))
    return found / labels.shape[1]


def hidden_gradient(weights: Weights, activity: Activity, dh2: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients with respect to the layers' sums, (a2, a1), from that of h2."""
    da2 = torch.ops.aten.threshold_backward(dh2, activity.h2, 0)
    da1 = torch.ops.aten.threshold_backward(local_gradient(da2, weights.w2), activity.h1, 0)
    return da2, da1


_CHUNK = 16
"""Images that are computed together, so that their activity stays in the cache."""


def log_probabilities(
    weights: Weights, drives: Tensor, gain: Tensor | None = None, factor: Tensor | None = None
) -> Tensor:
    """Run one network on many images, some at a time; log probabilities, (image, class).

    Args:
        weights: Of one network.
        drives: (image, row, column, orientation).
        gain: g, (unit,); None for 1.
        factor: exp(m c), which every drive is multiplied by, (row, column, orientation).
    """
    found = _passes.read(weights, drives, factor, gain)
    if found is not None:
        return found
    own = None if gain is None else gain[None]
    parts = []
    for part in drives.split(_CHUNK):
        seen = part if factor is None else part * factor
        parts.append(readout(weights, hidden(weights, seen[None]).h2, own)[0])
    return torch.cat(parts)


def last_activity(weights: Weights, responses: Tensor) -> Tensor:
    """Return the last hidden layer's activity of one network, (image, unit)."""
    parts = [hidden(weights, part[None]).h2[0].flatten(1) for part in responses.split(_CHUNK)]
    return torch.cat(parts)

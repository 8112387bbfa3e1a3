"""The noise pass of the hierarchical network: what the last hidden layer shares with the modulator.

    q = mean_t (h_t - mean h)(m_t - mean m),   q <- max(q, 0) / mean,
    g <- (tau g + q) / (tau + 1),   g <- g / mean(g),   tau <- min(tau + 1, 100)

One scalar m is drawn T times. For a given image h is a function of m alone, so that q is a sum over
the T draws of a function of one variable. It is taken by the Gauss rule of the drawn sample: K
nodes and weights that integrate polynomials up to degree 2K - 1 over the T draws without error. In
m, h is analytic but for the kinks of its rectifications.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _passes
from ._hierarchy import Weights, hidden, modulated

ARMS = ("blank", "images", "blank-exp", "permuted")
"""What the noise pass shows: a blank image, the images of the minibatch, a blank image with the
exponential nonlinearity; "permuted" is the gain of "blank" with its units exchanged."""
LONGEST_TAU = 100


def sample_rule(m: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Return the Gauss rule of samples: nodes and weights, (sample, node).

    Lanczos' iteration on the diagonal matrix of the draws, with complete reorthogonalisation
    (Golub and Welsch 1969). With as many nodes as draws it is the sample itself.

    Args:
        m: Draws, (sample, draw), float64.
        nodes: K.
    """
    draws = m.shape[1]
    if not 1 <= nodes <= draws:
        raise ValueError(f"nodes must be in [1, {draws}], the number of draws: got {nodes}")
    basis = m.new_empty(len(m), nodes, draws)
    alpha, beta = m.new_empty(len(m), nodes), m.new_empty(len(m), max(nodes - 1, 0))
    vector = torch.full_like(m, draws**-0.5)
    for step in range(nodes):
        basis[:, step] = vector
        along = m * vector
        alpha[:, step] = (along * vector).sum(1)
        known = basis[:, : step + 1]
        for _ in range(2):
            along = along - torch.einsum(
                "sk,skt->st", torch.einsum("skt,st->sk", known, along), known
            )
        if step + 1 < nodes:
            length = along.norm(dim=1)
            beta[:, step] = length
            vector = along / length[:, None]
    jacobi = alpha.diag_embed() + beta.diag_embed(1) + beta.diag_embed(-1)
    values, vectors = torch.linalg.eigh(jacobi)
    return values, vectors[:, 0] ** 2


def covariance_weights(m: Tensor, nodes: int | None) -> tuple[Tensor, Tensor]:
    """Return values of m and factors such that q = sum of factor x h(value), (sample, node).

    Args:
        m: Draws, (sample, draw), float64.
        nodes: K of the Gauss rule; None takes every draw.
    """
    centre = m.mean(1, keepdim=True)
    if nodes is None:
        return m, (m - centre) / m.shape[1]
    values, weights = sample_rule(m, nodes)
    return values, weights * (values - centre)


def genuine_covariance(
    weights: Weights, drive: Tensor, c: Tensor, values: Tensor, factors: Tensor, variance: float
) -> Tensor:
    """Return q before rectification, averaged over images, (network, unit).

    All images meet the same draws, so that this is the covariance over all their pairs with m.

    Args:
        weights: Of the hidden layers.
        drive: d, (network, image, row, column, orientation).
        c: Couplings, (network, row, column, orientation).
        values: Values of m, (network, node).
        factors: From `covariance_weights`, (network, node).
        variance: Var(m), given.
    """
    m = values[:, :, None, None, None].to(c)
    shared = modulated(torch.ones_like(c[:, None]), c[:, None], m, variance)
    share = factors.to(c) / drive.shape[1]
    found = _passes.covariance(weights, drive, shared, share)
    if found is not None:
        return found
    q = share.new_zeros(len(c), weights.b2[0].numel())
    for image in range(drive.shape[1]):
        h2 = hidden(weights, drive[:, image, None] * shared).h2
        q = q + (share[:, None] @ h2.flatten(2))[:, 0]
    return q


class BlankCovariance:
    """The covariance that a blank image leaves: rounding, and nothing else.

    Without the exponential nonlinearity a blank image drives no unit, whatever m is, so that h is
    the same in all draws. Then h - mean h is the rounding error of the mean, and q its product with
    that of m - mean m. Units with the same error have the same q: it is computed once for each.

    Args:
        weights: Of one network, float32.
        draws: T.
    """

    def __init__(self, weights: Weights, draws: int) -> None:
        rows = weights.b1.shape[-2] + 1
        blank = weights.b1.new_zeros(1, 1, rows, rows, weights.b1.shape[-1])
        activity = hidden(weights, blank).h2.flatten(1).repeat(draws, 1)
        self.errors = activity[0] - activity.mean(0)
        self.distinct, self.unit = self.errors.unique(return_inverse=True)

    def __call__(self, m: Tensor) -> Tensor:
        """Return q before rectification, (sample, unit), for draws (sample, draw)."""
        # One after another: in products of another shape rounding, which is all there is, differs.
        return torch.stack([self._one(row.to(self.errors.dtype)) for row in m])

    def _one(self, m: Tensor) -> Tensor:
        rest = m - m.mean()
        repeated = self.distinct[:, None].expand(-1, len(m)).contiguous()
        return (torch.mv(repeated, rest) / len(m))[self.unit]


def updated_gain(gain: Tensor, q: Tensor, tau: int) -> tuple[Tensor, int]:
    """Return g and tau after one noise pass.

    Args:
        gain: g, (network, unit).
        q: Covariance before rectification, (network, unit).
        tau: Number of passes that g stands for.
    """
    positive = q.clamp_min(0)
    mean = positive.mean(1, keepdim=True)
    relative = torch.where(mean > 0, positive / torch.where(mean > 0, mean, 1), 1)
    found = (tau * gain + relative) / (tau + 1)
    return found / found.mean(1, keepdim=True), min(tau + 1, LONGEST_TAU)

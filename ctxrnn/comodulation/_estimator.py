"""The decoder gain: covariance of the decoder with the modulator, rectified, of mean one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrnn._checks import check_positive

FLOOR = 1e-6
"""Of the mean activity: a smaller mean covariance is rounding, and the gain is 1."""


@dataclass(frozen=True)
class Draws:
    """Values of the modulator in a noise pass, and the labels that the covariance is taken with.

    Attributes:
        m: (draw, image, context); two draws, m and -m, if antithetic.
        labels: The same values, or permuted ones, (draw, image, context).
    """

    m: Tensor
    labels: Tensor

    def rows(self, first: int, last: int) -> Draws:
        """Return those of some images."""
        return Draws(self.m[:, first:last], self.labels[:, first:last])


def draw_modulator(
    images: int,
    contexts: int,
    *,
    sigma: float,
    generator: torch.Generator,
    axis: str = "antithetic",
    draws: int = 500,
    center: float = 0.0,
    shuffled: bool = False,
) -> Draws:
    """Draw the modulator of a noise pass.

    Args:
        images: Number of images; of noise_axis "single" each of the draws counts as one.
        contexts: K.
        sigma: Standard deviation.
        generator: On the CPU, so that every device sees the same numbers.
        axis: "antithetic", "naive" or "single".
        draws: Number of draws of "single".
        center: Mean.
        shuffled: Whether the labels are permuted across all draws, context by context.

    Returns:
        `m`, (draw, image, context), and `labels` of the same shape: m less its mean, or permuted.

    Raises:
        ValueError: If sigma is not positive.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import draw_modulator
        >>> draws = draw_modulator(images=100, contexts=3, sigma=0.1, generator=torch.Generator())
        >>> draws.m.shape  # (draw, image, context)
        torch.Size([2, 100, 3])
        >>> torch.equal(draws.m[1], -draws.m[0])
        True
    """
    check_positive("sigma", sigma)
    rows = draws if axis == "single" else images
    m = sigma * torch.randn(1, rows, contexts, generator=generator, dtype=torch.float64)
    m = torch.cat([m, -m]) if axis == "antithetic" else m
    labels = m
    if shuffled:
        flat = m.reshape(-1, contexts)
        order = torch.stack(
            [torch.randperm(len(flat), generator=generator) for _ in range(contexts)], dim=1
        )
        labels = flat.gather(0, order).reshape(m.shape)
    return Draws(m + center, labels)


class Covariance:
    """Sums over draws and images, from which the covariance of each unit with m follows.

        q_ki = cov(m_k, a_ki) / sigma^2        (corr: q_ki sigma / sd(a_ki))

    With antithetic pairs the labels add up to 0, and q is the mean over images of
    m (a(m) - a(-m)) / (2 sigma^2). Sums are in float64; where activities have a gradient, so has q.

    Args:
        contexts: K.
        units: H.
        sigma: Standard deviation of m.
        device: Where the sums are.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import Covariance, draw_modulator
        >>> draws = draw_modulator(1000, 1, sigma=0.1, generator=torch.Generator())
        >>> m = draws.m[..., None]  # (draw, image, context, 1)
        >>> activity = torch.cat([1 + 3 * m, 1 + m, 1 - m], dim=-1)  # three units
        >>> sums = Covariance(contexts=1, units=3, sigma=0.1)
        >>> sums.add(activity, draws.labels, rest=torch.ones(1000, 3))
        >>> sums.gain().round(decimals=3).tolist()  # 3 : 1 : 0, of mean one
        [[2.25, 0.75, 0.0]]
    """

    def __init__(
        self, contexts: int, units: int, sigma: float, device: torch.device | str = "cpu"
    ) -> None:
        zeros = torch.zeros(contexts, units, dtype=torch.float64, device=device)
        self.sigma = sigma
        self.product, self.total, self.square, self.rest = (zeros.clone() for _ in range(4))
        self.label = zeros[:, 0].clone()
        self.count, self.images = zeros[:, 0].clone(), zeros[:, 0].clone()

    def add(
        self, activity: Tensor, labels: Tensor, rest: Tensor, weight: Tensor | None = None
    ) -> None:
        """Take in some images.

        Args:
            activity: a, (draw, image, context, unit).
            labels: (draw, image, context).
            rest: Activity at m = 0, which is the same in every context, (image, unit).
            weight: 1 where an image counts for a context, else 0, (image, context); None for all.
        """
        a, m = activity.double(), labels.to(activity.device)
        w = torch.ones_like(m[0]) if weight is None else weight.to(m)
        # Draws first: of an antithetic pair what does not depend on m cancels exactly.
        self.product = self.product + ((m[..., None] * a).sum(0) * w[..., None]).sum(0)
        self.total = self.total + (a.sum(0) * w[..., None]).sum(0)
        self.square = self.square + ((a * a).sum(0) * w[..., None]).sum(0)
        self.label = self.label + (m.sum(0) * w).sum(0)
        self.count = self.count + len(m) * w.sum(0)
        self.rest = self.rest + w.mT @ rest.double()
        self.images = self.images + w.sum(0)

    def raw(self, stat: str = "cov") -> Tensor:
        """Return q before rectification, (context, unit); 0 for a context without images."""
        n = self.count.clamp_min(1)[:, None]
        q = (self.product - self.label[:, None] * self.total / n) / (n * self.sigma**2)
        if stat == "cov":
            return q
        variance = (self.square - self.total**2 / n).clamp_min(0) / n
        # A unit that never varies has no correlation, and its covariance is 0.
        return q * self.sigma / torch.where(variance > 0, variance, torch.inf).sqrt()

    def gain(self, stat: str = "cov", where: str = "the noise pass") -> Tensor:
        """Return g, (context, unit), float64: `rectified_gain` of q."""
        resting = self.rest.mean(dim=1) / self.images.clamp_min(1)
        return rectified_gain(self.raw(stat), resting, where)


def rectified_gain(q: Tensor, resting: Tensor, where: str = "the noise pass") -> Tensor:
    """Return max(q, 0) over its mean, or 1 where that mean is rounding.

    Args:
        q: (context, unit).
        resting: Mean activity over units and images at m = 0, (context,).
        where: What q is from, for the error.

    Returns:
        g, (context, unit), of mean 1 over the units of a context.

    Raises:
        FloatingPointError: If a covariance or an activity is NaN or infinite.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import rectified_gain
        >>> rectified_gain(torch.tensor([[3.0, 1.0, -1.0, 0.0]]), resting=torch.ones(1))
        tensor([[3., 1., 0., 0.]])
    """
    # Comparisons with NaN are false, and the gain would be 1 as if there were no covariance.
    if not bool(q.isfinite().all() & resting.isfinite().all()):
        bad = int((~q.isfinite()).sum())
        raise FloatingPointError(
            f"{where} gave no decoder gain: {bad} of {q.numel()} covariances with the modulator "
            "are NaN or infinite. Look for NaN among its images or features, or use a smaller "
            "learning rate or sigma"
        )
    positive = q.clamp_min(0)
    mean = positive.mean(dim=1, keepdim=True)
    genuine = mean > FLOOR * resting[:, None].to(mean).abs()
    return torch.where(genuine, positive / torch.where(genuine, mean, 1), torch.ones_like(q))

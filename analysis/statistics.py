"""Intervals over networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean over networks with its interval.

    Attributes:
        mean: Sample mean.
        low: Lower end; NaN where there are fewer than two values.
        high: Upper end; likewise.
        count: Number of networks.
        level: Confidence level.
    """

    mean: float
    low: float
    high: float
    count: int
    level: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.mean:.3f} (n = {self.count})"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.count})"


def mean_interval(values: Sequence[float] | np.ndarray, *, level: float = 0.95) -> Interval:
    """Student's t interval of a mean over independently seeded networks.

    mean +- t_{n-1} s / sqrt(n). With the two to five networks of a small study a bootstrap cannot
    reach its nominal coverage (it never leaves the range of the sample), so the t interval, which
    is honestly wide, is used instead.

    Args:
        values: One value per network; NaN (a threshold that was never crossed) is refused.
        level: Confidence level, in (0, 1).

    Raises:
        ValueError: If there is no value, a value is not finite, or the level is out of range.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"values must be one number per network: got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("values must be finite: leave out, or count apart, those that are not")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1: got {level}")
    mean = float(array.mean())
    if array.size < 2:
        return Interval(mean, float("nan"), float("nan"), 1, level)
    error = float(array.std(ddof=1) / np.sqrt(array.size))
    reach = float(stats.t.ppf(0.5 + level / 2, array.size - 1)) * error
    return Interval(mean, mean - reach, mean + reach, int(array.size), level)

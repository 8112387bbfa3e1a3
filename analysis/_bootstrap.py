"""Intervals over networks: Student's t, and a bootstrap that knows task orders."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ctxrnn import derive_seed
from ctxrnn._checks import check_count

Statistic = Callable[..., np.ndarray]

# Resampled numbers held at once.
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate over networks with its interval.

    Attributes:
        mean: The estimate: the sample mean, or the statistic that was asked for.
        low: Lower end; NaN where there are fewer than two independent values.
        high: Upper end; likewise.
        count: Number of networks.
        level: Confidence level.

    Example: that of `mean_interval`.
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

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0 (False where there is none)."""
        return bool(self.low > 0 or self.high < 0)


def mean_interval(
    values: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Hashable] | np.ndarray | None = None,
    level: float = 0.95,
) -> Interval:
    """Return Student's t interval of a mean over independently seeded networks.

    mean +- t_{n-1} s / sqrt(n). With the two to five networks of a small study a bootstrap cannot
    reach its nominal coverage (it never leaves the range of the sample), so the t interval, which
    is honestly wide, is used instead. With `groups` (task orders) the standard error is that of
    clusters (Liang and Zeger 1986) and n is the number of groups.

    Args:
        values: One value per network; NaN (a threshold that was never crossed) is refused.
        groups: Group of each value, e.g. its task order.
        level: Confidence level, in (0, 1).

    Returns:
        The mean with its interval; the ends are NaN if there is one value, or one group.

    Raises:
        ValueError: If there is no value, a value is not finite, or the level is out of range.

    Example:
        >>> from ctxrnn.analysis import mean_interval
        >>> interval = mean_interval([1.0, 2.0, 3.0])  # 2 +- 4.303 / sqrt(3)
        >>> print(interval)
        2.000 [-0.484, 4.484] (n = 3)
        >>> interval.excludes_zero
        False
    """
    array = one_per_network(values)
    check_level(level)
    codes = group_codes(groups, array.size)
    return clustered_interval(array, np.arange(array.size) if codes is None else codes, level)


def clustered_interval(values: np.ndarray, groups: np.ndarray, level: float) -> Interval:
    """Student's t interval of a mean over values in independent groups.

    mean +- t_{G-1} sqrt(G / (G - 1) sum_g (sum_{i in g} (x_i - mean) / n)^2), the cluster-robust
    standard error of a mean (Liang and Zeger 1986, with the factor for few groups). With one value
    per group it is the ordinary t interval, with equal groups that of the groups' means.

    Args:
        values: x, (network,).
        groups: Number of each value's group, 0 to G - 1.
        level: Confidence level.
    """
    mean = float(values.mean())
    number = int(groups.max()) + 1
    if number < 2:
        return Interval(mean, float("nan"), float("nan"), values.size, level)
    shares = np.bincount(groups, values - mean) / values.size
    error = float(np.sqrt(number / (number - 1) * (shares**2).sum()))
    reach = float(stats.t.ppf(0.5 + level / 2, number - 1)) * error
    return Interval(mean, mean - reach, mean + reach, values.size, level)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    *,
    statistic: Statistic = np.mean,
    groups: Sequence[Hashable] | np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return a percentile bootstrap interval, widened for small samples.

    The ends are the quantiles alpha' and 1 - alpha' of the statistic over resamples, with

        alpha' = Phi(-sqrt(n / (n - 1)) t_{n-1, 1 - alpha/2})

    in place of alpha / 2, which undoes the bootstrap's too small variance and too short tails
    (Hesterberg 2015, The American Statistician 69:371). With `groups` (task orders) whole groups
    are drawn, then values within each one drawn, and n is the number of groups.

    Coverage really reached by a 95 % interval of the mean, simulated: 0.92 at n = 5, 0.95 at
    n = 10 and at n = 30 for normal values; 0.86, 0.90 and 0.93 for exponential ones. The interval
    never leaves the range of the values, so that it covers no more than 0.75 at n = 3 and 0.50 at
    n = 2: below five values use `mean_interval`.

    Args:
        values: One value per network.
        statistic: A function of (values, axis=-1), such as np.mean or np.median.
        groups: Group of each value, e.g. its task order.
        level: Confidence level, in (0, 1).
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        The statistic of the values with its interval; the ends are NaN if n = 1.

    Raises:
        ValueError: If a value is not finite, or an argument is out of range.
        TypeError: If the statistic takes no `axis`.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import bootstrap_interval
        >>> areas = [0.7, 0.72, 0.75, 0.76, 0.78, 0.8, 0.82, 0.99]
        >>> interval = bootstrap_interval(areas, statistic=np.median)
        >>> round(interval.mean, 3), interval.count
        (0.77, 8)
        >>> 0.7 <= interval.low < 0.77 < interval.high <= 0.99  # never beyond the values
        True
    """
    array = one_per_network(values)
    codes = group_codes(groups, array.size)

    def along_networks(rows: np.ndarray) -> np.ndarray:
        return np.asarray(statistic(rows[..., 0], axis=-1))

    try:
        estimate = along_networks(array[None, :, None])
    except TypeError as error:
        raise TypeError(
            "statistic must take (values, axis=-1), as np.mean does; wrap yours with "
            "functools.partial(np.apply_along_axis, ...) or a lambda"
        ) from error
    if estimate.shape != (1,):
        raise ValueError(
            f"statistic must turn (1, {array.size}) values into (1,) along axis=-1: got shape "
            f"{estimate.shape}"
        )
    low, high = bootstrap_ends(
        array[:, None], along_networks, codes, level=level, resamples=resamples, seed=seed
    )
    return Interval(float(estimate[0]), low, high, array.size, level)


def bootstrap_ends(
    rows: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: np.ndarray | None,
    *,
    level: float,
    resamples: int,
    seed: int,
    strata: np.ndarray | None = None,
    fewest: int = 2,
) -> tuple[float, float]:
    """Return both ends of the widened percentile interval for a statistic of rows.

    Args:
        rows: One row per replicate, (replicate, ...).
        statistic: Turns (resample, replicate, ...) into (resample,); NaN is left out.
        groups: Number of each row's group, or None.
        level: Confidence level.
        resamples: Number of resamples.
        seed: Seed of the resamples.
        strata: Number of each row's stratum, or None; see `resampled`.
        fewest: Below so many independent rows there is no interval: the ends are NaN.
    """
    check_level(level)
    check_count("resamples", resamples)
    number = len(rows) if groups is None else int(groups.max()) + 1
    if number < max(2, fewest):
        return float("nan"), float("nan")
    width = max(1, int(np.prod(rows.shape[1:])))
    drawn = resampled(len(rows), groups, resamples=resamples, seed=seed, width=width, strata=strata)
    values = np.concatenate([statistic(rows[index]) for index in drawn])
    return widened_quantiles(values, number, level)


def widened_quantiles(values: np.ndarray, number: int, level: float) -> tuple[float, float]:
    """Return the quantiles alpha' and 1 - alpha' of `bootstrap_interval`; NaN is left out.

    They are values themselves (the next one outwards), so that infinite ones, which stand for
    censored results, may be among them.
    """
    ordered = np.sort(values[~np.isnan(values)])
    if not ordered.size:
        return float("nan"), float("nan")
    reach = np.sqrt(number / (number - 1)) * stats.t.ppf(0.5 + level / 2, number - 1)
    place = int(np.floor(stats.norm.cdf(-reach) * (ordered.size - 1)))
    return float(ordered[place]), float(ordered[-1 - place])


def resampled(
    count: int,
    groups: np.ndarray | None,
    *,
    resamples: int,
    seed: int,
    width: int = 1,
    strata: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Yield resampled row numbers in blocks, (resample, row).

    Groups of unequal size give resamples of unequal length; a block holds those of one length. With
    strata (fixed conditions, such as sizes) each row is replaced by one of its own stratum, in the
    same group, so that no resample lacks a condition that its groups have.

    Args:
        count: Number of rows.
        groups: Number of each row's group, or None to draw rows.
        resamples: Number of resamples in all.
        seed: Seed.
        width: Numbers per row, which limits the size of a block.
        strata: Number of each row's stratum, or None.
    """
    generator = np.random.default_rng(derive_seed(seed, "bootstrap"))
    block = max(1, _CHUNK // (count * width))
    for first in range(0, resamples, block):
        size = min(block, resamples - first)
        if groups is None and strata is None:
            yield generator.integers(count, size=(size, count))
        elif groups is None:
            assert strata is not None
            yield _within(np.tile(np.arange(count), (size, 1)), strata, generator)
        else:
            yield from _two_levels(groups, strata, size, generator)


def _two_levels(
    groups: np.ndarray,
    strata: np.ndarray | None,
    resamples: int,
    generator: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Draw groups, then rows within each drawn group (and stratum)."""
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    chosen = generator.integers(len(sizes), size=(resamples, len(sizes)))
    # A place beyond a group's size is padding, and holds the group's first row.
    places = np.arange(sizes.max())
    used = places < sizes[chosen][..., None]
    rows = order[starts[chosen][..., None] + np.where(used, places, 0)]
    cells = groups if strata is None else groups * (strata.max() + 1) + strata
    rows = _within(rows, cells, generator).reshape(resamples, -1)
    used = used.reshape(resamples, -1)
    lengths = used.sum(-1)
    for length in np.unique(lengths):
        these = lengths == length
        yield rows[these][used[these]].reshape(-1, length)


def _within(rows: np.ndarray, cells: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Replace every row number by one drawn from the rows of its cell."""
    order = np.argsort(cells, kind="stable")
    sizes = np.bincount(cells)
    starts = np.cumsum(sizes) - sizes
    mine = cells[rows]
    return order[starts[mine] + np.floor(generator.random(rows.shape) * sizes[mine]).astype(int)]


def one_per_network(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return values as a row of floats; raise ValueError if it is none, or not finite."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"values must be one number per network: got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("values must be finite: leave out, or count apart, those that are not")
    return array


def group_codes(groups: Sequence[Hashable] | np.ndarray | None, count: int) -> np.ndarray | None:
    """Number the groups from 0; raise ValueError unless there is one for each value."""
    if groups is None:
        return None
    labels = list(groups)
    if len(labels) != count:
        raise ValueError(f"groups must name the group of each of {count} values: got {len(labels)}")
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels])


def check_level(level: float) -> None:
    """Raise ValueError unless a confidence level lies between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1: got {level}")

"""Paired comparisons of two arms of a study."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from ctxrnn import derive_seed
from ctxrnn._checks import check_count, unknown_name

from ._bootstrap import (
    Interval,
    bootstrap_interval,
    group_codes,
    mean_interval,
    one_per_network,
)
from ._tables import check_columns, check_rows

if TYPE_CHECKING:
    import pandas as pd

# With fewer independent values than this a percentile interval is no interval: values of one sign
# alone, of which chance gives 2^(1 - n), would keep it away from 0. The t interval that stands in
# for it leans on a normal law that so few values cannot show.
FEWEST = 5
_EXACT = 16


@dataclass(frozen=True)
class Paired:
    """A paired difference a - b.

    Attributes:
        difference: Mean difference with its interval.
        effect_size: Cohen's d_z, corrected after Hedges; NaN below three pairs or without spread.
        p: Two-sided sign-flip p value.
        count: Number of pairs.
        independent: Number of independent ones: groups, or pairs.
        left_out: Pairs of which one side was missing or NaN, by their pairing columns.

    Example: that of `paired_difference`.
    """

    difference: Interval
    effect_size: float
    p: float
    count: int
    independent: int
    left_out: tuple[tuple[Any, ...], ...] = ()

    @property
    def claim(self) -> bool:
        """Whether the interval excludes 0, with at least five independent pairs."""
        return self.independent >= FEWEST and self.difference.excludes_zero

    def __str__(self) -> str:
        text = f"{self.difference}, d_z = {self.effect_size:.2f}, p = {self.p:.2g}"
        if self.left_out:
            text += f", {len(self.left_out)} pairs left out"
        return text + verdict(self.difference, self.claim)


def verdict(interval: Interval, claim: bool) -> str:
    """Say why nothing may be claimed; nothing where it may."""
    if claim:
        return ""
    if np.isnan(interval.low):
        return "; no claim: the independent values are too few for an interval"
    if interval.excludes_zero:
        return f"; no claim: fewer than {FEWEST} independent values"
    return "; no claim: the interval includes 0"


def paired_difference(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Hashable] | np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Paired:
    """Compare two arms pair by pair: mean of d = a - b, its interval, effect size and p value.

    The interval is `bootstrap_interval` of d, over groups and then pairs where groups are given.
    With fewer than five independent values it is Student's t interval (that of the clusters, if
    there are groups), since a bootstrap claims a difference in half of all cases of two pairs
    without one. d_z = J(n - 1) mean(d) / sd(d) with
    J(m) = Gamma(m / 2) / (sqrt(m / 2) Gamma((m - 1) / 2)) (Hedges 1981). p: see `sign_flip_p`.

    Args:
        a: One value per pair.
        b: The values of the other arm in the same order; `paired` aligns a table.
        groups: Group of each pair, e.g. its task order.
        level: Confidence level.
        resamples: Resamples of the bootstrap, and sign flips of the p value if not all are tried.
        seed: Seed of both.

    Returns:
        The comparison.

    Raises:
        ValueError: If the rows differ in length, or a value is not finite.

    Example:
        >>> from ctxrnn.analysis import paired_difference
        >>> a, b = [0.81, 0.84, 0.80, 0.86, 0.83, 0.85], [0.75, 0.80, 0.77, 0.79, 0.78, 0.80]
        >>> found = paired_difference(a, b)
        >>> round(found.difference.mean, 3), found.claim
        (0.05, True)
        >>> found.p  # all of one sign: 2 of 2^6 assignments
        0.03125
    """
    first, second = one_per_network(a), one_per_network(b)
    if first.size != second.size:
        raise ValueError(
            f"a and b must hold the same pairs in the same order: got {first.size} and "
            f"{second.size} values; align a table with paired(...)"
        )
    d = first - second
    codes = group_codes(groups, d.size)
    interval = interval_of_mean(d, codes, level=level, resamples=resamples, seed=seed)
    p = sign_flip_p(d, groups=codes, resamples=resamples, seed=seed)
    return Paired(interval, _effect_size(d), p, d.size, independent(codes, d.size))


def interval_of_mean(
    values: np.ndarray, groups: np.ndarray | None, *, level: float, resamples: int, seed: int
) -> Interval:
    """Return a mean's bootstrap interval, or Student's t below five independent values.

    Args:
        values: One value per pair.
        groups: Number of each value's group, or None.
        level: Confidence level.
        resamples: Number of resamples.
        seed: Their seed.
    """
    if 1 < independent(groups, values.size) < FEWEST:
        return mean_interval(values, groups=groups, level=level)
    return bootstrap_interval(values, groups=groups, level=level, resamples=resamples, seed=seed)


def independent(groups: np.ndarray | None, count: int) -> int:
    """Return the number of independent units: groups, or values."""
    return count if groups is None else int(groups.max()) + 1


def _effect_size(d: np.ndarray) -> float:
    if d.size < 3 or np.ptp(d) <= 1e-12 * np.abs(d).max():
        return float("nan")
    m = d.size - 1
    correction = np.exp(special.gammaln(m / 2) - special.gammaln((m - 1) / 2)) / np.sqrt(m / 2)
    return float(correction * d.mean() / d.std(ddof=1))


def sign_flip_p(
    differences: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Hashable] | np.ndarray | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """Return the two-sided p value of a mean of 0 by flipping signs (Fisher 1935).

    The share of sign assignments whose |sum d| is at least the observed one. All 2^n assignments
    for up to 16 values; above, (1 + hits) / (1 + resamples). With groups the sign of a whole group
    flips and n counts groups. Assumes that d is as likely as -d under the null.

    Args:
        differences: One difference per pair.
        groups: Group of each pair.
        resamples: Number of random assignments above 16 values.
        seed: Their seed.

    Returns:
        p, in (0, 1].

    Raises:
        ValueError: If there is no value, or one is not finite.

    Example:
        >>> from ctxrnn.analysis import sign_flip_p
        >>> sign_flip_p([0.1, 0.2, 0.1, 0.3, 0.2])  # 2 of 2^5 assignments are as far from 0
        0.0625
        >>> sign_flip_p([0.1, -0.1])
        1.0
    """
    d = one_per_network(differences)
    check_count("resamples", resamples)
    codes = group_codes(groups, d.size)
    sums = d if codes is None else np.bincount(codes, d)
    # Sums that are equal but for rounding count as equal.
    observed = abs(sums.sum()) - 1e-12 * np.abs(sums).sum()
    if sums.size <= _EXACT:
        flips = np.arange(2**sums.size)[:, None] >> np.arange(sums.size) & 1
        return float((np.abs((1 - 2 * flips) @ sums) >= observed).mean())
    generator = np.random.default_rng(derive_seed(seed, "sign flips"))
    hits = 0
    for first in range(0, resamples, 1000):
        size = (min(1000, resamples - first), sums.size)
        signs = 1 - 2 * generator.integers(2, size=size)
        hits += int((np.abs(signs @ sums) >= observed).sum())
    return (1 + hits) / (1 + resamples)


def paired(
    table: pd.DataFrame,
    value: str,
    *,
    a: str,
    b: str,
    by: str = "variant",
    on: Sequence[str] = ("order", "seed"),
    groups: str | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Paired:
    """Compare two arms of a table, joined on their pairing columns (see `paired_difference`).

    Args:
        table: One row per network; other columns (size, level) must have been selected before.
        value: Column to compare.
        a: First arm, a value of the column `by`.
        b: Second arm; the difference is a - b.
        by: Column that tells the arms apart.
        on: Columns that make a pair.
        groups: Column of groups, e.g. "order"; None takes pairs as independent.
        level: Confidence level.
        resamples: See `paired_difference`.
        seed: See `paired_difference`.

    Returns:
        The comparison; `left_out` lists the pairs that were not complete.

    Raises:
        ValueError: If a column or an arm is missing, a pair occurs twice, or none is complete.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import paired
        >>> table = pd.DataFrame({
        ...     "variant": ["s-sym", "s-sym", "s-sym", "e-add", "e-add"], "order": 0,
        ...     "seed": [0, 1, 2, 0, 1], "area": [0.80, 0.84, 0.90, 0.75, 0.77],
        ... })
        >>> found = paired(table, "area", a="s-sym", b="e-add")
        >>> round(found.difference.mean, 3), found.count
        (0.06, 2)
        >>> found.left_out  # order and seed of a network without a partner
        ((0, 2),)
    """
    joined, left_out = joined_arms(table, [value], by=by, arms=(a, b), on=on, groups=groups)
    found = paired_difference(
        joined[(value, a)],
        joined[(value, b)],
        groups=labels_of(joined, groups),
        level=level,
        resamples=resamples,
        seed=seed,
    )
    return replace(found, left_out=left_out)


def joined_arms(
    table: pd.DataFrame,
    values: Sequence[str],
    *,
    by: str,
    arms: Sequence[Any],
    on: Sequence[str],
    groups: str | None,
) -> tuple[pd.DataFrame, tuple[tuple[Any, ...], ...]]:
    """Return complete rows, one per pair with columns (value, arm), and the pairs left out."""
    on = [on] if isinstance(on, str) else list(on)
    check_columns(table, [*values, by, *on])
    if groups is not None and groups not in on:
        raise ValueError(f"groups must be one of the pairing columns {on}: got {groups!r}")
    if len(set(arms)) < len(arms):
        raise ValueError(f"arms to compare must differ: got {', '.join(map(str, arms))}")
    for arm in arms:
        if arm not in set(table[by]):
            raise unknown_name(by, arm, map(str, table[by].unique()))
    rows = table[table[by].isin(arms)]
    check_rows(rows, [by, *on], "arm")
    wide = rows.set_index([*on, by])[list(values)].unstack(by).sort_index()
    finite = np.isfinite(wide.to_numpy(dtype=float)).all(axis=1)
    if not finite.any():
        raise ValueError(
            f"no pair is complete: {', '.join(map(str, arms))} share no {', '.join(on)}"
        )
    missing = wide.index[~finite]
    return wide[finite], tuple(key if isinstance(key, tuple) else (key,) for key in missing)


def labels_of(joined: pd.DataFrame, groups: str | None) -> list[Hashable] | None:
    """Return the group of each joined row."""
    return None if groups is None else list(joined.index.get_level_values(groups))

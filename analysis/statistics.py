"""Statistics over networks: intervals, paired comparisons, synergy, adjustment for a covariate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ._bootstrap import (
    Interval,
    bootstrap_ends,
    bootstrap_interval,
    group_codes,
    mean_interval,
)
from ._paired import (
    FEWEST,
    Paired,
    independent,
    joined_arms,
    labels_of,
    paired,
    paired_difference,
    sign_flip_p,
    verdict,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Adjusted",
    "Interval",
    "Paired",
    "Synergy",
    "adjusted_difference",
    "bootstrap_interval",
    "mean_interval",
    "paired",
    "paired_difference",
    "sign_flip_p",
    "synergy",
]


@dataclass(frozen=True)
class Synergy:
    """Synergy S of a combination over the better of its two parts.

    Attributes:
        synergy: S with its interval.
        against: The paired differences combined - part, by the part's name.
        means: Mean of each of the three arms, by name.
        count: Number of complete triples.
        independent: Number of independent ones: groups, or triples.
        left_out: Triples that were incomplete, by their pairing columns.

    Example: that of `synergy`.
    """

    synergy: Interval
    against: dict[str, Paired]
    means: dict[str, float]
    count: int
    independent: int
    left_out: tuple[tuple[Any, ...], ...] = ()

    @property
    def claim(self) -> bool:
        """Whether the interval of S lies above 0, with at least five independent triples."""
        return self.independent >= FEWEST and self.synergy.low > 0

    @property
    def below(self) -> bool:
        """Whether the interval of S lies below 0, with at least five independent triples."""
        return self.independent >= FEWEST and self.synergy.high < 0

    def __str__(self) -> str:
        if self.synergy.high < 0:
            return f"S = {self.synergy}; no synergy: the interval lies below 0"
        return f"S = {self.synergy}" + verdict(self.synergy, self.claim)


@dataclass(frozen=True)
class Adjusted:
    """A difference a - b at equal values of a covariate.

    Attributes:
        difference: delta, the offset between the regression lines, with its interval.
        slope: beta, the common slope, with its interval.
        covariate_gap: Mean covariate of a minus that of b: how far the lines are carried.
        unadjusted: The same difference without adjustment.
        count: Number of pairs.
        independent: Number of independent ones: groups, or pairs.
        left_out: Pairs that were incomplete, by their pairing columns.

    Example: that of `adjusted_difference`.
    """

    difference: Interval
    slope: Interval
    covariate_gap: float
    unadjusted: Paired
    count: int
    independent: int
    left_out: tuple[tuple[Any, ...], ...] = ()

    @property
    def claim(self) -> bool:
        """Whether the interval of delta excludes 0, with at least five independent pairs."""
        return self.independent >= FEWEST and self.difference.excludes_zero

    def __str__(self) -> str:
        return f"adjusted {self.difference}" + verdict(self.difference, self.claim)


def synergy(
    table: pd.DataFrame,
    value: str,
    *,
    combined: str,
    single: tuple[str, str],
    by: str = "variant",
    on: Sequence[str] = ("order", "seed"),
    groups: str | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Synergy:
    """Estimate synergy S = mean Q_es - max(mean Q_e, mean Q_s) over complete triples.

    The bootstrap draws triples (or groups, then triples) and takes the maximum anew in every
    resample. The maximum of two noisy means lies above the larger true mean: if both parts are
    equally good, E[S] is lower than the true value by s / sqrt(2 pi), where s is the standard error
    of mean(Q_e - Q_s). So S errs against synergy, towards 0 or below. Below
    five independent triples a bootstrap covers too little, and there is no interval (NaN).

    Args:
        table: One row per network, at equal parameter count P.
        value: Q, e.g. area, capacity or clean accuracy; larger is better.
        combined: Arm with both pathways.
        single: The two arms with one pathway.
        by: Column that tells the arms apart.
        on: Columns that make a triple.
        groups: Column of groups, e.g. "order".
        level: Confidence level.
        resamples: Number of resamples.
        seed: Their seed.

    Returns:
        S with its interval, and the comparison with each part.

    Raises:
        ValueError: As for `paired`.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import synergy
        >>> areas = {
        ...     "es-add-sym": [0.90, 0.92, 0.88, 0.91, 0.89],
        ...     "e-add": [0.71, 0.71, 0.69, 0.70, 0.69],
        ...     "s-sym": [0.50, 0.50, 0.50, 0.50, 0.50],
        ... }
        >>> table = pd.DataFrame([
        ...     {"variant": arm, "order": 0, "seed": seed, "area": area}
        ...     for arm, row in areas.items() for seed, area in enumerate(row)
        ... ])
        >>> found = synergy(table, "area", combined="es-add-sym", single=("e-add", "s-sym"))
        >>> round(found.synergy.mean, 3), found.claim  # 0.9 - max(0.7, 0.5)
        (0.2, True)
    """
    if len(single) != 2:
        raise ValueError(f"single must name the two arms with one pathway: got {single!r}")
    arms = (combined, *single)
    joined, left_out = joined_arms(table, [value], by=by, arms=arms, on=on, groups=groups)
    labels = labels_of(joined, groups)
    rows = np.stack([joined[(value, arm)].to_numpy(dtype=float) for arm in arms], axis=1)
    codes = group_codes(labels, len(rows))
    settings: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    ends = bootstrap_ends(rows, _gain, codes, fewest=FEWEST, **settings)
    return Synergy(
        Interval(float(_gain(rows)), *ends, len(rows), level),
        {
            arm: paired_difference(rows[:, 0], rows[:, place], groups=labels, **settings)
            for place, arm in enumerate(arms)
            if place
        },
        dict(zip(arms, rows.mean(axis=0).tolist(), strict=True)),
        len(rows),
        independent(codes, len(rows)),
        left_out,
    )


def _gain(rows: np.ndarray) -> np.ndarray:
    means = rows.mean(axis=-2)
    return np.asarray(means[..., 0] - np.maximum(means[..., 1], means[..., 2]))


def adjusted_difference(
    table: pd.DataFrame,
    value: str,
    covariate: str,
    *,
    a: str,
    b: str,
    by: str = "variant",
    on: Sequence[str] = ("order", "seed"),
    groups: str | None = None,
    strata: str | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Adjusted:
    """Compare two arms at equal values of a covariate (analysis of covariance).

    Least squares for y = mu_s + delta [arm is a] + beta x with one slope for both arms; the
    bootstrap draws pairs (or groups, then pairs). mu_s is one constant or, with `strata`, one for
    each stratum s, fitted anew in every resample. Name as `strata` whatever moves x and y together,
    e.g. the size: without it beta is the slope between sizes, and where the arms differ in x, delta
    is wrong by the difference of slopes. Where the arms' covariates do not overlap the result is
    carried beyond the data. An x measured with error flattens the slope, so that part of its
    influence stays in delta. Below five independent pairs there is no interval (NaN).

    Args:
        table: One row per network.
        value: y, e.g. robustness area.
        covariate: x, e.g. clean accuracy.
        a: First arm; delta is a - b.
        b: Second arm.
        by: Column that tells the arms apart.
        on: Columns that make a pair.
        groups: Column of groups, e.g. "order".
        strata: Pairing column of fixed conditions, e.g. "size"; pairs are drawn within them.
        level: Confidence level.
        resamples: Number of resamples.
        seed: Their seed.

    Returns:
        delta and beta with their intervals, beside the difference without adjustment.

    Raises:
        ValueError: As for `paired`; if x does not vary within the arms (and strata).

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from ctxrnn.analysis import adjusted_difference
        >>> clean = np.array([0.7, 0.75, 0.8, 0.85, 0.9])
        >>> pairs = {"order": 0, "seed": range(5)}
        >>> a = pd.DataFrame({"variant": "s-sym", "clean": clean + 0.1, **pairs})
        >>> b = pd.DataFrame({"variant": "e-add", "clean": clean, **pairs})
        >>> table = pd.concat([a.assign(area=a["clean"] / 2 + 0.2), b.assign(area=b["clean"] / 2)])
        >>> found = adjusted_difference(table, "area", "clean", a="s-sym", b="e-add")
        >>> round(found.difference.mean, 3), round(found.slope.mean, 3)
        (0.2, 0.5)
        >>> round(found.unadjusted.difference.mean, 3)  # 0.05 of it come with the clean accuracy
        0.25
    """
    if strata is not None and (strata not in on or strata == groups):
        raise ValueError(
            f"strata must be one of the pairing columns {list(on)}, and not groups: got {strata!r}"
        )
    columns = [value, covariate]
    joined, left_out = joined_arms(table, columns, by=by, arms=(a, b), on=on, groups=groups)
    order = [(column, arm) for column in columns for arm in (a, b)]
    rows = joined[order].to_numpy(dtype=float)
    places = group_codes(labels_of(joined, strata), len(rows))
    number = 1 if places is None else int(places.max()) + 1
    rows = np.column_stack([rows, np.zeros(len(rows)) if places is None else places])
    x = rows[:, 2:4]
    fit = partial(_ancova, number)
    offset, slope = fit(rows)
    if len(rows) < 2 or np.isnan(slope):
        raise ValueError(
            f"{covariate} must vary within the arms, or the slope is not defined: got {len(rows)} "
            "pairs without spread; compare them with paired(...)"
        )
    labels = labels_of(joined, groups)
    codes = group_codes(labels, len(rows))
    settings: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed}
    found = []
    for place, estimate in enumerate((offset, slope)):

        def part(drawn: np.ndarray, place: int = place) -> np.ndarray:
            return fit(drawn)[place]

        ends = bootstrap_ends(rows, part, codes, strata=places, fewest=FEWEST, **settings)
        found.append(Interval(float(estimate), *ends, len(rows), level))
    return Adjusted(
        found[0],
        found[1],
        float(x[:, 0].mean() - x[:, 1].mean()),
        paired_difference(rows[:, 0], rows[:, 1], groups=labels, **settings),
        len(rows),
        independent(codes, len(rows)),
        left_out,
    )


def _ancova(strata: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve the normal equations in closed form.

    Every pair has both arms, so that the constants of arms and strata are orthogonal and the
    residual of both is y - mean of its arm - mean of its stratum + mean.

    Args:
        strata: Number of strata.
        rows: (..., pair, (y_a, y_b, x_a, x_b, stratum)).
    """
    data, place = rows[..., :4], rows[..., 4]
    means = data.mean(axis=-2)
    centred = data - means[..., None, :]
    if strata > 1:
        both = (centred.reshape(*centred.shape[:-1], 2, 2)).mean(-1)
        for number in range(strata):
            mine = (place == number)[..., None]
            mean = (both * mine).sum(-2) / np.maximum(mine.sum(-2), 1)
            centred -= np.repeat(np.where(mine, mean[..., None, :], 0), 2, axis=-1)
    y, x = centred[..., :2], centred[..., 2:]
    spread = (x**2).sum((-2, -1))
    # A resample without any spread of x defines no slope; NaN is left out.
    rounding = 1e-24 * (data[..., 2:] ** 2).sum((-2, -1))
    spread = np.where(spread > rounding, spread, np.nan)
    slope = (x * y).sum((-2, -1)) / spread
    offset = means[..., 0] - means[..., 1] - slope * (means[..., 2] - means[..., 3])
    return offset, slope

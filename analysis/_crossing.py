"""Where a score that rises along a grid first passes a criterion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Scores are shares of trials; a criterion met but for rounding is met.
_ROUNDING = 1e-9

Estimate = Callable[[np.ndarray], np.ndarray]


def medians(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the median along an axis and how many values it is of; NaN is left out.

    Of two middle values of which one is infinite (censored) the upper one is taken.
    """
    ordered = np.moveaxis(np.sort(values, axis=axis), axis, -1)
    counts = (~np.isnan(ordered)).sum(-1)
    middles = (np.maximum(counts - 1, 0) // 2, counts // 2)
    low, high = (np.take_along_axis(ordered, place[..., None], -1)[..., 0] for place in middles)
    whole = np.isfinite(low) & np.isfinite(high)
    middle = (np.where(whole, low, 0) + np.where(whole, high, 0)) / 2
    return np.where(counts == 0, np.nan, np.where(whole, middle, high)), counts


def isotonic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted least-squares fit that does not fall along the last axis.

    g_i = max_{a <= i} min_{b >= i} mean(v_a .. v_b) (Robertson, Wright and Dykstra 1988, theorem
    1.4.4); many rows at once, which scipy.optimize.isotonic_regression does one by one. Values of
    weight 0 take no part, and their fit is NaN.

    Args:
        values: v, (..., grid).
        weights: (..., grid).
    """
    size = values.shape[-1]
    weights = np.broadcast_to(weights, values.shape).astype(float)
    held = np.where(weights > 0, values, 0)
    start = np.zeros((*values.shape[:-1], 1))
    mass = np.concatenate([start, np.cumsum(weights, -1)], -1)
    moment = np.concatenate([start, np.cumsum(weights * held, -1)], -1)
    # Entry (a, b): the mean from a to b, undefined for b < a or without weight.
    blocks = mass[..., None, 1:] - mass[..., :-1, None]
    sums = moment[..., None, 1:] - moment[..., :-1, None]
    defined = (np.arange(size) >= np.arange(size)[:, None]) & (blocks > 0)
    means = np.where(defined, sums / np.where(defined, blocks, 1), np.inf)
    lowest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
    inside = np.arange(size) >= np.arange(size)[:, None]
    lowest = np.where(inside & np.isfinite(lowest), lowest, -np.inf)
    return np.where(weights > 0, lowest.max(-2), np.nan)


def first_pass(
    values: np.ndarray, places: np.ndarray, theta: float, *, continuous: bool
) -> np.ndarray:
    """Return the first place of a grid at which a score reaches theta.

    Args:
        values: Score, (..., grid); NaN where it was not measured.
        places: Rising coordinates of the grid, (grid,).
        theta: Criterion.
        continuous: Interpolate between the last place below theta and the first one above.

    Returns:
        (...,). -inf where the first place measured passes (the answer lies there or before), inf
        where none does, NaN where nothing was measured.
    """
    measured = ~np.isnan(values)
    passes = measured & (np.where(measured, values, -np.inf) >= theta - _ROUNDING)
    at = passes.argmax(-1)[..., None]
    seen = np.maximum.accumulate(np.where(measured, np.arange(len(places)), -1), axis=-1)
    before = np.where(at > 0, np.take_along_axis(seen, np.maximum(at - 1, 0), -1), -1)
    found = places[at]
    if continuous:
        low = np.take_along_axis(values, np.maximum(before, 0), -1)
        high = np.take_along_axis(values, at, -1)
        apart = (before >= 0) & (high > low)
        share = np.where(apart, theta - low, 1) / np.where(apart, high - low, 1)
        found = places[before] + np.clip(share, 0, 1) * (found - places[before])
    found = np.where(before < 0, -np.inf, found)[..., 0]
    found = np.where(passes.any(-1), found, np.inf)
    return np.where(measured.any(-1), found, np.nan)


def of_medians(places: np.ndarray, theta: float, *, continuous: bool) -> Estimate:
    """Return (..., replicate, condition, grid) -> (..., condition): smooth medians, then pass."""

    def estimate(scores: np.ndarray) -> np.ndarray:
        middle, counts = medians(scores, -3)
        return first_pass(isotonic(middle, counts), places, theta, continuous=continuous)

    return estimate


def of_chains(passed: np.ndarray) -> np.ndarray:
    """Return (..., replicate, condition) -> (..., condition): the median of single crossings."""
    return medians(passed, -2)[0]

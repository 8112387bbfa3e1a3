"""Scalars of task packing: exponent, area, effective number of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._bootstrap import bootstrap_ends
from ._crossing import Estimate
from ._replicates import checked, prepared, scores_of

if TYPE_CHECKING:
    import pandas as pd


def packing_exponent(
    table: pd.DataFrame,
    theta: float = 0.9,
    *,
    value: str = "relative_min",
    by: str = "variant",
    units: str = "units",
    tasks: str = "tasks",
    replicate: Sequence[str] = ("order", "seed"),
    groups: str | None = None,
    continuous: bool = True,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Fit N* = c K^gamma by least squares of log N* on log K, by variant.

    N* as in `size_needed`, without censored K; at least three must be left. The bootstrap draws
    replicates, the same ones at every K (nested task orders make sizes at several K go together),
    and fits anew.

    Args:
        table: The table given to `size_needed`, one row per network.
        theta: See `size_needed`, as for all others.
        value: Column of m.
        by: Column of variants.
        units: Column of N.
        tasks: Column of K.
        replicate: Columns that tell replicates apart.
        groups: Column of groups among them.
        continuous: Interpolate N*; otherwise gamma is as coarse as the grid of sizes.
        level: Confidence level.
        resamples: Number of resamples.
        seed: Their seed.

    Returns:
        Columns variant, gamma, low, high, factor (c), points (uncensored K), replicates; gamma is
        NaN below three points.

    Raises:
        ValueError: As `size_needed`.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import packing_exponent
        >>> table = pd.DataFrame([
        ...     {"variant": "e-add", "units": units, "tasks": tasks, "order": 0, "seed": seed,
        ...      "relative_min": 1.0 if units >= 4 * tasks else 0.5}
        ...     for units in (2, 4, 8, 16, 32) for tasks in (1, 2, 4) for seed in (0, 1)
        ... ])
        >>> found = packing_exponent(table, continuous=False)  # N* = 4 K
        >>> print(found[["variant", "gamma", "factor"]].round(6))
          variant  gamma  factor
        0   e-add    1.0     4.0
    """
    import pandas as pd

    columns = checked(table, theta, value, [by, units, tasks], replicate, groups)
    found = []
    for variant, rows in table.groupby(by, sort=False):
        counts, grid = np.sort(rows[tasks].unique()), np.sort(rows[units].unique())
        scores, codes = scores_of(rows, value, columns, groups, [tasks, units], [counts, grid])
        data, estimate, _ = prepared(scores, grid, theta, continuous)
        sizes = estimate(data)
        used = np.isfinite(sizes)
        row: dict[str, Any] = {by: variant, "gamma": np.nan, "low": np.nan, "high": np.nan}
        row |= {"factor": np.nan, "points": int(used.sum()), "replicates": len(scores)}
        if used.sum() >= 3:
            log_k = np.log(counts[used].astype(float))

            def slope(
                data: np.ndarray,
                estimate: Estimate = estimate,
                used: np.ndarray = used,
                log_k: np.ndarray = log_k,
            ) -> np.ndarray:
                return _line(log_k, estimate(data)[..., used])[0]

            gamma, offset = _line(log_k, sizes[used])
            ends = bootstrap_ends(data, slope, codes, level=level, resamples=resamples, seed=seed)
            row |= {"gamma": float(gamma), "low": ends[0], "high": ends[1]}
            row["factor"] = float(np.exp(offset))
        found.append(row)
    return pd.DataFrame(found)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and offset along the last axis; infinite y are left out, NaN below two."""
    there = np.isfinite(y)
    y = np.where(there, y, 0)
    number = np.where(there.sum(-1) >= 2, there.sum(-1), np.nan)
    mean_x, mean_y = (there * x).sum(-1) / number, y.sum(-1) / number
    dx = there * (x - mean_x[..., None])
    slope = (dx * y).sum(-1) / (dx**2).sum(-1)
    return slope, mean_y - slope * mean_x


def packing_area(
    units: Sequence[float] | np.ndarray, solved: Sequence[float] | np.ndarray
) -> float:
    """Return the area under the fraction of solved tasks, int f dlog N / log(N_max / N_min).

    Trapezoid rule in log N; between 0 and 1, the mean of f over the sizes on a log scale.

    Args:
        units: N, at least two sizes that differ, at one K.
        solved: f at each size.

    Returns:
        The area, in [0, 1].

    Raises:
        ValueError: If the rows differ in length, hold fewer than two numbers, some that are not
            finite or sizes that are not positive, or a size occurs twice.

    Example:
        >>> from ctxrnn.analysis import packing_area
        >>> area = packing_area([8, 16, 32], [0.0, 0.5, 1.0])  # evenly spaced in log N
        >>> round(area, 6)
        0.5
    """
    n, f = np.asarray(units, dtype=float), np.asarray(solved, dtype=float)
    if n.ndim != 1 or n.shape != f.shape or n.size < 2:
        raise ValueError(
            f"units and solved must be two equally long rows of at least 2: got {n.shape} and "
            f"{f.shape}"
        )
    if not (np.isfinite(n).all() and np.isfinite(f).all() and (n > 0).all()):
        raise ValueError("units must be positive, units and solved finite")
    if np.unique(n).size < n.size:
        raise ValueError("units must differ from each other: average networks of one size first")
    order = np.argsort(n)
    x = np.log(n[order])
    return float(np.trapezoid(f[order], x) / (x[-1] - x[0]))


def effective_number(similarity: Sequence[Sequence[float]] | np.ndarray) -> float:
    """Return the effective number of tasks, exp(-sum_i l_i log l_i), l the eigenvalues of S / K.

    The Vendi score (Friedman and Dieng 2023): K for tasks that share nothing (S the identity), 1
    for tasks that are all alike. S is made symmetric, clipped to [0, 1] and given a diagonal of
    1. Where it is then not positive semi-definite, negative eigenvalues count as 0 and the others
    are scaled to the sum 1.

    Args:
        similarity: S, (task, task).

    Returns:
        The number, from 1 to K.

    Raises:
        ValueError: If S is not square, or not finite.

    Example:
        >>> from ctxrnn.analysis import effective_number
        >>> pairs = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]  # alike two by two
        >>> round(effective_number(pairs), 6)
        2.0
    """
    s = np.asarray(similarity, dtype=float)
    if s.ndim != 2 or s.shape[0] != s.shape[1] or not s.size or not np.isfinite(s).all():
        raise ValueError(f"similarity must be a finite square matrix: got shape {s.shape}")
    s = np.clip((s + s.T) / 2, 0, 1)
    np.fill_diagonal(s, 1)
    shares = np.maximum(np.linalg.eigvalsh(s), 0)
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))

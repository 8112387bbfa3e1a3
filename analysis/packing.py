"""Task packing: how many tasks K a network of N units learns, how many units K tasks need.

Every table has one row per network, with columns such as variant, units (N), tasks (K), order,
seed and a score m, the minimum over tasks of accuracy / ceiling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctxrnn._checks import check_number, check_positive

from ._crossing import of_medians
from ._guards import OptimisationGuard, best_rate, optimisation_guard
from ._joint import capacity_synergy
from ._packing import effective_number, packing_area, packing_exponent
from ._replicates import checked, prepared, scores_of, with_ends
from ._tables import check_columns, check_values

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "OptimisationGuard",
    "best_rate",
    "capacity",
    "capacity_synergy",
    "effective_number",
    "next_size",
    "optimisation_guard",
    "packing_area",
    "packing_exponent",
    "size_needed",
    "solved_fraction",
]


def solved_fraction(relative: Sequence[float] | np.ndarray, theta: float = 0.9) -> float:
    """Return f, the fraction of tasks that are solved: p / p_ceil >= theta.

    Args:
        relative: Accuracy over its ceiling, one number per task.
        theta: Criterion.

    Returns:
        f, in [0, 1].

    Raises:
        ValueError: If there is no score, a score is not finite, or theta is not positive.

    Example:
        >>> from ctxrnn.analysis import solved_fraction
        >>> solved_fraction([1.0, 0.95, 0.9, 0.6])  # theta = 0.9: three of four tasks
        0.75
    """
    scores = np.asarray(relative, dtype=float)
    check_positive("theta", theta)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(
            f"relative must be one finite number per task: got shape {scores.shape} with "
            f"{int((~np.isfinite(scores)).sum())} numbers that are not finite"
        )
    return float((scores >= theta - 1e-9).mean())


def capacity(
    table: pd.DataFrame,
    theta: float = 0.9,
    *,
    value: str = "relative_min",
    by: str = "variant",
    units: str = "units",
    tasks: str = "tasks",
    parameters: str | None = None,
    replicate: Sequence[str] = ("order", "seed"),
    groups: str | None = None,
    continuous: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the capacity K*(N) = max{K : m(K, N) >= theta} by variant and size.

    m is the median score over replicates, smoothed so that it does not rise with K (isotonic
    regression weighted by the number of replicates). K* is a K of the grid or, if `continuous`,
    the K at which m, linear between grid points, crosses theta. The interval is a bootstrap over
    replicates (`bootstrap_interval`); 0 and infinity stand for ends outside the grid. Replicates
    should have been measured at all K: with sizes found by bisection use `size_needed`.

    Args:
        table: One row per network.
        theta: Criterion.
        value: Column of m.
        by: Column of variants.
        units: Column of N.
        tasks: Column of K.
        parameters: Column of P; adds K* / P, P interpolated at K*.
        replicate: Columns that tell replicates apart.
        groups: Column of groups among them, e.g. "order": drawn first, then replicates in them.
        continuous: Interpolate K* between grid points.
        level: Confidence level.
        resamples: Number of resamples.
        seed: Their seed.

    Returns:
        Columns variant, units, capacity, low, high, flag, replicates and, if asked for,
        parameters and per_parameter. Flag "at least": the largest K passed, and stands there;
        "below": not even the smallest K passed, and stands there; else "".

    Raises:
        ValueError: If a column is missing, a network occurs twice, or a score is not finite.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import capacity
        >>> table = pd.DataFrame({
        ...     "variant": "e-add", "units": 16, "order": 0, "seed": 0,
        ...     "tasks": [1, 2, 4, 8], "relative_min": [1.0, 0.97, 0.92, 0.6],
        ... })
        >>> print(capacity(table, theta=0.9)[["variant", "units", "capacity"]])
          variant  units  capacity
        0   e-add     16       4.0
        >>> capacity(table, theta=0.9, continuous=True)["capacity"].round(2).tolist()
        [4.25]
    """
    import pandas as pd

    columns = checked(table, theta, value, [by, units, tasks], replicate, groups)
    if parameters is not None:
        check_columns(table, [parameters])
        check_values(table, [parameters])
    found = []
    for (variant, size), rows in table.groupby([by, units], sort=False):
        grid = np.sort(rows[tasks].unique())[::-1]
        scores, codes = scores_of(rows, value, columns, groups, [tasks], [grid])
        crossing = of_medians(-grid.astype(float), theta, continuous=continuous)
        centre, low, high = with_ends(scores[:, None], crossing, codes, level, resamples, seed)
        # The grid runs backwards: -inf, passed at once, means a K* beyond its end.
        flag = {-np.inf: "at least", np.inf: "below"}.get(centre, "")
        k = float(np.clip(-centre, grid[-1], grid[0]))
        row = {by: variant, units: size, "capacity": k}
        row |= {
            "low": float(np.maximum(0.0, -high)),
            "high": float(np.maximum(0.0, -low)),
            "flag": flag,
        }
        row["replicates"] = len(scores)
        if parameters is not None:
            sizes = rows.groupby(tasks)[parameters].mean()
            row["parameters"] = float(np.interp(k, sizes.index, sizes))
            row["per_parameter"] = k / row["parameters"]
        found.append(row)
    return pd.DataFrame(found)


def size_needed(
    table: pd.DataFrame,
    theta: float = 0.9,
    *,
    value: str = "relative_min",
    by: str = "variant",
    units: str = "units",
    tasks: str = "tasks",
    replicate: Sequence[str] = ("order", "seed"),
    groups: str | None = None,
    continuous: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the size needed N*(K) = min{N : m(K, N) >= theta} by variant and number of tasks.

    Where all replicates were measured at the same sizes (method "grid") m is their median,
    smoothed so that it does not fall with N. Where each has sizes of its own, as bisection leaves
    them (method "chains"), the networks at one N are a selection (only the poor ones were tried
    with many units), so that N* is the median over replicates of each one's smallest N that
    passed; of two middle ones the geometric mean. Both agree on scores that rise with N.

    Args:
        table: One row per network.
        theta: Criterion.
        value: Column of m.
        by: Column of variants.
        units: Column of N.
        tasks: Column of K.
        replicate: Columns that tell replicates apart.
        groups: Column of groups among them, e.g. "order": drawn first, then replicates in them.
        continuous: Interpolate, linear in log N, between the sizes below and above theta.
        level: Confidence level.
        resamples: Number of resamples of replicates.
        seed: Their seed.

    Returns:
        Columns variant, tasks, size, low, high, flag, replicates, method. Flag "above": no size
        passed, and the largest stands there; "at most": the smallest passed; else "". Ends of the
        interval outside the grid are 0 and infinity.

    Raises:
        ValueError: If a column is missing, a network occurs twice, or a score is not finite.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import size_needed
        >>> table = pd.DataFrame({
        ...     "variant": "e-add", "tasks": 4, "order": 0, "seed": 0,
        ...     "units": [8, 16, 32, 64], "relative_min": [0.5, 0.8, 0.93, 1.0],
        ... })
        >>> print(size_needed(table, theta=0.9)[["variant", "tasks", "size"]])
          variant  tasks  size
        0   e-add      4  32.0
    """
    import pandas as pd

    columns = checked(table, theta, value, [by, units, tasks], replicate, groups)
    found = []
    for (variant, count), rows in table.groupby([by, tasks], sort=False):
        grid = np.sort(rows[units].unique())
        scores, codes = scores_of(rows, value, columns, groups, [units], [grid])
        data, estimate, method = prepared(scores[:, None], grid, theta, continuous)
        logs = with_ends(data, estimate, codes, level, resamples, seed)
        centre, low, high = (_size(log, grid) for log in logs)
        flag = {0.0: "at most", np.inf: "above"}.get(centre, "")
        size = float(np.clip(centre, grid[0], grid[-1]))
        row = {by: variant, tasks: count, "size": size, "low": low, "high": high}
        found.append(row | {"flag": flag, "replicates": len(scores), "method": method})
    return pd.DataFrame(found)


def _size(log: float, grid: np.ndarray) -> float:
    """Return exp(log), without its rounding where it is a size of the grid."""
    size = float(np.exp(log))
    nearest = float(grid[np.argmin(np.abs(grid - min(size, grid[-1])))])
    return nearest if abs(size / nearest - 1) < 1e-12 else size


def next_size(
    evaluations: Mapping[int, float], grid: Sequence[int], theta: float = 0.9
) -> int | None:
    """Choose the next size to try when looking for the smallest one that reaches theta.

    Bisection between the smallest N that passed and the largest N below it that failed; of an
    even number of candidates the lower middle one, which is cheaper to train. It ends after at
    most ceil(log2(len(grid) + 1)) evaluations. With scores that do not rise with N it still ends,
    at an N that passed next to one that failed; failures above the smallest N that passed are
    ignored.

    Args:
        evaluations: N -> m of one replicate so far.
        grid: Sizes that may be tried.
        theta: Criterion.

    Returns:
        A size of the grid, or None when the answer is known: the smallest N that passed, or that
        the grid has none.

    Raises:
        ValueError: If the grid has no size or one below 1, a score is not finite, or theta is not
            positive.

    Example:
        >>> from ctxrnn.analysis import next_size
        >>> grid = [8, 16, 32, 64, 128]
        >>> next_size({}, grid)  # the middle first
        32
        >>> next_size({32: 0.95}, grid)  # 32 units do; fewer may, too
        8
        >>> next_size({32: 0.95, 8: 0.5, 16: 0.8}, grid) is None  # 32 it is
        True
    """
    check_positive("theta", theta)
    sizes = sorted({int(n) for n in grid})
    if not sizes or sizes[0] < 1:
        raise ValueError(f"grid must hold positive sizes: got {list(grid)}")
    for n, score in evaluations.items():
        if not np.isfinite(check_number("a score", score)):
            raise ValueError(f"scores must be finite: got {score} at N = {n}")
    passing = min((n for n, m in evaluations.items() if m >= theta - 1e-9), default=np.inf)
    failing = max((n for n in evaluations if n < passing), default=0)
    left = [n for n in sizes if failing < n < passing]
    return left[(len(left) - 1) // 2] if left else None

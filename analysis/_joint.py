"""Synergy in capacity: arms that share their replicates, and so their bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn._checks import unknown_name

from ._bootstrap import bootstrap_ends
from ._crossing import of_medians
from ._paired import FEWEST, independent
from ._replicates import checked, scores_of

if TYPE_CHECKING:
    import pandas as pd


def capacity_synergy(
    table: pd.DataFrame,
    theta: float = 0.9,
    *,
    combined: str,
    single: tuple[str, str],
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
    """Measure synergy in capacity, S = K*_es - max(K*_e, K*_s), at each size.

    K* as in `capacity`, from the replicates and K at which all three arms were measured; the
    bootstrap draws replicates, the same ones for the three arms, and finds capacities and their
    maximum anew. A K* outside the range of K counts as its nearest end in S, which is then only a
    bound or not known: the flag tells. Its interval runs from the least that S may be to the most:
    where K* leaves the range in some resamples an end may be infinite. S errs downwards where both
    parts are about equally good (see `synergy`).

    Args:
        table: One row per network, at equal parameter count; the size `units` is that by which the
            arms are matched.
        theta: Criterion.
        combined: Arm with both pathways.
        single: The two arms with one pathway.
        value: Column of m.
        by: Column of variants.
        units: Column of the size.
        tasks: Column of K.
        replicate: Columns that tell replicates apart.
        groups: Column of groups among them, e.g. "order": drawn first, then replicates in them.
        continuous: Interpolate K* between grid points; otherwise S is as coarse as the grid.
        level: Confidence level.
        resamples: Number of resamples.
        seed: Their seed.

    Returns:
        One row per size that the three arms share: the size, synergy, low, high, the capacities
        `capacity_combined`, `capacity_a`, `capacity_b` of the arms in the order given, flag,
        replicates, independent, and claim: the interval lies above 0, with at least five
        independent replicates (below them there is no interval) and an estimate that is no upper
        bound. Flag: "" where all K* lie
        within the range of K; "at least" where K*_es may be larger; "at most" where K*_es may be
        smaller or the better part larger; "unknown" where both, or nothing, can be told.

    Raises:
        ValueError: If a column or an arm is missing, a network occurs twice, a score is not
            finite, or the arms share no size.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import capacity_synergy
        >>> most = {"e-add": 2, "s-sym": 4, "es-add-sym": 8}  # tasks that each arm solves
        >>> table = pd.DataFrame([
        ...     {"variant": arm, "units": 16, "order": 0, "seed": seed, "tasks": tasks,
        ...      "relative_min": 1.0 if tasks <= most[arm] else 0.5}
        ...     for arm in most for seed in range(5) for tasks in (1, 2, 4, 8, 16)
        ... ])
        >>> found = capacity_synergy(
        ...     table, combined="es-add-sym", single=("e-add", "s-sym"), continuous=False
        ... )
        >>> found[["synergy", "low", "high", "claim"]].values.tolist()  # 8 - max(2, 4)
        [[4.0, 4.0, 4.0, True]]
    """
    import pandas as pd

    columns = checked(table, theta, value, [by, units, tasks], replicate, groups)
    arms = (combined, *single)
    if len(single) != 2 or len(set(arms)) < 3:
        raise ValueError(f"combined and single must name three arms: got {', '.join(arms)}")
    for arm in arms:
        if arm not in set(table[by]):
            raise unknown_name(by, arm, map(str, table[by].unique()))
    found = []
    for size, rows in table[table[by].isin(arms)].groupby(units):
        whole = rows.groupby([*columns, tasks])[by].transform("nunique") == len(arms)
        rows = rows[whole]
        if not len(rows):
            continue
        grid = np.sort(rows[tasks].unique())[::-1]
        scores, codes = scores_of(rows, value, columns, groups, [by, tasks], [np.array(arms), grid])
        gain = _Gain(grid, theta, continuous)
        ends = (
            bootstrap_ends(
                scores, bound, codes,
                level=level, resamples=resamples, seed=seed, fewest=FEWEST,
            )[place]
            for place, bound in enumerate((gain.lowest, gain.highest))
        )  # fmt: skip
        low, high = ends
        crossed = gain.crossing(scores)
        first, *parts = (float(k) for k in np.clip(-crossed, grid[-1], grid[0]))
        flags = [{-np.inf: "at least", np.inf: "below"}.get(k, "") for k in crossed]
        flag = _flag(flags, [first, *parts])
        number = independent(codes, len(scores))
        row: dict[str, Any] = {units: size, "synergy": first - max(parts)}
        row |= {"low": low, "high": high, "capacity_combined": first}
        row |= {"capacity_a": parts[0], "capacity_b": parts[1], "flag": flag}
        row |= {"replicates": len(scores), "independent": number}
        row["claim"] = bool(low > 0 and number >= FEWEST and flag in ("", "at least"))
        found.append(row)
    if not found:
        raise ValueError(f"{', '.join(arms)} share no {units} and {tasks}")
    return pd.DataFrame(found)


class _Gain:
    """S of scores (..., replicate, arm, K), K falling, arms in the order es, e, s."""

    def __init__(self, grid: np.ndarray, theta: float, continuous: bool) -> None:
        self.grid = grid
        self.crossing = of_medians(-grid.astype(float), theta, continuous=continuous)

    def bounds(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what each K* is at least, and at most: beyond the grid it is not known."""
        k = -self.crossing(scores)
        low = np.where(np.isneginf(k), 0.0, np.minimum(k, self.grid[0]))
        high = np.where(np.isneginf(k), self.grid[-1], k)
        return low, high

    def lowest(self, scores: np.ndarray) -> np.ndarray:
        """Return the least that S may be."""
        low, high = self.bounds(scores)
        return np.asarray(low[..., 0] - np.maximum(high[..., 1], high[..., 2]))

    def highest(self, scores: np.ndarray) -> np.ndarray:
        """Return the most that S may be."""
        low, high = self.bounds(scores)
        return np.asarray(high[..., 0] - np.maximum(low[..., 1], low[..., 2]))


def _flag(flags: Sequence[str], capacities: Sequence[float]) -> str:
    """Tell in which direction S is bounded."""
    best = max(capacities[1:])
    others = {flag for flag, k in zip(flags[1:], capacities[1:], strict=True) if k == best}
    larger = flags[0] == "at least" or "below" in others
    smaller = flags[0] == "below" or "at least" in others
    if larger and smaller:
        return "unknown"
    return "at least" if larger else "at most" if smaller else ""

"""Where behaviour changes between two contexts, beside where its fixed points bifurcate."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctxrnn._checks import check_count, unknown_name

from ._bootstrap import Interval, bootstrap_ends, group_codes
from ._paired import FEWEST
from ._permutations import permutation_p, permuted
from ._tables import check_columns
from .continuation import Branches

if TYPE_CHECKING:
    import pandas as pd

_KINDS = (
    "fold", "pitchfork", "branch point", "Hopf", "Neimark-Sacker", "period doubling", "multiple",
)  # fmt: skip


@dataclass(frozen=True)
class CrossingComparison:
    """Behavioural crossings beside the nearest bifurcations.

    Attributes:
        table: One row per path: path (its number), crossing (lambda of behaviour), bifurcation (the
            nearest one; NaN without any), kind, distance (bifurcation - crossing), bifurcations
            (how many the path has), group where groups were given.
        compared: Number of paths that have both.
        mean_distance: Mean of |distance| over these; NaN if there is none.
        correlation: Pearson's r of crossing and nearest bifurcation over these, with a bootstrap
            interval; NaN below three paths, the interval below five independent ones. It lies
            above 0 by choice of the nearest alone where paths have several bifurcations.
        p: One-sided p of the mean |distance| against crossings put to other paths.
        exact: Whether p is from all permutations.

    Example: that of `compare_crossings`.
    """

    table: pd.DataFrame
    compared: int
    mean_distance: float
    correlation: Interval
    p: float
    exact: bool

    def __str__(self) -> str:
        missing = len(self.table) - self.compared
        if not self.compared:
            return f"none of {len(self.table)} paths has a bifurcation and a crossing"
        return (
            f"mean |distance| {self.mean_distance:.3f}, p = {self.p:.3g}, r = {self.correlation}; "
            f"{missing} of {len(self.table)} paths left out"
        )


def compare_crossings(
    bifurcations: pd.DataFrame | Branches | Sequence[pd.DataFrame | Branches],
    lambda_star: float | Sequence[float] | np.ndarray,
    *,
    kinds: Collection[str] | None = None,
    groups: Sequence[Hashable] | np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    permutations: int = 10_000,
    seed: int = 0,
) -> CrossingComparison:
    """Compare where behaviour crosses with the nearest bifurcation, over paths between contexts.

    A path is one pair of contexts in one network, c(lambda) = (1 - lambda) e_k + lambda e_j. Its
    lambda* is the `level` of `crossing` for (task k, other j), from a sweep with "mix2", whose
    lambda is that of `ContextPath(network, e_k, e_j)`. `lambda_50` does not serve where it is an
    average over all j.

    With several bifurcations on a path the nearest one is near to anything. The test takes that
    into account: it gives each path the lambda* of another one, finds the nearest anew, and counts
    how often the mean distance is as small. Lambda* is exchanged within a group, where there are
    groups. A path and its reverse are the same line of contexts: put both into one group.

    Args:
        bifurcations: `follow_fixed_points(...)` or its `.bifurcations()` of a path, or one of these
            for each path.
        lambda_star: Crossing of each path; NaN where behaviour does not cross.
        kinds: Which kinds count, e.g. ("fold",); None for all.
        groups: Group of each path, e.g. its network, for the bootstrap and the test.
        level: Confidence level.
        resamples: Number of resamples.
        permutations: All permutations are used where they are no more than that; otherwise so many
            are drawn.
        seed: Seed of resamples and permutations.

    Returns:
        The comparison; see its attributes.

    Raises:
        ValueError: If there is not one lambda* for each path, or a kind is unknown.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import compare_crossings
        >>> folds = [pd.DataFrame({"kind": ["fold"], "parameter": [p]}) for p in (0.2, 0.5, 0.8)]
        >>> found = compare_crossings(folds, [0.25, 0.5, 0.75])  # lambda* of three paths
        >>> found.table["distance"].round(3).tolist()
        [-0.05, 0.0, 0.05]
        >>> round(found.p, 3)  # of 6 ways to pair crossings and folds none is better
        0.167
    """
    import pandas as pd

    check_count("permutations", permutations)
    single = isinstance(bifurcations, pd.DataFrame | Branches)
    paths = [_places(one, kinds) for one in ([bifurcations] if single else bifurcations)]
    stars = np.atleast_1d(np.asarray(lambda_star, dtype=float))
    if stars.shape != (len(paths),) or not len(paths):
        raise ValueError(
            f"lambda_star must be one number for each of {len(paths)} paths: got shape "
            f"{stars.shape}"
        )
    if np.isinf(stars).any():
        raise ValueError("lambda_star must be finite, or NaN where behaviour does not cross")
    codes = group_codes(groups, len(paths))
    table = pd.DataFrame([_row(n, *pair) for n, pair in enumerate(zip(paths, stars, strict=True))])
    if groups is not None:
        table["group"] = list(groups)
    used = table["distance"].notna().to_numpy()
    x, y = (table.loc[used, name].to_numpy(float) for name in ("crossing", "bifurcation"))
    mine = None if codes is None else group_codes(codes[used], int(used.sum()))
    rows = np.stack([x, y], axis=1)
    r = float(_correlation(rows)) if len(rows) > 2 else math.nan
    ends = (math.nan, math.nan)
    if len(rows) > 2:
        ends = bootstrap_ends(
            rows, _correlation, mine, level=level, resamples=resamples, seed=seed, fewest=FEWEST
        )
    levels = [np.asarray(p[0]) for p, use in zip(paths, used, strict=True) if use]
    p, exact = _exchanged(levels, x, mine, permutations, seed)
    return CrossingComparison(
        table,
        int(used.sum()),
        float(np.abs(x - y).mean()) if len(rows) else math.nan,
        Interval(r, *ends, len(rows), level),
        p,
        exact,
    )


Places = tuple[np.ndarray, list[str]]


def _places(found: pd.DataFrame | Branches, kinds: Collection[str] | None) -> Places:
    """Return where the bifurcations of a path are, and their kinds."""
    table = found.bifurcations() if isinstance(found, Branches) else found
    if len(table):
        check_columns(table, ["kind", "parameter"])
    for kind in kinds or ():
        if kind not in _KINDS:
            raise unknown_name("kind", kind, _KINDS)
    if not len(table):
        return np.zeros(0), []
    chosen = table if kinds is None else table[table["kind"].isin(list(kinds))]
    return chosen["parameter"].to_numpy(dtype=float), [str(kind) for kind in chosen["kind"]]


def _row(number: int, places: Places, star: float) -> dict[str, object]:
    where, kinds = places
    row: dict[str, object] = {
        "path": number, "crossing": star, "bifurcation": math.nan, "kind": None,
        "distance": math.nan, "bifurcations": len(where),
    }  # fmt: skip
    if len(where) and not math.isnan(star):
        nearest = int(np.abs(where - star).argmin())
        row |= {"bifurcation": float(where[nearest]), "kind": kinds[nearest]}
        row["distance"] = float(where[nearest] - star)
    return row


def _correlation(rows: np.ndarray) -> np.ndarray:
    """Return Pearson's r of the last axis' two columns, (...); NaN without spread."""
    centred = rows - rows.mean(axis=-2, keepdims=True)
    x, y = centred[..., 0], centred[..., 1]
    size = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    scale = (rows**2).sum((-2, -1))
    kept = size > 1e-12 * scale
    return np.where(kept, (x * y).sum(-1) / np.where(kept, size, 1), np.nan)


def _exchanged(
    levels: list[np.ndarray],
    stars: np.ndarray,
    groups: np.ndarray | None,
    permutations: int,
    seed: int,
) -> tuple[float, bool]:
    """Return the p of the mean distance if lambda* is exchanged between paths."""
    count = len(stars)
    if count < 2 or (groups is not None and np.bincount(groups).max() < 2):
        return math.nan, False
    # Distance of each path's nearest bifurcation from each path's lambda*.
    far = np.stack([np.abs(where[:, None] - stars).min(axis=0) for where in levels])
    own = np.arange(count)
    orders, exact = permuted(count, permutations, seed, groups)
    found = np.array([far[own, order].mean() for order in orders])
    return permutation_p(-float(far[own, own].mean()), -found, exact), exact

"""Sets of points that make one attractor: single points, lines, rings, and higher ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree, shortest_path
from scipy.spatial.distance import pdist, squareform

from ctxrnn._checks import check_positive

from .fixed_points import FixedPoints

if TYPE_CHECKING:
    import pandas as pd

_FEWEST = 6


def attractor_sets(points: FixedPoints, *, gap: float = 5.0) -> pd.DataFrame:
    """Group fixed and slow points into attractors: a point, a line, a ring, or more dimensions.

    Points at which no mode grows are joined along their marginal modes: two of one condition belong
    together if their distance is at most `gap` times the median distance between nearest
    neighbours among the condition's marginal points. A set is one-dimensional if most of its points
    have one marginal mode. It is a ring if the ends of the path through it, along its shortest
    connections, lie as near to each other as its neighbours do; else a line. Sets of fewer than six
    points are not told apart from a line.

    Slow points count as marginal, whatever their modes: a line attractor that is not exact leaves
    a few fixed points and slow ones between them.

    Args:
        points: From `find_fixed_points`, best with `between=0`, many starts and a `slow` of the
            speed along the set.
        gap: See above.

    Returns:
        One row per attractor: condition, kind ("point", "line", "ring", "plane": two marginal
        modes or more), points (how many), members (their numbers), dimension (median number of
        marginal modes), length (of the path, in units of the state).
    """
    import pandas as pd

    check_positive("gap", gap)
    growth = points._growth
    held = (growth <= 0).all(axis=1) | points.slow
    flat = held & ((growth == 0).any(axis=1) | points.slow)
    rows = []
    for number in range(points.field.conditions):
        mine = np.flatnonzero((points.condition == number) & held)
        soft = mine[flat[mine]]
        rows += [_row(number, "point", [i], 0, 0.0) for i in mine if not flat[i]]
        if not len(soft):
            continue
        away = squareform(pdist(points.x[soft])) if len(soft) > 1 else np.zeros((1, 1))
        nearest = np.where(np.eye(len(soft), dtype=bool), np.inf, away).min(axis=1)
        limit = gap * float(np.median(nearest)) if len(soft) > 1 else 0.0
        _, label = connected_components(away <= limit, directed=False)
        for group in np.unique(label):
            members = soft[label == group]
            near = away[np.ix_(label == group, label == group)]
            marginal = max(1, int(np.median((growth[members] == 0).sum(axis=1))))
            if len(members) == 1:
                rows.append(_row(number, "point", members, marginal, 0.0))
                continue
            kind, length = _shape(near)
            rows.append(_row(number, "plane" if marginal > 1 else kind, members, marginal, length))
    names = ["condition", "kind", "points", "members", "dimension", "length"]
    return pd.DataFrame(rows, columns=names)


def _row(
    condition: int, kind: str, members: np.ndarray | list[int], dimension: int, length: float
) -> dict[str, object]:
    return {
        "condition": condition, "kind": kind, "points": len(members),
        "members": [int(i) for i in members], "dimension": dimension, "length": length,
    }  # fmt: skip


def _shape(away: np.ndarray) -> tuple[str, float]:
    """Tell a line from a ring by the longest path of the minimum spanning tree."""
    # SciPy takes a zero for no edge; points of a set differ.
    tree = minimum_spanning_tree(away)
    along = shortest_path(tree, directed=False)
    first, last = np.unravel_index(int(np.argmax(along)), along.shape)
    length, largest = float(along[first, last]), float(tree.data.max())
    closes = len(away) >= _FEWEST and away[first, last] <= 2 * largest
    # A ring's path goes nearly all the way round: its ends are far apart along it.
    if closes and length > 3 * float(away[first, last]):
        return "ring", length + float(away[first, last])
    return "line", length

"""Sets of points that make one attractor: single points, lines, rings, and higher ones."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree, shortest_path
from scipy.spatial.distance import pdist, squareform

from ._solve import solve
from .fixed_points import FixedPoints

if TYPE_CHECKING:
    import pandas as pd

# Between two points the set is sought at these shares of the gap.
_SHARES = (0.3, 0.5, 0.7)
# Least cosine of the angle between a gap and the marginal modes at its ends: an arc of 150 degrees.
_ALONG = 0.25
# The same between such states: on one set their gaps lie along it.
_IN_LINE = 0.7
# |R| of a root, relative to 1 + |x|; iterations; bytes of the Jacobians that are held at once.
_ROOT, _ITERATIONS, _MEMORY = 1e-9, 12, 64 * 2**20
# Of each set so many gaps to so many of the nearest others are tried.
_GAPS, _OTHERS = 3, 8


def attractor_sets(points: FixedPoints) -> pd.DataFrame:
    """Group fixed and slow points into attractors: a point, a line, a ring, or more dimensions.

    Points at which no mode grows are joined along their marginal modes: two of one condition belong
    together if the gap between them is closed by more such states, however wide it is. They are
    sought at three places of the gap, by Newton steps across the marginal modes from a curve that
    leaves both points along these. |R| must be at most `points.marginal` times the gap there, or
    `points.slow_limit` if one of the two is a slow point. A set is a ring if the gap between the
    ends of the path through it is closed, too, else a line. Gaps of more than 150 degrees of an arc
    are not closed: of rings with starts at random angles 3 % have one with 12 starts, and less than
    0.1 % from 20 on.

    Slow points count as marginal, whatever their modes: a line attractor that is not exact leaves
    a few fixed points and slow ones between them.

    Args:
        points: From `find_fixed_points`, best with `between=0`, many starts and a `slow` of the
            speed along the set.

    Returns:
        One row per attractor: condition, kind ("point", "line", "ring", "plane": two marginal
        modes or more), points (how many), members (their numbers), dimension (median number of
        marginal modes), length (of the path, in units of the state).

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import FunctionField, attractor_sets, find_fixed_points
        >>> field = FunctionField(lambda x: x * (1 - (x**2).sum(-1, keepdim=True)), units=2)
        >>> starts = np.random.default_rng(0).normal(size=(100, 2))
        >>> points = find_fixed_points(field, starts=starts, between=0)
        >>> sets = attractor_sets(points)  # all on the circle of radius 1
        >>> sets["kind"].tolist(), sets["length"].round(1).tolist()
        (['ring'], [6.3])
    """
    import pandas as pd

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
        gaps = _Gaps(points, soft, np.maximum(1, (growth[soft] == 0).sum(axis=1)))
        label = gaps.groups()
        for group in np.unique(label):
            inside = np.flatnonzero(label == group)
            marginal = max(1, int(np.median((growth[soft[inside]] == 0).sum(axis=1))))
            if len(inside) == 1:
                rows.append(_row(number, "point", soft[inside], marginal, 0.0))
                continue
            kind, length = _shape(gaps, inside, marginal)
            rows.append(_row(number, kind, soft[inside], marginal, length))
    names = ["condition", "kind", "points", "members", "dimension", "length"]
    return pd.DataFrame(rows, columns=names)


class _Gaps:
    """Gaps between the marginal points of a condition, and whether the set goes on in them.

    Attributes:
        x: The points, (point, unit).
        away: Distances between them.
    """

    def __init__(self, points: FixedPoints, soft: np.ndarray, modes: np.ndarray) -> None:
        self.field, self.x = points.field, points.x[soft]
        self.condition = int(points.condition[soft[0]])
        self.slow, self.limits = points.slow[soft], (points.marginal, points.slow_limit)
        self.away = squareform(pdist(self.x)) if len(soft) > 1 else np.zeros((1, 1))
        self.modes = np.minimum(modes, self.field.units)

    @cached_property
    def directions(self) -> np.ndarray:
        """Orthonormal bases of the marginal modes, (point, unit, mode), 0 beyond their number."""
        most = int(self.modes.max())
        generator = np.random.default_rng(0)
        block = np.tile(generator.normal(size=(self.field.units, most)), (len(self.x), 1, 1))
        for rows in self._blocks(len(self.x)):
            matrix = self._jacobian(self.x[rows])
            scale = np.linalg.norm(matrix, axis=(1, 2))[:, None, None]
            # The modes nearest to 0 by inverse iteration; the shift keeps it from being singular.
            matrix = matrix + 1e-8 * (1 + scale) * np.eye(self.field.units)
            for _ in range(4):
                block[rows] = np.linalg.qr(np.linalg.solve(matrix, block[rows]))[0]
        return np.where(np.arange(most) < self.modes[:, None, None], block, 0.0)

    def groups(self) -> np.ndarray:
        """Return the number of each point's set."""
        count = len(self.x)
        label = np.arange(count)
        if count == 1:
            return label
        tree = minimum_spanning_tree(self.away).tocoo()
        pairs = np.column_stack([tree.row, tree.col])
        joined = np.zeros((0, 2), dtype=int)
        tried: set[tuple[int, int]] = set()
        while len(pairs):
            tried.update(map(tuple, pairs.tolist()))
            closed = pairs[self.closed(pairs)[0]]
            joined = np.concatenate([joined, closed])
            graph = coo_matrix((np.ones(len(joined)), tuple(joined.T)), (count, count))
            label = connected_components(graph, directed=False)[1]
            if not len(closed) and len(tried) > count:
                break
            pairs = self._between(label, tried)
        return label

    def _between(self, label: np.ndarray, tried: set[tuple[int, int]]) -> np.ndarray:
        """Return the shortest gaps between sets that are near to each other, if not tried."""
        sets = [np.flatnonzero(label == group) for group in np.unique(label)]
        near = np.array([[self.away[np.ix_(a, b)].min() for b in sets] for a in sets])
        found = set()
        for number, own in enumerate(sets):
            for other in near[number].argsort(kind="stable")[1 : _OTHERS + 1]:
                block = self.away[np.ix_(own, sets[other])]
                for place in block.argsort(axis=None, kind="stable")[:_GAPS]:
                    i, j = np.unravel_index(place, block.shape)
                    ends = sorted((int(own[i]), int(sets[other][j])))
                    found.add((ends[0], ends[1]))
        return np.array(sorted(found - tried), dtype=int).reshape(-1, 2)

    def closed(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which gaps are closed, (pair,), and by which states, (pair, share, unit)."""
        first, second = pairs.T
        chord = self.x[second] - self.x[first]
        gap = np.linalg.norm(chord, axis=1)
        chord = chord / gap[:, None]
        # The part of the chord in the marginal modes at either end: where the set leaves to.
        ends = [
            np.einsum("pum,pm->pu", basis, np.einsum("pum,pu->pm", basis, chord))
            for basis in (self.directions[first], self.directions[second])
        ]
        along = np.min([np.linalg.norm(end, axis=1) for end in ends], axis=0)
        leaving, coming = (
            gap[:, None] * end / np.linalg.norm(end, axis=1).clip(1e-300)[:, None] for end in ends
        )
        s = np.array(_SHARES)[:, None]
        states = (
            self.x[first][:, None] * (1 + 2 * s) * (1 - s) ** 2
            + self.x[second][:, None] * s**2 * (3 - 2 * s)
            + leaving[:, None] * s * (1 - s) ** 2
            + coming[:, None] * s**2 * (s - 1)
        )
        modes = np.minimum(self.modes[first], self.modes[second])
        frame = np.concatenate([chord[:, :, None], self.directions[first]], axis=2)
        states, tangents = self._across(states, frame, modes)
        marginal, slow = self.limits
        root = _ROOT * (1 + np.linalg.norm(self.x[first], axis=1))
        limit = np.where(
            self.slow[first] | self.slow[second], slow, np.maximum(root, marginal * gap)
        )
        size = self._size(states)
        to_ends = [np.linalg.norm(states - self.x[end][:, None], axis=2) for end in (first, second)]
        inside = np.maximum(*to_ends).max(axis=1) <= gap
        calm = (np.isfinite(size) & (size <= limit[:, None])).all(axis=1)
        kept = (along >= _ALONG) & inside & calm
        kept[kept] = self._in_line(pairs[kept], states[kept], tangents[kept])
        return kept, states

    def _in_line(self, pairs: np.ndarray, states: np.ndarray, tangents: np.ndarray) -> np.ndarray:
        """Return where the set goes on from each state to the next, not over to another set."""
        first, second = pairs.T
        way = np.concatenate([self.x[first][:, None], states, self.x[second][:, None]], axis=1)
        steps = np.diff(way, axis=1)
        steps /= np.linalg.norm(steps, axis=2).clip(1e-300)[..., None]
        before = np.linalg.norm(np.einsum("psum,psu->psm", tangents, steps[:, :-1]), axis=2)
        after = np.linalg.norm(np.einsum("psum,psu->psm", tangents, steps[:, 1:]), axis=2)
        return np.asarray((np.minimum(before, after) >= _IN_LINE).all(axis=1))

    def _across(
        self, states: np.ndarray, frame: np.ndarray, modes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take Newton steps across the marginal modes, to where |R| is along these.

            [J  B] [d]   [-R]
            [B' 0] [s] = [ 0],   B an orthonormal basis of the modes

        Returns:
            Where they lead, and orthonormal bases of the set there: d with J d = -B s, B' d = 1,
            (pair, share, unit, mode).
        """
        states, units = states.copy(), self.field.units
        tangents = np.zeros((*states.shape, int(modes.max(initial=1))))
        for count in np.unique(modes):
            these = np.flatnonzero(modes == count)
            for part in self._blocks(len(these)):
                rows = these[part]
                basis = np.repeat(np.linalg.qr(frame[rows])[0][:, :, :count], len(_SHARES), axis=0)
                x = states[rows].reshape(-1, units)
                going = np.arange(len(x))
                for _ in range(_ITERATIONS):
                    step = self._solved(x[going], basis[going])[:, :, 0]
                    moved = np.linalg.norm(step, axis=1)
                    size = 1 + np.linalg.norm(x[going], axis=1)
                    # Steps from afar must not leave the region where J tells anything.
                    x[going] += step * np.minimum(1, size / moved.clip(1e-300))[:, None]
                    going = going[(moved > 1e-9 * size) & np.isfinite(moved)]
                    if not len(going):
                        break
                found = self._solved(x, basis)[:, :, 1:]
                bad = ~np.isfinite(found).all(axis=(1, 2))
                found[bad] = 0.0
                along = np.linalg.qr(found)[0]
                along[bad] = 0.0
                shape = (len(rows), len(_SHARES), units)
                states[rows], tangents[rows, ..., :count] = (
                    x.reshape(shape),
                    along.reshape(*shape, count),
                )
        return states, tangents

    def _solved(self, x: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """Return the Newton step across the modes, and the tangents, (state, unit, 1 + mode)."""
        count, units, modes = basis.shape
        matrix = np.zeros((count, units + modes, units + modes))
        right = np.zeros((count, units + modes, 1 + modes))
        finite = np.isfinite(x).all(axis=1)
        matrix[finite, :units, :units] = self._jacobian(x[finite])
        right[finite, :units, 0] = -self._residual(x[finite])
        matrix[:, :units, units:] = basis
        matrix[:, units:, :units] = basis.transpose(0, 2, 1)
        right[:, units:, 1:] = np.eye(modes)
        found = solve(torch.from_numpy(matrix), torch.from_numpy(right)).numpy()[:, :units]
        return np.where(finite[:, None, None], found, np.nan)

    def _blocks(self, count: int) -> list[np.ndarray]:
        size = max(1, _MEMORY // (8 * self.field.units**2 * len(_SHARES)))
        return np.split(np.arange(count), range(size, count, size))

    def _tensors(self, x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        states = torch.as_tensor(x, dtype=torch.float64, device=self.field.device)
        return states, torch.full((len(x),), self.condition, device=self.field.device)

    def _residual(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.field.residual(*self._tensors(x)).cpu().numpy())

    def _jacobian(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.field.jacobian(*self._tensors(x)).cpu().numpy())

    def _size(self, states: np.ndarray) -> np.ndarray:
        flat = np.nan_to_num(states.reshape(-1, self.field.units), nan=np.inf)
        size = np.linalg.norm(self._residual(flat), axis=1)
        return np.asarray(size.reshape(states.shape[:2]))


def _row(
    condition: int, kind: str, members: np.ndarray | list[int], dimension: int, length: float
) -> dict[str, object]:
    return {
        "condition": condition, "kind": kind, "points": len(members),
        "members": [int(i) for i in members], "dimension": dimension, "length": length,
    }  # fmt: skip


def _shape(gaps: _Gaps, inside: np.ndarray, marginal: int) -> tuple[str, float]:
    """Tell a line from a ring by the gap between the ends of the path through the set."""
    near = gaps.away[np.ix_(inside, inside)]
    # SciPy takes a zero for no edge; points of a set differ.
    along = shortest_path(minimum_spanning_tree(near), directed=False)
    first, last = np.unravel_index(int(np.argmax(along)), along.shape)
    length = float(along[first, last])
    if marginal > 1:
        return "plane", length
    if len(inside) > 2:
        closed, states = gaps.closed(inside[[[first, last]]])
        # From end to end of a line the gap is full of its own points.
        away = np.linalg.norm(states[0][:, None] - gaps.x[inside], axis=2)
        if closed[0] and np.isin(away.argmin(axis=1), (first, last)).all():
            return "ring", length + float(near[first, last])
    return "line", length

"""Roots of a vector field from many starts at once: damped Newton, then Levenberg-Marquardt."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .fields import VectorField

# Bytes of the Jacobians that are held at once.
_MEMORY = 256 * 2**20
# Where the shortest step is too long the linearisation tells nothing about roots: between kinks it
# is exact, so that shorter ones do not help.
_SHORTER, _SHORTER_BETWEEN_KINKS = (0.5, 0.25, 0.125), (0.5, 0.25)
# Of q; the usual constant of a sufficient decrease.
_DECREASE = 1e-4
# A search for a minimum that lowers q by less than this share in so many iterations is there.
_LITTLE, _WINDOW = 1e-3, 10
# Newton steps that lower q by less than this share in so many iterations lead to no root.
_ENOUGH, _PATIENCE = 0.3, 5
# Newton steps before starts are again compared with the roots that are known.
_BRIEF = 2
# Starts that are searched first, and by how much |R| must fall in a step with a root's Jacobian.
_FIRST, _FALL, _APART = 64, 0.5, 1e-3
# Newton steps to states so many times larger than those that they began from lead nowhere.
_FAR = 1e3
# A Jacobian whose condition number is above this is singular but for rounding.
_SINGULAR = 1e11
CONVERGED, STATIONARY, DIVERGED, UNFINISHED, CYCLING = range(5)


@dataclass(frozen=True)
class Limits:
    """When a search ends.

    Attributes:
        tolerance: |R| of a root.
        slow: |R| of a slow point.
        iterations: Most Newton or Levenberg-Marquardt steps of a start.
        reach: A flow that is farther than this from the origin has diverged.
    """

    tolerance: float
    slow: float
    iterations: int
    reach: float


@dataclass
class Descent:
    """Where each start ended.

    Attributes:
        x: Last states, (start, unit).
        size: |R| there, (start,).
        state: CONVERGED (|R| below the tolerance), STATIONARY (a minimum of q = |R|^2 / 2 that is
            no root), DIVERGED (left all bounds: those of Newton steps, or those of the flow) or
            UNFINISHED (out of iterations); CYCLING (on a cycle) is for flows, (start,).
        iterations: Number of them, (start,).
        period: Of the cycle in ms, else NaN, (start,).
    """

    x: Tensor
    size: Tensor
    state: Tensor
    iterations: Tensor
    period: Tensor


@dataclass
class _Batch:
    """Starts that are under way."""

    x: Tensor
    r: Tensor
    q: Tensor
    condition: Tensor
    damping: Tensor = field(init=False)
    before: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.damping = torch.full_like(self.q, 1e-3)
        self.before = torch.full_like(self.q, torch.inf)

    def take(self, rows: Tensor) -> _Batch:
        part = _Batch(self.x[rows], self.r[rows], self.q[rows], self.condition[rows])
        part.damping, part.before = self.damping[rows], self.before[rows]
        return part

    def put(self, rows: Tensor, part: _Batch) -> None:
        self.x[rows], self.r[rows], self.q[rows] = part.x, part.r, part.q
        self.damping[rows] = part.damping


def descend(
    system: VectorField,
    x: Tensor,
    condition: Tensor,
    limits: Limits,
    *,
    minima: bool = False,
    known: Roots | None = None,
) -> Descent:
    """Find roots of R from many starts.

    Each iteration tries the Newton step, shortened until q falls enough. Where none of its lengths
    does (a singular Jacobian, a minimum of q that is no root) the start is given up, or, with
    `minima`, takes a Levenberg-Marquardt step.

    Args:
        system: The field.
        x: Starts, (start, unit), float64; not changed.
        condition: (start,).
        limits: When it ends.
        minima: Whether starts that Newton steps do not help go on to a minimum of q.
        known: Roots found before; those found now are added if there were none.
    """
    found = unfinished(x)
    block = max(1, int(_MEMORY // (8 * system.units**2)))
    known = Roots(system) if known is None else known
    # Far states may be those that the flow has led to, so that steps have bounds of their own.
    own = _FAR * (1.0 + float(x.norm(dim=-1).max())) if len(x) else 0.0
    limits = dataclasses.replace(limits, reach=own)
    brief = dataclasses.replace(limits, iterations=min(_BRIEF, limits.iterations))
    # A few starts first: many of the others end at the same roots.
    sizes = [min(_FIRST, block)] + [block] * (len(x) // block + 1)
    for rows in _parts(torch.arange(len(x), device=x.device), sizes):
        left = known.approach(found, rows, condition, limits)
        if known.x and not minima:
            # Near a root most starts can go on with its Jacobian.
            _descend(system, found, left, condition[left], brief, minima)
            left = left[found.state[left] == UNFINISHED]
            left = known.approach(found, left, condition, limits)
        if len(left):
            _descend(system, found, left, condition[left], limits, minima)
        if not known.x:
            known.learn(found, x, rows, condition)
    return found


def _parts(rows: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    for size in sizes:
        if len(rows):
            yield rows[:size]
        rows = rows[size:]


class Roots:
    """Roots found so far with the inverse of their Jacobians, for starts that lie near them."""

    def __init__(self, system: VectorField) -> None:
        self.system = system
        self.x: dict[int, Tensor] = {}
        self.inverse: dict[int, list[Tensor]] = {}
        self.reach: dict[int, Tensor] = {}

    def learn(self, found: Descent, starts: Tensor, rows: Tensor, condition: Tensor) -> None:
        """Take in roots that at least two starts have reached, as far as memory allows."""
        room = max(1, int(_MEMORY // (8 * self.system.units**2)))
        ends = rows[found.state[rows] == CONVERGED]
        for number in condition[ends].unique().tolist():
            mine = ends[condition[ends] == number]
            roots, inverses, reach = [], [], []
            while len(mine) and room > 0:
                x = found.x[mine[0]]
                near = (found.x[mine] - x).norm(dim=-1) < _APART
                if int(near.sum()) > 1:
                    jacobian = self.system.jacobian(x[None], condition[mine[:1]])[0]
                    if (inverse := _inverse(jacobian)) is not None:
                        roots.append(x)
                        inverses.append(inverse)
                        # As far as the starts that Newton steps led there.
                        reach.append((starts[mine[near]] - x).norm(dim=-1).median())
                        room -= 1
                mine = mine[~near]
            if roots:
                self.x[number], self.inverse[number] = torch.stack(roots), inverses
                self.reach[number] = torch.stack(reach)

    def approach(self, found: Descent, rows: Tensor, condition: Tensor, limits: Limits) -> Tensor:
        """Take starts near a root to it, by steps with its Jacobian; return those that are left.

        A start is left to Newton steps with its own Jacobian, from where it was, unless |R| falls
        by `_FALL` in every step: then it lies where the root is the only one near.
        """
        left = torch.ones_like(rows, dtype=torch.bool)
        for number, roots in self.x.items():
            mine = (condition[rows] == number).nonzero()[:, 0]
            if not len(mine):
                continue
            away, nearest = torch.cdist(found.x[rows[mine]], roots).min(dim=1)
            close = away <= self.reach[number][nearest]
            mine, nearest = mine[close], nearest[close]
            for place in nearest.unique().tolist():
                these = mine[nearest == place]
                done = self._chord(
                    found,
                    rows[these],
                    condition,
                    self.inverse[number][place],
                    limits,
                )
                left[these[done]] = False
        return rows[left]

    def _chord(
        self,
        found: Descent,
        rows: Tensor,
        condition: Tensor,
        inverse: Tensor,
        limits: Limits,
    ) -> Tensor:
        """Return which starts have reached the root, and write their ends."""
        x, where = found.x[rows], condition[rows]
        r = self.system.residual(x, where)
        size = r.norm(dim=-1)
        done = size <= limits.tolerance
        going = torch.arange(len(rows), device=x.device)
        for count in range(1, min(limits.iterations, 60) + 1):
            moved = x - r @ inverse.mT
            after = self.system.residual(moved, where)
            new = after.norm(dim=-1)
            fell = new <= _FALL * size
            going, x, r, size, where = going[fell], moved[fell], after[fell], new[fell], where[fell]
            ended = size <= limits.tolerance
            if ended.any():
                these = rows[going[ended]]
                found.x[these], found.size[these] = x[ended], size[ended]
                found.state[these] = CONVERGED
                found.iterations[these] += count
                done[going[ended]] = True
                rest = ~ended
                going, x, r, size, where = going[rest], x[rest], r[rest], size[rest], where[rest]
            if not len(going):
                break
        return done


def _inverse(matrix: Tensor) -> Tensor | None:
    """Return the inverse of a matrix, or None if it is nearly singular."""
    found, info = torch.linalg.inv_ex(matrix)
    size = float(matrix.norm() * found.norm())
    return found if not int(info) and size < 1e8 else None


def unfinished(x: Tensor) -> Descent:
    return Descent(
        x.clone(),
        torch.full_like(x[:, 0], torch.inf),
        torch.full((len(x),), UNFINISHED, device=x.device),
        torch.zeros(len(x), dtype=torch.long, device=x.device),
        torch.full_like(x[:, 0], torch.nan),
    )


def _descend(
    system: VectorField,
    found: Descent,
    rows: Tensor,
    condition: Tensor,
    limits: Limits,
    minima: bool,
) -> None:
    x = found.x[rows]
    r = system.residual(x, condition)
    batch = _Batch(x, r, _half_square(r), condition)
    share, window = (_LITTLE, _WINDOW) if minima else (_ENOUGH, _PATIENCE)
    for number in range(limits.iterations + 1):
        stuck = (
            _iterate(system, batch, minima)
            if number
            else torch.zeros_like(batch.q, dtype=torch.bool)
        )
        size = (2 * batch.q).sqrt()
        away = ~torch.isfinite(batch.q) | (batch.x.norm(dim=-1) > limits.reach)
        if number % window == 0:
            stuck |= batch.q > (1 - share) * batch.before
            batch.before = batch.q.clone()
        state = torch.full_like(rows, UNFINISHED)
        state[stuck] = STATIONARY
        state[size <= limits.tolerance] = CONVERGED
        state[away] = DIVERGED
        found.x[rows], found.size[rows], found.state[rows] = batch.x, size, state
        found.iterations[rows] += number > 0
        going = state == UNFINISHED
        if not going.all():
            rows, batch = rows[going], batch.take(going)
        if not len(rows):
            return


def _probe(x: Tensor) -> Tensor:
    """Return a vector in no special direction."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(x.shape[-1], generator=generator, dtype=x.dtype).to(x.device)


def _half_square(r: Tensor) -> Tensor:
    return r.square().sum(-1) / 2


def _iterate(system: VectorField, batch: _Batch, minima: bool) -> Tensor:
    """Take a step of every start; return which are at a minimum of q, or given up."""
    # A second right side tells how large the inverse is. Where the Jacobian is singular but for
    # rounding, as along a line of points, a Newton step would go anywhere along it.
    probe = _probe(batch.x)
    right = torch.stack([-batch.r, probe.expand_as(batch.r)], dim=-1)
    both, norm = system.solved(batch.x, batch.condition, right)
    step, inverse = both[..., 0], both[..., 1].norm(dim=-1) / probe.norm()
    usable = torch.isfinite(step).all(-1)
    usable &= inverse * norm < _SINGULAR
    # Steps far beyond the states themselves leave the region where the Jacobian says anything.
    limit = 1 + batch.x.norm(dim=-1)
    step = step * (limit / step.norm(dim=-1)).clamp(max=1.0)[:, None]
    step[~usable] = 0
    moved = _shortened(system, batch, step, usable)
    left = ~moved
    if not minima:
        return left
    stuck = torch.zeros_like(moved)
    if left.any():
        part = batch.take(left)
        stuck[left] = _marquardt(system, part)
        batch.put(left, part)
    return stuck


def _shortened(system: VectorField, batch: _Batch, step: Tensor, usable: Tensor) -> Tensor:
    """Go along a step as far as q falls enough; return which starts have moved."""
    moved = _accept(system, batch, usable.nonzero()[:, 0], step[usable], 1.0)
    rows = (usable & ~moved).nonzero()[:, 0]
    for length in _SHORTER_BETWEEN_KINKS if system.piecewise else _SHORTER:
        if not len(rows):
            break
        moved |= _accept(system, batch, rows, step[rows], length)
        rows = rows[~moved[rows]]
    return moved


def _accept(
    system: VectorField, batch: _Batch, rows: Tensor, step: Tensor, length: float
) -> Tensor:
    """Take those steps after which q has fallen enough; return which starts have moved."""
    x = batch.x[rows] + length * step
    r = system.residual(x, batch.condition[rows])
    q = _half_square(r)
    fallen = q <= (1 - 2 * _DECREASE * length) * batch.q[rows]
    moved = torch.zeros_like(batch.q, dtype=torch.bool)
    these = rows[fallen]
    batch.x[these], batch.r[these], batch.q[these] = x[fallen], r[fallen], q[fallen]
    moved[these] = True
    return moved


def _marquardt(system: VectorField, batch: _Batch) -> Tensor:
    """Take a Levenberg-Marquardt step, with more damping until q falls.

        (J^T J + mu s) d = -J^T R,  s the mean of the diagonal of J^T J

    Returns:
        Which starts are at a minimum of q: its gradient is 0 but for rounding, or no step lowers q.
    """
    jacobian = system.jacobian(batch.x, batch.condition)
    gradient = (jacobian.mT @ batch.r[..., None])[..., 0]
    normal = jacobian.mT @ jacobian
    scale = normal.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-300)
    flat = gradient.norm(dim=-1) <= 1e-14 * (scale * 2 * batch.q).sqrt()
    left = (~flat).nonzero()[:, 0]
    eye = torch.eye(batch.x.shape[-1], dtype=batch.x.dtype, device=batch.x.device)
    for _ in range(12):
        if not len(left):
            break
        damped = normal[left] + (batch.damping[left] * scale[left])[:, None, None] * eye
        factor, info = torch.linalg.cholesky_ex(damped)
        step = -torch.cholesky_solve(gradient[left][..., None], factor)[..., 0]
        x = batch.x[left] + step
        r = system.residual(x, batch.condition[left])
        q = _half_square(r)
        expected = -(gradient[left] * step).sum(-1)
        fallen = (info == 0) & (batch.q[left] - q > 0.1 * _DECREASE * expected)
        these = left[fallen]
        batch.x[these], batch.r[these], batch.q[these] = x[fallen], r[fallen], q[fallen]
        batch.damping[these] = (batch.damping[these] / 5).clamp_min(1e-14)
        left = left[~fallen]
        batch.damping[left] *= 6
    flat[left] = True
    batch.damping.clamp_(max=1e6)
    return flat

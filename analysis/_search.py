"""Where starts lead: to a root by Newton steps, else along the flow to what lies on its way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from ._cycles import Cycles, find_cycles
from ._newton import (
    CONVERGED,
    CYCLING,
    DIVERGED,
    STATIONARY,
    UNFINISHED,
    Descent,
    Limits,
    Roots,
    descend,
    unfinished,
)
from .fields import VectorField

# Length of the flow in time constants (of a map: steps), and the most steps of the integrator.
_HORIZON, _STEPS = 100.0, 400
# Error of a step of the flow, relative to 1 + |x|, and the longest step in time constants.
_ERROR, _LONGEST = 1e-2, 1.5
# A speed below this is lost in the rounding of single precision.
_COARSE = 1e-3
# Beyond so many times the largest start a flow that grows by this share in a time constant is
# followed until it leaves all bounds or slows down, however long that takes.
_LARGE, _GROWTH = 10.0, 1e-2
# Flows of a condition that are followed on first, the others if one comes to something.
_SAMPLE = 16
# In units of `slow`: a state this calm is near a root or a slow point.
_CALM = 10.0


@dataclass
class Drift:
    """Where the flow has led starts.

    Attributes:
        x: Last states, (start, unit).
        nearest: The states with the smallest |R| on the way, (start, unit).
        size: |R| there, (start,).
        mean: Means over the later half of the way, (start, unit): inside a cycle.
        diverged: Which have left all bounds, (start,).
    """

    x: Tensor
    mean: Tensor
    nearest: Tensor
    size: Tensor
    diverged: Tensor


def search(
    field: VectorField, x: Tensor, condition: Tensor, limits: Limits, known: Roots
) -> Descent:
    """Take every start to a root, a slow point, or infinity.

    1. Damped Newton steps, which find roots whether they are stable or not.
    2. Starts that those do not help, or take away from all states that the search began from,
       follow the flow dx/ds = R(x). Where it becomes calm, Newton
       and Levenberg-Marquardt steps lead to the root or the slow point that is there; where it
       goes on to the end of its time, Newton steps are tried again from there and from its mean.
    3. Flows that have led to nothing are followed on: they may turn round a cycle, or become calm
       late, having passed what is left of points that have met.

    Args:
        field: The field.
        x: Starts, (start, unit), float64; not changed.
        condition: (start,).
        limits: When it ends.
        known: Roots found before; those found now are added if there were none.
    """
    found = descend(field, x, condition, limits, known=known)
    # That Newton steps went away tells nothing about where the flow goes.
    lost = found.state == DIVERGED
    if lost.any():
        found.x[lost], found.state[lost] = x[lost], UNFINISHED
        found.size[lost] = field.residual(x[lost], condition[lost]).norm(dim=-1)
    # A calm start is at what it is near to.
    calm = _open(found) & (found.size <= _CALM * limits.slow)
    _again(field, found, calm, found.x[calm], condition, limits, known, minima=True)
    missed = _open(found) & (found.size > limits.slow)
    if not missed.any():
        return found
    drift = follow_flow(field, x[missed], condition[missed], limits)
    rows = missed.nonzero()[:, 0]
    away = rows[drift.diverged]
    found.x[away], found.size[away] = drift.x[drift.diverged], torch.inf
    found.state[away] = DIVERGED
    near = ~drift.diverged & (drift.size <= _CALM * limits.slow)
    cycling = ~drift.diverged & ~near
    for chosen, states in ((near, drift.nearest), (cycling, drift.x), (cycling, drift.mean)):
        these = torch.zeros_like(missed)
        these[rows[chosen]] = True
        still = _open(found)[rows[chosen]]
        these &= _open(found)
        _again(
            field,
            found,
            these,
            states[chosen][still],
            condition,
            limits,
            known,
            minima=chosen is near,
        )
    calm, states = _turn(field, found, rows, drift, condition, limits)
    _again(field, found, calm, states, condition, limits, known, minima=True)
    return found


def _turn(
    field: VectorField, found: Descent, rows: Tensor, drift: Drift, condition: Tensor,
    limits: Limits,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Note which starts end on a cycle; the others that are open at their calmest state.

    Returns:
        Which starts, (start,), have become calm so late, and their states.
    """
    late = torch.zeros_like(found.state, dtype=torch.bool)
    still = _open(found)[rows] & (found.size[rows] > limits.slow)
    if not still.any():
        return late, found.x[late]
    rows, last = rows[still], drift.x[still]
    calmer = (drift.size[still] < found.size[rows]) & (drift.size[still] > limits.slow)
    these = rows[calmer]
    found.x[these], found.size[these] = drift.nearest[still][calmer], drift.size[still][calmer]
    cycles = _cycles(field, last, condition[rows], limits.slow)
    turns = torch.isfinite(cycles.period)
    these = rows[turns]
    found.x[these], found.period[these] = cycles.x[turns], cycles.period[turns]
    found.size[these] = field.residual(found.x[these], condition[these]).norm(dim=-1)
    found.state[these] = CYCLING
    late[rows[cycles.calm]] = True
    return late, cycles.x[cycles.calm]


def _cycles(field: VectorField, x: Tensor, condition: Tensor, slow: float) -> Cycles:
    """Follow a sample of each condition, and the rest of those in which it helps: not of chaos."""
    found = Cycles(x, torch.full_like(x[:, 0], torch.nan), torch.zeros_like(condition).bool())
    first, rest = torch.zeros_like(found.calm), torch.zeros_like(found.calm)
    for number in condition.unique():
        mine = (condition == number).nonzero()[:, 0]
        # Evenly over the starts, which may be in order.
        first[mine[:: -(-len(mine) // _SAMPLE)]] = True
    for turn in (first, rest):
        if turn.any():
            found.put(turn, find_cycles(field, x[turn], condition[turn], slow))
        helped = condition[first & (torch.isfinite(found.period) | found.calm)]
        rest |= torch.isin(condition, helped) & ~first
    return found


def _open(found: Descent) -> Tensor:
    return (found.state == STATIONARY) | (found.state == UNFINISHED)


def _again(
    field: VectorField, found: Descent, rows: Tensor, x: Tensor, condition: Tensor, limits: Limits,
    known: Roots, *, minima: bool,
) -> None:  # fmt: skip
    """Search from other states for some starts, and take what is better."""
    if not rows.any():
        return
    other = descend(field, x, condition[rows], limits, minima=minima, known=known)
    places = rows.nonzero()[:, 0]
    found.iterations[places] += other.iterations
    better = (other.state == CONVERGED) | (
        (other.state != DIVERGED) & (other.size < found.size[places])
    )
    these = places[better]
    found.x[these], found.size[these] = other.x[better], other.size[better]
    found.state[these] = other.state[better]


def follow_flow(field: VectorField, x: Tensor, condition: Tensor, limits: Limits) -> Drift:
    """Follow dx/ds = R(x), s in time constants, until it is calm, has diverged or time is up.

    Heun's method with the error of Euler's as the measure of each start's step; of a map its own
    steps. In single precision where the field has it and that can tell what is calm: all that
    matters is where the flow leads.
    """
    if limits.slow >= _COARSE:
        field = field.coarse()
    x = x.to(field.dtype)
    found = Drift(
        x.clone(), torch.zeros_like(x), x.clone(), torch.full_like(x[:, 0], torch.inf),
        torch.zeros_like(condition, dtype=torch.bool),
    )  # fmt: skip
    rows, time = torch.arange(len(x), device=x.device), torch.zeros_like(x[:, 0])
    weight = torch.zeros_like(time)
    step = torch.full_like(time, 1.0 if field.discrete else 0.1)
    r, length = field.residual(x, condition), x.norm(dim=-1)
    large = _LARGE * (1 + float(length.max()))
    for _ in range(_STEPS):
        size = r.norm(dim=-1)
        closer = size < found.size[rows]
        found.nearest[rows[closer]], found.size[rows[closer]] = x[closer], size[closer]
        away = ~torch.isfinite(size) | (length > limits.reach)
        going = ~away & (size > limits.slow)
        if (late := time >= _HORIZON).any():
            growing = (x * r).sum(-1) > _GROWTH * length.square()
            going &= ~late | (growing & (length > large))
        if not going.all():
            found.x[rows], found.diverged[rows] = x, away
            rows, condition, x, r = rows[going], condition[going], x[going], r[going]
            time, step, length = time[going], step[going], length[going]
        if not len(rows):
            break
        moved = x + step[:, None] * r
        after = field.residual(moved, condition)
        late = time >= _HORIZON / 2
        if field.discrete:
            good = torch.ones_like(late)
            moved_by = step
        else:
            wrong = step / 2 * (after - r).norm(dim=-1)
            allowed = _ERROR * (1 + length)
            good = ~(wrong > allowed)
            moved_by = step
            moved = x + (step / 2)[:, None] * (r + after)
            after = field.residual(moved, condition)
            factor = 0.9 * (allowed / wrong.clamp_min(1e-30)).sqrt()
            step = (step * factor.clamp(0.2, 4)).clamp(max=_LONGEST)
        if late.any():
            late &= good
            found.mean[rows[late]] += moved_by[late, None] * x[late]
            weight[rows[late]] += moved_by[late]
        if good.all():
            x, r, time = moved, after, time + moved_by
        else:
            x = torch.where(good[:, None], moved, x)
            r = torch.where(good[:, None], after, r)
            time = torch.where(good, time + moved_by, time)
        length = x.norm(dim=-1)
    found.x[rows] = x
    found.mean /= weight.clamp_min(torch.finfo(x.dtype).tiny)[:, None]
    return Drift(
        *(part.double() if part.is_floating_point() else part for part in vars(found).values())
    )


def krylov(field: VectorField, x: Tensor, condition: Tensor, limits: Limits) -> Descent:
    """Take every start to a root without Jacobians, for fields too large to hold one.

    The flow first, then SciPy's Newton-Krylov method, one start after another. Starts that it
    does not take to a root stay where the flow was calmest.
    """
    drift = follow_flow(field, x, condition, limits)
    found = unfinished(drift.nearest)
    found.size = drift.size.clone()
    found.state[:] = STATIONARY
    found.state[drift.diverged] = DIVERGED
    for row in (~drift.diverged).nonzero()[:, 0].tolist():
        where = condition[row : row + 1]
        for begin in (x[row], drift.nearest[row]):
            end = _krylov(field, begin, where, limits)
            if end is not None:
                found.x[row], found.size[row] = end
                found.state[row] = CONVERGED
                break
    _turn(field, found, torch.arange(len(x), device=x.device), drift, condition, limits)
    return found


def _krylov(
    field: VectorField, x: Tensor, where: Tensor, limits: Limits
) -> tuple[Tensor, Tensor] | None:
    def residual(state: np.ndarray) -> np.ndarray:
        given = torch.from_numpy(state).to(x.device)
        return np.asarray(field.residual(given[None], where)[0].cpu())

    try:
        with np.errstate(all="ignore"):
            end = optimize.newton_krylov(
                residual, x.cpu().numpy(), f_tol=limits.tolerance / 2, maxiter=limits.iterations,
                tol_norm=np.linalg.norm,
            )  # fmt: skip
    except (optimize.NoConvergence, ValueError):
        return None
    state = torch.from_numpy(end).to(x.device)
    size = field.residual(state[None], where)[0].norm()
    return (state, size) if bool(size <= limits.tolerance) else None

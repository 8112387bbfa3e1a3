"""Cycles: whether a flow returns to a state that it has been at, and after what time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .fields import VectorField

# In mean time constants (of a map: steps): when the first state is noted that the flow may return
# to, each later one after twice the time, the last one before half of the horizon.
_FIRST = 4.0
_HORIZON, _HORIZON_OF_MAPS = 400.0, 640.0
_STEPS = 2500
# Distance of a return, and error of a step, relative to how far the flow has been from the state.
_RETURN, _RETURN_OF_MAPS, _ERROR = 3e-4, 1e-6, 2e-5
_LONGEST = 2.0
# Error of a step relative to the speed, at most.
_SHARE = 0.1
# By how much two turns in a row may differ in time.
_SAME = 1e-2


@dataclass
class Cycles:
    """What has become of flows.

    Attributes:
        x: A state on the cycle where there is one, else the last state, (start, unit).
        period: In ms; NaN where the flow did not return, (start,).
        calm: Whether it has become calm instead, (start,).
    """

    x: Tensor
    period: Tensor
    calm: Tensor

    def put(self, rows: Tensor, part: Cycles) -> None:
        self.x, self.period, self.calm = self.x.clone(), self.period.clone(), self.calm.clone()
        self.x[rows], self.period[rows], self.calm[rows] = part.x, part.period, part.calm


@dataclass
class _Flow:
    """Flows under way: states, velocities, and the states that they may return to."""

    rows: Tensor
    x: Tensor
    v: Tensor
    condition: Tensor
    step: Tensor
    time: Tensor
    noted: Tensor
    direction: Tensor
    since: Tensor
    renewed: Tensor
    ahead: Tensor
    extent: Tensor
    scale: Tensor
    turn: Tensor

    def keep(self, mask: Tensor) -> None:
        for name, part in vars(self).items():
            setattr(self, name, part[mask])

    def note(self) -> None:
        """Note states anew where it is time: after twice the time of the last one."""
        due = self.time >= self.renewed
        if not due.any():
            return
        self.noted[due], self.direction[due] = self.x[due], self.v[due]
        self.since[due] = self.time[due]
        self.renewed[due] = 2 * self.time[due].clamp_min(_FIRST) + _FIRST
        self.scale[due], self.extent[due], self.ahead[due] = self.extent[due], 0.0, 0.0


def find_cycles(field: VectorField, x: Tensor, condition: Tensor, slow: float) -> Cycles:
    """Follow dx/dt, or a map's steps, from each start until it has come back to a state twice.

    Returns are sought at the plane through a noted state across the flow there. Flows that are
    calm, |R| <= `slow`, or leave all bounds are given up.

    Args:
        field: The field.
        x: States after a transient, (start, unit), float64; not changed.
        condition: (start,).
        slow: |R| of calm states.
    """
    horizon = _HORIZON_OF_MAPS if field.discrete else _HORIZON
    found = Cycles(
        x.clone(), torch.full_like(x[:, 0], torch.nan), torch.zeros_like(condition).bool()
    )
    rates = field.rates / field.rates.mean()
    zero = torch.zeros_like(x[:, 0])
    flow = _Flow(
        torch.arange(len(x), device=x.device), x.clone(), field.residual(x, condition) * rates,
        condition, torch.full_like(zero, 1.0 if field.discrete else 0.1), zero.clone(), x.clone(),
        torch.zeros_like(x), zero.clone(), torch.full_like(zero, _FIRST), zero.clone(),
        zero.clone(), zero.clone(), torch.full_like(zero, torch.nan),
    )  # fmt: skip
    for _ in range(_STEPS):
        size = (flow.v / rates).norm(dim=-1)
        going = torch.isfinite(size) & (size > slow) & (flow.time < horizon)
        if not going.all():
            found.x[flow.rows[~going]] = flow.x[~going]
            found.calm[flow.rows[~going]] = size[~going] <= slow
            flow.keep(going)
        if not len(flow.rows):
            return found
        # The last state that is noted has half of the time to be returned to.
        flow.renewed[flow.renewed > horizon / 2] = torch.inf
        flow.note()
        period, states = (_map if field.discrete else _continuous)(field, flow, rates)
        back = torch.isfinite(period)
        if back.any():
            # Chaos comes near to where it was, too, but not twice in a row.
            first = back & ~((period - flow.turn).abs() <= _SAME * period)
            flow.turn[first] = period[first]
            flow.since[first] += period[first]
            back &= ~first
            these = flow.rows[back]
            found.x[these] = states[back]
            found.period[these] = period[back] / float(field.rates.mean())
            flow.keep(~back)
    found.x[flow.rows] = flow.x
    return found


def _map(field: VectorField, flow: _Flow, rates: Tensor) -> tuple[Tensor, Tensor]:
    """Take a step of a map; return the periods of those that have returned, and states."""
    flow.x = flow.x + flow.v
    flow.v = field.residual(flow.x, flow.condition)
    flow.time = flow.time + 1
    away = (flow.x - flow.noted).norm(dim=-1)
    back = (away <= _RETURN_OF_MAPS * flow.extent) & (flow.since > 0)
    flow.extent = torch.maximum(flow.extent, away)
    return torch.where(back, flow.time - flow.since, torch.nan), flow.x


def _continuous(field: VectorField, flow: _Flow, rates: Tensor) -> tuple[Tensor, Tensor]:
    """Take a step of the classical Runge-Kutta method, an embedded one of order 3 beside it."""

    def velocity(x: Tensor) -> Tensor:
        return field.residual(x, flow.condition) * rates

    x, first, h = flow.x, flow.v, flow.step[:, None]
    second = velocity(x + h / 2 * first)
    third = velocity(x + h / 2 * second)
    fourth = velocity(x + h * third)
    moved = x + h / 6 * (first + 2 * (second + third) + fourth)
    last = velocity(moved)
    wrong = flow.step / 6 * (fourth - last).norm(dim=-1)
    speed = first.norm(dim=-1)
    allowed = _ERROR * torch.maximum(torch.maximum(flow.extent, flow.scale), speed)
    # Else steps would jump about a stable point for ever.
    allowed = torch.minimum(allowed, _SHARE * speed)
    good = ~(wrong > allowed)
    factor = 0.9 * (allowed / wrong.clamp_min(1e-300)) ** 0.25
    ahead = ((moved - flow.noted) * flow.direction).sum(-1)
    crossing = good & (flow.ahead < 0) & (ahead >= 0) & (flow.since > 0)
    period, states = torch.full_like(wrong, torch.nan), moved
    if crossing.any():
        share, at = _crossing(flow, moved, last, ahead, crossing)
        near = (at - flow.noted[crossing]).norm(dim=-1) <= _RETURN * flow.extent[crossing]
        took = flow.time[crossing] + share * flow.step[crossing] - flow.since[crossing]
        period[crossing] = torch.where(near, took, torch.nan)
    flow.time = torch.where(good, flow.time + flow.step, flow.time)
    flow.step = (flow.step * factor.clamp(0.2, 4)).clamp(max=_LONGEST)
    flow.x = torch.where(good[:, None], moved, x)
    flow.v = torch.where(good[:, None], last, first)
    flow.ahead = torch.where(good, ahead, flow.ahead)
    away = torch.where(good, (moved - flow.noted).norm(dim=-1), 0.0)
    flow.extent = torch.maximum(flow.extent, away)
    return period, states


def _crossing(
    flow: _Flow, moved: Tensor, last: Tensor, ahead: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Return at what share of a step the plane is crossed, and the states there (Hermite)."""
    h = flow.step[rows, None]
    begin, end = flow.x[rows], moved[rows]
    leaving, coming = h * flow.v[rows], h * last[rows]
    normal = flow.direction[rows]
    low, high = flow.ahead[rows], ahead[rows]
    slope = ((leaving * normal).sum(-1), (coming * normal).sum(-1))
    share = low / (low - high)
    for _ in range(4):
        s = share
        value = (
            low * (1 + 2 * s) * (1 - s) ** 2 + high * s**2 * (3 - 2 * s)
            + slope[0] * s * (1 - s) ** 2 + slope[1] * s**2 * (s - 1)
        )  # fmt: skip
        rise = (
            (high - low) * 6 * s * (1 - s)
            + slope[0] * (1 - s) * (1 - 3 * s) + slope[1] * s * (3 * s - 2)
        )  # fmt: skip
        share = (s - value / torch.where(rise == 0, 1.0, rise)).clamp(0, 1)
    s = share[:, None]
    at = (
        begin * (1 + 2 * s) * (1 - s) ** 2 + end * s**2 * (3 - 2 * s)
        + leaving * s * (1 - s) ** 2 + coming * s**2 * (s - 1)
    )  # fmt: skip
    return share, at

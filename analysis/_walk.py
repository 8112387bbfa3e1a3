"""Walking along a curve of fixed points R(x, p) = 0, and the bifurcations on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import linalg
from scipy.optimize import brentq

from ._branches import Bifurcation, Branch
from .fields import VectorField
from .linearisation import eigenvalues

Path = Callable[[float], VectorField]
"""From the parameter to the vector field there, e.g. a `ContextPath`."""

_DIFFERENCE = 1e-6
_CORRECTIONS = 12
# A correction that leaves more than this share of |R| is followed by one with new slopes.
_FAST = 0.05
# Least cosine of the angle by which a step, or a part of it, may turn.
_STRAIGHT = 0.9
# How sharply a bifurcation is located, in units of the state.
_SHARP = 1e-9


def _factorised(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the factors of a matrix for `lu_solve`; None if it is singular."""
    if not np.isfinite(matrix).all():
        return None
    lu, pivots = linalg.lapack.dgetrf(matrix)[:2]
    return (lu, pivots) if (lu.diagonal() != 0).all() else None


def _state(point: np.ndarray, field: VectorField) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the state of a point, (1, unit), and its condition, (1,)."""
    x = torch.as_tensor(point[None, :-1], dtype=torch.float64, device=field.device)
    return x, torch.zeros(1, dtype=torch.long, device=field.device)


class _NotThere(Exception):
    """No point of the curve was found near a guess."""


class Curve:
    """R(x, p) = 0 and its derivatives; the points are (x, p) as one row."""

    def __init__(self, path: Path, tolerance: float) -> None:
        self.path, self.tolerance = path, tolerance
        self._last: tuple[float, VectorField] | None = None

    def field(self, p: float) -> VectorField:
        if self._last is None or self._last[0] != p:
            field = self.path(p)
            if field.conditions != 1:
                raise ValueError(f"path must give one condition: got {field.conditions}")
            self._last = (p, field)
        return self._last[1]

    def residual(self, point: np.ndarray) -> np.ndarray:
        field = self.field(float(point[-1]))
        return np.asarray(field.residual(*_state(point, field))[0].cpu().numpy())

    def slopes(self, point: np.ndarray) -> np.ndarray:
        """Return [R_x R_p], (unit, unit + 1)."""
        # The field at the point itself first: it is the one that was made last.
        field = self.field(float(point[-1]))
        jacobian = field.jacobian(*_state(point, field))[0].cpu().numpy()
        up, down = point.copy(), point.copy()
        up[-1] += _DIFFERENCE
        down[-1] -= _DIFFERENCE
        by_parameter = (self.residual(up) - self.residual(down)) / (2 * _DIFFERENCE)
        return np.column_stack([jacobian, by_parameter])

    def tangent(self, slopes: np.ndarray, along: np.ndarray) -> np.ndarray | None:
        """Return the unit tangent that points along a direction."""
        right = np.zeros(len(along))
        right[-1] = 1.0
        try:
            found = np.linalg.solve(np.vstack([slopes, along]), right)
        except np.linalg.LinAlgError:
            return None
        return np.asarray(found / np.linalg.norm(found))

    def corrected(self, guess: np.ndarray, along: np.ndarray) -> np.ndarray | None:
        """Return the point of the curve in the plane through a guess at right angles to `along`."""
        point, right = guess.copy(), np.zeros(len(guess))
        size, factors = np.inf, None
        for _ in range(_CORRECTIONS):
            residual = self.residual(point)
            before, size = size, float(np.linalg.norm(residual))
            if size <= self.tolerance:
                return point
            if not np.isfinite(size) or size > 2 * before + self.tolerance:
                return None
            right[:-1] = -residual
            right[-1] = -float(along @ (point - guess))
            # The slopes of an earlier step serve as long as they lead on fast.
            if factors is None or size > _FAST * before:
                factors = _factorised(np.vstack([self.slopes(point), along]))
            if factors is None:
                return None
            point = point + linalg.lu_solve(factors, right, check_finite=False)
        return point if np.linalg.norm(self.residual(point)) <= self.tolerance else None

    def settled(self, x: np.ndarray, p: float) -> np.ndarray | None:
        """Return the fixed point near a state, at a given parameter."""
        along = np.zeros(len(x) + 1)
        along[-1] = 1.0
        point = self.corrected(np.append(x, p), along)
        return None if point is None else point[:-1]

    def spectrum(self, point: np.ndarray) -> np.ndarray:
        return np.asarray(eigenvalues(self.field(float(point[-1])), point[:-1])[0])


@dataclass
class _Place:
    """A point of the curve with what is tested there."""

    curve: Curve
    point: np.ndarray
    tangent: np.ndarray
    # Sign and logarithm of det [R_x R_p; tangent].
    crossing: float
    size: float = 0.0

    @cached_property
    def spectrum(self) -> np.ndarray:
        return self.curve.spectrum(self.point)

    @property
    def unstable(self) -> int:
        return int((self.spectrum.real > 0).sum())


class Walk:
    """One branch."""

    def __init__(
        self,
        curve: Curve,
        *,
        bounds: tuple[float, float],
        step: float,
        least: float,
        largest: float,
        steps: int,
    ) -> None:
        self.curve, self.bounds = curve, bounds
        self.step, self.least, self.largest, self.steps = step, least, largest, steps

    def both(self, x: np.ndarray, p: float) -> Branch:
        """Follow a point in both directions."""
        begin = np.append(x, p)
        slopes = self.curve.slopes(begin)
        # The null vector of [R_x R_p], whichever way it points.
        first = np.linalg.svd(slopes)[2][-1]
        first = first * (1.0 if first[-1] >= 0 else -1.0)
        forth = self._one(begin, first)
        if forth[2] == "closed":
            places, events, ends = forth[0], forth[1], ("closed", "closed")
        else:
            back = self._one(begin, -first)
            places = back[0][:0:-1] + forth[0]
            events, ends = back[1][::-1] + forth[1], (back[2], forth[2])
        points = np.array([place.point for place in places])
        return Branch(
            parameter=points[:, -1],
            x=points[:, :-1],
            index=np.array([place.unstable for place in places]),
            leading=np.array([place.spectrum.real[0] for place in places]),
            bifurcations=tuple(events),
            ends=ends,
        )

    def _place(self, point: np.ndarray, along: np.ndarray) -> _Place | None:
        slopes = self.curve.slopes(point)
        tangent = self.curve.tangent(slopes, along)
        if tangent is None:
            return None
        sign, size = np.linalg.slogdet(np.vstack([slopes, tangent]))
        return _Place(self.curve, point, tangent, float(sign), float(size))

    def _one(
        self, begin: np.ndarray, along: np.ndarray
    ) -> tuple[list[_Place], list[Bifurcation], str]:
        """Follow the curve in one direction: places, bifurcations, and why it ended."""
        first = self._place(begin, along)
        if first is None:
            first = _Place(self.curve, begin, along, 0.0)
        events: list[Bifurcation] = []
        places, length = [first], self.step
        for number in range(self.steps):
            here = places[-1]
            following = self._next(here, length)
            if following is None:
                length /= 2
                if length < self.least:
                    return places, events, "lost"
                continue
            place, bend = following
            outside = not self.bounds[0] <= place.point[-1] <= self.bounds[1]
            if outside:
                last = self._at_bound(here, place)
                if last is None or np.allclose(last.point, here.point, atol=1e-12):
                    return places, events, "range"
                place = last
            events += self._events(here, place)
            events = [e for e in events if self.bounds[0] <= e.parameter <= self.bounds[1]]
            places.append(place)
            if outside:
                return places, events, "range"
            gap = float(np.linalg.norm(place.point - begin))
            if number > 3 and gap < length and float(place.tangent @ first.tangent) > 0.9:
                places.append(first)
                return places, events, "closed"
            length = min(self.largest, length * (1.5 if bend > 0.98 else 1.0))
        return places, events, "steps"

    def _next(self, here: _Place, length: float) -> tuple[_Place, float] | None:
        """Return the place a step further, and the cosine of the angle by which it turned."""
        point = self.curve.corrected(here.point + length * here.tangent, here.tangent)
        if point is None:
            return None
        place = self._place(point, here.tangent)
        if place is None:
            return None
        bend = float(place.tangent @ here.tangent)
        # A step that turns too far, or went too far aside, may have jumped to another branch.
        aside = float(np.linalg.norm(point - here.point - length * here.tangent))
        return (place, bend) if bend > _STRAIGHT and aside < length else None

    def _at_bound(self, here: _Place, beyond: _Place) -> _Place | None:
        bound = self.bounds[0] if beyond.point[-1] < self.bounds[0] else self.bounds[1]
        if here.point[-1] == bound:
            return None
        share = (bound - here.point[-1]) / (beyond.point[-1] - here.point[-1])
        guess = here.point + share * (beyond.point - here.point)
        x = self.curve.settled(guess[:-1], bound)
        if x is None:
            return None
        return self._place(np.append(x, bound), here.tangent)

    def _events(self, a: _Place, b: _Place) -> list[Bifurcation]:
        """Return the bifurcations between two places, located."""
        found = []
        index = min(a.unstable, b.unstable)
        if a.tangent[-1] * b.tangent[-1] < 0:
            place = self._located(a, b, lambda place: float(place.tangent[-1]))
            found.append(_event("fold", place, place.tangent[:-1], index))
        if a.crossing * b.crossing < 0:
            largest = max(a.size, b.size)
            place = self._located(a, b, lambda place: place.crossing * np.exp(place.size - largest))
            found.append(_event("branch point", place, self._other(place), index))
        changed = b.unstable - a.unstable
        odd = sum(event.kind in ("fold", "branch point") for event in found)
        if changed and abs(changed) - odd >= 2:
            # Eigenvalues fall in their real parts: this one is that of the pair that crosses.
            number = (a.unstable + b.unstable) // 2
            place = self._located(a, b, lambda place: float(place.spectrum.real[number]))
            near = np.abs(place.spectrum.real) + 1e6 * (place.spectrum.imag == 0)
            value = place.spectrum[int(near.argmin())]
            if value.imag != 0:
                mode = self._mode(place, value)
                frequency = float(1000 * abs(value.imag) / (2 * np.pi))
                found.append(_event("Hopf", place, mode, index, frequency))
        return found

    def _located(self, a: _Place, b: _Place, test: Callable[[_Place], float]) -> _Place:
        """Find where a test changes its sign between two places (Brent 1973)."""
        span = float(np.linalg.norm(b.point - a.point))
        seen: dict[float, _Place] = {0.0: a, 1.0: b}

        def tested(share: float) -> float:
            if share not in seen:
                guess = a.point + share * (b.point - a.point)
                point = self.curve.corrected(guess, a.tangent)
                place = None if point is None else self._place(point, a.tangent)
                # Between two places the curve turns no further than from one to the other; a
                # correction that turned went over to a branch that crosses.
                if place is None or float(place.tangent @ a.tangent) < _STRAIGHT:
                    raise _NotThere
                seen[share] = place
            return test(seen[share])

        with contextlib.suppress(_NotThere):
            return seen[brentq(tested, 0.0, 1.0, xtol=max(1e-12, _SHARP / span), rtol=1e-12)]
        # Where branches cross corrections fail: halve what is left as far as they do not, then
        # take the line between the ends.
        sign = np.sign(test(a))
        past = [share for share in seen if np.sign(test(seen[share])) != sign]
        high = min(past)
        low = max(share for share in seen if share < high)
        with contextlib.suppress(_NotThere):
            while (high - low) * span > _SHARP and high - low > 1e-12:
                middle = (low + high) / 2
                low, high = (middle, high) if np.sign(tested(middle)) == sign else (low, middle)
        a, b = seen[low], seen[high]
        share = test(a) / (test(a) - test(b))
        return _Place(self.curve, a.point + share * (b.point - a.point), b.tangent, 0.0)

    def _other(self, place: _Place) -> np.ndarray:
        """Return the direction of the other branch: the null vector at right angles to this one."""
        slopes = self.curve.slopes(place.point)
        null = np.linalg.svd(slopes)[2][-2:]
        other = null[np.abs(null @ place.tangent).argmin()]
        other = other - (other @ place.tangent) * place.tangent
        return np.asarray(other[:-1])

    def _mode(self, place: _Place, value: complex) -> np.ndarray:
        field = self.curve.field(float(place.point[-1]))
        matrix = field.linearisation(place.point[:-1])[0].cpu().numpy()
        values, vectors = np.linalg.eig(matrix)
        return np.asarray(vectors[:, int(np.abs(values - value).argmin())].real)


def _event(
    kind: str, place: _Place, direction: np.ndarray, index: int, frequency: float = 0.0
) -> Bifurcation:
    norm = float(np.linalg.norm(direction)) or 1.0
    parameter, x = float(place.point[-1]), place.point[:-1]
    return Bifurcation(kind, parameter, x, direction / norm, frequency, index)

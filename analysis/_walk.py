"""Walking along a curve of fixed points R(x, p) = 0, and the bifurcations on the way."""

from __future__ import annotations

import contextlib
import itertools
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
# Most that a chord may differ from the mean of the tangents at its ends, both of length 1.
_WRY = 0.05
# A step is looked at between its ends where dp/ds may fall below this share of its values there.
_DIP = 0.25
# So many times a step is halved to find what hides in it.
_HALVINGS = 6
# How sharply a bifurcation is located, in units of the state.
_SHARP = 1e-9
# A mode is critical if it grows by less than this share of the fastest unit's rate.
_CRITICAL = 1e-5
# How near a branch must come to its beginning to be closed, in units of the state.
_MET = 1e-5


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

    def place(self, point: np.ndarray, along: np.ndarray) -> Place | None:
        """Return a point with its tangent, which points along a direction; None if singular."""
        slopes = self.slopes(point)
        tangent = self.tangent(slopes, along)
        if tangent is None or not np.isfinite(tangent).all():
            return None
        sign, size = np.linalg.slogdet(np.vstack([slopes, tangent]))
        return Place(self, point, tangent, float(sign), float(size))

    def spectrum(self, point: np.ndarray) -> np.ndarray:
        return np.asarray(eigenvalues(self.field(float(point[-1])), point[:-1])[0])


@dataclass
class Place:
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

    @property
    def reversed(self) -> Place:
        return Place(self.curve, self.point, -self.tangent, -self.crossing, self.size)

    @cached_property
    def growth(self) -> np.ndarray:
        """Real parts of the spectrum, of a map those of |mu| - 1, per step or ms."""
        field = self.curve.field(float(self.point[-1]))
        real = self.spectrum.real
        return np.expm1(real * field.step) if field.discrete else real

    @property
    def critical(self) -> float:
        """Growth up to which a mode counts as critical."""
        field = self.curve.field(float(self.point[-1]))
        return _CRITICAL * (1.0 if field.discrete else float(field.rates.max()))

    def alternates(self, mode: int) -> bool:
        """Tell whether a mode of a map has a negative multiplier."""
        field = self.curve.field(float(self.point[-1]))
        if not field.discrete:
            return False
        return bool(abs(abs(self.spectrum[mode].imag) * field.step - np.pi) < 1e-12)


def _between(a: Place, b: Place, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the cubic through two places along their tangents, and d/dshare of it."""
    chord = b.point - a.point
    span = float(np.linalg.norm(chord))
    first, last = (span * x * (1.0 if x @ chord >= 0 else -1.0) for x in (a.tangent, b.tangent))
    s = share
    point = a.point + s * s * (3 - 2 * s) * chord + s * (1 - s) * ((1 - s) * first - s * last)
    slope = 6 * s * (1 - s) * chord + (1 - s) * (1 - 3 * s) * first + s * (3 * s - 2) * last
    return point, slope


def middle(a: Place, b: Place, share: float = 0.5) -> Place | None:
    """Return a place of the curve between two places of it."""
    chord = b.point - a.point
    along = chord / np.linalg.norm(chord)
    point = a.curve.corrected(_between(a, b, share)[0], along)
    place = None if point is None else a.curve.place(point, along)
    return None if place is None or float(place.tangent @ along) < _STRAIGHT else place


def passes(a: Place, b: Place, point: np.ndarray, near: float) -> bool:
    """Tell whether the curve from one place to the next passes through a point."""
    while True:
        chord = b.point - a.point
        span = float(np.linalg.norm(chord))
        if span <= near:
            return bool(np.linalg.norm(point - a.point) <= near)
        along = chord / span
        share = float(along @ (point - a.point)) / span
        if not -near <= share * span <= span + near:
            return False
        guess = _between(a, b, share)[0]
        guess += float(along @ (point - guess)) * along
        if np.linalg.norm(guess - point) > span / 2 + near:
            return False
        found = a.curve.corrected(guess, along)
        # What went far aside may have gone over to another branch.
        if found is not None and np.linalg.norm(found - guess) <= _WRY * span / 2:
            return bool(np.linalg.norm(found - point) <= near)
        half = middle(a, b)
        if half is None:
            return False
        a, b = (a, half) if along @ (point - half.point) < 0 else (half, b)


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

    def both(self, x: np.ndarray, p: float) -> tuple[Branch, list[Place]]:
        """Follow a point in both directions: the branch, and the places on it."""
        first = self._first(np.append(x, p))
        forth = self._one(first)
        if forth[2] == "closed":
            places, events, ends = forth[0], forth[1], ("closed", "closed")
        else:
            back = self._one(first.reversed)
            places = back[0][:0:-1] + forth[0]
            events, ends = back[1][::-1] + forth[1], (back[2], forth[2])
        points = np.array([place.point for place in places])
        branch = Branch(
            parameter=points[:, -1],
            x=points[:, :-1],
            index=np.array([place.unstable for place in places]),
            leading=np.array([place.spectrum.real[0] for place in places]),
            bifurcations=tuple(events),
            ends=ends,
        )
        return branch, places

    def _first(self, begin: np.ndarray) -> Place:
        """Return the place to begin from: not a bifurcation, where signs do not tell the side."""
        # The null vector of [R_x R_p], whichever way it points.
        along = np.linalg.svd(self.curve.slopes(begin))[2][-1]
        along = along * (1.0 if along[-1] >= 0 else -1.0)
        first = self.curve.place(begin, along)
        turns = first is None or abs(first.tangent[-1]) < 1e-6
        if first is not None and not turns and np.abs(first.growth).min() > first.critical:
            return first
        for sign in (1.0, -1.0):
            point = self.curve.corrected(begin + sign * self.step * along, along)
            if point is not None and self.bounds[0] <= point[-1] <= self.bounds[1]:
                beside = self.curve.place(point, along)
                if beside is not None:
                    return beside
        return first or Place(self.curve, begin, along, 1.0)

    def _one(self, first: Place) -> tuple[list[Place], list[Bifurcation], str]:
        """Follow the curve in one direction: places, bifurcations, and why it ended."""
        events: list[Bifurcation] = []
        places, length = [first], self.step
        for _ in range(self.steps):
            here = places[-1]
            following = self._next(here, length)
            if following is None:
                length /= 2
                if length < self.least:
                    return places, events, "lost"
                continue
            place, bend = following
            end = ""
            if not self.bounds[0] <= place.point[-1] <= self.bounds[1]:
                last = self._at_bound(here, place)
                if last is None or np.allclose(last.point, here.point, atol=1e-12):
                    return places, events, "range"
                place, end = last, "range"
            left = np.linalg.norm(here.point - first.point) > _MET
            if left and passes(here, place, first.point, _MET):
                place, end = first, "closed"
            for near, far in itertools.pairwise([here, *self._refined(here, place)]):
                found = self._events(near, far)
                events += [e for e in found if self.bounds[0] <= e.parameter <= self.bounds[1]]
                places.append(far)
            if end:
                return places, events, end
            length = min(self.largest, length * (1.5 if bend > 0.98 else 1.0))
        return places, events, "steps"

    def _next(self, here: Place, length: float) -> tuple[Place, float] | None:
        """Return the place a step further, and the cosine of the angle by which it turned."""
        point = self.curve.corrected(here.point + length * here.tangent, here.tangent)
        if point is None:
            return None
        place = self.curve.place(point, here.tangent)
        if place is None:
            return None
        bend = float(place.tangent @ here.tangent)
        # A step that turns too far, or elsewhere than its tangents say, may have jumped to another
        # branch, or past a turn.
        chord, mean = point - here.point, place.tangent + here.tangent
        wry = np.linalg.norm(chord / np.linalg.norm(chord) - mean / np.linalg.norm(mean))
        return (place, bend) if bend > _STRAIGHT and wry < _WRY else None

    def _refined(self, a: Place, b: Place, halvings: int = _HALVINGS) -> list[Place]:
        """Return b, after places between the two if dp/ds may change its sign twice there."""
        sign = 1.0 if a.tangent[-1] >= 0 else -1.0
        ends = sign * a.tangent[-1], sign * b.tangent[-1]
        if min(ends) <= 0 or not halvings:
            return [b]
        # dp/ds of the cubic is a parabola, which is lowest at its vertex.
        chord = sign * float((b.point - a.point)[-1]) / float(np.linalg.norm(b.point - a.point))
        square, linear = 3 * sum(ends) - 6 * chord, 6 * chord - 4 * ends[0] - 2 * ends[1]
        if square <= 0 or not 0 < -linear < 2 * square:
            return [b]
        lowest = ends[0] - linear**2 / (4 * square)
        if lowest > _DIP * max(ends):
            return [b]
        half = middle(a, b)
        if half is None:
            return [b]
        expected = ends[0] + linear / 2 + square / 4
        if lowest > 4 * abs(expected - sign * half.tangent[-1]):
            return [half, b]
        return [
            *self._refined(a, half, halvings - 1),
            *self._refined(half, b, halvings - 1),
        ]

    def _at_bound(self, here: Place, beyond: Place) -> Place | None:
        bound = self.bounds[0] if beyond.point[-1] < self.bounds[0] else self.bounds[1]
        if here.point[-1] == bound:
            return None
        share = (bound - here.point[-1]) / (beyond.point[-1] - here.point[-1])
        guess = here.point + share * (beyond.point - here.point)
        x = self.curve.settled(guess[:-1], bound)
        if x is None:
            return None
        return self.curve.place(np.append(x, bound), here.tangent)

    def _events(self, a: Place, b: Place) -> list[Bifurcation]:
        """Return the bifurcations between two places, located.

        Where the number of unstable modes changes otherwise than by what is found, the step is
        halved until each part holds one, or is the least step.
        """
        turns, crosses = a.tangent[-1] * b.tangent[-1] < 0, a.crossing * b.crossing < 0
        changed = abs(b.unstable - a.unstable)
        if not (turns or crosses or changed):
            return []
        found = self._simple(a, b, turns, crosses, changed)
        if found is not None:
            return found
        if np.linalg.norm(b.point - a.point) > self.least:
            for share in (0.5, 0.4, 0.6):
                half = middle(a, b, share)
                if half is not None:
                    return self._events(a, half) + self._events(half, b)
        index = min(a.unstable, b.unstable)
        if changed < 2 and (turns or crosses):
            return self._real(a, b, turns, crosses)[0]
        mode = self._mode(a, a.spectrum[index])
        return [_event("multiple", a, mode, index, modes=changed)]

    def _simple(
        self, a: Place, b: Place, turns: bool, crosses: bool, changed: int
    ) -> list[Bifurcation] | None:
        """Return the one bifurcation between two places; None if it does not explain them."""
        index = min(a.unstable, b.unstable)
        if turns or crosses:
            if changed != int(turns != crosses):
                return None
            found, places = self._real(a, b, turns, crosses)
            if len(places) == 2 and np.linalg.norm(places[0].point - places[1].point) > 1e-4:
                return None
            # Of the modes that are not critical so many grow as on the side of the fewer.
            for place in places:
                rest = np.delete(place.growth, np.abs(place.spectrum).argmin())
                if int((rest > 0).sum()) != index and (changed or (rest > 0).sum() != index - 1):
                    return None
            return found
        if changed > 2:
            return None
        place = self._located(a, b, lambda place: float(place.growth[index + changed - 1]))
        if np.abs(place.growth[index : index + changed]).max() > place.critical:
            return None
        discrete = self.curve.field(float(place.point[-1])).discrete
        value = place.spectrum[index]
        kind = "Neimark-Sacker" if discrete else "Hopf"
        if changed == 1:
            if not place.alternates(index):
                return None
            kind = "period doubling"
        elif (
            value.imag == 0 or place.alternates(index) or place.spectrum[index + 1] != value.conj()
        ):
            return None
        frequency = float(1000 * abs(value.imag) / (2 * np.pi))
        mode = self._mode(place, value)
        return [_event(kind, place, mode, index, frequency, changed)]

    def _real(
        self, a: Place, b: Place, turns: bool, crosses: bool
    ) -> tuple[list[Bifurcation], list[Place]]:
        """Return the fold and the branch point between two places, and where they are."""
        found, places = [], []
        index = min(a.unstable, b.unstable)
        if turns:
            place = self._located(a, b, lambda place: float(place.tangent[-1]))
            found.append(_event("fold", place, place.tangent[:-1], index))
            places.append(place)
        if crosses:
            largest = max(a.size, b.size)
            place = self._located(a, b, lambda place: place.crossing * np.exp(place.size - largest))
            found.append(_event("branch point", place, self._other(place), index))
            places.append(place)
        return found, places

    def _located(self, a: Place, b: Place, test: Callable[[Place], float]) -> Place:
        """Find where a test changes its sign between two places (Brent 1973)."""
        span = float(np.linalg.norm(b.point - a.point))
        seen: dict[float, Place] = {0.0: a, 1.0: b}

        def tested(share: float) -> float:
            if share not in seen:
                # From the nearest that are known: near a crossing only a near guess stays on its
                # branch.
                low, high = max(s for s in seen if s < share), min(s for s in seen if s > share)
                guess = _between(seen[low], seen[high], (share - low) / (high - low))[0]
                off = share * (b.point - a.point) - (guess - a.point)
                guess += float(off @ a.tangent) * a.tangent
                point = self.curve.corrected(guess, a.tangent)
                place = None if point is None else self.curve.place(point, a.tangent)
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
        return Place(self.curve, a.point + share * (b.point - a.point), b.tangent, 0.0)

    def _other(self, place: Place) -> np.ndarray:
        """Return the direction of the other branch: the null vector at right angles to this one."""
        slopes = self.curve.slopes(place.point)
        null = np.linalg.svd(slopes)[2][-2:]
        other = null[np.abs(null @ place.tangent).argmin()]
        other = other - (other @ place.tangent) * place.tangent
        return np.asarray(other[:-1])

    def _mode(self, place: Place, value: complex) -> np.ndarray:
        field = self.curve.field(float(place.point[-1]))
        matrix = field.linearisation(place.point[:-1])[0].cpu().numpy()
        values, vectors = np.linalg.eig(matrix)
        return np.asarray(vectors[:, int(np.abs(values - value).argmin())].real)


def _event(
    kind: str,
    place: Place,
    direction: np.ndarray,
    index: int,
    frequency: float = 0.0,
    modes: int = 1,
) -> Bifurcation:
    norm = float(np.linalg.norm(direction)) or 1.0
    parameter, x = float(place.point[-1]), place.point[:-1]
    return Bifurcation(kind, parameter, x, direction / norm, frequency, index, modes)

"""Continuation: fixed points followed along a parameter, by pseudo-arclength, with bifurcations.

Keller (1977); Allgower and Georg (2003), Introduction to Numerical Continuation Methods.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctxrnn._checks import check_count, check_positive

from .fields import Values, VectorField
from .fixed_points import find_fixed_points
from .linearisation import eigenvalues

if TYPE_CHECKING:
    import pandas as pd

Path = Callable[[float], VectorField]
"""From the parameter to the vector field there, e.g. a `ContextPath`."""

_DIFFERENCE = 1e-6
_CORRECTIONS = 8


@dataclass(frozen=True)
class Bifurcation:
    """A point at which a branch changes its stability or turns.

    Attributes:
        kind: "fold" (the branch turns), "pitchfork" (it crosses a branch that turns there, or
            turns there itself), "branch point" (it crosses a branch that does not turn:
            transcritical; or one that was not followed) or "Hopf" (a pair of complex modes changes
            its stability).
        parameter: Where.
        x: The state, (unit,).
        direction: (unit,), of norm 1: of a fold the mode that loses its stability, of a branch
            point the other branch, of a Hopf point the real part of the mode.
        frequency: Of the oscillation born at a Hopf point in Hz; 0 for others.
    """

    kind: str
    parameter: float
    x: np.ndarray
    direction: np.ndarray
    frequency: float = 0.0


@dataclass(frozen=True)
class Branch:
    """Fixed points along a curve.

    Attributes:
        parameter: (point,).
        x: (point, unit).
        index: Number of unstable modes, (point,).
        leading: Largest real part of the eigenvalues, per ms, (point,).
        bifurcations: Those on the branch, in order.
        ends: Why each end of the branch is one: "range" (the parameter left its range), "closed"
            (it came back to its beginning), "lost" (no correction converged: the branch ends where
            the field is not smooth, or the least step is too large), "steps".
    """

    parameter: np.ndarray
    x: np.ndarray
    index: np.ndarray
    leading: np.ndarray
    bifurcations: tuple[Bifurcation, ...]
    ends: tuple[str, str]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def stable(self) -> np.ndarray:
        """Whether no mode grows, (point,)."""
        return np.asarray(self.index == 0)

    def at(self, parameter: float) -> np.ndarray:
        """Return the states at which the branch passes a parameter, linear between its points.

        Args:
            parameter: The parameter.

        Returns:
            (crossing, unit); a branch that folds may pass several times, or never.
        """
        p = self.parameter
        found = []
        for i in range(len(p) - 1):
            low, high = sorted((p[i], p[i + 1]))
            if low <= parameter <= high and low < high:
                share = (parameter - p[i]) / (p[i + 1] - p[i])
                if share < 1 or i == len(p) - 2:
                    found.append((1 - share) * self.x[i] + share * self.x[i + 1])
        return np.array(found).reshape(-1, self.x.shape[1])


@dataclass(frozen=True)
class Branches:
    """All branches that were followed.

    Attributes:
        branches: The branches.
    """

    branches: tuple[Branch, ...]

    def __len__(self) -> int:
        return len(self.branches)

    def __iter__(self) -> Any:
        return iter(self.branches)

    def __getitem__(self, number: int) -> Branch:
        return self.branches[number]

    def table(self) -> pd.DataFrame:
        """Return one row per point: branch, step, parameter, index, stable, leading."""
        import pandas as pd

        parts = [
            pd.DataFrame(
                {
                    "branch": number, "step": np.arange(len(branch)),
                    "parameter": branch.parameter, "index": branch.index,
                    "stable": branch.stable, "leading": branch.leading,
                }
            )
            for number, branch in enumerate(self.branches)
        ]  # fmt: skip
        names = ["branch", "step", "parameter", "index", "stable", "leading"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)

    def bifurcations(self) -> pd.DataFrame:
        """Return one row per bifurcation: branch, kind, parameter, frequency."""
        import pandas as pd

        rows = [
            {"branch": n, "kind": b.kind, "parameter": b.parameter, "frequency": b.frequency}
            for n, branch in enumerate(self.branches)
            for b in branch.bifurcations
        ]
        return pd.DataFrame(rows, columns=["branch", "kind", "parameter", "frequency"])


def follow_fixed_points(
    path: Path,
    starts: Values | None = None,
    *,
    points: Iterable[tuple[float, Values]] = (),
    search: Sequence[float] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    step: float = 0.05,
    least: float = 1e-6,
    largest: float = 0.5,
    steps: int = 2000,
    unique: float = 1e-3,
    tolerance: float = 1e-10,
    switch: bool = True,
) -> Branches:
    """Follow fixed points along a parameter in both directions, past folds.

    The curve R(x, p) = 0 is followed by its arclength s: from a point, along the tangent, back onto
    the curve by Newton steps at right angles to the tangent, with steps as long as these converge
    fast. Between two points
    - dp/ds changes sign: a fold;
    - det [R_x R_p; tangent] changes sign: a branch point, from which the other branch is followed
      as well;
    - a pair of complex eigenvalues crosses the imaginary axis: a Hopf point.
    Each is then located by bisection. A pair of bifurcations within one step, which undo each
    other, can be missed: lower `largest`.

    Args:
        path: From the parameter p to the field, which has one condition.
        starts: States for `find_fixed_points`, from which points are found at `search`.
        points: Further points to begin from: (p, state).
        search: Parameters at which points are sought; None takes both ends and the middle.
        bounds: Range of p.
        step: First step of s, in units of the state.
        least: Smallest step.
        largest: Largest step.
        steps: At most so many in each direction.
        unique: Points of one p nearer than this are one, and followed once.
        tolerance: |R| of a point.
        switch: Whether to follow the branches that cross at branch points.

    Raises:
        ValueError: If there is nothing to start from, or an argument is out of range.
    """
    low, high = (float(end) for end in bounds)
    if not low < high:
        raise ValueError(f"bounds must be a rising pair: got {bounds}")
    for name, value in (("step", step), ("least", least), ("largest", largest)):
        check_positive(name, value)
    check_positive("tolerance", tolerance)
    check_count("steps", steps)
    curve = _Curve(path, tolerance)
    begin = [(float(p), np.asarray(torch.as_tensor(x), dtype=float).ravel()) for p, x in points]
    if starts is not None:
        for p in (low, (low + high) / 2, high) if search is None else search:
            found = find_fixed_points(path(float(p)), starts=starts, tolerance=tolerance)
            begin += [(float(p), x) for x in found.x[~found.slow]]
    if not begin and starts is None:
        raise ValueError("starts or points must be given: there is nothing to follow from")
    walk = functools.partial(
        _Walk, curve, bounds=(low, high), step=step, least=least, largest=largest, steps=steps
    )
    branches: list[Branch] = []
    for p, x in begin:
        if not _known(branches, p, x, unique, curve):
            branches.append(walk().both(x, p))
    grown = 0
    while switch and grown < len(branches):
        for event in branches[grown].bifurcations:
            if event.kind == "branch point":
                new = _switched(curve, walk, event, branches, unique, step)
                branches += new
        grown += 1
    return Branches(tuple(_with_pitchforks(branches)))


def _with_pitchforks(branches: Sequence[Branch]) -> list[Branch]:
    """Name those branch points pitchforks at which one of the branches turns."""
    turns = [
        event
        for branch in branches
        for event in branch.bifurcations
        if event.kind == "fold" and any(_same(event, b) for b in _crossings(branch))
    ]
    renamed = []
    for branch in branches:
        turning = [turn for turn in turns if any(turn is event for event in branch.bifurcations)]
        events = []
        for event in branch.bifurcations:
            here = any(_same(event, turn) for turn in turning)
            if here and event.kind == "branch point":
                continue  # the fold tells the place more sharply
            there = event.kind in ("fold", "branch point") and any(_same(event, x) for x in turns)
            events.append(dataclasses.replace(event, kind="pitchfork") if there else event)
        renamed.append(dataclasses.replace(branch, bifurcations=tuple(events)))
    return renamed


def _crossings(branch: Branch) -> list[Bifurcation]:
    return [event for event in branch.bifurcations if event.kind == "branch point"]


def _same(a: Bifurcation, b: Bifurcation) -> bool:
    return bool(abs(a.parameter - b.parameter) < 1e-3 and np.linalg.norm(a.x - b.x) < 1e-2)


def _known(
    branches: Sequence[Branch], p: float, x: np.ndarray, unique: float, curve: _Curve
) -> bool:
    """Tell whether a point lies on a branch: a point of it, corrected at the same p, is near."""
    for branch in branches:
        for near in branch.at(p):
            if np.linalg.norm(near - x) > 1e3 * unique:
                continue
            corrected = curve.settled(near, p)
            if corrected is not None and np.linalg.norm(corrected - x) <= unique:
                return True
        ends = np.flatnonzero(np.abs(branch.parameter - p) <= 1e-12)
        if any(np.linalg.norm(branch.x[i] - x) <= unique for i in ends):
            return True
    return False


def _switched(
    curve: _Curve,
    walk: Callable[..., _Walk],
    event: Bifurcation,
    branches: Sequence[Branch],
    unique: float,
    step: float,
) -> list[Branch]:
    """Follow the branch that crosses at a branch point, unless it is known, to both sides."""
    found: list[Branch] = []
    for sign in (1.0, -1.0):
        tangent = np.append(sign * event.direction, 0.0)
        for length in (step, step / 4, step / 16):
            guess = np.append(event.x, event.parameter) + length * tangent
            point = curve.corrected(guess, tangent)
            if point is None:
                continue
            x, p = point[:-1], float(point[-1])
            if np.linalg.norm(x - event.x) < length / 4:
                continue
            if not _known([*branches, *found], p, x, unique, curve):
                found.append(walk().both(x, p))
            break
    return found


class _Curve:
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
        x, place = field.checked(point[:-1], 0)
        return np.asarray(field.residual(x, place)[0].cpu().numpy())

    def slopes(self, point: np.ndarray) -> np.ndarray:
        """Return [R_x R_p], (unit, unit + 1)."""
        up, down = point.copy(), point.copy()
        up[-1] += _DIFFERENCE
        down[-1] -= _DIFFERENCE
        by_parameter = (self.residual(up) - self.residual(down)) / (2 * _DIFFERENCE)
        field = self.field(float(point[-1]))
        x, place = field.checked(point[:-1], 0)
        return np.column_stack([field.jacobian(x, place)[0].cpu().numpy(), by_parameter])

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
        size = np.inf
        for _ in range(_CORRECTIONS):
            residual = self.residual(point)
            before, size = size, float(np.linalg.norm(residual))
            if size <= self.tolerance:
                return point
            if not np.isfinite(size) or size > 2 * before + self.tolerance:
                return None
            right[:-1] = -residual
            right[-1] = -float(along @ (point - guess))
            try:
                point = point + np.linalg.solve(np.vstack([self.slopes(point), along]), right)
            except np.linalg.LinAlgError:
                return None
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

    point: np.ndarray
    tangent: np.ndarray
    crossing: float
    spectrum: np.ndarray

    @property
    def unstable(self) -> int:
        return int((self.spectrum.real > 0).sum())


class _Walk:
    """One branch."""

    def __init__(
        self,
        curve: _Curve,
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
        sign, _ = np.linalg.slogdet(np.vstack([slopes, tangent]))
        return _Place(point, tangent, float(sign), self.curve.spectrum(point))

    def _one(
        self, begin: np.ndarray, along: np.ndarray
    ) -> tuple[list[_Place], list[Bifurcation], str]:
        """Follow the curve in one direction: places, bifurcations, and why it ended."""
        first = self._place(begin, along)
        if first is None:
            first = _Place(begin, along, 0.0, self.curve.spectrum(begin))
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
        return (place, bend) if bend > 0.9 and aside < length else None

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
        if a.tangent[-1] * b.tangent[-1] < 0:
            place = self._located(a, b, lambda place: place.tangent[-1])
            found.append(_event("fold", place, place.tangent[:-1]))
        if a.crossing * b.crossing < 0:
            place = self._located(a, b, lambda place: place.crossing)
            found.append(_event("branch point", place, self._other(place)))
        changed = b.unstable - a.unstable
        odd = sum(event.kind in ("fold", "branch point") for event in found)
        if changed and abs(changed) - odd >= 2:
            middle = (a.unstable + b.unstable) / 2
            place = self._located(a, b, lambda place: place.unstable - middle)
            near = np.abs(place.spectrum.real) + 1e6 * (place.spectrum.imag == 0)
            value = place.spectrum[int(near.argmin())]
            if value.imag != 0:
                mode = self._mode(place, value)
                frequency = float(1000 * abs(value.imag) / (2 * np.pi))
                found.append(_event("Hopf", place, mode, frequency))
        return found

    def _located(self, a: _Place, b: _Place, test: Callable[[_Place], float]) -> _Place:
        """Bisect between two places until the test changes sign within the least step."""
        sign = np.sign(test(a))
        low, high, span = 0.0, 1.0, float(np.linalg.norm(b.point - a.point))
        best = b
        while (high - low) * span > 1e-9 and high - low > 1e-12:
            middle = (low + high) / 2
            guess = a.point + middle * (b.point - a.point)
            point = self.curve.corrected(guess, a.tangent)
            place = None if point is None else self._place(point, a.tangent)
            if place is None:
                break
            if np.sign(test(place)) == sign:
                low = middle
            else:
                high, best = middle, place
        return best

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


def _event(kind: str, place: _Place, direction: np.ndarray, frequency: float = 0.0) -> Bifurcation:
    norm = float(np.linalg.norm(direction)) or 1.0
    return Bifurcation(kind, float(place.point[-1]), place.point[:-1], direction / norm, frequency)

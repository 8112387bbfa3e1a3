"""Continuation: fixed points followed along a parameter, by pseudo-arclength, with bifurcations.

Keller (1977); Allgower and Georg (2003), Introduction to Numerical Continuation Methods.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ctxrnn._checks import check_count, check_positive

from ._branches import Bifurcation as Bifurcation
from ._branches import Branch as Branch
from ._branches import Branches as Branches
from ._walk import Curve, Path, Walk
from .fields import Values
from .fixed_points import find_fixed_points

if TYPE_CHECKING:
    pass


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
    curve = Curve(path, tolerance)
    begin = [(float(p), np.asarray(torch.as_tensor(x), dtype=float).ravel()) for p, x in points]
    if starts is not None:
        for p in (low, (low + high) / 2, high) if search is None else search:
            found = find_fixed_points(path(float(p)), starts=starts, tolerance=tolerance)
            begin += [(float(p), x) for x in found.x[~found.slow]]
    if not begin and starts is None:
        raise ValueError("starts or points must be given: there is nothing to follow from")
    walk = functools.partial(
        Walk, curve, bounds=(low, high), step=step, least=least, largest=largest, steps=steps
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
    branches: Sequence[Branch], p: float, x: np.ndarray, unique: float, curve: Curve
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
    curve: Curve,
    walk: Callable[..., Walk],
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

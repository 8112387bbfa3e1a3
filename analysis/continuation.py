"""Continuation: fixed points followed along a parameter, by pseudo-arclength, with bifurcations.

Keller (1977); Allgower and Georg (2003), Introduction to Numerical Continuation Methods.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from ctxrnn._checks import check_count, check_positive

from ._branches import Bifurcation as Bifurcation
from ._branches import Branch as Branch
from ._branches import Branches as Branches
from ._walk import Curve, Path, Place, Walk, passes
from .fields import Values
from .fixed_points import find_fixed_points

Followed = tuple[Branch, list[Place]]


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
    fast and the curve goes where the tangents at both ends say. Between two points

    - dp/ds changes sign: a fold;
    - det [R_x R_p; tangent] changes sign: a branch point, from which the other branch is followed
      as well;
    - a pair of complex eigenvalues crosses the imaginary axis: a Hopf point. Of a map, a pair of
      multipliers crosses the unit circle (Neimark-Sacker) or a real one passes -1 (period
      doubling).

    Each is then located. Where the number of unstable modes changes otherwise than by what was
    found, the step is halved, down to `least`; several modes that cross even then at one point are
    told as "multiple". Bifurcations within one step that leave that number as it was can be missed,
    but for two folds, for which steps are searched: lower `largest`.

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
        unique: A point nearer than this to a branch is not followed again.
        tolerance: |R| of a point.
        switch: Whether to follow the branches that cross at branch points.

    Returns:
        The branches, with their points, stability and bifurcations.

    Raises:
        ValueError: If there is nothing to start from, or an argument is out of range.

    Example:
        >>> from ctxrnn.analysis import FunctionField, follow_fixed_points
        >>> def path(p):
        ...     return FunctionField(lambda x: p + x - x**3, units=1)
        >>> branches = follow_fixed_points(path, starts=[[-1.0], [1.0]], bounds=(-1.0, 1.0))
        >>> print(branches.bifurcations()[["kind", "parameter"]].round(3))  # 2 / sqrt(27)
           kind  parameter
        0  fold      0.385
        1  fold     -0.385
        >>> len(branches[0].at(0.0)), len(branches[0].at(0.5))  # fixed points between and beyond
        (3, 1)
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
    walk = Walk(curve, bounds=(low, high), step=step, least=least, largest=largest, steps=steps)
    followed: list[Followed] = []
    for p, x in begin:
        if not _known(followed, np.append(x, p), unique):
            followed.append(walk.both(x, p))
    grown = 0
    while switch and grown < len(followed):
        for event in followed[grown][0].bifurcations:
            if event.kind == "branch point":
                _switch(walk, event, followed, unique)
        grown += 1
    return Branches(tuple(_with_pitchforks([branch for branch, _ in followed])))


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


def _known(followed: Sequence[Followed], point: np.ndarray, unique: float) -> bool:
    """Tell whether a point (x, p) lies on a branch."""
    for _, places in followed:
        points = np.array([place.point for place in places])
        if (np.linalg.norm(points - point, axis=1) <= unique).any():
            return True
        chords = np.diff(points, axis=0)
        spans = np.linalg.norm(chords, axis=1)
        share = ((point - points[:-1]) * chords).sum(axis=1) / spans**2
        nearest = points[:-1] + share.clip(0, 1)[:, None] * chords
        away = np.linalg.norm(nearest - point, axis=1)
        if any(
            passes(places[i], places[i + 1], point, unique)
            for i in np.flatnonzero(away <= spans / 2 + unique)
        ):
            return True
    return False


def _switch(walk: Walk, event: Bifurcation, followed: list[Followed], unique: float) -> None:
    """Follow the branch that crosses at a branch point, unless it is known, to both sides."""
    for sign in (1.0, -1.0):
        tangent = np.append(sign * event.direction, 0.0)
        for length in (walk.step, walk.step / 4, walk.step / 16):
            guess = np.append(event.x, event.parameter) + length * tangent
            point = walk.curve.corrected(guess, tangent)
            # A long step may miss the branch and come back to the old one; a short one does not.
            if point is None or not walk.bounds[0] <= point[-1] <= walk.bounds[1]:
                continue
            if not _known(followed, point, unique):
                followed.append(walk.both(point[:-1], float(point[-1])))
                break

"""Chance and ceiling of a task."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _observer
from ._catalogue import FAMILY
from ._criterion import BAND, HALF_WINDOW
from ._seeding import reseed_timing
from ._timing import step_counts

if TYPE_CHECKING:
    from ._neurogym import Source

_TRIALS = 2000


def chance(source: Source, vector: bool) -> float:
    """Return the better of always fixating and answering at random.

    With R directions, a random answer is right with probability 1/R (class) or 0.2 (vector:
    0.4 pi of 2 pi). Reach and decision tasks always ask for an answer; match tasks do so in half
    of their trials, and fixating is right in the other half. For other tasks the fraction of
    trials whose right answer is fixation is measured in 2,000 seeded trials, and a random answer
    picks one of the other classes. For continuous actions the random answer is uniform over their
    range, and its success is measured in the same way.
    """
    if source.native:
        hit = HALF_WINDOW / math.pi if vector else 1 / (source.outputs - 1)
        fixate = 0.5 if FAMILY[source.name] == "match" else 0.0
    elif source.kind == "class":
        last = np.array([trial.truth[-1] for trial in source.draw(_TRIALS, 0)])
        fixate = float((last == 0).mean())
        hit = 1 / max(source.outputs - 1, 1)
    else:
        return _random_actions(source)
    return max(fixate, (1 - fixate) * hit)


def _random_actions(source: Source) -> float:
    last = np.array([trial.truth[-1] for trial in source.draw(_TRIALS, 0)])
    space = source.core.action_space
    low, high = np.asarray(space.low, dtype=float), np.asarray(space.high, dtype=float)
    guess = low + (high - low) * np.random.default_rng(0).random(last.shape)
    return float((np.abs(guess - last) < BAND * (high - low)).all(-1).mean())


def ceiling(source: Source, vector: bool) -> float:
    """Return the accuracy of an ideal observer; 1 where none is known (not a yang19 task)."""
    if not source.native or FAMILY[source.name] == "reach":
        return 1.0
    core: Any = source.core
    noise = float(core.sigma)
    if FAMILY[source.name] == "match":
        return _observer.ceiling(
            _observer.Match(
                ring=int(core.dim_ring),
                noise=noise,
                steps=_steps(core, "sample", "test"),
                vector=vector,
                category=core.matchto == "category",
                go_on_match=bool(core.matchgo),
                one_rule="category" in source.repairs,
            )
        )
    modalities = ((core.w_mod1, core.stim_mod1), (core.w_mod2, core.stim_mod2))
    delayed = bool(core.delaycomparison)
    return _observer.ceiling(
        _observer.Decision(
            ring=len(core.theta),
            noise=noise,
            steps=_steps(core, "stim1", "stim2") if delayed else _steps(core, "stimulus"),
            strengths=tuple(float(c) for c in core.cohs),
            weights=tuple(float(weight) for weight, shown in modalities if shown and weight),
            delayed=delayed,
            redraw="ties" in source.repairs,
            vector=vector,
        )
    )


def _steps(core: Any, first: str, second: str | None = None) -> _observer.Steps:
    # Distributions without a closed form are sampled, always with the same numbers.
    core.rng = np.random.RandomState(0)
    reseed_timing(core, 0)
    one = step_counts(core, first)
    two = step_counts(core, second) if second else {0: 1.0}
    return tuple(((a, b), p * q) for a, p in one.items() for b, q in two.items())

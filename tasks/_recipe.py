"""What a yang19 environment draws and shows, read from the environment itself.

Every yang19 trial is a sequence of five slots, some of them empty: fixation, first stimulus,
delay, second stimulus, decision. Up to two directions A and B of the ring are shown in one or two
modalities. A `Recipe` says which, so that trials of all families are made by one computation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ._neurogym import Source

SLOTS = 5
FIXATION, FIRST, DELAY, SECOND, DECISION = range(SLOTS)

_LINES = {"_Reach": "reach", "_DMFamily": "decision", "_DelayMatch1DResponse": "match"}
_MOST_STATES = 100_000


class Duration(NamedTuple):
    """How long a period lasts, in ms before it is cut to whole steps.

    One of `values`, each as likely, plus a uniform number between 0 and `spread`; or, if `mean` is
    above 0, exponential with that mean, drawn again until it lies in [low, high).

    Attributes:
        values: Durations in ms.
        spread: Width of the uniform distribution in ms.
        mean: Mean of the exponential distribution in ms.
        low: Its lower bound in ms.
        high: Its upper bound in ms.
        function: Whether it is instead drawn by a function, trial by trial.
    """

    values: tuple[float, ...] = (0.0,)
    spread: float = 0.0
    mean: float = 0.0
    low: float = 0.0
    high: float = math.inf
    function: bool = False


@dataclass(frozen=True)
class Recipe:
    """One task.

    Attributes:
        name: Short name of the task.
        family: "reach", "decision" or "match".
        periods: Name of the period in each slot; None where the task has none.
        durations: Duration of each slot.
        cue: Fixation input in each slot.
        shows: Whether directions A and B are shown, (slot, 2).
        noise: Modalities with noise during the stimuli: 0, 1 (the one shown) or 2.
        sigma: Standard deviation of the noise of one unit in one step.
        theta: Directions in radians, (ring,).
        anti: Reach: whether the answer is opposite to the stimulus.
        states: Decisions: equally likely strengths of A and B, (state, modality, 2).
        totals: Decisions: weighted sum of the strengths over modalities, (state, 2).
        shown: Decisions: whether each modality shows the stimuli.
        category: Match: whether categories are compared, not directions.
        border: Match: first sample direction that belongs to the second category.
        go_on_match: Match: whether a match asks for an answer.
    """

    name: str
    family: str
    periods: tuple[str | None, ...]
    durations: tuple[Duration, ...]
    cue: tuple[float, ...]
    shows: tuple[tuple[float, float], ...]
    noise: int
    sigma: float
    theta: np.ndarray
    anti: bool = False
    states: np.ndarray | None = None
    totals: np.ndarray | None = None
    shown: tuple[bool, bool] = (True, True)
    category: bool = False
    border: int = 0
    go_on_match: bool = True


def read_recipe(source: Source) -> Recipe | None:
    """Read a task's recipe from its environment; None if there is something not understood."""
    core: Any = source.core
    kind = type(core)
    if not source.native or not kind.__module__.endswith(".yang19") or kind.__name__ not in _LINES:
        return None
    family = _LINES[kind.__name__]
    periods = _periods(core, family)
    durations = tuple(
        Duration() if period is None else read_duration(core, core.timing[period])
        for period in periods
    )
    if None in durations:
        return None
    own = {"reach": _reach, "decision": _decision, "match": _match}[family](core, source.repairs)
    if own is None:
        return None
    cued = 4 if family == "reach" or "go-cue" in source.repairs else 1
    return Recipe(
        name=source.name,
        family=family,
        periods=periods,
        durations=durations,  # type: ignore[arg-type]
        cue=tuple(float(slot < cued) for slot in range(SLOTS)),
        shows=_shows(periods, family),
        theta=np.asarray(core.theta, dtype=float),
        sigma=float(getattr(core, "sigma", 0.0)),
        **own,
    )


def _periods(core: Any, family: str) -> tuple[str | None, ...]:
    if family == "match":
        return ("fixation", "sample", "delay", "test", "decision")
    if family == "decision" and core.delaycomparison:
        return ("fixation", "stim1", "delay", "stim2", "decision")
    if family == "decision":
        return ("fixation", "stimulus", None, None, "decision")
    if core.reaction:
        return ("fixation", None, None, None, "decision")
    return ("fixation", "stimulus", "delay", None, "decision")


def _shows(periods: Sequence[str | None], family: str) -> tuple[tuple[float, float], ...]:
    shows = [(0.0, 0.0)] * SLOTS
    if periods[SECOND] is not None:
        shows[FIRST], shows[SECOND] = (1.0, 0.0), (0.0, 1.0)
    elif family == "decision":
        shows[FIRST] = (1.0, 1.0)
    else:
        shows[DECISION if periods[FIRST] is None else FIRST] = (1.0, 0.0)
    return tuple(shows)


def _reach(core: Any, repairs: Sequence[str]) -> dict[str, Any]:
    return {"noise": 0, "anti": bool(core.anti)}


def _match(core: Any, repairs: Sequence[str]) -> dict[str, Any]:
    half = int(core.half_ring)
    return {
        "noise": 1,
        "category": core.matchto == "category",
        "border": half if "category" in repairs else half + 1,
        "go_on_match": bool(core.matchgo),
    }


def _decision(core: Any, repairs: Sequence[str]) -> dict[str, Any] | None:
    strengths = [float(c) for c in core.cohs]
    if core.delaycomparison:
        pairs = list(itertools.permutations(strengths, 2))
    else:
        pairs = [(0.5 + c * s / 2, 0.5 - c * s / 2) for c in strengths for s in (-1, 1)]
    shown = (bool(core.stim_mod1), bool(core.stim_mod2))
    choices = [pairs if one else [(0.0, 0.0)] for one in shown]
    if len(choices[0]) * len(choices[1]) > _MOST_STATES:
        return None
    states = np.array(list(itertools.product(*choices)), dtype=float)
    weights = np.array([core.w_mod1, core.w_mod2], dtype=float) * shown
    # Term by term as in the environment, whose comparisons depend on the rounding.
    totals = weights[0] * states[:, 0] + weights[1] * states[:, 1]
    if "ties" in repairs:
        # Drawing again until there is a right answer leaves the other states equally likely.
        first, second = (weights[m] * (states[:, m, 0] - states[:, m, 1]) for m in (0, 1))
        kept = np.abs(first + second) > 1e-6
        states, totals = states[kept], totals[kept]
    return {"noise": 2, "states": states, "totals": totals, "shown": shown}


def read_duration(core: Any, value: Any) -> Duration | None:
    """Read an entry of neurogym's `timing`; None if it is not understood."""
    if isinstance(value, int | float):
        return Duration((float(value),))
    if callable(value):
        return _asked_of(core, value) or Duration(function=True)
    if isinstance(value[0], int | float):
        return Duration(tuple(float(v) for v in value))
    kind, options = value
    if kind == "constant":
        return Duration((float(options),))
    if kind == "choice" and isinstance(options, list | tuple):
        return Duration(tuple(float(v) for v in options))
    if kind == "uniform":
        low, high = map(float, options)
        return Duration((low,), spread=high - low)
    if kind == "truncated_exponential":
        return _exponential(*map(float, options))
    return None


def _exponential(mean: float, low: float = 0.0, high: float = math.inf) -> Duration | None:
    if low >= high:
        return Duration((high,))
    return Duration(mean=mean, low=low, high=high) if mean > 0 and low >= 0 else None


class _Asked:
    """Stands in for random numbers, to learn what a function asks them for."""

    uniforms: tuple[tuple[float, float], ...] = ()

    def uniform(self, low: float, high: float) -> _Asked:
        self.uniforms = (*self.uniforms, (low, high))
        return self


def _asked_of(core: Any, function: Any) -> Duration | None:
    """Read a function of neurogym's own that hands on one uniform number."""
    if not str(getattr(function, "__module__", "")).startswith("neurogym."):
        return None
    own, core.rng = core.rng, _Asked()
    try:
        given = function()
        asked = core.rng.uniforms
    except Exception:
        # It asks for something else: it is then called trial by trial.
        return None
    finally:
        core.rng = own
    if not isinstance(given, _Asked) or len(asked) != 1:
        return None
    low, high = map(float, asked[0])
    return Duration((low,), spread=high - low)

"""Durations of periods: how short they get, and how many steps they take."""

from __future__ import annotations

import numbers
from collections import Counter
from collections.abc import Mapping
from typing import Any

_DRAWS = 512
_DISTRIBUTIONS = ("uniform", "choice", "truncated_exponential", "constant", "until")


def shortest(value: Any) -> float | None:
    """Return the shortest duration in ms that an entry of neurogym's `timing` can give.

    A function is called some times and its shortest result taken; None if unknown beforehand.
    """
    if isinstance(value, numbers.Real):
        return float(value)
    if callable(value):
        return min(float(value()) for _ in range(64))
    if isinstance(value[0], numbers.Real):
        return float(min(value))
    kind, options = value
    if kind == "constant":
        return float(options)
    if kind in ("uniform", "choice"):
        return float(min(options))
    if kind == "truncated_exponential":
        return float(options[1]) if len(options) > 1 else 0.0
    return None


def check_timing(timing: Any) -> None:
    """Raise TypeError unless `timing` maps periods to what neurogym takes for a duration."""
    if not isinstance(timing, Mapping):
        raise TypeError(
            f"timing must map periods to durations in ms, e.g. {{'delay': 500}}: got {timing!r}"
        )
    for period, value in timing.items():
        listed = isinstance(value, list | tuple) and len(value) > 0
        if listed and isinstance(value[0], str):
            listed = len(value) == 2 and value[0] in _DISTRIBUTIONS
        if not (isinstance(value, numbers.Real) or callable(value) or listed):
            raise TypeError(
                f"timing[{period!r}] must be a duration in ms, a list of durations, a function, "
                f"or a pair of a distribution ({', '.join(_DISTRIBUTIONS)}) and its arguments: "
                f"got {value!r}"
            )


def check_periods(name: str, core: Any, answer: str | None = None) -> None:
    """Raise ValueError if a period of a task would vanish at its time step.

    Args:
        name: Name of the task, for the message.
        core: Its environment.
        answer: Name of a period that must not be empty.
    """
    # Functions come last: of the others the shortest duration is known exactly.
    for period, value in sorted(core.timing.items(), key=lambda item: callable(item[1])):
        duration = shortest(value)
        if duration is None:
            continue
        if 0 < duration < core.dt:
            raise ValueError(
                f"dt must not exceed the shortest period: got dt={core.dt} ms, but period "
                f"{period!r} of task {name!r} can be as short as {duration:g} ms and would "
                f"vanish; choose dt <= {duration:g} ms"
            )
        if duration <= 0 and (duration < 0 or period == answer):
            raise ValueError(
                f"period {period!r} of task {name!r} must last at least one step of "
                f"{core.dt} ms: got {duration:g} ms in timing"
            )


def step_counts(core: Any, period: str) -> dict[int, float]:
    """Return how many steps a period takes, with probabilities.

    Exact for fixed durations and for a choice among some; other distributions are represented
    by 512 draws. As in neurogym, a duration is cut to whole steps.
    """
    value = core.timing[period]
    if isinstance(value, tuple | list) and value[0] == "choice":
        value = value[1]
    if isinstance(value, numbers.Real):
        durations = [float(value)]
    elif not callable(value) and isinstance(value[0], numbers.Real):
        durations = [float(v) for v in value]
    else:
        durations = [float(core.sample_time(period)) for _ in range(_DRAWS)]
    counts = Counter(int(duration // core.dt) for duration in durations)
    return {steps: count / len(durations) for steps, count in sorted(counts.items())}

"""Corruptions of the context, by id; `corrupted` has the equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import log_ndtr
from torch import Tensor

from ctxrnn import make_generator
from ctxrnn._checks import (
    check_count,
    check_finite,
    check_integer,
    check_not_negative,
    check_number,
    check_positive,
    unknown_name,
)

_TENTHS = tuple(step / 10 for step in range(11))
_TWENTIETHS = tuple(step / 20 for step in range(11))
_SIGMAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Corruption:
    """What is to be known about a corruption before it is used.

    Attributes:
        id: Its id.
        symbol: Symbol of the level.
        meaning: What the level means.
        levels: Levels to measure where none are given.
        clean: The level that leaves the context as it is.
        limit: The most corrupted level; inf where there is none. For `posterior` it is 1 / K,
            given as 0 here, and a lower level is the more ambiguous one.
        unit: Unit of the level.
        other: Whether it needs another task j.
        varies: Whether the corrupted context varies within a trial.
        random: Whether it draws random numbers.
        options: Its options with their defaults.

    Example:
        >>> from ctxrnn.analysis import CORRUPTIONS
        >>> swap = CORRUPTIONS["swap"]
        >>> swap.meaning, swap.unit
        ('how long the context of task j is shown', 'ms')
        >>> [one.id for one in CORRUPTIONS.values() if one.other]  # those that need a task j
        ['mix2', 'swap']
    """

    id: str
    symbol: str
    meaning: str
    levels: tuple[float, ...]
    clean: float = 0.0
    limit: float = 1.0
    unit: str = ""
    other: bool = False
    varies: bool = False
    random: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


_NONE: Mapping[str, Any] = MappingProxyType({})

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        one.id: one
        for one in (
            Corruption("mix2", "lambda", "weight of task j", _TWENTIETHS, other=True),
            Corruption("mixU", "lambda", "weight of the uniform context", _TENTHS),
            Corruption(
                "noise-frozen", "sigma", "standard deviation of each entry", _SIGMAS,
                limit=math.inf, random=True,
            ),
            Corruption(
                "noise-ou", "sigma", "standard deviation of each entry", _SIGMAS,
                limit=math.inf, varies=True, random=True,
                options=MappingProxyType({"tau_n": 100.0}),
            ),
            Corruption("atten", "lambda", "what is missing of the context", _TENTHS),
            Corruption("drop", "lambda", "0: context present, 1: absent", (0.0, 1.0)),
            Corruption(
                "window", "lambda", "what is missing of the context outside of the window",
                _TENTHS, varies=True,
                options=MappingProxyType({"window": None, "onset": None, "duration": None}),
            ),
            Corruption(
                "swap", "duration", "how long the context of task j is shown",
                (0.0, 100.0, 200.0, 400.0, 800.0), limit=math.inf, unit="ms", other=True,
                varies=True, options=MappingProxyType({"phase": 0.0}),
            ),
            Corruption(
                "posterior", "a", "probability that the evidence favours task k",
                (1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5), clean=1.0, limit=0.0, random=True,
                options=MappingProxyType({"temperature": 1.0}),
            ),
        )
    }
)  # fmt: skip
"""Id -> corruption."""


def corruption_of(kind: str, options: Mapping[str, Any] | None = None) -> Corruption:
    """Look up a corruption and check the names of its options.

    Raises:
        ValueError: For an unknown id or option; lists the known ones.
    """
    if kind not in CORRUPTIONS:
        raise unknown_name("corruption", kind, CORRUPTIONS)
    found = CORRUPTIONS[kind]
    for name in options or _NONE:
        if name not in found.options:
            if not found.options:
                raise ValueError(f"corruption {kind!r} has no options: got {name!r}")
            raise unknown_name(f"option of corruption {kind!r}", name, found.options)
    return found


def check_level(corruption: Corruption, level: float, contexts: int) -> float:
    """Return a level as a number; raise ValueError unless it is one of the corruption's.

    Args:
        corruption: The corruption.
        level: The level.
        contexts: K.
    """
    number = check_number("level", level)
    if corruption.id == "posterior":
        # 1 / K is given as a decimal number.
        if not 1 / contexts - 1e-9 <= number <= 1:
            raise ValueError(
                f"level must lie in [1 / K, 1] = [{1 / contexts:g}, 1] for 'posterior', from "
                f"chance to certainty: got {level}"
            )
    elif corruption.id == "drop" and number not in (0, 1):
        raise ValueError(f"level must be 0 or 1 for 'drop': got {level}; use 'atten' in between")
    elif math.isinf(corruption.limit):
        check_not_negative(f"level of {corruption.id!r}", number, corruption.unit)
    elif not 0 <= number <= 1:
        raise ValueError(f"level must lie in [0, 1] for {corruption.id!r}: got {level}")
    return number


def corrupted(
    kind: str,
    context: Tensor,
    level: float,
    *,
    other: Tensor | None = None,
    steps: int | None = None,
    dt: float | None = None,
    periods: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | int | None = None,
    **options: Any,
) -> Tensor:
    """Corrupt the contexts of trials.

    e_k is the clean context of a trial, K the number of contexts, lambda, sigma, ... the level.

    - `mix2`: c = (1 - lambda) e_k + lambda e_j
    - `mixU`: c = (1 - lambda) e_k + lambda 1 / K
    - `noise-frozen`: c = e_k + sigma eta, eta ~ N(0, 1), one draw per trial
    - `noise-ou`: c_t = e_k + sigma eta_t, with an Ornstein-Uhlenbeck eta of variance 1
    - `atten`: c = (1 - lambda) e_k; `drop`: the same with lambda 0 or 1
    - `window`: c_t = e_k within a window, (1 - lambda) e_k outside of it
    - `swap`: c_t = e_j for a while, then e_k
    - `posterior`: z = delta e_k + xi, xi ~ N(0, 1), c = softmax(delta z / T); delta is such that
      arg max z = k with probability a

    Random numbers do not depend on the level: with the same seed, eta and xi are the same at every
    level (common random numbers).

    Args:
        kind: An id of `CORRUPTIONS`.
        context: e_k, (trial, context).
        level: Strength; what it means is in `CORRUPTIONS`. For `posterior` it is the accuracy a,
            so that a lower level is more ambiguous.
        other: Index j of the other task, (trial,) int64; for `mix2` and `swap`.
        steps: Time steps; for `noise-ou`, `window` and `swap`.
        dt: Time step in ms; likewise.
        periods: Periods of the trials as in `TrialBatch.periods`, for windows and phases by name.
        generator: Source of the random numbers, or a seed; for the noises and `posterior`.
        **options: `noise-ou`: tau_n, correlation time in ms (0: white noise). `window`: window,
            "early" (the default), "delay", "late" or the name of a period (see `window_steps`),
            or onset and duration in ms. `swap`: phase, when the wrong context comes, in ms
            or as the name of a window; before that the context is right. `posterior`:
            temperature, T > 0; at 1 the entries of c are the posterior probabilities given z.

    Returns:
        (trial, context), or (trial, time, context) for corruptions that vary. At the level that
        means no corruption it is `context` itself, (trial, context).

    Raises:
        ValueError: For a level out of range, an argument that the corruption needs, or trials that
            lack the period asked for.

    References:
        Exact Ornstein-Uhlenbeck step: Gillespie (1996), Physical Review E 54, 2084.

    Example:
        >>> import torch
        >>> from ctxrnn.analysis import corrupted
        >>> context, other = torch.eye(2)[[0]], torch.tensor([1])
        >>> corrupted("mix2", context, 0.25, other=other)
        tensor([[0.7500, 0.2500]])
        >>> corrupted("swap", context, 100.0, other=other, steps=4, dt=50.0)  # for 100 ms
        tensor([[[0., 1.],
                 [0., 1.],
                 [1., 0.],
                 [1., 0.]]])
    """
    corruption = corruption_of(kind, options)
    _check_contexts(context)
    level = check_level(corruption, level, context.shape[-1])
    settings = {**corruption.options, **options}
    _check_settings(kind, settings)
    given = _Given(
        context,
        level,
        _checked_other(kind, context, other) if corruption.other else context,
        *(_checked_time(kind, steps, dt) if corruption.varies else (0, 0.0)),
        periods,
        _checked_generator(kind, generator) if corruption.random else torch.Generator(),
        settings,
    )
    return context if level == corruption.clean else _MAKE[kind](given)


@dataclass(frozen=True)
class _Given:
    """Checked arguments of `corrupted`; `other` holds e_j."""

    context: Tensor
    level: float
    other: Tensor
    steps: int
    dt: float
    periods: Mapping[str, Tensor] | None
    generator: torch.Generator
    options: Mapping[str, Any]

    def normals(self, *shape: int) -> Tensor:
        # In double precision, so that the numbers do not depend on the network's type.
        source = self.generator
        return torch.randn(shape, generator=source, dtype=torch.float64, device=source.device)


def _mix2(given: _Given) -> Tensor:
    return (1 - given.level) * given.context + given.level * given.other


def _mix_uniform(given: _Given) -> Tensor:
    return (1 - given.level) * given.context + given.level / given.context.shape[-1]


def _attenuated(given: _Given) -> Tensor:
    return (1 - given.level) * given.context


def _noise_frozen(given: _Given) -> Tensor:
    return given.context + given.level * given.normals(*given.context.shape).to(given.context)


def _noise_ou(given: _Given) -> Tensor:
    draws = given.normals(given.steps, *given.context.shape)
    eta = ou_noise(draws, given.options["tau_n"], given.dt)
    return given.context.unsqueeze(1) + given.level * eta.to(given.context)


def _window(given: _Given) -> Tensor:
    pure = given.context.unsqueeze(1)
    return torch.where(_inside("window", given), pure, (1 - given.level) * pure)


def _swap(given: _Given) -> Tensor:
    inside = _inside("swap", given)
    return torch.where(inside, given.other.unsqueeze(1), given.context.unsqueeze(1))


def _posterior(given: _Given) -> Tensor:
    delta = evidence_strength(given.level, given.context.shape[-1])
    xi = given.normals(*given.context.shape)
    evidence = delta * given.context.to(xi) + xi
    scaled = delta * evidence / given.options["temperature"]
    return torch.softmax(scaled, dim=-1).to(given.context)


_MAKE: Mapping[str, Callable[[_Given], Tensor]] = {
    "mix2": _mix2,
    "mixU": _mix_uniform,
    "noise-frozen": _noise_frozen,
    "noise-ou": _noise_ou,
    "atten": _attenuated,
    "drop": _attenuated,
    "window": _window,
    "swap": _swap,
    "posterior": _posterior,
}


def ou_noise(draws: Tensor, tau_n: float, dt: float) -> Tensor:
    """Turn white noise into an Ornstein-Uhlenbeck process of variance 1 at every step.

    eta_0 = xi_0 and eta_t = a eta_{t-1} + sqrt(1 - a^2) xi_t with a = exp(-dt / tau_n): exact at
    every dt.

    Args:
        draws: xi, independent N(0, 1), (time, trial, context).
        tau_n: Correlation time in ms; 0 for white noise.
        dt: Time step in ms.

    Returns:
        eta, (trial, time, context).

    Raises:
        ValueError: If tau_n is negative, or dt not positive.

    Example:
        >>> import torch
        >>> from ctxrnn.analysis import ou_noise
        >>> draws = torch.zeros(4, 1, 1)
        >>> draws[0] = 1.0  # one kick at the first step, which decays with tau_n
        >>> ou_noise(draws, tau_n=100.0, dt=100.0).flatten()
        tensor([1.0000, 0.3679, 0.1353, 0.0498])
    """
    check_not_negative("tau_n", tau_n, "ms")
    check_positive("dt", dt, "ms")
    decay = math.exp(-dt / tau_n) if tau_n > 0 else 0.0
    # 1 - exp(-2 dt / tau_n) loses its digits for long correlation times.
    fresh = math.sqrt(-math.expm1(-2 * dt / tau_n)) if tau_n > 0 else 1.0
    eta = [draws[0]]
    for xi in draws[1:]:
        eta.append(decay * eta[-1] + fresh * xi)
    return torch.stack(eta, dim=1)


@lru_cache(maxsize=1024)
def evidence_strength(accuracy: float, contexts: int) -> float:
    """Return delta such that arg max z = k with probability a, for z = delta e_k + xi.

    Solves a = int phi(x) Phi(x + delta)^(K - 1) dx, with xi ~ N(0, 1); delta = sqrt(2) Phi^-1(a)
    for K = 2.

    Args:
        accuracy: a, in [1 / K, 1); 1 gives infinity.
        contexts: K, at least 2.

    Raises:
        ValueError: If the accuracy lies outside [1 / K, 1], or K is below 2.

    References:
        Green and Swets (1966), Signal detection theory and psychophysics (m-alternative choice).

    Example:
        >>> from ctxrnn.analysis import evidence_strength
        >>> evidence_strength(0.5, contexts=2)  # chance
        0.0
        >>> round(evidence_strength(0.9214, contexts=2), 2)  # Phi(sqrt 2) = 0.9214
        2.0
    """
    check_count("contexts", contexts, 2)
    check_level(CORRUPTIONS["posterior"], accuracy, contexts)
    if accuracy == 1:
        return math.inf

    def excess(delta: float) -> float:
        def missed(x: float) -> float:
            density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
            return -density * math.expm1((contexts - 1) * float(log_ndtr(x + delta)))

        # Beyond 12 the normal density is below 1e-31; errors are what is small here.
        return quad(missed, -12, 12, epsabs=1e-14, epsrel=1e-11, limit=200)[0] - (1 - accuracy)

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, 20.0, xtol=1e-12))


def window_steps(name: str, periods: Mapping[str, Tensor] | None) -> Tensor:
    """Return the first step of a named window and the one after its last, (trial, 2) int64.

    "early" runs from the start to the delay, "delay" is the delay, "late" runs from its end to the
    end of the trial. In trials without delay "early" runs to the response, and "late" begins
    there. So the three, where they exist, make up the trial. Other names are those of periods.

    Args:
        name: Name of the window.
        periods: Periods of the trials, each (trial, 2).

    Returns:
        Steps; -1, -1 where a trial has no such period.

    Raises:
        ValueError: For a name that is neither a window nor a period of these trials.
    """
    if not periods:
        raise ValueError(f"periods must be given to find {name!r}: give those of the batch")
    if name in periods:
        return periods[name]
    if name not in ("early", "late", "delay"):
        raise unknown_name("window or period", name, {"early", "late", "delay", *periods})
    if "response" not in periods:
        raise ValueError(f"periods must have 'response' to find {name!r}: got {', '.join(periods)}")
    onset = periods["response"][:, 0]
    delay = periods.get("delay")
    if name == "delay":
        return torch.full_like(periods["response"], -1)
    if delay is None:
        delay = torch.full_like(periods["response"], -1)
    if name == "early":
        end = torch.where(delay[:, 0] >= 0, delay[:, 0], onset)
        return torch.stack([torch.zeros_like(end), end], dim=1)
    start = torch.where(delay[:, 1] >= 0, delay[:, 1], onset)
    return torch.stack([start, torch.full_like(start, torch.iinfo(torch.int64).max)], dim=1)


def covered(
    kind: str, options: Mapping[str, Any], periods: Mapping[str, Tensor], trials: int
) -> Tensor:
    """Tell which trials have the period that a corruption refers to, (trial,) bool.

    Args:
        kind: An id of `CORRUPTIONS`.
        options: Its options.
        periods: Periods of the trials.
        trials: Number of trials.
    """
    name = _named_window(kind, {**corruption_of(kind, options).options, **options})
    if name is None:
        return torch.ones(trials, dtype=torch.bool)
    return window_steps(name, periods)[:, 0].cpu() >= 0


def _named_window(kind: str, settings: Mapping[str, Any]) -> str | None:
    if kind == "swap":
        return settings["phase"] if isinstance(settings["phase"], str) else None
    if kind != "window" or settings["onset"] is not None:
        return None
    return settings["window"] or "early"


def _inside(kind: str, given: _Given) -> Tensor:
    """Return the steps in the window, or with the wrong context (swap), (trial, time, 1)."""
    step, name = torch.arange(given.steps), _named_window(kind, given.options)
    trials = len(given.context)
    start = torch.full((trials, 1), 0.0, dtype=torch.float64)
    if name is None:
        start += float(given.options["phase" if kind == "swap" else "onset"])
    else:
        span = _spans(name, given.periods, trials)
        start += span[:, :1] * given.dt
    if kind == "window" and name is not None:
        inside = (step >= span[:, :1]) & (step < span[:, 1:])
    else:
        length = given.level if kind == "swap" else float(given.options["duration"])
        # Rounding must not move a step across a bound that is a multiple of dt.
        time = (step.to(torch.float64) + 1e-9) * given.dt
        inside = (time >= start) & (time < start + length)
    return inside.unsqueeze(-1).to(given.context.device)


def _spans(name: str, periods: Mapping[str, Tensor] | None, trials: int) -> Tensor:
    span = window_steps(name, periods).cpu()
    if len(span) != trials:
        raise ValueError(f"periods must be those of {trials} trials: got {len(span)}")
    missing = int((span[:, 0] < 0).sum())
    if missing:
        raise ValueError(
            f"every trial must have the period {name!r}: {missing} of {trials} lack it; leave "
            "those out, or choose another window"
        )
    return span


def _check_contexts(context: Tensor) -> None:
    """Raise ValueError unless contexts are (trial, context), at least two, floating point."""
    if not isinstance(context, Tensor) or not context.is_floating_point() or context.ndim != 2:
        what = type(context).__name__
        got = f"{tuple(context.shape)} {context.dtype}" if isinstance(context, Tensor) else what
        raise ValueError(f"context must be a (trial, context) floating-point tensor: got {got}")
    if context.shape[1] < 2:
        raise ValueError(f"context must have at least 2 entries: got {context.shape[1]}")
    check_finite("context", context, "Give the clean contexts.")


def _checked_other(kind: str, context: Tensor, other: Tensor | None) -> Tensor:
    trials, contexts = context.shape
    if other is None:
        raise ValueError(f"other must be given for {kind!r}: the index of task j of each trial")
    if other.dtype != torch.int64 or tuple(other.shape) != (trials,):
        raise ValueError(
            f"other must have shape ({trials},) and type int64: got {tuple(other.shape)} "
            f"{other.dtype}"
        )
    if trials and not 0 <= int(other.min()) <= int(other.max()) < contexts:
        raise ValueError(
            f"other must lie in [0, {contexts - 1}]: got {int(other.min())} to {int(other.max())}"
        )
    return torch.nn.functional.one_hot(other.to(context.device), contexts).to(context)


def _checked_time(kind: str, steps: int | None, dt: float | None) -> tuple[int, float]:
    if steps is None or dt is None:
        raise ValueError(f"steps and dt must be given for {kind!r}, which varies in time")
    check_count("steps", steps)
    check_positive("dt", dt, "ms")
    return int(steps), float(dt)


def _checked_generator(kind: str, generator: torch.Generator | int | None) -> torch.Generator:
    if generator is None:
        raise ValueError(f"generator must be given for {kind!r}: a torch.Generator or a seed")
    if isinstance(generator, torch.Generator):
        return generator
    check_integer("generator", generator)
    return make_generator(generator, "corruption")


def _check_settings(kind: str, settings: Mapping[str, Any]) -> None:
    if kind == "noise-ou":
        check_not_negative("tau_n", settings["tau_n"], "ms")
    elif kind == "posterior":
        check_positive("temperature", settings["temperature"])
    elif kind == "swap" and not isinstance(settings["phase"], str):
        check_not_negative("phase", settings["phase"], "ms")
    elif kind == "window":
        given = settings["onset"] is not None, settings["duration"] is not None
        if any(given) and (not all(given) or settings["window"] is not None):
            raise ValueError(
                "a window must be given by onset and duration in ms, or by name: got "
                + ", ".join(f"{key}={value!r}" for key, value in settings.items())
            )
        if all(given):
            check_not_negative("onset", settings["onset"], "ms")
            check_positive("duration", settings["duration"], "ms")

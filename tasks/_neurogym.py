"""The one place that touches neurogym: its environments as sources of trials.

Importing neurogym takes seconds, so this module is imported by functions only.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import neurogym
import numpy as np
from gymnasium import spaces
from neurogym.core import TrialEnv, TrialWrapper

from ctxrnn._checks import unknown_name

from ._catalogue import FAMILY, repairs_of, short_name
from ._raw import RawTrial, copy_out
from ._seeding import cores, reseed, reseed_timing, seeded
from ._timing import check_periods

_NOISE = r"(?s).*WARN: (env\..* to get variables from other wrappers|The environment creator)"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings that gymnasium raises about neurogym's wrappers, and no others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_NOISE, category=UserWarning)
        yield


class GoCue(TrialWrapper):
    """Keep the fixation input on until the decision period."""

    def new_trial(self, **kwargs: Any) -> dict:
        """Draw a trial and fill in the go cue."""
        trial = self.env.new_trial(**kwargs)
        core = self.unwrapped
        core.ob[: core.start_ind["decision"], 0] = 1
        return trial


class OneCategoryRule(TrialWrapper):
    """Judge the sample's category by the rule of the test: the second if index >= ring / 2.

    neurogym uses > for the sample. Only a sample at exactly half of the ring is misjudged, and
    its label is then the opposite of the truth. As match and non-match are equally likely,
    turning the label over gives the distribution of a task with one rule.
    """

    def new_trial(self, **kwargs: Any) -> dict:
        """Draw a trial and correct its label where needed."""
        trial = self.env.new_trial(**kwargs)
        core = self.unwrapped
        if trial["sample_theta"] == core.theta[core.half_ring]:
            match = trial["ground_truth"] != "match"
            trial["ground_truth"] = "match" if match else "non-match"
            core.set_groundtruth(0)
            if match == core.matchgo:
                test = int(np.flatnonzero(core.theta == trial["test_theta"])[0])
                core.set_groundtruth(test, period="decision", where="choice")
        return trial


class NoTies(TrialWrapper):
    """Draw a trial again while both directions have the same summed strength."""

    def new_trial(self, **kwargs: Any) -> dict:
        """Draw trials until one has a right answer."""
        core = self.unwrapped
        while True:
            trial = self.env.new_trial(**kwargs)
            difference = core.w_mod1 * (trial["coh1_mod1"] - trial["coh2_mod1"])
            difference += core.w_mod2 * (trial["coh1_mod2"] - trial["coh2_mod2"])
            # neurogym breaks ties with a random number of this size.
            if abs(difference) > 1e-6:
                return trial


_WRAPPERS = {"go-cue": GoCue, "category": OneCategoryRule, "ties": NoTies}


def known_ids() -> list[str]:
    """List the ids that neurogym registers."""
    from neurogym.envs.registration import ALL_EXTENDED_ENVS

    return sorted(ALL_EXTENDED_ENVS)


def full_id(name: str) -> str:
    """Return the registered id of a task, or raise the error for an unknown name."""
    short = short_name(name)
    if short in FAMILY:
        return f"yang19.{short}-v0"
    for candidate in (name, f"{name}-v0"):
        if candidate in gymnasium.envs.registry:
            return candidate
    known = list(map(short_name, known_ids()))
    raise unknown_name("task", name, known)


def make(name: str, **options: Any) -> Any:
    """Build an environment and strip gymnasium's own layers from its top.

    Raises:
        ValueError: If neurogym refuses the options, or the environment has no trials.
    """
    try:
        with quiet():
            env = neurogym.make(full_id(name), **options)
    except (TypeError, KeyError, AttributeError) as error:
        reason = str(error).split(" was raised from the environment creator")[0]
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ValueError(
            f"neurogym refuses to build task {name!r} with {given}: {reason}"
        ) from None
    while isinstance(env, gymnasium.Wrapper) and type(env).__module__.startswith("gymnasium."):
        env = env.env
    if not isinstance(env.unwrapped, TrialEnv):
        raise ValueError(
            f"task {name!r} is not a neurogym task with trials and ground truth: choose another"
        )
    return env


class Source:
    """One task as a source of trials, each batch a pure function of its seed.

    Attributes:
        name: Short name of the task.
        core: The environment below all wrappers; of the first modality where there are two.
        inputs: Number of input channels.
        outputs: Number of classes, or of output channels.
        kind: "class" for discrete actions, "regression" for continuous ones.
        span: Range of each continuous action, (output,); None for discrete ones.
    """

    def __init__(
        self,
        name: str,
        *,
        dt: float,
        ring: int,
        noise: float,
        repairs: tuple[str, ...],
        options: Mapping[str, Any],
    ) -> None:
        self.name = short_name(name)
        self.native = self.name in FAMILY
        self.repairs = repairs_of(self.name, repairs) if self.native else ()
        self.dt = dt
        env, timing = self._build(name, dt, ring, dict(options))
        self._parts = list(getattr(env, "envs", [env])) if self.native else [env]
        for core in cores(env):
            core.timing.update(timing)
            if hasattr(core, "sigma"):
                core.sigma *= noise
            elif noise != 1 and not self.native:
                raise ValueError(
                    f"task {self.name!r} has no noise that could be scaled: "
                    f"leave noise at 1, got {noise}"
                )
        self.core = self._parts[0].unwrapped
        # Seeding these again is far faster than making new ones for every batch.
        self._rng, self._order = np.random.RandomState(0), np.random.RandomState(0)
        with quiet():
            reseed(env, 0)
            check_periods(self.name, self.core, answer="decision" if self.native else None)
        for repair in self.repairs:
            if repair in _WRAPPERS:
                self._parts = [_WRAPPERS[repair](part) for part in self._parts]
        self._check_spaces()

    def _build(
        self, name: str, dt: float, ring: int, options: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Build the environment; returns it with the timing to merge into it afterwards."""
        for reserved, instead in (("dim_ring", "ring"), ("sigma", "noise")):
            if reserved in options:
                raise ValueError(f"option {reserved!r} is set through {instead}=: use that instead")
        timing = dict(options.pop("timing", None) or {})
        if timing:
            known = make(name, dt=dt, **options).unwrapped.timing
            timing = {period: value for period, value in timing.items() if period in known}
        if "durations" in self.repairs:
            timing = {"stimulus": 500, **timing}
        if self.native:
            options["dim_ring"] = ring
        if timing and "timing" not in self.repairs:
            options["timing"] = timing
            timing = {}
        return make(name, dt=dt, **options), timing

    def _check_spaces(self) -> None:
        seen, acts = self.core.observation_space, self.core.action_space
        if len(seen.shape) != 1:
            raise ValueError(
                f"task {self.name!r} must show one vector per step: got shape {seen.shape}"
            )
        self.inputs = int(seen.shape[0])
        if isinstance(acts, spaces.Discrete):
            self.kind, self.outputs, self.span = "class", int(acts.n), None
        elif isinstance(acts, spaces.Box) and len(acts.shape) == 1:
            self.kind, self.outputs = "regression", int(acts.shape[0])
            self.span = np.asarray(acts.high - acts.low, dtype=float)
            if not np.isfinite(self.span).all():
                raise ValueError(f"task {self.name!r} must have bounded actions: got {acts}")
        else:
            raise ValueError(f"task {self.name!r} must have Discrete or Box actions: got {acts}")
        for trial in self.draw(8, 0):
            if self.kind == "class" and not (
                trial.truth.min() >= 0 and trial.truth.max() < self.outputs
            ):
                raise ValueError(
                    f"the ground truth of task {self.name!r} is not one of its {self.outputs} "
                    "actions, so that it cannot be trained by classification: choose another task"
                )

    def draw(self, trials: int, seed: int) -> list[RawTrial]:
        """Draw trials; the result depends on the seed alone.

        Both modalities of a reach or match task occur equally often, up to one trial, in a
        random order.
        """
        if not self.native:
            return self._draw_foreign(trials, seed)
        rng = seeded(self._rng, seed, "trials")
        for part in self._parts:
            part.unwrapped.rng = rng
            reseed_timing(part.unwrapped, seed)
        order = seeded(self._order, seed, "modality")
        count = len(self._parts)
        chosen = order.permutation((np.arange(trials) + order.randint(count)) % count)
        drawn = []
        for index in chosen:
            part = self._parts[index]
            conditions = dict(part.new_trial())
            if count > 1:
                conditions["modality"] = int(index) + 1
            if self.name in ("dms", "dnms", "dmc", "dnmc"):
                conditions["match"] = conditions.pop("ground_truth") == "match"
            drawn.append(copy_out(part.unwrapped, conditions))
        return drawn

    def durations(self, periods: Sequence[str], trials: int, seed: int) -> np.ndarray:
        """Draw durations of some periods in ms, in their order trial by trial, (trial, period).

        Cut to whole steps; for durations that a function draws.
        """
        self.core.rng = seeded(self._rng, seed, "durations")
        reseed_timing(self.core, seed)
        return np.array(
            [[self.core.sample_time(period) for period in periods] for _ in range(trials)],
            dtype=float,
        )

    def _draw_foreign(self, trials: int, seed: int) -> list[RawTrial]:
        pristine = self._parts[0]
        # Some environments remember earlier trials, so each batch starts from a fresh copy.
        env = copy.deepcopy(pristine)
        drawn = []
        with quiet():
            reseed(env, seed)
            for core, original in zip(cores(env), cores(pristine), strict=True):
                # Functions in `timing` still refer to the environment that they were defined in.
                original.rng = core.rng
                if hasattr(core, "new_block"):
                    # HierarchicalReasoning draws its first block unseeded when it is built.
                    core.new_block()
            for _ in range(trials):
                for core in cores(env):
                    for record in (core.start_t, core.end_t, core.start_ind, core.end_ind):
                        record.clear()
                trial = _new_trial(self.name, env)
                drawn.append(copy_out(env.unwrapped, trial))
        return drawn


def _new_trial(name: str, env: Any) -> dict[str, Any]:
    """Draw one trial of any environment; raises if it gives no ground truth."""
    core = env.unwrapped
    try:
        trial = env.new_trial()
    except NotImplementedError:
        trial = None
    if not getattr(core, "_has_gt", False) or not hasattr(core, "ob") or not len(core.ob):
        raise ValueError(
            f"task {name!r} gives no ground truth, which supervised training needs: choose "
            "another (ctxrnn.tasks.neurogym_ids(check=True) lists those that do)"
        )
    return dict(trial) if isinstance(trial, Mapping) else {}

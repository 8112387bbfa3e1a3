"""Settings of the main job, and the sizes that make its mechanisms comparable."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ctxrnn import TrainConfig, matched_units, parameter_count
from ctxrnn._catalogue import check_variant
from ctxrnn._checks import check_count, check_positive, unknown_name

if TYPE_CHECKING:
    from ctxrnn.tasks import TaskSet

TEN_TASKS = (
    "go", "anti", "dlygo", "dlyanti", "dm1", "dm2", "ctxdm1", "ctxdm2", "dms", "dnms",
)  # fmt: skip
# Tasks whose stimuli a twin shares while its answers differ; without context they conflict.
TWINS = (("go", "anti"), ("dlygo", "dlyanti"), ("ctxdm1", "ctxdm2"), ("dms", "dnms"))


@dataclass(frozen=True)
class ReproduceSettings:
    """Settings of the main job.

    Attributes:
        tasks: yang19 tasks.
        dt: Time step in ms.
        ring: Units of each stimulus ring.
        input_noise: Factor on neurogym's stimulus noise.
        variants: Pathway variants.
        units: N of the largest variant, which sets the parameter budget.
        tau: Time constant in ms.
        noise: Recurrent noise.
        seeds: Networks per variant.
        seed: Seed of everything.
        train: How to train.
        bank: Trials per task in the pool that training draws from; evaluation draws fresh ones.
        test_trials: Fresh trials per task of the clean test.
        levels: Weights lambda of another task's context.
        ambiguity_trials: Fresh trials per task in the ambiguity sweep.
    """

    tasks: tuple[str, ...] = TEN_TASKS
    dt: float = 50.0
    ring: int = 8
    input_noise: float = 1.0
    variants: tuple[str, ...] = ("none", "e-add", "s-sym", "es-add-sym")
    units: int = 48
    tau: float = 100.0
    noise: float = 0.05
    seeds: int = 2
    seed: int = 1
    train: TrainConfig = field(default_factory=TrainConfig)
    bank: int = 4096
    test_trials: int = 512
    levels: tuple[float, ...] = (
        0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
    )  # fmt: skip
    ambiguity_trials: int = 64

    def __post_init__(self) -> None:
        for name in ("units", "seeds", "bank", "test_trials", "ambiguity_trials"):
            check_count(name, getattr(self, name))
        check_positive("dt", self.dt, "ms")
        for variant in self.variants:
            check_variant(variant)
        if len(set(self.variants)) != len(self.variants) or not self.variants:
            raise ValueError(f"variants must be given, each once: got {list(self.variants)}")
        if len(self.tasks) < 2:
            raise ValueError(f"ambiguity needs at least two tasks: got {list(self.tasks)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReproduceSettings:
        """Rebuild from `to_dict`; unknown keys are refused."""
        known = {item.name for item in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise unknown_name("setting", name, known)
        plain: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in values.items()
        }
        if isinstance(plain.get("train"), Mapping):
            plain["train"] = TrainConfig.from_dict(plain["train"])
        return cls(**plain)


SCALES: Mapping[str, ReproduceSettings] = {
    "smoke": ReproduceSettings(
        tasks=("go", "anti", "dm1", "dm2", "dms", "dnms"),
        units=16,
        seeds=2,
        train=TrainConfig(
            steps=60, batch=32, learning_rate=3e-3, evaluate_every=20, evaluation_trials=96
        ),
        bank=64,
        test_trials=32,
        levels=(0.0, 0.25, 0.5, 1.0),
        ambiguity_trials=8,
    ),
    "quick": ReproduceSettings(
        seeds=3,
        train=TrainConfig(
            steps=4000, learning_rate=3e-3, evaluate_every=250, evaluation_trials=1000
        ),
    ),
}


def sized(settings: ReproduceSettings, inputs: int, outputs: int) -> dict[str, tuple[int, int]]:
    """Return (units, parameters) per variant at equal parameter counts (matching M2).

    The budget is that of the variant with the most parameters at `settings.units`; every variant
    gets the most units whose parameters do not exceed it.
    """
    shape = {"inputs": inputs, "outputs": outputs, "contexts": len(settings.tasks)}
    budget = max(
        parameter_count(variant, units=settings.units, **shape) for variant in settings.variants
    )
    found = {}
    for variant in settings.variants:
        units = matched_units(variant, parameters=budget, **shape)
        found[variant] = (units, parameter_count(variant, units=units, **shape))
    return found


@functools.lru_cache(maxsize=1)
def _task_set(names: tuple[str, ...], dt: float, ring: int, noise: float) -> TaskSet:
    from ctxrnn.tasks import task_set

    return task_set(list(names), dt=dt, ring=ring, noise=noise)


def tasks_of(settings: ReproduceSettings) -> TaskSet:
    """Return the task set of a study; made once per process."""
    return _task_set(settings.tasks, settings.dt, settings.ring, settings.input_noise)

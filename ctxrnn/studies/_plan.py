"""What a network is to be: the settings of a study and a cell, read off into a plan."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ctxrnn import TrainConfig, derive_seed, make_generator, matched_units, parameter_count
from ctxrnn._catalogue import known_options
from ctxrnn._checkpoint import as_json
from ctxrnn._checks import check_count, check_not_negative, check_positive, unknown_name
from ctxrnn.studies._own import Pathways, check_known, own_matched_units, own_options

if TYPE_CHECKING:
    from ctxrnn.tasks import TaskSet

TEN_TASKS = (
    "go", "anti", "dlygo", "dlyanti", "dm1", "dm2", "ctxdm1", "ctxdm2", "dms", "dnms",
)  # fmt: skip
MATCHINGS = ("M1", "M2", "M3")


@dataclass(frozen=True)
class NetworkSettings:
    """What the networks of a study have in common; a cell's axes of the same name override it.

    Attributes:
        tasks: The pool of yang19 tasks; a cell's `tasks` (K) takes the first K of its `order`.
        dt: Time step in ms.
        ring: Units of each stimulus ring.
        input_noise: Factor on neurogym's stimulus noise.
        tau: Time constant in ms.
        noise: sigma, standard deviation of the recurrent noise.
        form: "current" or "rate".
        nonlinearity: phi.
        train: How to train.
        steps_per_task: Optimiser steps for each task, on top of `train.steps`.
        bank: Trials per task in the pool that training draws from; 0 draws fresh ones always.
        test_trials: Fresh trials per task of the clean test.
        seed: Seed of everything.
        device: "cpu" or "cuda"; on a GPU the networks of a group are computed as one.

    Raises:
        ValueError: If a number is out of range, a task occurs twice, or the device is unknown.

    Example:
        >>> from ctxrnn.studies import NetworkSettings, plan_network
        >>> base = NetworkSettings(tasks=("go", "anti", "dm1"), dt=20.0)
        >>> plan = plan_network(base, {"variant": "e-add", "units": 32})
        >>> plan.tasks, plan.trials["dt"]
        (('go', 'anti', 'dm1'), 20.0)
    """

    tasks: tuple[str, ...] = TEN_TASKS
    dt: float = 50.0
    ring: int = 8
    input_noise: float = 1.0
    tau: float = 100.0
    noise: float = 0.05
    form: str = "current"
    nonlinearity: str = "tanh"
    train: TrainConfig = field(default_factory=TrainConfig)
    steps_per_task: int = 0
    bank: int = 0
    test_trials: int = 512
    seed: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_count("test_trials", self.test_trials)
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise unknown_name("device", self.device, ("cpu", "cuda"))
        for name in ("bank", "steps_per_task"):
            check_count(name, getattr(self, name), minimum=0)
        for name in ("dt", "tau"):
            check_positive(name, getattr(self, name), "ms")
        for name in ("noise", "input_noise"):
            check_not_negative(name, getattr(self, name))
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be given, each once: got {list(self.tasks)}")


@dataclass(frozen=True)
class Plan:
    """One network to train: everything that its weights depend on.

    Attributes:
        variant: Pathway variant.
        units: N.
        tasks: Its tasks, in the order of its context.
        options: Further arguments of `CTRNN`, among them the pathways' options.
        trials: dt, ring, noise of the tasks.
        train: How to train.
        training: "clean", or "ambiguous": with mixed contexts.
        bank: Trials per task in the pool, or 0.
        seed: Seed of its initial values, trials and noise.

    Example:
        >>> from ctxrnn.studies import NetworkSettings, plan_network
        >>> cells = [{"variant": variant, "units": 32, "seed": 0} for variant in ("e-add", "s-sym")]
        >>> drive, scaling = (plan_network(NetworkSettings(), cell) for cell in cells)
        >>> drive.company == scaling.company  # networks of one seed see the same trials
        True
    """

    variant: str
    units: int
    tasks: tuple[str, ...]
    options: Mapping[str, Any]
    trials: Mapping[str, Any]
    train: TrainConfig
    training: str
    bank: int
    seed: int

    @functools.cached_property
    def identity(self) -> str:
        """All of it as JSON."""
        return json.dumps(as_json(dataclasses.asdict(self)), sort_keys=True)

    @property
    def name(self) -> str:
        """Name of its files."""
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:10]
        return f"{self.variant}_N{self.units}_K{len(self.tasks)}_{digest}"

    @property
    def company(self) -> Hashable:
        """Networks that agree in this see the same trials."""
        trials = json.dumps(dict(self.trials), sort_keys=True)
        return self.tasks, trials, self.training, self.bank, self.seed, self.train.batch


_TRAIN = {item.name for item in dataclasses.fields(TrainConfig)}
_TRIALS = ("dt", "ring", "input_noise")
_NETWORK = ("tau", "noise", "form", "nonlinearity", "tau_e", "tau_s")


def plan_network(
    base: NetworkSettings, cell: Mapping[str, Any], pathways: Pathways | None = None
) -> Plan:
    """Read off a cell which network it asks for.

    Axes that mean something: `variant`; `units` (N), or `size` with `matching` (M1: N = size; M2:
    the most units whose parameters do not exceed those of e-add at N = size; M3: N = size, and in
    combinations each pathway acts on half of the units); `tasks` (K) and `order` (which random
    order of the pool; tasks are its first K); `seed` (number of the network); `budget` (factor on
    the steps); `training` ("clean" or "ambiguous"); any field of `TrainConfig`; `dt`, `ring`,
    `input_noise`, `tau`, `noise`, `form`, `nonlinearity`, `bank`, `tau_e`, `tau_s`; and any option
    of the variant. All others, misspelt ones too, only label the cell. A value of None leaves the
    default.

    Args:
        base: What the networks have in common.
        cell: Names of axes and their values.
        pathways: Pathways of one's own by id, which `variant` may name; their options are the
            arguments of the class.

    Raises:
        ValueError: If the variant or the size is missing, or a value is out of range.

    Example:
        >>> from ctxrnn.studies import NetworkSettings, plan_network
        >>> cell = {"variant": "s-full", "size": 64, "matching": "M2", "tasks": 5, "steps": 1000}
        >>> plan = plan_network(NetworkSettings(), cell)
        >>> plan.tasks, plan.train.steps
        (('go', 'anti', 'dlygo', 'dlyanti', 'dm1'), 1000)
        >>> plan.units  # so that it has no more parameters than e-add with 64
        32
    """
    given = {name: value for name, value in cell.items() if value is not None}
    if "variant" not in given:
        raise ValueError("a cell must name its `variant`, such as variant=e-add")
    own = pathways or {}
    variant = check_known(given["variant"], own)
    build = own.get(variant)
    known = known_options(variant) if build is None else own_options(build)
    tasks = _tasks(base, given)
    options = {
        name: given.get(name, getattr(base, name, 0.0)) for name in _NETWORK if name != "noise"
    }
    options |= {name: given[name] for name in known if name in given}
    trials = {
        "dt": given.get("dt", base.dt),
        "ring": given.get("ring", base.ring),
        "noise": given.get("input_noise", base.input_noise),
    }
    config = dataclasses.replace(
        base.train, **{name: given[name] for name in _TRAIN if name in given}
    )
    steps = config.steps + (0 if "steps" in given else base.steps_per_task * len(tasks))
    config = dataclasses.replace(config, steps=round(steps * given.get("budget", 1)))
    training = given.get("training", "clean")
    if training not in ("clean", "ambiguous"):
        raise unknown_name("training", training, ("clean", "ambiguous"))
    keys = [given[name] for name in ("order", "seed") if name in given]
    matching = given.get("matching", "M1")
    units = _units(variant, given, matching, tasks, trials["ring"], options, build)
    if matching == "M3" and variant.startswith("es") and build is None:
        options |= {"on_e": 0.5, "on_s": 0.5}
    return Plan(
        variant,
        units,
        tasks,
        options | {"noise": given.get("noise", base.noise)},
        trials,
        config,
        training,
        given.get("bank", base.bank),
        derive_seed(base.seed, "network", *(keys or [0])),
    )


def task_order(pool: Sequence[str], order: int, seed: int) -> tuple[str, ...]:
    """Return a random order of the pool; its first K tasks are nested for growing K."""
    source = make_generator(seed, "order", order)
    return tuple(pool[i] for i in torch.randperm(len(pool), generator=source).tolist())


def _tasks(base: NetworkSettings, given: Mapping[str, Any]) -> tuple[str, ...]:
    pool = base.tasks
    if "order" in given:
        pool = task_order(pool, given["order"], base.seed)
    count = given.get("tasks", len(pool))
    check_count("tasks", count)
    if count > len(pool):
        raise ValueError(f"tasks must be at most {len(pool)}, the size of the pool: got {count}")
    return tuple(pool[:count])


def _units(
    variant: str,
    given: Mapping[str, Any],
    matching: str,
    tasks: tuple[str, ...],
    ring: int,
    options: Mapping[str, Any],
    build: Any,
) -> int:
    if matching not in MATCHINGS:
        raise unknown_name("matching", matching, MATCHINGS)
    size = given.get("units", given.get("size"))
    if size is None:
        raise ValueError("a cell must give its `units` (N), or `size` and `matching`")
    check_count("units" if "units" in given else "size", size)
    if "units" in given or matching != "M2":
        return int(size)
    shape = {"inputs": 1 + 2 * ring, "outputs": 1 + ring, "contexts": len(tasks)}
    budget = parameter_count("e-add", units=int(size), **shape)
    if build is not None:
        return own_matched_units(build, budget, shape, options)
    own = {name: options[name] for name in known_options(variant) if name in options}
    return matched_units(variant, parameters=budget, **shape, **own)


@functools.lru_cache(maxsize=4)
def _task_set(names: tuple[str, ...], trials: str) -> TaskSet:
    from ctxrnn.tasks import task_set

    return task_set(list(names), **json.loads(trials))


@functools.lru_cache(maxsize=1)
def _bank(names: tuple[str, ...], trials: str, bank: int, seed: int) -> Any:
    return _task_set(names, trials).bank(bank, generator=make_generator(seed, "bank"))


def tasks_of(plan: Plan) -> TaskSet:
    """Return the task set of a network; made once per process."""
    return _task_set(plan.tasks, json.dumps(dict(plan.trials), sort_keys=True))


def source_of(plan: Plan) -> Any:
    """Return where the training trials of a network come from: one object for all its company."""
    trials = json.dumps(dict(plan.trials), sort_keys=True)
    tasks: Any = tasks_of(plan)
    if plan.bank:
        tasks = _bank(plan.tasks, trials, plan.bank, plan.seed)
    return _mixing(tasks) if plan.training == "ambiguous" else tasks


@functools.lru_cache(maxsize=4)
def _mixing(tasks: Any) -> Any:
    from ctxrnn.studies._ambiguous import AmbiguousTasks

    return AmbiguousTasks(tasks)

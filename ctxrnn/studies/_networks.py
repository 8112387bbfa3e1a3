"""The work of most studies: train the networks of some cells together, then measure each."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ctxrnn import (
    CTRNN,
    CheckpointError,
    Ensemble,
    TrainConfig,
    TrainingHistory,
    TrialBatch,
    derive_seed,
    load,
    load_notes,
    make_generator,
    matched_units,
    parameter_count,
    save,
    train,
)
from ctxrnn._catalogue import check_variant, known_options
from ctxrnn._checkpoint import as_json, read_tensors
from ctxrnn._checks import check_count, check_not_negative, check_positive, unknown_name
from ctxrnn.studies._cells import Cell
from ctxrnn.studies._cost import memory_bytes, training_seconds
from ctxrnn.studies._desk import Desk, as_result, check_names, stops
from ctxrnn.studies._grouping import TOGETHER
from ctxrnn.studies._store import Result

if TYPE_CHECKING:
    from ctxrnn.tasks import TaskSet

TEN_TASKS = (
    "go", "anti", "dlygo", "dlyanti", "dm1", "dm2", "ctxdm1", "ctxdm2", "dms", "dnms",
)  # fmt: skip
MATCHINGS = ("M1", "M2", "M3")
_AT_ONCE = 1024


@dataclass(frozen=True)
class NetworkSettings:
    """What the networks of a study have in common; a cell's axes of the same name override it.

    Attributes:
        tasks: The pool of yang19 tasks; a cell's `tasks` (K) takes the first K of its `order`.
        dt: Time step in ms.
        ring: Units of each stimulus ring.
        input_noise: Factor on neurogym's stimulus noise.
        tau: Time constant in ms.
        noise: Recurrent noise.
        form: "current" or "rate".
        nonlinearity: phi.
        train: How to train.
        steps_per_task: Optimiser steps for each task, on top of `train.steps`.
        bank: Trials per task in the pool that training draws from; 0 draws fresh ones always.
        test_trials: Fresh trials per task of the clean test.
        seed: Seed of everything.
        device: "cpu" or "cuda"; on a GPU the networks of a group are computed as one.
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


@dataclass(frozen=True)
class Trained:
    """A trained network, as a measure gets it.

    Attributes:
        network: The network.
        tasks: Its tasks.
        history: How training went.
        cell: The cell.
        seed: Seed for the measure; networks that are paired have the same.
    """

    network: CTRNN
    tasks: TaskSet
    history: TrainingHistory
    cell: Cell
    seed: int


Measure = Callable[[Trained], Mapping[str, Any]]
"""From a trained network to names and values; tables (pandas) become tables of the study."""

_TRAIN = {item.name for item in dataclasses.fields(TrainConfig)}
_TRIALS = ("dt", "ring", "input_noise")
_NETWORK = ("tau", "noise", "form", "nonlinearity", "tau_e", "tau_s")


def plan_network(base: NetworkSettings, cell: Mapping[str, Any]) -> Plan:
    """Read off a cell which network it asks for.

    Axes that mean something: `variant`; `units` (N), or `size` with `matching` (M1: N = size; M2:
    the most units whose parameters do not exceed those of e-add at N = size; M3: N = size, and in
    combinations each pathway acts on half of the units); `tasks` (K) and `order` (which random
    order of the pool; tasks are its first K); `seed` (number of the network); `budget` (factor on
    the steps); `training` ("clean" or "ambiguous"); any field of `TrainConfig`; `dt`, `ring`,
    `input_noise`, `tau`, `noise`, `form`, `nonlinearity`, `bank`, `tau_e`, `tau_s`; and any option
    of the variant. All others, misspelt ones too, only label the cell. A value of None leaves the
    default.

    Raises:
        ValueError: If the variant or the size is missing, or a value is out of range.
    """
    given = {name: value for name, value in cell.items() if value is not None}
    if "variant" not in given:
        raise ValueError("a cell must name its `variant`, such as variant=e-add")
    variant = check_variant(given["variant"])
    tasks = _tasks(base, given)
    options = {
        name: given.get(name, getattr(base, name, 0.0)) for name in _NETWORK if name != "noise"
    }
    options |= {name: given[name] for name in known_options(variant) if name in given}
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
    units = _units(variant, given, matching, tasks, trials["ring"], options)
    if matching == "M3" and variant.startswith("es"):
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
    own = {name: options[name] for name in known_options(variant) if name in options}
    budget = parameter_count("e-add", units=int(size), **shape)
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


def _source(plan: Plan) -> Any:
    """Return where the training trials of a network come from."""
    trials = json.dumps(dict(plan.trials), sort_keys=True)
    tasks: Any = tasks_of(plan)
    if plan.bank:
        tasks = _bank(plan.tasks, trials, plan.bank, plan.seed)
    if plan.training == "ambiguous":
        from ctxrnn.studies._ambiguous import AmbiguousTasks

        return AmbiguousTasks(tasks)
    return tasks


class Networks:
    """Trains the networks of cells as one ensemble and measures each of them.

    A network is trained once, however many cells ask for it, and kept in `networks/`; what was
    half done is taken up from `training/`.

    Args:
        base: What the networks have in common.
        measure: From a trained network to values and tables; None for the clean test alone.
        measure_seconds: Time that the measure takes, a number or a function of the plan.
    """

    def __init__(
        self,
        base: NetworkSettings,
        measure: Measure | None = None,
        measure_seconds: float | Callable[[Plan], float] = 0.0,
    ) -> None:
        self.base, self.measure, self.measure_seconds = base, measure, measure_seconds

    def plan(self, cell: Cell) -> Plan:
        """Return the network that a cell asks for."""
        return plan_network(self.base, cell)

    def unit(self, cell: Cell) -> Hashable:
        """Cells of the same network belong to the same process."""
        return self.plan(cell).identity

    def shared(self, cell: Cell) -> Hashable:
        """Cells whose networks see the same trials share these."""
        return self.plan(cell).company

    def cost(self, cell: Cell) -> float:
        """Return the seconds of training and measuring, by the cost model."""
        plan = self.plan(cell)
        extra = self.measure_seconds
        measuring = extra(plan) if callable(extra) else extra
        return training_seconds(plan) + measuring

    def memory(self, cell: Cell) -> float:
        """Return the bytes of memory of a worker that computes such cells."""
        return memory_bytes(self.plan(cell), TOGETHER)

    def __call__(
        self, cells: Sequence[Cell], desk: Desk
    ) -> Iterator[tuple[Cell, Result | Exception]]:
        """Train, save, test and measure; yield each cell as soon as it is measured."""
        started = time.process_time()
        device = _device(self.base.device)
        wanted: dict[str, tuple[Plan, list[Cell]]] = {}
        for cell in cells:
            plan = self.plan(cell)
            wanted.setdefault(plan.identity, (plan, []))[1].append(cell)
        ready = self._trained(list(wanted.values()), desk, device)
        each = (time.process_time() - started) / len(cells)
        for (plan, mine), (network, history) in zip(wanted.values(), ready, strict=True):
            started = time.process_time()
            file = f"networks/{plan.name}.safetensors"
            try:
                clean = clean_test(network, tasks_of(plan), history, plan, self.base.test_trials)
            except Exception as error:
                if stops(error):
                    raise
                yield from ((cell, error) for cell in mine)
                continue
            clean["network"] = file
            testing = (time.process_time() - started) / len(mine)
            for cell in mine:
                started = time.process_time()
                outcome: Result | Exception
                try:
                    measured = self._measured(network, history, plan, cell)
                    check_names(measured, cell, "the cell")
                    check_names(measured, clean, "the clean test")
                    seconds = each + testing + time.process_time() - started
                    outcome = as_result({**clean, **measured}, files=(file,), seconds=seconds)
                except Exception as error:
                    if stops(error):
                        raise
                    outcome = error
                yield cell, outcome

    def _measured(
        self, network: CTRNN, history: TrainingHistory, plan: Plan, cell: Cell
    ) -> Mapping[str, Any]:
        if self.measure is None:
            return {}
        seed = derive_seed(plan.seed, "measure")
        measured = self.measure(Trained(network, tasks_of(plan), history, dict(cell), seed))
        if not isinstance(measured, Mapping):
            raise TypeError(f"a measure must return a mapping: got {type(measured).__name__}")
        return measured

    def _trained(
        self, wanted: Sequence[tuple[Plan, list[Cell]]], desk: Desk, device: torch.device
    ) -> list[tuple[CTRNN, TrainingHistory]]:
        """Return the networks, trained: those found in the folder, and the others."""
        found = [_load(plan, desk, device) for plan, _ in wanted]
        new = [item for item, old in zip(wanted, found, strict=True) if old is None]
        if new:
            trained = iter(_train(new, desk, device))
            found = [next(trained) if old is None else old for old in found]
        return [item for item in found if item is not None]


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"device={name} was asked for, but torch sees no GPU: use device=cpu")
    return device


def _network(plan: Plan, device: torch.device | None = None) -> CTRNN:
    tasks = tasks_of(plan)
    return CTRNN(
        tasks.inputs,
        plan.units,
        tasks.outputs,
        plan.variant,
        contexts=len(plan.tasks),
        dt=plan.trials["dt"],
        seed=plan.seed,
        device=device,
        **plan.options,
    )


def _load(plan: Plan, desk: Desk, device: torch.device) -> tuple[CTRNN, TrainingHistory] | None:
    path = desk.folder / "networks" / f"{plan.name}.safetensors"
    if not path.exists():
        return None
    try:
        notes = load_notes(path)
        if notes.get("plan") != json.loads(plan.identity):
            raise CheckpointError(f"{path} is another network")
        return load(path, device=device), TrainingHistory(**notes["history"])
    except (CheckpointError, KeyError, TypeError) as error:
        desk.note(f"{error}; it is trained again")
        return None


def _train(
    wanted: Sequence[tuple[Plan, list[Cell]]], desk: Desk, device: torch.device
) -> list[tuple[CTRNN, TrainingHistory]]:
    plans = [plan for plan, _ in wanted]
    networks = [_network(plan, device) for plan in plans]
    files = [desk.path(f"training/{plan.name}.training") for plan in plans]
    for file in files:
        _drop_damaged(file, desk)
    whose = {
        id(network): (item, cells) for network, (item, cells) in zip(networks, wanted, strict=True)
    }

    def tell(network: CTRNN, row: Mapping[str, float]) -> None:
        plan, cells = whose[id(network)]
        for cell in cells:
            desk.report(cell, row["step"] / plan.train.steps)

    histories = train(
        Ensemble(networks),
        [_source(plan) for plan in plans],
        [plan.train for plan in plans],
        seed=[plan.seed for plan in plans],
        evaluation_tasks=[tasks_of(plan) for plan in plans],
        checkpoint=files,
        callbacks=[tell],
        progress=False,
        threads=1,
    )
    for plan, network, history, file in zip(plans, networks, histories, files, strict=True):
        name = f"networks/{plan.name}.safetensors"
        notes = {
            "plan": json.loads(plan.identity),
            "tasks": tasks_of(plan).config(),
            "seed": plan.seed,
            "history": as_json(dataclasses.asdict(history)),
        }
        save(network, desk.path(name), notes=notes)
        desk.keep(name)
        file.unlink(missing_ok=True)
    return list(zip(networks, histories, strict=True))


def _drop_damaged(file: Any, desk: Desk) -> None:
    """Delete a checkpoint that cannot be read: only what was half done is lost."""
    if not file.exists():
        return
    try:
        read_tensors(file, "training run")
    except CheckpointError as error:
        desk.note(f"{error}; this network starts again")
        file.unlink()


def answers(network: CTRNN, batch: TrialBatch, *, generator: torch.Generator) -> Tensor:
    """Return a network's outputs on trials, computed some at a time to bound the memory."""
    pieces = []
    with torch.no_grad():
        for rows in torch.arange(len(batch)).split(_AT_ONCE):
            context = batch.context[rows]
            pieces.append(network(batch.inputs[rows], context, generator=generator).outputs.cpu())
    return torch.cat(pieces)


def clean_test(
    network: CTRNN, tasks: TaskSet, history: TrainingHistory, plan: Plan, trials: int
) -> dict[str, Any]:
    """Test a network with clean contexts on fresh trials; return what every record holds."""
    import pandas as pd

    source = make_generator(plan.seed, "test")
    batch = tasks.sample(trials * len(tasks.names), generator=source)
    outputs = answers(network, batch, generator=source)
    accuracy = tasks.accuracy(outputs, batch)
    strict = tasks.accuracy(outputs, batch, fixation=True)
    relative, normalised = tasks.relative(accuracy), tasks.normalised(accuracy)
    table = pd.DataFrame(
        {
            "task": list(accuracy),
            "accuracy": [float(value) for value in accuracy.values()],
            "accuracy_fixation": [float(strict[name]) for name in accuracy],
            "chance": [tasks.chance[name] for name in accuracy],
            "ceiling": [tasks.ceiling[name] for name in accuracy],
            "relative": [relative[name] for name in accuracy],
            "normalised": [normalised[name] for name in accuracy],
        }
    )
    kept = [row for row in history.rows if row["step"] == history.kept_step]
    return {
        "units": network.units,
        "parameters": network.parameter_count(),
        "contexts": len(tasks.names),
        "relative_mean": float(table["relative"].mean()),
        "relative_min": float(table["relative"].min()),
        "normalised_mean": float(table["normalised"].mean()),
        "normalised_min": float(table["normalised"].min()),
        "evaluated_mean": kept[-1]["relative_mean"] if kept else float("nan"),
        "evaluated_min": kept[-1]["relative_min"] if kept else float("nan"),
        "stopped": history.stopped,
        "kept_step": history.kept_step,
        "steps_taken": int(history.rows[-1]["step"]) if history.rows else 0,
        "network_seed": plan.seed,
        "accuracy": table,
        "learning": _learning(history),
    }


def _learning(history: TrainingHistory) -> Any:
    """Return the learning curve without the times, which differ from run to run."""
    import pandas as pd

    rows = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in history.rows]
    return pd.DataFrame(rows)

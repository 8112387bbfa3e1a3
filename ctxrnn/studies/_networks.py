"""The work of most studies: train the networks of some cells together, then measure each."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ctxrnn import (
    CTRNN,
    Chain,
    CheckpointError,
    Ensemble,
    TrainingHistory,
    TrialBatch,
    derive_seed,
    load,
    load_notes,
    make_generator,
    save,
    train,
)
from ctxrnn._checkpoint import as_json, read_tensors
from ctxrnn.studies._cells import Cell
from ctxrnn.studies._cost import memory_bytes, training_seconds
from ctxrnn.studies._desk import Desk, as_result, check_names, stops
from ctxrnn.studies._grouping import TOGETHER
from ctxrnn.studies._own import Pathways, build_own, check_own, own_options
from ctxrnn.studies._plan import NetworkSettings, Plan, plan_network, source_of, tasks_of
from ctxrnn.studies._store import Result

if TYPE_CHECKING:
    from ctxrnn.tasks import TaskSet

_AT_ONCE = 1024


@dataclass(frozen=True)
class Trained:
    """A trained network, as a measure gets it.

    Attributes:
        network: The network.
        tasks: Its tasks.
        history: How training went.
        cell: The cell.
        seed: Seed for the measure; networks that are paired have the same.

    Example:
        >>> from ctxrnn import TrainConfig, evaluate
        >>> from ctxrnn.studies import NetworkSettings, Study
        >>> few = TrainConfig(steps=4, batch=8, evaluation_trials=8)  # only to be quick
        >>> base = NetworkSettings(tasks=("go", "anti"), train=few, test_trials=8)
        >>> def measure(trained):
        ...     return evaluate(trained.network, trained.tasks, 64, generator=trained.seed)
        >>> study = Study("accuracy", {"variant": ["e-add"], "units": [16]}, measure, base=base)
        >>> table = study.run("results", executor="inline")
        >>> [name for name in table if name in base.tasks]  # columns of the table of cells
        ['go', 'anti']
    """

    network: CTRNN
    tasks: TaskSet
    history: TrainingHistory
    cell: Cell
    seed: int


Measure = Callable[[Trained], Mapping[str, Any]]
"""From a trained network to names and values; tables (pandas) become tables of the study."""


class Networks:
    """Trains the networks of cells as one ensemble and measures each of them.

    A network is trained once, however many cells ask for it, and kept in `networks/`; what was
    half done is taken up from `training/`.

    Args:
        base: What the networks have in common.
        measure: From a trained network to values and tables; None for the clean test alone.
        measure_seconds: Time that the measure takes, a number or a function of the plan.
        pathways: Pathways of the user's own by id.
    """

    def __init__(
        self,
        base: NetworkSettings,
        measure: Measure | None = None,
        measure_seconds: float | Callable[[Plan], float] = 0.0,
        pathways: Pathways | None = None,
    ) -> None:
        self.base, self.measure, self.measure_seconds = base, measure, measure_seconds
        self.pathways = dict(pathways or {})
        check_own(self.pathways)

    def plan(self, cell: Cell) -> Plan:
        """Return the network that a cell asks for."""
        return plan_network(self.base, cell, self.pathways)

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
        device = device_of(self.base)
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
        found = [_load(plan, desk, device, self.pathways) for plan, _ in wanted]
        new = [item for item, old in zip(wanted, found, strict=True) if old is None]
        if new:
            trained = iter(_train(new, desk, device, self.pathways))
            found = [next(trained) if old is None else old for old in found]
        return [item for item in found if item is not None]


def device_of(base: NetworkSettings) -> torch.device:
    """Return where networks are computed; raise RuntimeError if this machine has no such device."""
    device = torch.device(base.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RuntimeError(
            f"device={base.device} was asked for, but torch sees {torch.cuda.device_count()} GPUs: "
            "use device=cpu"
        )
    return device


def _network(plan: Plan, device: torch.device | None, pathways: Pathways) -> CTRNN:
    tasks = tasks_of(plan)
    modulation: str | Chain = plan.variant
    options = dict(plan.options)
    if plan.variant in pathways:
        modulation = _own(plan, pathways)
        options = {k: v for k, v in options.items() if k not in own_options(pathways[plan.variant])}
    network = CTRNN(
        tasks.inputs,
        plan.units,
        tasks.outputs,
        modulation,
        contexts=len(plan.tasks),
        dt=plan.trials["dt"],
        seed=plan.seed,
        device=device,
        **options,
    )
    network.variant = plan.variant
    return network


def _own(plan: Plan, pathways: Pathways) -> Chain:
    build = pathways[plan.variant]
    return build_own(build, plan.units, len(plan.tasks), plan.seed, plan.options)


def _load(
    plan: Plan, desk: Desk, device: torch.device, pathways: Pathways
) -> tuple[CTRNN, TrainingHistory] | None:
    path = desk.folder / "networks" / f"{plan.name}.safetensors"
    if not path.exists():
        return None
    try:
        notes = load_notes(path)
        if notes.get("plan") != json.loads(plan.identity):
            raise CheckpointError(f"{path} is another network")
        kinds = {}
        if plan.variant in pathways:
            kinds = {type(part).__name__: type(part) for part in _own(plan, pathways)}
        return load(path, device=device, pathways=kinds), TrainingHistory(**notes["history"])
    except (CheckpointError, KeyError, TypeError) as error:
        desk.note(f"{error}; it is trained again")
        return None


def _train(
    wanted: Sequence[tuple[Plan, list[Cell]]],
    desk: Desk,
    device: torch.device,
    pathways: Pathways,
) -> list[tuple[CTRNN, TrainingHistory]]:
    plans = [plan for plan, _ in wanted]
    networks = [_network(plan, device, pathways) for plan in plans]
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
        [source_of(plan) for plan in plans],
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

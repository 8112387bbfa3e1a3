"""The main job: train each mechanism at equal parameter counts, then make the context ambiguous."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
import platform
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from ctxrnn import (
    CTRNN,
    TrainConfig,
    derive_seed,
    make_generator,
    matched_units,
    parameter_count,
    save,
    train,
)
from ctxrnn._catalogue import check_variant
from ctxrnn._checkpoint import versions
from ctxrnn._checks import check_count, check_positive, unknown_name
from ctxrnn.studies._folder import ResultsFolder

if TYPE_CHECKING:
    import pandas as pd

    from ctxrnn.tasks import TaskSet

logger = logging.getLogger("ctxrnn")

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


@functools.lru_cache(maxsize=1)
def _bank(settings: ReproduceSettings, number: int) -> Any:
    tasks = _task_set(settings.tasks, settings.dt, settings.ring, settings.input_noise)
    generator = make_generator(settings.seed, "bank", number)
    return tasks.bank(settings.bank, generator=generator)


def _cell_name(variant: str, number: int) -> str:
    return f"{variant}-{number}"


def run_cell(
    settings: ReproduceSettings, variant: str, number: int, folder: Path, report: Any = None
) -> dict[str, Any]:
    """Train and measure one network; return its record.

    All random numbers derive from the settings' seed and `number`; networks of different variants
    with the same number see the same trials and share the initial values of what they share.

    Args:
        settings: Settings of the study.
        variant: Pathway variant.
        number: Which of the `settings.seeds` networks.
        folder: Results folder, for the network and its training checkpoint.
        report: Called as `report(step)` after each evaluation, or None.
    """
    from ctxrnn.analysis import ambiguity_sweep

    tasks = _task_set(settings.tasks, settings.dt, settings.ring, settings.input_noise)
    seed = derive_seed(settings.seed, "network", number)
    units, parameters = sized(settings, tasks.inputs, tasks.outputs)[variant]
    network = CTRNN(
        tasks.inputs,
        units,
        tasks.outputs,
        variant,
        contexts=len(tasks.names),
        tau=settings.tau,
        dt=settings.dt,
        noise=settings.noise,
        seed=seed,
    )
    name = _cell_name(variant, number)
    checkpoint = folder / "networks" / f"{name}.training"
    history = train(
        network,
        _bank(settings, number),
        settings.train,
        seed=seed,
        evaluation_tasks=tasks,
        checkpoint=checkpoint,
        callbacks=[lambda _, row: report(int(row["step"]))] if report else [],
        progress=False,
    )
    source = make_generator(seed, "test")
    batch = tasks.sample(settings.test_trials * len(tasks.names), generator=source)
    with torch.no_grad():
        outputs = network(batch.inputs, batch.context, generator=source).outputs
    accuracy = tasks.accuracy(outputs, batch)
    strict = tasks.accuracy(outputs, batch, fixation=True)
    sweep = ambiguity_sweep(
        network,
        tasks,
        levels=settings.levels,
        trials=settings.ambiguity_trials,
        seed=seed,
    )
    notes = {"tasks": tasks.config(), "seed": seed, "number": number}
    save(network, folder / "networks" / f"{name}.safetensors", notes=notes)
    return {
        "variant": variant,
        "number": number,
        "seed": seed,
        "units": units,
        "parameters": parameters,
        "stopped": history.stopped,
        "message": history.message,
        "kept_step": history.kept_step,
        "learning": history.rows,
        "accuracy": {name: float(value) for name, value in accuracy.items()},
        "accuracy_fixation": {name: float(value) for name, value in strict.items()},
        "ambiguity": sweep.to_dict("list"),
    }


class _Worker:
    """What a worker process shares with its parent."""

    progress: Any = None
    stop: Any = None


def _start_worker(progress: Any, stop: Any) -> None:
    _Worker.progress, _Worker.stop = progress, stop
    torch.set_num_threads(1)


def _work(settings: ReproduceSettings, variant: str, number: int, results: ResultsFolder) -> str:
    """Run a cell in a worker and write its record; return a line about it."""
    if _Worker.stop.is_set():
        raise KeyboardInterrupt
    name = _cell_name(variant, number)
    started = time.monotonic()

    def report(step: int) -> None:
        _Worker.progress.put((name, step))
        if _Worker.stop.is_set():
            # Training puts an interrupt off until its checkpoint is written.
            signal.raise_signal(signal.SIGINT)

    try:
        record = run_cell(settings, variant, number, results.path, report)
    except KeyboardInterrupt:
        _Worker.stop.set()
        raise
    record["seconds"] = time.monotonic() - started
    results.write_json(f"cells/{name}.json", record)
    (results.path / "networks" / f"{name}.training").unlink(missing_ok=True)
    _Worker.progress.put((name, settings.train.steps))
    relative = record["learning"][-1]["relative_mean"] if record["learning"] else 0.0
    return record["message"] or f"p/ceiling {relative:.3f}, {record['seconds']:.0f} s"


def reproduce(
    settings: ReproduceSettings | str = "quick",
    folder: str | Path | None = None,
    *,
    workers: int | None = None,
    command: str | None = None,
    progress: bool | None = None,
) -> Path:
    """Run the main job; finished networks are taken up from an earlier run in the same folder.

    Args:
        settings: Settings, or the name of a scale: "smoke" or "quick".
        folder: Results folder; None for `results/reproduce-SCALE`.
        workers: Processes, one thread each; None for one per core.
        command: What the user typed, for the report.
        progress: Whether to show progress; None shows it on a terminal.

    Returns:
        The results folder: networks/, records as Parquet and CSV, figures/, report.html.

    Raises:
        ValueError: For unknown scales, or a folder that holds other results.
        RuntimeError: If a network could not be trained; the others are kept.
    """
    from ctxrnn.studies._report import write_report

    if isinstance(settings, str):
        if settings not in SCALES:
            raise unknown_name("scale", settings, SCALES)
        settings = SCALES[settings]
    label = next((name for name, known in SCALES.items() if known == settings), "custom")
    cores = os.cpu_count() or 1
    workers = cores if workers is None else workers
    check_count("workers", workers)
    results = ResultsFolder(
        Path("results") / f"reproduce-{label}" if folder is None else folder,
        {"study": "reproduce", **settings.to_dict()},
    )
    started = time.monotonic()
    records = _run_cells(settings, results, workers, progress)
    tables = _tables(settings, records)
    for name, table in tables.items():
        results.write_table(name, table)
    provenance = {
        "command": command or "ctxrnn.studies.reproduce(...)",
        "scale": label,
        "versions": versions(),
        "machine": f"{platform.system()} {platform.machine()}, {cores} cores, {workers} workers",
        "seeds": {record["number"]: record["seed"] for record in records},
        "seconds of this run": round(time.monotonic() - started, 1),
        "seconds of all networks": round(sum(record["seconds"] for record in records), 1),
    }
    results.write_json("provenance.json", provenance)
    write_report(results, settings, tables, provenance)
    return results.path


def _run_cells(
    settings: ReproduceSettings, results: ResultsFolder, workers: int, progress: bool | None
) -> list[dict[str, Any]]:
    # Seeds outermost: cells that share a bank of trials follow each other.
    cells = [(v, n) for n in range(settings.seeds) for v in settings.variants]
    missing = [cell for cell in cells if results.finished(_cell_name(*cell)) is None]
    if missing:
        logger.info("%d of %d networks to train", len(missing), len(cells))
        failures = _run_missing(settings, results, missing, min(workers, len(missing)), progress)
        if failures:
            raise RuntimeError(
                f"{len(failures)} of {len(cells)} networks failed; the others are kept in "
                f"{results.path}. First: {failures[0]}"
            )
    records = [results.finished(_cell_name(*cell)) for cell in cells]
    return [record for record in records if record is not None]


@contextlib.contextmanager
def _workers_without_ctrl_c() -> Iterator[None]:
    """Start processes that leave Ctrl-C to their parent, which tells them through the event.

    They inherit that the signal is ignored; training takes it up again, to write its checkpoint.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run_missing(
    settings: ReproduceSettings,
    results: ResultsFolder,
    cells: Sequence[tuple[str, int]],
    workers: int,
    progress: bool | None,
) -> list[str]:
    context = multiprocessing.get_context("spawn")
    failures: list[str] = []
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(context.Manager())
        channel, stop = manager.Queue(), manager.Event()
        pool = concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start_worker, initargs=(channel, stop)
        )
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        stack.callback(stop.set)
        bar = stack.enter_context(
            tqdm(
                total=len(cells) * settings.train.steps,
                unit="step",
                disable=None if progress is None else not progress,
                desc=f"{len(cells)} networks",
                smoothing=0.05,
            )
        )
        with _workers_without_ctrl_c():
            futures = {
                pool.submit(_work, settings, variant, number, results): (variant, number)
                for variant, number in cells
            }
        steps: dict[str, int] = {}
        pending = set(futures)
        while pending:
            done, pending = concurrent.futures.wait(pending, timeout=0.5)
            with contextlib.suppress(queue.Empty):
                while True:
                    name, step = channel.get_nowait()
                    bar.update(max(0, step - steps.get(name, 0)))
                    steps[name] = max(step, steps.get(name, 0))
            for future in done:
                name = _cell_name(*futures[future])
                error = future.exception()
                if isinstance(error, KeyboardInterrupt):
                    raise error
                if error is not None:
                    failures.append(f"{name}: {type(error).__name__}: {error}")
                    continue
                if progress is not False:
                    finished = len(futures) - len(pending) - len(failures)
                    line = f"{name}: {future.result()} ({finished} of {len(futures)})"
                    tqdm.write(line, file=sys.stderr)
    return failures


def _tables(
    settings: ReproduceSettings, records: Sequence[dict[str, Any]]
) -> dict[str, pd.DataFrame]:
    """Return the records as tables: networks, accuracy, learning, ambiguity."""
    import pandas as pd

    from ctxrnn.analysis import ambiguity_curve, lambda_50, robustness_area

    tasks = _task_set(settings.tasks, settings.dt, settings.ring, settings.input_noise)
    conflicting = [t for pair in TWINS if set(pair) <= set(settings.tasks) for t in pair]
    networks: list[dict[str, Any]] = []
    accuracy: list[dict[str, Any]] = []
    learning: list[dict[str, Any]] = []
    ambiguity: list[pd.DataFrame] = []
    for record in records:
        key = {"variant": record["variant"], "seed": record["number"]}
        relative = dict(tasks.relative(record["accuracy"]))
        normalised = dict(tasks.normalised(record["accuracy"]))
        sweep = pd.DataFrame(record["ambiguity"])
        curve = ambiguity_curve(sweep)
        area = robustness_area(curve["level"], curve["normalised"])
        clean = float(curve["normalised"].iloc[0])
        networks.append(
            {
                **key,
                "units": record["units"],
                "parameters": record["parameters"],
                "relative_mean": sum(relative.values()) / len(relative),
                "relative_min": min(relative.values()),
                "relative_conflicting": (
                    sum(relative[t] for t in conflicting) / len(conflicting)
                    if conflicting
                    else float("nan")
                ),
                "normalised_mean": sum(normalised.values()) / len(normalised),
                "area": area,
                "area_relative": area / clean if clean > 0 else float("nan"),
                "lambda_50": lambda_50(curve["level"], curve["normalised"]),
                "stopped": record["stopped"],
                "kept_step": record["kept_step"],
                "seconds": record["seconds"],
            }
        )
        accuracy.extend(
            {
                **key,
                "task": name,
                "accuracy": value,
                "accuracy_fixation": record["accuracy_fixation"][name],
                "chance": tasks.chance[name],
                "ceiling": tasks.ceiling[name],
                "relative": relative[name],
                "normalised": normalised[name],
            }
            for name, value in record["accuracy"].items()
        )
        learning.extend({**key, **row} for row in record["learning"])
        ambiguity.append(sweep.assign(**key))
    return {
        "networks": pd.DataFrame(networks),
        "accuracy": pd.DataFrame(accuracy),
        "learning": pd.DataFrame(learning),
        "ambiguity": pd.concat(ambiguity, ignore_index=True)[
            ["variant", "seed", "task", "other", "level", "accuracy", "normalised"]
        ],
    }

"""Cells of the main job: networks that are trained together and measured."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ctxrnn import (
    CTRNN,
    CheckpointError,
    Ensemble,
    TrainingHistory,
    derive_seed,
    make_generator,
    save,
    train,
)
from ctxrnn._checkpoint import read_tensors
from ctxrnn.studies._settings import ReproduceSettings, sized, tasks_of

logger = logging.getLogger("ctxrnn")

Cell = tuple[str, int]


@functools.lru_cache(maxsize=8)
def _bank(settings: ReproduceSettings, number: int) -> Any:
    tasks = tasks_of(settings)
    generator = make_generator(settings.seed, "bank", number)
    return tasks.bank(settings.bank, generator=generator)


def cell_name(variant: str, number: int) -> str:
    """Return the name of a cell, which its files bear."""
    return f"{variant}-{number}"


def run_cells(
    settings: ReproduceSettings,
    cells: Sequence[Cell],
    folder: Path,
    report: Callable[[Cell, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train some networks together and measure them; return their records.

    All random numbers derive from the settings' seed and a cell's number; networks of different
    variants with the same number see the same trials and share the initial values of what they
    share. A record does not depend on which cells it is made with.

    Args:
        settings: Settings of the study.
        cells: (variant, number) each: pathway variant, and which of the `settings.seeds` networks.
        folder: Results folder, for the networks and their training checkpoints.
        report: Called as `report(cell, step)` after each evaluation, or None.
    """
    started = time.monotonic()
    tasks = tasks_of(settings)
    networks = [_network(settings, *cell) for cell in cells]
    files = [folder / "networks" / f"{cell_name(*cell)}.training" for cell in cells]
    for cell, file in zip(cells, files, strict=True):
        _drop_damaged(cell_name(*cell), file)
    names = {id(network): cell for network, cell in zip(networks, cells, strict=True)}

    def tell(network: CTRNN, row: Mapping[str, float]) -> None:
        if report is not None:
            report(names[id(network)], int(row["step"]))

    banks = {number: _bank(settings, number) for _, number in cells}
    histories = train(
        Ensemble(networks),
        [banks[number] for _, number in cells],
        settings.train,
        seed=[_seed(settings, number) for _, number in cells],
        evaluation_tasks=tasks,
        checkpoint=files,
        callbacks=[tell],
        progress=False,
        threads=1,
    )
    together = (time.monotonic() - started) / len(cells)
    records = []
    for cell, network, history in zip(cells, networks, histories, strict=True):
        began = time.monotonic()
        record = _measured(settings, cell, network, history, folder)
        record["seconds"] = together + time.monotonic() - began
        records.append(record)
    return records


def _seed(settings: ReproduceSettings, number: int) -> int:
    return derive_seed(settings.seed, "network", number)


def _network(settings: ReproduceSettings, variant: str, number: int) -> CTRNN:
    tasks = tasks_of(settings)
    units, _ = sized(settings, tasks.inputs, tasks.outputs)[variant]
    return CTRNN(
        tasks.inputs,
        units,
        tasks.outputs,
        variant,
        contexts=len(tasks.names),
        tau=settings.tau,
        dt=settings.dt,
        noise=settings.noise,
        seed=_seed(settings, number),
    )


def _drop_damaged(name: str, checkpoint: Path) -> None:
    """Delete a checkpoint that cannot be read: only what was half done is lost."""
    if not checkpoint.exists():
        return
    try:
        read_tensors(checkpoint, "training run")
    except CheckpointError as error:
        logger.warning("%s: %s; this network starts again", name, error)
        checkpoint.unlink()


def _measured(
    settings: ReproduceSettings,
    cell: Cell,
    network: CTRNN,
    history: TrainingHistory,
    folder: Path,
) -> dict[str, Any]:
    """Test a trained network, save it, and return its record."""
    from ctxrnn.analysis import ambiguity_sweep

    variant, number = cell
    tasks, seed = tasks_of(settings), _seed(settings, number)
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
    save(network, folder / "networks" / f"{cell_name(*cell)}.safetensors", notes=notes)
    return {
        "variant": variant,
        "number": number,
        "seed": seed,
        "units": network.units,
        "parameters": network.parameter_count(),
        "stopped": history.stopped,
        "message": history.message,
        "kept_step": history.kept_step,
        "learning": history.rows,
        "accuracy": {name: float(value) for name, value in accuracy.items()},
        "accuracy_fixation": {name: float(value) for name, value in strict.items()},
        "ambiguity": sweep.to_dict("list"),
    }

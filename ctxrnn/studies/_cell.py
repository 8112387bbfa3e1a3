"""One cell of the main job: a network that is trained and measured."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ctxrnn import (
    CTRNN,
    CheckpointError,
    TrainingHistory,
    derive_seed,
    make_generator,
    save,
    train,
)
from ctxrnn.studies._settings import ReproduceSettings, sized, tasks_of

logger = logging.getLogger("ctxrnn")


@functools.lru_cache(maxsize=1)
def _bank(settings: ReproduceSettings, number: int) -> Any:
    tasks = tasks_of(settings)
    generator = make_generator(settings.seed, "bank", number)
    return tasks.bank(settings.bank, generator=generator)


def cell_name(variant: str, number: int) -> str:
    """Return the name of a cell, which its files bear."""
    return f"{variant}-{number}"


def run_cell(
    settings: ReproduceSettings,
    variant: str,
    number: int,
    folder: Path,
    report: Callable[[int], None] | None = None,
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

    tasks = tasks_of(settings)
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
    name = cell_name(variant, number)
    checkpoint = folder / "networks" / f"{name}.training"
    bank = _bank(settings, number)

    def run() -> TrainingHistory:
        return train(
            network,
            bank,
            settings.train,
            seed=seed,
            evaluation_tasks=tasks,
            checkpoint=checkpoint,
            callbacks=[lambda _, row: report(int(row["step"]))] if report else [],
            progress=False,
        )

    try:
        history = run()
    except CheckpointError as error:
        # Only what was half done is lost; the training starts again.
        logger.warning("%s: %s; this network starts again", name, error)
        checkpoint.unlink()
        history = run()
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

"""The main job: train each mechanism at equal parameter counts, then make the context ambiguous."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrnn import TrainConfig, matched_units, parameter_count
from ctxrnn._catalogue import check_variant
from ctxrnn._checkpoint import versions
from ctxrnn._checks import check_count, check_rising, unknown_name
from ctxrnn.studies._cells import Cell
from ctxrnn.studies._commit import commit
from ctxrnn.studies._configured import to_dict
from ctxrnn.studies._networks import Trained
from ctxrnn.studies._plan import NetworkSettings, Plan
from ctxrnn.studies._results import ResultsFolder, Tables
from ctxrnn.studies._study import Study, cores

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("ctxrnn")

# Tasks whose stimuli a twin shares while its answers differ; without context they conflict.
TWINS = (("go", "anti"), ("dlygo", "dlyanti"), ("ctxdm1", "ctxdm2"), ("dms", "dnms"))


@dataclass(frozen=True)
class ReproduceSettings:
    """Settings of the main job.

    Attributes:
        variants: Pathway variants.
        units: N of the largest variant, which sets the parameter budget.
        seeds: Networks per variant.
        levels: Weights lambda of another task's context.
        ambiguity_trials: Fresh trials per task in the ambiguity sweep, and of the choices between
            twins.
        dynamics_starts: Starts of the search for fixed points in each context; 0 leaves the
            dynamics out.
        dynamics_trials: Trials per task whose states are visited for them.
        base: What the networks have in common.

    Raises:
        ValueError: If a number is out of range, levels do not rise from 0 to 0.5 or more, a variant
            is unknown or named twice, or there is one task only.

    Example:
        >>> from dataclasses import replace
        >>> from ctxrnn.studies import SCALES
        >>> settings = replace(SCALES["quick"], seeds=5)
        >>> len(settings.variants) * settings.seeds  # networks that `reproduce` trains
        20
    """

    variants: tuple[str, ...] = ("none", "e-add", "s-sym", "es-add-sym")
    units: int = 48
    seeds: int = 2
    levels: tuple[float, ...] = (
        0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
    )  # fmt: skip
    ambiguity_trials: int = 64
    # Without dynamics by default: that is what folders of earlier versions hold.
    dynamics_starts: int = 0
    dynamics_trials: int = 16
    base: NetworkSettings = field(default_factory=lambda: NetworkSettings(bank=4096))

    def __post_init__(self) -> None:
        for name in ("units", "seeds", "ambiguity_trials"):
            check_count(name, getattr(self, name))
        check_count("dynamics_starts", self.dynamics_starts, minimum=0)
        check_count("dynamics_trials", self.dynamics_trials, minimum=4)
        check_rising("levels", self.levels, reach=0.5, most=1)
        for variant in self.variants:
            check_variant(variant)
        if len(set(self.variants)) != len(self.variants) or not self.variants:
            raise ValueError(f"variants must be given, each once: got {list(self.variants)}")
        if len(self.base.tasks) < 2:
            raise ValueError(f"ambiguity needs at least two tasks: got {list(self.base.tasks)}")


SCALES: Mapping[str, ReproduceSettings] = {
    "smoke": ReproduceSettings(
        units=16,
        levels=(0.0, 0.25, 0.5, 1.0),
        ambiguity_trials=8,
        dynamics_starts=8,
        dynamics_trials=8,
        base=NetworkSettings(
            tasks=("go", "anti", "dm1", "dm2", "dms", "dnms"),
            train=TrainConfig(
                steps=60, batch=32, learning_rate=3e-3, evaluate_every=20, evaluation_trials=96
            ),
            bank=64,
            test_trials=32,
        ),
    ),
    "quick": ReproduceSettings(
        seeds=3,
        dynamics_starts=32,
        base=NetworkSettings(
            train=TrainConfig(
                steps=4000, learning_rate=3e-3, evaluate_every=250, evaluation_trials=1000
            ),
            bank=4096,
        ),
    ),
}


def sized(settings: ReproduceSettings) -> dict[str, tuple[int, int]]:
    """Return (units, parameters) per variant at equal parameter counts (matching M2).

    The budget is that of the variant with the most parameters at `settings.units`; every variant
    gets the most units whose parameters do not exceed it.
    """
    ring = settings.base.ring
    shape = {"inputs": 1 + 2 * ring, "outputs": 1 + ring, "contexts": len(settings.base.tasks)}
    budget = max(
        parameter_count(variant, units=settings.units, **shape) for variant in settings.variants
    )
    found = {}
    for variant in settings.variants:
        units = matched_units(variant, parameters=budget, **shape)
        found[variant] = (units, parameter_count(variant, units=units, **shape))
    return found


def _measure(trained: Trained, settings: ReproduceSettings) -> dict[str, Any]:
    from ctxrnn.analysis import ambiguity_sweep
    from ctxrnn.studies._dynamics import measure_dynamics

    trials, seed = settings.ambiguity_trials, trained.seed
    sweep = ambiguity_sweep(
        trained.network, trained.tasks, levels=settings.levels, trials=trials, seed=seed
    )
    measured: dict[str, Any] = {"ambiguity": sweep}
    if settings.dynamics_starts:
        measured |= measure_dynamics(
            trained.network,
            trained.tasks,
            trials=settings.dynamics_trials,
            starts=settings.dynamics_starts,
            levels=settings.levels,
            choices=trials,
            seed=seed,
        )
    return measured


def _networks(settings: ReproduceSettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Make one row per network: accuracy, area and half-way point, and its dynamics in numbers."""
    import pandas as pd

    from ctxrnn.analysis import ambiguity_curve, lambda_50, robustness_area
    from ctxrnn.studies._dynamics_tables import crossing_tests, network_summary, path_table

    paths = path_table(tables)
    known = {**tables} if paths is None else {**tables, "paths": paths}
    conflicting = {t for pair in TWINS if set(pair) <= set(settings.base.tasks) for t in pair}
    rows = []
    for cell in tables["cells"].to_dict("records"):
        mine = {
            name: table[(table["variant"] == cell["variant"]) & (table["seed"] == cell["seed"])]
            for name, table in known.items()
            if {"variant", "seed"} <= set(table) and name != "cells"
        }
        accuracy = mine["accuracy"]
        curve = ambiguity_curve(mine["ambiguity"])
        area = robustness_area(curve["level"], curve["normalised"])
        clean = float(curve["normalised"].iloc[0])
        rows.append(
            {
                **{name: value for name, value in cell.items() if name != "network"},
                "relative_conflicting": float(
                    accuracy.loc[accuracy["task"].isin(conflicting), "relative"].mean()
                ),
                "area": area,
                "area_relative": area / clean if clean > 0 else float("nan"),
                "lambda_50": lambda_50(curve["level"], curve["normalised"]),
                **(
                    network_summary(mine, 1 if cell["variant"] == "none" else cell["contexts"])
                    if settings.dynamics_starts
                    else {}
                ),
            }
        )
    made = {"networks": pd.DataFrame(rows)}
    if paths is None:
        return made
    return made | {"paths": paths, "crossing_tests": crossing_tests(paths, tables)}


def _figures(settings: ReproduceSettings, tables: Tables) -> dict[str, Any]:
    from ctxrnn.studies._figures import reproduce_figures

    return reproduce_figures(tables, settings.base.tasks)


def reproduce_study(settings: ReproduceSettings) -> Study:
    """Return the main job as a study."""
    sizes = sized(settings)
    # Seeds outermost: networks that see the same trials follow each other.
    cells: list[Cell] = [
        {"variant": variant, "seed": number, "units": sizes[variant][0]}
        for number in range(settings.seeds)
        for variant in settings.variants
    ]
    return Study(
        name="reproduce",
        question="How well do excitability, synaptic and combined modulation hold several tasks, "
        "and what happens when the context becomes ambiguous?",
        grid=cells,
        measure=functools.partial(_measure, settings=settings),
        measure_seconds=functools.partial(_seconds, settings),
        base=settings.base,
        tables=functools.partial(_networks, settings),
        figure=functools.partial(_figures, settings),
        settings=to_dict(settings),
    )


def _seconds(settings: ReproduceSettings, plan: Plan) -> float:
    from ctxrnn.studies._cost import forward_seconds
    from ctxrnn.studies._dynamics import dynamics_seconds

    pairs = len(plan.tasks) * (len(plan.tasks) - 1)
    levels, trials = len(settings.levels), settings.ambiguity_trials
    seconds = forward_seconds(plan, levels * trials * pairs)
    if settings.dynamics_starts:
        twins = sum(set(pair) <= set(plan.tasks) for pair in TWINS)
        seconds += dynamics_seconds(
            plan, starts=settings.dynamics_starts, trials=trials, levels=levels, twins=twins
        )
    return seconds


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

    Example:
        >>> from ctxrnn.studies import SCALES, reproduce
        >>> SCALES["smoke"].variants
        ('none', 'e-add', 's-sym', 'es-add-sym')
        >>> folder = reproduce("smoke", workers=2)  # doctest: +SKIP
        >>> (folder / "report.html").exists()  # doctest: +SKIP
        True
    """
    import time

    from ctxrnn.studies._dynamics_report import failures
    from ctxrnn.studies._report import write_report

    if isinstance(settings, str):
        if settings not in SCALES:
            raise unknown_name("scale", settings, SCALES)
        settings = SCALES[settings]
    label = next((name for name, known in SCALES.items() if known == settings), "custom")
    started = time.monotonic()
    results = ResultsFolder(Path("results") / f"reproduce-{label}" if folder is None else folder)
    study = reproduce_study(settings)
    command = command or "ctxrnn.studies.reproduce(...)"
    study.run(results.path, workers=workers, command=command, progress=progress)
    tables = study.load(results.path)
    failed = tables.get("failures")
    if failed is not None:
        raise RuntimeError(
            f"{len(failed)} of {len(study.cells())} networks failed; finished ones are kept in "
            f"{results.path}. First: {failed['error'].iloc[0]}"
        )
    for line in failures(tables["cells"]):
        logger.warning("some dynamics could not be computed: %s. The records are whole", line)
    with results.store() as store:
        machine = store.runs()[-1]
    provenance = {
        "command": command,
        "scale": label,
        "versions": versions(),
        "commit": commit(),
        "machine": f"{machine['machine']}, {workers or cores()} workers",
        "seeds": dict(zip(tables["cells"]["seed"], tables["cells"]["network_seed"], strict=True)),
        "seconds of this run": round(time.monotonic() - started, 1),
        "seconds of all networks": round(float(tables["cells"]["seconds"].sum()), 1),
    }
    results.write_json("provenance.json", provenance)
    write_report(results, settings, tables, provenance)
    return results.path

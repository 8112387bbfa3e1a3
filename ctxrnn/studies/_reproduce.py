"""The main job: train each mechanism at equal parameter counts, then make the context ambiguous."""

from __future__ import annotations

import logging
import os
import platform
import time
from pathlib import Path
from typing import Any

from ctxrnn._checkpoint import versions
from ctxrnn._checks import check_count, unknown_name
from ctxrnn.studies._cell import cell_name
from ctxrnn.studies._folder import ResultsFolder
from ctxrnn.studies._pool import run_missing
from ctxrnn.studies._settings import SCALES, ReproduceSettings

logger = logging.getLogger("ctxrnn")


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
    from ctxrnn.studies._records import tables as as_tables
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
    tables = as_tables(settings, records)
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
    missing = [cell for cell in cells if results.finished(cell_name(*cell)) is None]
    if missing:
        logger.info("%d of %d networks to train", len(missing), len(cells))
        failures = run_missing(settings, results, missing, min(workers, len(missing)), progress)
        if failures:
            raise RuntimeError(
                f"{len(failures)} of {len(cells)} networks failed; finished ones are kept in "
                f"{results.path}. First: {failures[0]}"
            )
    records = [results.finished(cell_name(*cell)) for cell in cells]
    return [record for record in records if record is not None]

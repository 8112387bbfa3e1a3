"""Studies as data: a grid of cells, a measure and a figure; run, resumed, loaded, drawn."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrnn._checkpoint import as_json, versions, write_atomically
from ctxrnn._checks import check_count, unknown_name
from ctxrnn.studies._cells import Axes, Cell, cell_key, checked, expand
from ctxrnn.studies._commit import commit
from ctxrnn.studies._configured import changed, parsed
from ctxrnn.studies._desk import EachCell, Event, Work, stops
from ctxrnn.studies._grouping import grouped
from ctxrnn.studies._local import Executor, InlineExecutor, LocalExecutor
from ctxrnn.studies._networks import Measure, Networks, device_of
from ctxrnn.studies._own import Pathways, digest_of
from ctxrnn.studies._plan import NetworkSettings
from ctxrnn.studies._progress import Progress
from ctxrnn.studies._results import ResultsFolder, Tables, as_tables, failures
from ctxrnn.studies._store import Store

if TYPE_CHECKING:
    import pandas as pd

    from ctxrnn.analysis import plots

logger = logging.getLogger("ctxrnn")

Grid = Axes | Sequence[Mapping[str, Any]] | Callable[["pd.DataFrame"], Iterable[Mapping[str, Any]]]
"""Axes and their values, of which all combinations are taken; or a list of cells; or a function
that returns all cells wanted so far, given the table of those finished, called until it wants no
new ones (a bisection)."""

EXECUTORS = ("local", "inline", "ray")


@dataclass(frozen=True)
class Study:
    """A grid of cells, what is measured in each, and what is drawn.

    By default a cell is a network: it is trained on the tasks as its axes say
    (`plan_network`), tested, and handed to `measure`. With `work`, a cell is whatever the function
    makes of it.

    Attributes:
        name: Name of the study.
        grid: Its cells.
        measure: From a trained network to names and values; tables (pandas) become tables of the
            study. None: the clean test alone.
        figure: From the tables to a figure, or to several by name.
        base: What the networks have in common.
        work: Computes cells that are not networks: a function of one cell that returns names and
            values, or an object with the methods of `Work`.
        tables: From the tables of the records to further ones, e.g. statistics.
        findings: From the tables to sentences that say what they show.
        question: What it asks, in a sentence.
        settings: JSON-able values that make this study another one when they change; None takes
            the grid and `base`.
        measure_seconds: Time that the measure takes for one network, a number or a function of
            the plan, for the cost model.
        foreseen: Returns cells that will probably follow where the grid is a function, for the
            cost model.
        ready: Called before the first cell; raises what says that data or a library is missing.
        pathways: Pathways of one's own: id, which `variant` may name -> class that takes
            (units, contexts, *, seed, options); axes of the options' names set them. An id that
            begins with "e-", "s-" or "es-" is drawn and reckoned like the pathways of that kind.

    Example:
        >>> from ctxrnn import TrainConfig
        >>> from ctxrnn.studies import NetworkSettings, Study
        >>> few = TrainConfig(steps=4, batch=8, evaluation_trials=8)  # only to be quick
        >>> base = NetworkSettings(tasks=("go", "anti"), train=few, test_trials=8)
        >>> study = Study("sizes", {"variant": ["none", "e-add"], "units": [16, 32]}, base=base)
        >>> table = study.run("results", executor="inline")
        >>> table.pivot(index="variant", columns="units", values="parameters")
        units     16    32
        variant
        e-add    729  1961
        none     697  1897
    """

    name: str
    grid: Grid
    measure: Measure | None = None
    figure: Callable[[Tables], plots.Figure | Mapping[str, plots.Figure]] | None = None
    base: NetworkSettings = field(default_factory=NetworkSettings)
    work: Work | Callable[[Cell], Mapping[str, Any]] | None = None
    tables: Callable[[Tables], Mapping[str, pd.DataFrame]] | None = None
    findings: Callable[[Tables], Sequence[str]] | None = None
    question: str = ""
    settings: Mapping[str, Any] | None = None
    measure_seconds: Any = 0.0
    foreseen: Callable[[], Sequence[Cell]] | None = None
    ready: Callable[[], object] | None = None
    pathways: Pathways | None = None

    def cells(self, finished: pd.DataFrame | None = None) -> list[Cell]:
        """Return the cells that are wanted, given the table of those that are finished."""
        import pandas as pd

        if callable(self.grid):
            return checked(self.grid(pd.DataFrame() if finished is None else finished))
        return checked(expand(self.grid) if isinstance(self.grid, Mapping) else self.grid)

    def identity(self) -> dict[str, Any]:
        """Return what a results folder must agree in."""
        if self.settings is not None:
            return _without_device({"study": self.name, **as_json(dict(self.settings))})
        grid: Any = getattr(self.grid, "__qualname__", "function")
        if isinstance(self.grid, Mapping):
            grid = {k if isinstance(k, str) else ",".join(k): list(v) for k, v in self.grid.items()}
        elif not callable(self.grid):
            grid = checked(self.grid)
        settings: dict[str, Any] = {"study": self.name, "grid": grid}
        if self.work is None:
            settings["base"] = dataclasses.asdict(self.base)
        if self.pathways:
            # Their networks are others when the code of a pathway changes.
            settings["pathways"] = {name: digest_of(own) for name, own in self.pathways.items()}
        return _without_device(dict(as_json(settings)))

    def worker(self) -> Work:
        """Return what computes the cells."""
        if self.work is None:
            return Networks(self.base, self.measure, self.measure_seconds, self.pathways)
        return self.work if hasattr(self.work, "unit") else EachCell(self.work)  # type: ignore[return-value]

    def changed(self, assignments: Sequence[str]) -> Study:
        """Return the study with other axes or other settings of its networks.

        Args:
            assignments: `name=value` each: an axis of the grid (`units=16,32`) or a setting of
                `base` (`train.steps=500`, or `steps=500`).
        """
        if self.settings is not None:
            raise ValueError(
                f"{self.name} has settings of its own: change them with "
                f"ctxrnn.studies.study({self.name!r}, scale, [...])"
            )
        grid: Any = self.grid
        joint = (
            [axes for axes in grid if not isinstance(axes, str)]
            if isinstance(grid, Mapping)
            else []
        )
        rest = []
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if equals and isinstance(grid, Mapping) and name in grid:
                # Of text, "none" is the variant and not a missing value.
                words = all(isinstance(value, str) for value in grid[name])
                grid = {**grid, name: parsed(text, sequence=True, verbatim=words)}
            elif together := next((axes for axes in joint if name in axes), None):
                raise ValueError(
                    f"{name} is set together with the other axes of ({', '.join(together)}): "
                    "change it where the grid is written"
                )
            else:
                rest.append(assignment)
        if rest and self.work is not None:
            raise ValueError(
                f"{self.name} computes its cells with a function of its own: only the axes of its "
                f"grid can be set, got {', '.join(rest)}"
            )
        return dataclasses.replace(self, grid=grid, base=changed(self.base, rest))

    def run(
        self,
        folder: str | Path | None = None,
        *,
        executor: str | Executor = "local",
        workers: int | None = None,
        address: str | None = None,
        gpus: float = 0.0,
        command: str | None = None,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Run the cells that are missing in a folder; draw and write everything.

        Finished cells are taken up from an earlier run in the same folder, failed ones are tried
        again. A cell that fails is recorded with its error and does not stop the others.

        Args:
            folder: Results folder; None for `results/NAME`.
            executor: "local" (worker processes), "inline" (this process), "ray" (a Ray cluster), or
                an executor.
            workers: Worker processes, one thread each; None for one per core.
            address: Address of the Ray cluster; None starts one on this machine.
            gpus: GPUs that each Ray worker reserves, 0.5 for two workers on one; the networks'
                `device` says whether they are used.
            command: What the user typed, for the record.
            progress: Whether to show progress; None shows bars on a terminal.

        Returns:
            The table "cells": one row per finished cell. `load(folder)` returns all tables.

        Raises:
            ValueError: If the folder holds other things, or this study with other settings.
            RuntimeError: If the networks' device is not there.
            OSError: If the folder is in use by another process, or the disk is full.
            KeyboardInterrupt: On Ctrl-C; the folder can be resumed.
        """
        results = ResultsFolder(Path("results") / self.name if folder is None else folder)
        self.check_device(executor)
        chosen = _executor(executor, workers, address, gpus)
        provenance = {
            "command": command or f"Study({self.name!r}).run(...)",
            "versions": versions(),
            "commit": commit(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "workers": chosen.slots,
        }
        with results.claimed(self.identity(), completed) as store:
            run = store.start(provenance)
            _Drive(self, results, store, chosen, run, progress).go()
            tables = self._export(results, store)
        return tables["cells"]

    def check_device(self, executor: str | Executor) -> None:
        """Raise an error if what the study needs is not here: a device, data, a library."""
        if self.ready is not None:
            self.ready()
        if self.work is None and executor in ("local", "inline"):
            device_of(self.base)

    def load(self, folder: str | Path) -> Tables:
        """Return the tables of a results folder: of the records, and those made from them."""
        with ResultsFolder(folder).store() as store:
            rows = store.rows()
        tables = as_tables(rows)
        failed = failures(rows)
        if self.tables is not None and len(tables["cells"]):
            tables |= dict(self.tables(tables))
        return tables | ({"failures": failed} if len(failed) else {})

    def figures(self, tables: Tables) -> dict[str, plots.Figure]:
        """Draw the figures from the tables."""
        if self.figure is None or not len(tables["cells"]):
            return {}
        from ctxrnn.analysis import plots

        with plots.style():
            drawn = self.figure(tables)
        return dict(drawn) if isinstance(drawn, Mapping) else {self.name: drawn}

    def export(self, folder: str | Path) -> Tables:
        """Write tables (Parquet, CSV), figures (PDF, PNG) and findings from a folder's records."""
        results = ResultsFolder(folder)
        with results.claimed(self.identity(), completed) as store:
            return self._export(results, store)

    def _export(self, results: ResultsFolder, store: Store) -> Tables:
        """Write what the records give; what goes wrong beyond them is told, and stops nothing."""
        rows = store.rows()
        tables = as_tables(rows)
        failed = failures(rows)
        with _warned(results, "the study's own tables"):
            if self.tables is not None and len(tables["cells"]):
                tables |= dict(self.tables(tables))
        tables |= {"failures": failed} if len(failed) else {}
        for name, table in tables.items():
            with _warned(results, f"the table {name}"):
                results.write_table(name, table)
        seconds = sum(row.seconds for row in rows)
        results.write_json(
            "provenance.json", {"runs": store.runs(), "seconds of all cells": round(seconds, 1)}
        )
        with _warned(results, "the findings"):
            if self.findings is not None and len(tables["cells"]):
                lines = [*_unfinished(store.counts()), *self.findings(tables)]
                text = "\n".join(lines) + "\n"
                write_atomically(results.path / "findings.txt", text.encode())
        with _warned(results, "the figures"):
            self._draw(results, tables)
        return tables

    def _draw(self, results: ResultsFolder, tables: Tables) -> None:
        from ctxrnn.analysis import plots

        drawn = self.figures(tables)
        if drawn:
            (results.path / "figures").mkdir(exist_ok=True)
        for name, figure in drawn.items():
            plots.save_figure(figure, results.path / "figures" / name)


@contextlib.contextmanager
def _warned(results: ResultsFolder, what: str) -> Iterator[None]:
    """Tell an error in what is made from the records, which are safe."""
    try:
        yield
    except Exception as error:
        if stops(error):
            raise
        logger.warning(
            "%s could not be made: %s: %s. The records are whole; `ctxrnn --debug study export "
            "%s` tries again",
            what, type(error).__name__, " ".join(str(error).split()), results.path,
        )  # fmt: skip
        logger.debug("traceback", exc_info=True)


def _unfinished(counts: Mapping[str, int]) -> list[str]:
    """Say in front of the findings that cells are missing."""
    missing = {name: number for name, number in counts.items() if name != "done" and number}
    if not missing:
        return []
    told = ", ".join(f"{number} {name}" for name, number in missing.items())
    return [f"UNFINISHED: {counts['done']} of {sum(counts.values())} cells are done; {told}."]


def completed(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill a folder's settings with the defaults of those that this version has added."""
    from ctxrnn.studies._recipes import from_settings

    try:
        return from_settings(settings).identity()
    except (ValueError, TypeError):  # a study of the user's own, or settings of another version
        return settings


def _without_device(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out where the networks are computed: a study may go on on another machine."""
    if isinstance(settings.get("base"), Mapping):
        base = {name: value for name, value in settings["base"].items() if name != "device"}
        return {**settings, "base": base}
    return settings


def _executor(
    executor: str | Executor, workers: int | None, address: str | None, gpus: float
) -> Executor:
    if not isinstance(executor, str):
        return executor
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    if workers is not None:
        check_count("workers", workers)
    if executor == "ray":
        from ctxrnn.studies._ray import RayExecutor

        return RayExecutor(workers, address, gpus=gpus)
    if address is not None:
        raise ValueError(f"address is for executor='ray': got executor={executor!r}")
    if gpus:
        raise ValueError(f"gpus are reserved by executor='ray': got executor={executor!r}")
    return InlineExecutor() if executor == "inline" else LocalExecutor(workers or cores())


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Drive:
    """One run of a study: plans, gives out groups, writes what comes back."""

    def __init__(
        self,
        study: Study,
        results: ResultsFolder,
        store: Store,
        executor: Executor,
        run: int,
        show: bool | None,
    ) -> None:
        self.study, self.results, self.store, self.executor = study, results, store, executor
        self.run, self.show = run, show
        self.work = study.worker()
        self.progress: Progress | None = None
        self.failed: set[str] = set()

    def go(self) -> None:
        """Run until no cell is missing."""
        for row in self.store.rows("done"):
            if not self.results.whole(row):
                self.store.forget(row.cell)
        missing = self._missing()
        if not missing:
            return
        # A cluster of one's own serves all rounds of a grid that grows.
        session = getattr(self.executor, "session", contextlib.nullcontext)
        with session():
            while missing:
                self._round(missing)
                missing = self._missing()

    def _round(self, missing: Sequence[Cell]) -> None:
        """Compute the cells that are missing now."""
        groups = grouped(self.work, missing, self.executor.slots)
        counts = self.store.counts()
        with Progress(
            self.study.name,
            self._weights(missing),
            cells=sum(counts.values()),
            finished=counts["done"],
            groups=len(groups),
            slots=min(self.executor.slots, len(groups)),
            show=self.show,
        ) as self.progress:
            self.executor.run(self.work, groups, self.results.path, self._take)

    def _missing(self) -> list[Cell]:
        rows = self.store.rows("done")
        done = {cell_key(row.cell) for row in rows}
        cells = self.study.cells(as_tables(rows)["cells"])
        self.store.plan(cells)
        skip = done | self.failed
        return [cell for cell in cells if cell_key(cell) not in skip]

    def _weights(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Return each cell's part of the cost; cells of one unit share theirs."""
        units: dict[Any, list[Cell]] = {}
        for cell in cells:
            units.setdefault(self.work.unit(cell), []).append(cell)
        return {
            cell_key(cell): self.work.cost(cell) / len(mine)
            for mine in units.values()
            for cell in mine
        }

    def _take(self, event: Event) -> None:
        kind = event[0]
        if kind == "done":
            self.store.write(event[1], event[2], self.run)
        elif kind == "failed":
            self.failed.add(cell_key(event[1]))
            self.store.fail(event[1], event[2], self.run)
        elif kind == "file":
            path = self.results.path / event[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, event[2])
        if self.progress is not None:
            self.progress.take(event)

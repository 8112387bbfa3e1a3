"""Cells in worker processes, one thread each, that stop cleanly on Ctrl-C."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import logging
import multiprocessing
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from ctxrnn.studies._cell import Cell, cell_name, run_cells
from ctxrnn.studies._folder import ResultsFolder
from ctxrnn.studies._settings import ReproduceSettings

logger = logging.getLogger("ctxrnn")

TOGETHER = 24
"""Most networks that one worker trains together: what is finished is written group by group."""


class _Worker:
    """What a worker process shares with its parent."""

    progress: Any = None
    stop: Any = None


def _start_worker(progress: Any, stop: Any) -> None:
    _Worker.progress, _Worker.stop = progress, stop
    torch.set_num_threads(1)


def _work(
    settings: ReproduceSettings, cells: Sequence[Cell], results: ResultsFolder
) -> list[tuple[Cell, str, bool]]:
    """Run some cells in a worker and write their records; say of each how it went.

    Returns:
        Per cell: its name parts, a line about it, and whether it failed.
    """
    if _Worker.stop.is_set():
        raise KeyboardInterrupt

    def report(cell: Cell, step: int) -> None:
        _Worker.progress.put((cell, step))
        if _Worker.stop.is_set():
            # Training puts an interrupt off until its checkpoint is written.
            signal.raise_signal(signal.SIGINT)

    try:
        try:
            return _run(settings, cells, results, report)
        except Exception as error:
            if len(cells) == 1:
                return [(cells[0], f"{type(error).__name__}: {error}", True)]
            logger.warning("%s: %s; networks go on one by one", type(error).__name__, error)
        return [line for cell in cells for line in _work(settings, [cell], results)]
    except KeyboardInterrupt:
        _Worker.stop.set()
        raise


def _run(
    settings: ReproduceSettings,
    cells: Sequence[Cell],
    results: ResultsFolder,
    report: Callable[[Cell, int], None],
) -> list[tuple[Cell, str, bool]]:
    lines = []
    for cell, record in zip(cells, run_cells(settings, cells, results.path, report), strict=True):
        name = cell_name(*cell)
        results.write_json(f"cells/{name}.json", record)
        (results.path / "networks" / f"{name}.training").unlink(missing_ok=True)
        _Worker.progress.put((cell, settings.train.steps))
        relative = record["learning"][-1]["relative_mean"] if record["learning"] else 0.0
        line = record["message"] or f"p/ceiling {relative:.3f}, {record['seconds']:.0f} s"
        lines.append((cell, line, False))
    return lines


def shared_out(cells: Sequence[Cell], workers: int) -> list[list[Cell]]:
    """Share cells out among workers, as evenly as can be, in groups of at most `TOGETHER`.

    Neighbours stay together: they share their trials.
    """
    rounds = -(-len(cells) // (workers * TOGETHER))
    groups = min(len(cells), workers * max(1, rounds))
    bounds = [round(index * len(cells) / groups) for index in range(groups + 1)]
    return [list(cells[start:stop]) for start, stop in itertools.pairwise(bounds)]


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


def run_missing(
    settings: ReproduceSettings,
    results: ResultsFolder,
    cells: Sequence[Cell],
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
                pool.submit(_work, settings, group, results): group
                for group in shared_out(cells, workers)
            }
        steps: dict[Cell, int] = {}
        finished = 0
        pending = set(futures)
        while pending:
            done, pending = concurrent.futures.wait(pending, timeout=0.5)
            with contextlib.suppress(queue.Empty):
                while True:
                    cell, step = channel.get_nowait()
                    bar.update(max(0, step - steps.get(cell, 0)))
                    steps[cell] = max(step, steps.get(cell, 0))
            for future in done:
                error = future.exception()
                if isinstance(error, KeyboardInterrupt):
                    raise error
                if error is not None:
                    # The worker is gone, and with it all of its cells that were not written.
                    failures += [
                        f"{cell_name(*cell)}: {type(error).__name__}: {error}"
                        for cell in futures[future]
                        if results.finished(cell_name(*cell)) is None
                    ]
                    continue
                for cell, line, failed in future.result():
                    finished += 1
                    if failed:
                        failures.append(f"{cell_name(*cell)}: {line}")
                    elif progress is not False:
                        text = f"{cell_name(*cell)}: {line} ({finished} of {len(cells)})"
                        tqdm.write(text, file=sys.stderr)
    return failures

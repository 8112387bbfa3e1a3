"""Cells in worker processes, one thread each, that stop cleanly on Ctrl-C."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from ctxrnn.studies._cell import cell_name, run_cell
from ctxrnn.studies._folder import ResultsFolder
from ctxrnn.studies._settings import ReproduceSettings


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
    name = cell_name(variant, number)
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
                name = cell_name(*futures[future])
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

"""Two processes, one thread and one core each, that do the same piece of work at the same time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from threading import BrokenBarrierError
from types import TracebackType
from typing import Any

import torch

Rows = Mapping[str, Callable[[], float]]
"""Pieces of work by name; each returns the seconds that it took."""

PATIENCE = 600.0
"""Seconds that one process waits for the other."""


class Pair:
    """Two processes that start each piece of work together.

    Args:
        make: Called as `make(index, argument)` in each process; returns its pieces of work.
        argument: Sent to both.
    """

    def __init__(self, make: Callable[[int, Any], Rows], argument: Any) -> None:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(2)
        self._pipes: list[Any] = []
        self._workers: list[Any] = []
        for index in range(2):
            ours, theirs = context.Pipe()
            work = (index, theirs, barrier, make, argument)
            worker = context.Process(target=_serve, args=work, daemon=True)
            worker.start()
            self._pipes.append(ours)
            self._workers.append(worker)
        self._answers()

    def time(self, name: str) -> float:
        """Let both do a piece of work; return the seconds of the slower one."""
        for pipe in self._pipes:
            pipe.send(name)
        return max(self._answers())

    def _answers(self) -> list[float]:
        answers = []
        for pipe in self._pipes:
            try:
                answers.append(pipe.recv())
            except EOFError:
                raise SystemExit("a process of the pair ended unexpectedly") from None
        for answer in answers:
            if isinstance(answer, str):
                raise SystemExit(f"a process of the pair failed:\n{answer}")
        return answers

    def __enter__(self) -> Pair:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe, worker in zip(self._pipes, self._workers, strict=True):
            with contextlib.suppress(OSError):
                pipe.send(None)
            worker.join(5 if kind is None else 1)
            if worker.is_alive():
                worker.terminate()
                worker.join()


def pin(index: int) -> None:
    """Give this process a core of its own, where the system can do that, and one thread."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[index % len(cores)]})


def _serve(
    index: int, pipe: Connection, barrier: Any, make: Callable[[int, Any], Rows], argument: Any
) -> None:
    try:
        pin(index)
        rows = make(index, argument)
        pipe.send(0.0)
        while (name := pipe.recv()) is not None:
            barrier.wait(PATIENCE)
            pipe.send(rows[name]())
    except (EOFError, KeyboardInterrupt):
        pass
    except BrokenBarrierError:
        pipe.send("the other process did not come")
    except BaseException:
        barrier.abort()
        pipe.send(traceback.format_exc())

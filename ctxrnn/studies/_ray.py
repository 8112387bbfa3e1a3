"""Workers on a Ray cluster: the same processes as on this machine, each kept by a Ray actor.

An actor starts the worker process of `_worker` on its node and passes on what it says, so that a
group is computed by the very same code, with one thread, wherever it runs. Who gets which group,
and what is tried again, is decided here, as for processes of this machine.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import queue
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle

from ctxrnn._checks import check_count, check_not_negative, check_positive
from ctxrnn.studies._cells import Cell, cell_key
from ctxrnn.studies._desk import Emit, Event, Work
from ctxrnn.studies._local import _Crew, _Process
from ctxrnn.studies._ray_actor import Bench, placed
from ctxrnn.studies._ray_cluster import connected, import_ray

logger = logging.getLogger("ctxrnn")

_WAIT = 30.0
"""Seconds without any worker after which the user is told what is waited for."""


class RayExecutor:
    """Computes groups on a Ray cluster.

    A group whose worker died (killed, out of memory, node lost) is tried once more as a whole,
    then its cells one by one; a cell whose worker died `retries + 1` times is recorded as failed.
    Errors of the computation itself are never tried again. Workers that see the study's folder
    write there; the others compute in a folder of their own and send their files.

    A connection to Ray that this process has already is used and left open. Otherwise one is made
    for each `session`, or run, and closed after it.

    Args:
        workers: Number of workers. None takes as many as the cluster holds; without an address, one
            per core.
        address: Where the cluster's head is, "HOST:PORT", or "auto" for the cluster that this
            machine belongs to. None starts a cluster on this machine that ends with the run.
        cpus: CPUs that each worker reserves.
        gpus: GPUs, or the part of one, that each worker reserves.
        retries: How often a cell is tried again after its worker died.

    Raises:
        ValueError: If an argument is out of range, or the address is one of Ray Client ("ray://").
        RuntimeError: If Ray is not installed.
    """

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        *,
        cpus: float = 1.0,
        gpus: float = 0.0,
        retries: int = 3,
    ) -> None:
        if workers is not None:
            check_count("workers", workers)
        check_positive("cpus", cpus, "CPUs")
        check_not_negative("gpus", gpus)
        check_count("retries", retries, minimum=0)
        if address is not None and address.startswith("ray://"):
            raise ValueError(
                "address must be that of the cluster's head, HOST:PORT, or 'auto': got "
                f"{address!r}, which is for Ray Client; run the study on a machine of the cluster"
            )
        import_ray()
        self.workers, self.address = workers, address
        self.cpus, self.gpus, self.retries = cpus, gpus, retries

    @functools.cached_property
    def slots(self) -> int:
        """Number of workers; asks the cluster if none was given."""
        from ctxrnn.studies._study import cores

        ray = import_ray()
        if self.workers is not None:
            return self.workers
        if self.address is None and not ray.is_initialized():
            return max(1, int(cores() // self.cpus))
        with connected(self.address) as ray:
            total = ray.cluster_resources()
        room = total.get("CPU", 0.0) // self.cpus
        if self.gpus:
            room = min(room, total.get("GPU", 0.0) // self.gpus)
        return max(1, int(room))

    def session(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which several runs share one connection, or one cluster."""
        return connected(self.address, cpus=self.slots * self.cpus)

    def run(self, work: Work, groups: Sequence[list[Cell]], folder: Path, emit: Emit) -> None:
        """Compute all groups; emit events in this thread.

        Raises:
            KeyboardInterrupt: On Ctrl-C, after the workers have written their checkpoints.
            ConnectionError: If no cluster answers at the address.
            OSError: If the disk is full or cannot be written.
            RuntimeError: If workers cannot start.
            ValueError: If this machine has not the CPUs or GPUs asked for.
        """
        folder = folder.resolve()
        token = f".shared-{uuid.uuid4().hex}"
        setup = {
            "path": [os.path.abspath(entry) for entry in sys.path],
            "folder": str(folder),
            "work": cloudpickle.dumps(work),
        }
        with self.session() as ray, placed(folder / token):
            if self.address is None and self.gpus > ray.cluster_resources().get("GPU", 0.0):
                raise ValueError(
                    "gpus must be at most the GPUs that there are: got "
                    f"gpus={self.gpus} with {ray.cluster_resources().get('GPU', 0.0):g}"
                )
            # Ray's own restarts would not know which cells are finished.
            actor = ray.remote(Bench).options(
                num_cpus=self.cpus, num_gpus=self.gpus, max_concurrency=2, max_restarts=0
            )
            given = ray.put(setup)
            _RayCrew(
                self.slots, lambda: actor.remote(given, token), groups, emit, self.retries
            ).run()


class _Remote(_Process):
    """One actor, as the crew sees a process; a thread takes in what it says."""

    def __init__(self, slot: int, bench: Any, inbox: queue.Queue[Any]) -> None:
        self.slot, self.ready, self.bench = slot, False, bench
        self.left: dict[str, Cell] = {}
        self.how = "was lost"
        self.process: Any = self
        self.thread = threading.Thread(target=self._read, args=(inbox,), daemon=True)
        self.thread.start()

    def _read(self, inbox: queue.Queue[Any]) -> None:
        import ray

        try:
            for reference in self.bench.listen.options(num_returns="streaming").remote():
                for message in ray.get(reference):
                    if message[0] == "ended":
                        self.how = message[1]
                    else:
                        inbox.put((self, message))
        except Exception as error:
            logger.debug("ray: %s", error)
            self.how = _cause(error)
        inbox.put((self, None))

    def tell(self, message: Any) -> None:
        if message[0] == "stop" and not self.ready:
            self.kill()
        else:
            self.bench.tell.remote(message)

    def ended(self) -> str:
        return self.how

    def close(self) -> None:
        """End the actor, which has nothing left to do."""
        self.kill()

    def kill(self) -> None:
        import ray

        with contextlib.suppress(Exception):
            ray.kill(self.bench)

    def wait(self) -> None:
        self.thread.join(timeout=10.0)


def _cause(error: BaseException) -> str:
    """Say in a few words why an actor is gone."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and "creation task" in lines[0]:
        return f"could not begin: {lines[-1]}"
    return "was lost with its node or its Ray process"


class _RayCrew(_Crew):
    """The workers of one run: those that wait for a free place among them."""

    def __init__(
        self, slots: int, begin: Any, groups: Sequence[list[Cell]], emit: Emit, retries: int
    ) -> None:
        super().__init__(slots, {}, groups, self._tell)
        self.begin, self.told, self.retries = begin, emit, retries
        self.over: set[str] = set()
        self.idle: list[_Process] = []
        self.unstarted: Counter[int] = Counter()
        self.since = time.monotonic()

    def _tell(self, event: Event) -> None:
        """Pass an event on; what became of a cell only once."""
        if event[0] in ("done", "failed"):
            key = cell_key(event[1])
            if key in self.over:
                return
            self.over.add(key)
        self.told(event)
        if event[0] == "tick":
            self._explain()

    def _explain(self) -> None:
        if any(process.ready for process in self.crew.values()):
            self.since = time.monotonic()
        elif time.monotonic() - self.since > _WAIT:
            self.since = float("inf")
            self.told(("note", "no worker has started yet: the cluster has no free place for one"))

    def _start(self, slot: int) -> None:
        self.crew[slot] = _Remote(slot, self.begin(), self.inbox)

    def _next(self, process: _Process) -> None:
        super()._next(process)
        if not process.left:
            self.idle.append(process)

    def _buried(self, process: _Process) -> None:
        """See to the cells of a worker that is gone, and replace it if there is work for it."""
        how = process.ended()
        process.close()
        self.crew.pop(process.slot)
        self.idle = [other for other in self.idle if other is not process]
        if process.ready:
            self.unstarted[process.slot] = 0
            self._again(process, how)
        else:
            self.unstarted[process.slot] += 1
            if self.unstarted[process.slot] > self.retries:
                if not self.crew:
                    raise RuntimeError(f"no worker could start; the last one {how}")
                self.told(("note", f"a worker {how}, again; the others go on without it"))
                return
        while self.waiting and self.idle:
            super()._next(self.idle.pop())
        if self.waiting:
            self._start(process.slot)

    def _again(self, process: _Process, how: str) -> None:
        left = list(process.left.values())
        self.deaths.update(list(process.left))
        process.left = {}
        if not left:
            return
        deaths = max(self.deaths[cell_key(cell)] for cell in left)
        if len(left) == 1 and deaths > self.retries:
            text = (
                f"RuntimeError: its worker died in {deaths} of {deaths} tries; the last one {how}"
            )
            self.emit(("failed", left[0], text))
            return
        self.told(("note", f"a worker {how}; its {len(left)} cells are tried again"))
        if deaths >= 2:
            self.waiting.extendleft([cell] for cell in reversed(left))
        else:
            self.waiting.appendleft(left)

"""Workers on this machine: processes with one thread each, replaced when they die."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cloudpickle

from ctxrnn.studies._cells import Cell, cell_key
from ctxrnn.studies._desk import Desk, Emit, Work, run_group
from ctxrnn.studies._worker import receive, send

PATIENCE = 60.0
"""Seconds that workers are given to write their checkpoints when they are stopped."""
STILLBORN = 3
"""Workers that may be killed while they start before that counts as an error."""


class Executor(Protocol):
    """Where groups of cells are computed."""

    @property
    def slots(self) -> int:
        """Number of groups that are computed at a time."""

    def run(self, work: Work, groups: Sequence[list[Cell]], folder: Path, emit: Emit) -> None:
        """Compute all groups; emit events in this thread."""


class InlineExecutor:
    """Computes everything in this process, one group after another: for debugging."""

    slots = 1

    def run(self, work: Work, groups: Sequence[list[Cell]], folder: Path, emit: Emit) -> None:
        """Compute all groups."""
        for index, group in enumerate(groups):
            emit(("group", 0, group, index + 1))
            run_group(work, group, Desk(folder, emit))


class LocalExecutor:
    """Computes groups in worker processes.

    A group whose worker died (killed, out of memory) is tried once more, then its cells one by one;
    a cell whose worker dies twice when it is alone is recorded as failed.

    Args:
        workers: Number of processes.
    """

    def __init__(self, workers: int) -> None:
        self.slots = workers

    def run(self, work: Work, groups: Sequence[list[Cell]], folder: Path, emit: Emit) -> None:
        """Compute all groups.

        Raises:
            KeyboardInterrupt: On Ctrl-C, after the workers have written their checkpoints.
            OSError: If the disk is full or cannot be written.
            RuntimeError: If a worker cannot start.
        """
        setup = {
            "path": list(sys.path),
            "folder": str(folder.resolve()),
            "work": cloudpickle.dumps(work),
        }
        _Crew(self.slots, setup, groups, emit).run()


class _Process:
    """One worker process, and the thread that reads what it says."""

    def __init__(self, slot: int, setup: dict[str, Any], inbox: queue.Queue[Any]) -> None:
        self.slot, self.ready, self.idle = slot, False, False
        self.left: dict[str, Cell] = {}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        # Our modules come from where they come here, not from a folder of the same name in the
        # current one.
        program = (
            f"import sys; sys.path[:] = {setup['path']!r}; "
            "from ctxrnn.studies._worker import main; main()"
        )
        # A session of its own: Ctrl-C reaches the parent alone, which tells its workers.
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(inbox,), daemon=True).start()
        self.tell(("setup", setup))

    def _read(self, inbox: queue.Queue[Any]) -> None:
        stream = self.process.stdout
        # Whatever cannot be read, such as half a message, ends the process for us.
        with contextlib.suppress(Exception):
            while stream is not None:
                inbox.put((self, receive(stream)))
        inbox.put((self, None))

    def tell(self, message: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self.process.stdin is not None:
                send(self.process.stdin, message)

    def give(self, group: Sequence[Cell]) -> None:
        self.left, self.idle = {cell_key(cell): cell for cell in group}, False
        self.tell(("group", list(group)))

    def ended(self) -> str:
        """Wait for the process and say in words how it ended."""
        code = self.process.wait()
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"ended with status {code}"

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


class _Crew:
    """The workers of one run and the groups that are left."""

    def __init__(
        self, slots: int, setup: dict[str, Any], groups: Sequence[list[Cell]], emit: Emit
    ) -> None:
        self.setup, self.emit = setup, emit
        self.waiting = deque(groups)
        self.inbox: queue.Queue[Any] = queue.Queue()
        self.crew: dict[int, _Process] = {}
        self.deaths: Counter[str] = Counter()
        self.alone: Counter[str] = Counter()
        self.started = self.stillborn = 0
        self.slots = min(slots, len(groups))

    def run(self) -> None:
        try:
            for slot in range(self.slots):
                self._start(slot)
            while self.waiting or any(process.left for process in self.crew.values()):
                try:
                    process, message = self.inbox.get(timeout=0.5)
                except queue.Empty:
                    self.emit(("tick",))
                    continue
                self._take(process, message)
            self._stop(kill_after=5.0)
        except BaseException:
            self._stop(kill_after=PATIENCE)
            raise

    def _start(self, slot: int) -> None:
        self.crew[slot] = _Process(slot, self.setup, self.inbox)

    def _take(self, process: _Process, message: Any) -> None:
        if message is None:
            self._buried(process)
            return
        kind = message[0]
        if kind == "ready":
            process.ready = True
            self._next(process)
        elif kind == "idle":
            process.left = {}
            self._next(process)
        elif kind == "fatal":
            line, number = message[1].splitlines()[0], message[2]
            if number is not None:
                text = line.partition(": ")[2].removeprefix(f"[Errno {number}] ")
                raise OSError(number, text)
            raise RuntimeError(line)
        elif kind != "stopped":
            if kind in ("done", "failed"):
                process.left.pop(cell_key(message[1]), None)
            self.emit(message)

    def _next(self, process: _Process) -> None:
        process.idle = not self.waiting
        if self.waiting:
            group = self.waiting.popleft()
            self.started += 1
            self.emit(("group", process.slot, group, self.started))
            process.give(group)

    def _buried(self, process: _Process) -> None:
        """Replace a worker that is gone, and see to the cells that it had."""
        how = process.ended()
        process.close()
        del self.crew[process.slot]
        if not process.ready:
            self.stillborn += 1
            if not how.startswith("was killed") or self.stillborn > STILLBORN:
                raise RuntimeError(f"a worker could not start: its process {how}; see above")
        left = list(process.left.values())
        self.deaths.update(list(process.left))
        if len(left) == 1:
            self.alone.update(list(process.left))
        process.left = {}
        if left:
            self.emit(("note", f"a worker {how}; its {len(left)} cells are tried again"))
        twice = [cell for cell in left if self.deaths[cell_key(cell)] >= 2]
        if len(left) == 1 and self.alone[cell_key(left[0])] >= 2:
            self.emit(("failed", left[0], f"RuntimeError: its worker {how}, twice"))
        elif twice:
            self.waiting.extendleft([cell] for cell in reversed(left))
        elif left:
            self.waiting.appendleft(left)
        for other in self.crew.values():
            if other.idle:
                self._next(other)
        if self.waiting:
            self._start(process.slot)

    def _stop(self, kill_after: float) -> None:
        """Let workers write their checkpoints, then end them; take in what they still say."""
        for process in self.crew.values():
            process.tell(("stop", None))
        end = time.monotonic() + kill_after
        alive = set(self.crew.values())
        while alive and time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                process, message = self.inbox.get(timeout=0.2)
                if message is None:
                    alive.discard(process)
                elif message[0] in ("done", "failed", "file"):
                    with contextlib.suppress(Exception):
                        self.emit(message)
        for process in self.crew.values():
            if process in alive:
                process.process.kill()
            process.process.wait()
            process.close()

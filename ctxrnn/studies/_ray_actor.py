"""The Ray actor: a worker process on the node that Ray chose, and what it says."""

from __future__ import annotations

import contextlib
import functools
import pickle
import queue
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle

from ctxrnn.studies._cells import Cell
from ctxrnn.studies._desk import Desk, Work
from ctxrnn.studies._local import _Process
from ctxrnn.studies._store import Result


@contextlib.contextmanager
def placed(token: Path) -> Iterator[None]:
    """Put a file into the study's folder by which workers know that they see this folder."""
    token.write_text(token.name)
    try:
        yield
    finally:
        token.unlink(missing_ok=True)


class Bench:
    """The actor: a worker process on its node, and what it says.

    Args:
        setup: What the process is told first.
        token: Name of the file that proves that the study's folder is seen here.
    """

    def __init__(self, setup: dict[str, Any], token: str) -> None:
        shared = _shared(Path(setup["folder"]), token)
        # Only what is shared is known to be the same software; elsewhere this node's comes first.
        there = [entry for entry in setup["path"] if Path(entry).exists()]
        sys.path[:] = list(dict.fromkeys(there + sys.path if shared else sys.path + there))
        cloudpickle.loads(setup["work"])
        setup = {**setup, "path": list(sys.path)}
        self.own: tempfile.TemporaryDirectory[str] | None = None
        if not shared:
            self.own = tempfile.TemporaryDirectory(prefix="ctxrnn-")
            setup["folder"] = self.own.name
            setup["work"] = pickle.dumps(Sending(setup["work"]))
        self.inbox: queue.Queue[Any] = queue.Queue()
        with _open_to_ctrl_c():
            self.process = _Process(0, setup, self.inbox)

    def listen(self) -> Iterator[list[Any]]:
        """Yield what the process says, as it comes, and at last how it ended."""
        while True:
            batch = [self.inbox.get()[1]]
            with contextlib.suppress(queue.Empty):
                while batch[-1] is not None:
                    batch.append(self.inbox.get_nowait()[1])
            if batch[-1] is not None:
                yield batch
                continue
            how = self.process.ended()
            self.process.close()
            if self.own is not None:
                self.own.cleanup()
            yield [*batch[:-1], ("ended", how)]
            return

    def tell(self, message: Any) -> None:
        """Tell the process something."""
        self.process.tell(message)


@contextlib.contextmanager
def _open_to_ctrl_c() -> Iterator[None]:
    """Let processes started here get Ctrl-C, by which they stop after a step; Ray blocks it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shared(folder: Path, token: str) -> bool:
    """Tell whether the driver's folder is seen here, and can be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".try-"):
            return (folder / token).read_text() == token
    except OSError:
        return False


class Sending:
    """Work whose files are sent to the study's folder.

    Args:
        work: The work, pickled.
    """

    def __init__(self, work: bytes) -> None:
        self.pickled = work

    @functools.cached_property
    def work(self) -> Work:
        return cloudpickle.loads(self.pickled)

    def __call__(
        self, cells: Sequence[Cell], desk: Desk
    ) -> Iterator[tuple[Cell, Result | Exception]]:
        return self.work(cells, Desk(desk.folder, desk.emit, remote=True))

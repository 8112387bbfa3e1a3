"""A worker process: takes groups of cells from its standard input, tells events on its output.

Started as a new interpreter that imports this module alone, so that it never runs the user's own
script. Ends when its parent does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

_LENGTH = struct.Struct("<Q")


def send(stream: IO[bytes], message: Any) -> None:
    """Write a message, preceded by its length."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read a message; EOFError if the other side is gone."""
    (length,) = _LENGTH.unpack(_whole(stream, _LENGTH.size))
    return pickle.loads(_whole(stream, length))


def _whole(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _listen(stream: IO[bytes], inbox: queue.Queue[Any]) -> None:
    """Take in messages; stop the work when asked to, end the process when the parent is gone."""
    while True:
        try:
            message = receive(stream)
        except (EOFError, OSError):
            os._exit(1)
        if message[0] == "stop":
            # First, so that the main thread is never past its guard when the signal comes.
            with contextlib.suppress(ProcessLookupError):
                _interrupt()
        inbox.put(message)


def _interrupt() -> None:
    """Raise the signal of Ctrl-C in the main thread; training puts it off to a step's end."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def main() -> NoReturn:
    """Serve until told to stop."""
    # The channel is the standard output of this process; what a measure prints must not reach it.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    inbox: queue.Queue[Any] = queue.Queue()
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=_listen, args=(sys.stdin.buffer, inbox), daemon=True).start()
        _serve(inbox, channel)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            send(channel, ("stopped",))
    except BrokenPipeError:  # The parent is gone.
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    # The listening thread holds standard input, which an orderly end would wait for.
    sys.stderr.flush()
    os._exit(0)


def _serve(inbox: queue.Queue[Any], channel: IO[bytes]) -> None:
    kind, setup = inbox.get()
    if kind == "stop":
        return
    import torch

    from ctxrnn.studies._desk import Desk, run_group, told

    torch.set_num_threads(1)
    work = pickle.loads(setup["work"])
    desk = Desk(Path(setup["folder"]), lambda event: send(channel, event))
    send(channel, ("ready",))
    while True:
        kind, cells = inbox.get()
        if kind == "stop":
            return
        try:
            run_group(work, cells, desk)
        except Exception as error:
            send(channel, ("fatal", told(error), getattr(error, "errno", None)))
            return
        send(channel, ("idle",))

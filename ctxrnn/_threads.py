"""How many threads to use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ctxrnn._checks import check_count

VARIABLE = "CTXRNN_THREADS"


def available_threads() -> int:
    """Return how many threads the process may use: `CTXRNN_THREADS`, or the cores it may run on."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        if not given.isdigit() or int(given) < 1:
            raise ValueError(f"{VARIABLE} must be a whole number of at least 1: got {given!r}")
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: int | None, networks: int) -> int:
    """Return how many threads train or run some networks: one for each at most."""
    if threads is not None:
        check_count("threads", threads)
    return min(available_threads() if threads is None else threads, networks)


@contextmanager
def limited(threads: int = 1) -> Iterator[None]:
    """Let torch's own operations use this many threads.

    They are small here, and sharing them out costs more than it gives; two processes that both do
    so on the same cores slow each other down a hundredfold.
    """
    before = torch.get_num_threads()
    if before != threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if before != threads:
            torch.set_num_threads(before)

"""Connecting this process to Ray: to a cluster that runs, or to one of its own on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger("ctxrnn")

_OBJECTS = 256 * 2**20
"""Bytes of shared memory of a cluster on this machine; only events pass through it."""


def import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "executor='ray' needs Ray, which is not installed: run "
            '`pip install "ctxrnn[cluster]"`, or leave out the executor to use this machine'
        ) from error
    return ray


@contextlib.contextmanager
def connected(address: str | None, cpus: float = 1.0) -> Iterator[Any]:
    """Connect to a cluster, or start one, unless this process is connected already."""
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": address}
    if address is not None:
        _reach(address)
    else:
        options = {
            "address": "local",
            "num_cpus": max(1, round(cpus)),
            "object_store_memory": _OBJECTS,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    with _quiet(), contextlib.ExitStack() as last:
        last.callback(ray.shutdown)
        with warnings.catch_warnings(), _starting(own=address is None):
            warnings.simplefilter("ignore")
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
        yield ray


def _reach(address: str) -> None:
    """Find out at once that nobody is there; Ray would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"address must be HOST:PORT or 'auto': got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}): check `ray status` on its head, or "
            "leave out the address to start a cluster here"
        ) from error


@contextlib.contextmanager
def _starting(own: bool) -> Iterator[None]:
    """Keep Ray from what it does to a process beside connecting it; an own cluster stays local.

    Ray takes SIGTERM over, replaces a loopback address by that of the network, where every process
    of the cluster would then listen, reports usage to its makers, and under `uv run` rebuilds the
    environment for each worker.
    """
    from ray._private import ray_constants

    before = signal.getsignal(signal.SIGTERM)
    network = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    added = {name: value for name, value in variables.items() if own and name not in os.environ}
    os.environ.update(added)
    if own and network is not None:
        ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        if network is not None:
            ray_constants.ENABLE_RAY_CLUSTER = network
        for name in added:
            os.environ.pop(name, None)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send Ray's messages about dead workers, which no setting silences, to the log."""
    from ray._private import worker

    name = "print_to_stdstream"
    before = getattr(worker, name, None)
    if before is None:
        yield
        return

    def log(data: dict[str, Any], *_: Any, **__: Any) -> None:
        for line in data.get("lines", ()):
            logger.debug("ray: %s", line)

    setattr(worker, name, log)
    try:
        yield
    finally:
        setattr(worker, name, before)

"""Interleaved timing, ratios and the machine's own speed: what every benchmark here shares."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

MATRIX = 1024
"""Size of the square matrices whose product measures the machine."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a sample."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, sample: Sequence[float]) -> Spread:
        """Summarise a sample of at least two values."""
        low, middle, high = statistics.quantiles(sample, n=4, method="inclusive")
        return cls(middle, low, high)

    def format(self, digits: int) -> str:
        """Return "median [low, high]"."""
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def time_rounds(
    tasks: Mapping[str, Callable[[], object]], *, rounds: int, seconds: float, warmup: int = 3
) -> dict[str, list[float]]:
    """Time callables in turns, A B C A B C ..., so that a disturbance falls on all of them.

    Garbage is collected between rounds, outside the clock, and not inside a timed call.

    Args:
        tasks: What to time, by name.
        rounds: Rounds at most.
        seconds: No round starts after this long, but two are always run.
        warmup: Calls of each before the first round.

    Returns:
        Seconds by name; index r of every list comes from round r.
    """
    for task in tasks.values():
        for _ in range(warmup):
            task()
    times: dict[str, list[float]] = {name: [] for name in tasks}
    end = time.perf_counter() + seconds
    enabled = gc.isenabled()
    gc.disable()
    try:
        for done in range(rounds):
            if done >= 2 and time.perf_counter() > end:
                break
            gc.collect()
            for name, task in tasks.items():
                start = time.perf_counter()
                task()
                times[name].append(time.perf_counter() - start)
    finally:
        if enabled:
            gc.enable()
    return times


def ratio(times: Sequence[float], reference: Sequence[float]) -> Spread:
    """Return the spread over rounds of times[r] / reference[r]."""
    return Spread.of([one / other for one, other in zip(times, reference, strict=True)])


def matrix_product() -> Callable[[], torch.Tensor]:
    """Return a call that multiplies two float32 matrices of `MATRIX` x `MATRIX`."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(MATRIX, MATRIX, generator=generator)
    right = torch.randn(MATRIX, MATRIX, generator=generator)
    out = torch.empty(MATRIX, MATRIX)
    return lambda: torch.mm(left, right, out=out)


def describe_machine(packages: Sequence[str]) -> dict[str, str]:
    """Return processor, cores, versions and date: enough to judge the numbers, nothing private."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    versions = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return {
        "processor": f"{_processor()} ({platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()})",
        "cores": str(os.cpu_count()),
        "system": platform.system(),
        "versions": ", ".join(versions),
        "date": datetime.now(UTC).date().isoformat(),
        "load before the run": load,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows, heading first, as lines of a markdown table that reads well as text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return lines

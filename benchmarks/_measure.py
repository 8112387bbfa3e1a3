"""Interleaved timing, ratios and the machine's own speed: what every benchmark here shares."""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


def stopwatch(task: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def own_clock(task: Callable[[], Any]) -> float:
    """Return the seconds that a call says it took."""
    return float(task())


def time_rounds(
    tasks: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    seconds: float,
    warmup: int = 3,
    clock: Callable[[Callable[[], object]], float] = stopwatch,
) -> dict[str, list[float]]:
    """Time callables in turns, A B C A B C ..., so that a disturbance falls on all of them.

    Garbage is collected between rounds, outside the clock, and not inside a timed call.

    Args:
        tasks: What to time, by name.
        rounds: Rounds at most.
        seconds: No round starts after this long, but two are always run.
        warmup: Calls of each before the first round.
        clock: Makes a call and returns its seconds.

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
                times[name].append(clock(task))
    finally:
        if enabled:
            gc.enable()
    return times


def ratio(times: Sequence[float], reference: Sequence[float]) -> Spread:
    """Return the spread over rounds of times[r] / reference[r]."""
    return Spread.of([one / other for one, other in zip(times, reference, strict=True)])


def rounds_line(products: Sequence[float], cores: int = 1) -> str:
    """Say how many rounds there were and how fast the machine multiplied in them.

    Args:
        products: Seconds of a product of `MATRIX` x `MATRIX`, one per round.
        cores: Products made at the same time.
    """
    flops = 2e-9 * cores * MATRIX**3
    usual, best = flops / Spread.of(products).median, flops / min(products)
    line = (
        f"median [quartiles] of {len(products)} rounds; float32 products of {MATRIX} x {MATRIX}: "
        f"{usual:.0f} GFLOP/s, at best {best:.0f}"
    )
    if usual < 0.7 * best or len(products) < 10:
        line += " (disturbed or too few rounds: do not quote)"
    return line


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


@dataclass(frozen=True)
class Verdict:
    """Whether a criterion is met.

    Attributes:
        what: What is compared with what.
        measured: The ratio over rounds.
        must: What its median must reach.
        aim: What it should reach, or None.
        at_most: Whether the bounds are upper ones.
    """

    what: str
    measured: Spread
    must: float | None
    aim: float | None = None
    at_most: bool = False

    def meets(self, bound: float | None) -> bool | None:
        """Tell whether the median meets a bound; None where there is none."""
        if bound is None:
            return None
        return self.measured.median <= bound if self.at_most else self.measured.median >= bound

    def row(self) -> list[str]:
        """Return the cells of the table of verdicts."""
        cells = [self.what, self.measured.format(2)]
        for bound in (self.must, self.aim):
            met = {None: "-", True: "met", False: "NOT met"}[self.meets(bound)]
            sign = "<=" if self.at_most else ">="
            cells += [met if bound is None else f"{sign} {bound:g}: {met}"]
        return cells


def verdict_table(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the verdicts, by medians of paired ratios, as lines of a markdown table."""
    if not verdicts:
        return []
    return align([["criterion", "measured", "must", "aim"], *(one.row() for one in verdicts)])


def add_options(parser: argparse.ArgumentParser, *, rounds: int, seconds: float, per: str) -> None:
    """Add the options that all benchmarks share."""
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"rounds at most, {per} (default {rounds})"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=seconds,
        help=f"no round starts after this long, {per} (default {seconds:g}); two are always run",
    )
    parser.add_argument("--json", type=Path, help="write every time and ratio here")
    parser.add_argument("--markdown", type=Path, help="write what is printed here")


def check_rounds(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse fewer rounds than quartiles need."""
    if options.rounds < 2:
        parser.error("--rounds must be at least 2: quartiles need two rounds")


class Report:
    """What a benchmark prints, and the files that it leaves.

    Args:
        title: Heading.
        packages: Whose versions to tell.
        options: Command line.
    """

    def __init__(
        self, title: str, packages: Sequence[str], options: argparse.Namespace, work: str
    ) -> None:
        self.options = options
        self.machine = describe_machine(packages)
        self.lines = [f"# {title}", ""]
        self.records: list[dict[str, Any]] = []
        self.verdicts: list[Verdict] = []
        command = shlex.join([Path(sys.argv[0]).name, *_public(sys.argv[1:])])
        head = {**self.machine, "command": f"`python benchmarks/{command}`", "work": work}
        self.say(*(f"- {key}: {value}" for key, value in head.items()))

    def say(self, *lines: str) -> None:
        """Print lines and keep them for the file."""
        print(*lines, sep="\n", flush=True)
        self.lines += lines

    def judge(self, verdicts: Sequence[Verdict]) -> None:
        """Print verdicts and keep them."""
        if verdicts:
            self.say("", *verdict_table(verdicts))
            self.verdicts += verdicts

    def write(self) -> None:
        """Write the files that the command line asks for."""
        if self.options.markdown:
            self.options.markdown.write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        if self.options.json:
            given = vars(self.options).items()
            plain = {key: value for key, value in given if not isinstance(value, Path)}
            judged = [
                {**asdict(one), "must_met": one.meets(one.must), "aim_met": one.meets(one.aim)}
                for one in self.verdicts
            ]
            content = {"machine": self.machine, "options": plain, "rows": self.records}
            text = json.dumps({**content, "verdicts": judged}, indent=1)
            self.options.json.write_text(text + "\n", encoding="utf-8")


def _public(arguments: Sequence[str]) -> list[str]:
    """Return the command line with the folders of files left out."""
    return [Path(word).name if Path(word).is_absolute() else word for word in arguments]


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

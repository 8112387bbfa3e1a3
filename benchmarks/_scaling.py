"""How the cost of a training step grows with networks, trial length and batch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import NamedTuple

import torch
from _measure import Report, Spread, align, ratio, stopwatch, time_rounds
from _peers import NOISE, Setup
from _steps import make_data, train_step

UNITS, NETWORKS, BATCH, STEPS = 32, 8, 64, 100
BOUND = 0.15
"""Deviation from the middle size that is still called linear."""


class Size(NamedTuple):
    """One line of the tables."""

    networks: int = NETWORKS
    steps: int = STEPS
    batch: int = BATCH

    @property
    def pieces(self) -> int:
        """Return what the cost is divided by."""
        return self.networks * self.steps * self.batch


SERIES: Mapping[str, tuple[str, Sequence[Size]]] = {
    "networks, one thread": ("networks", [Size(networks=2**k) for k in range(7)]),
    "networks, two threads": ("networks", [Size(networks=2**k) for k in range(7)]),
    "steps of a trial, one thread": ("steps", [Size(steps=50 * 2**k) for k in range(5)]),
    "trials of a batch, one thread": ("batch", [Size(batch=16 * 2**k) for k in range(6)]),
}
"""Table -> which number grows, and the sizes; the middle one is the reference."""


def make_step(size: Size, variant: str, pool: ThreadPoolExecutor | None) -> Callable[[], object]:
    """Return a call in which the networks of a size take one step each."""
    setups = [Setup(UNITS, size.batch, "tanh", NOISE, seed=seed) for seed in range(size.networks)]
    return train_step(setups, variant, make_data(size.batch, size.steps), pool)


def linear_from(per_piece: Mapping[Size, list[float]], sizes: Sequence[Size]) -> Size:
    """Return the smallest size from which on all are within `BOUND` of the largest."""
    first = sizes[-1]
    for size in reversed(sizes):
        if abs(ratio(per_piece[size], per_piece[sizes[-1]]).median - 1) > BOUND:
            break
        first = size
    return first


def report(page: Report, name: str, times: Mapping[Size, list[float]]) -> None:
    """Print one table: cost per network, step and trial, and as a ratio to the middle size."""
    grows, sizes = SERIES[name]
    middle = sizes[len(sizes) // 2]
    per_piece = {size: [s / size.pieces for s in times[size]] for size in sizes}
    head = [grows, "ns per network, step and trial", f"x that of {getattr(middle, grows)}", "flag"]
    table = [head]
    for size in sizes:
        took = Spread.of([1e9 * s for s in per_piece[size]])
        against = ratio(per_piece[size], per_piece[middle])
        off = abs(against.median - 1) > BOUND
        text = "1" if size == middle else against.format(3)
        table.append([str(getattr(size, grows)), took.format(1), text, "OFF" if off else "-"])
        page.records.append(
            {"series": name, **size._asdict(), "units": UNITS, "off": off}
            | {"ns": asdict(took), "ratio_to_middle": asdict(against), "seconds": times[size]}
        )
    first = getattr(linear_from(per_piece, sizes), grows)
    largest = getattr(sizes[-1], grows)
    page.say("", f"## {name}", "", *align(table), "")
    page.say(
        f"Cost per network, step and trial within {BOUND:.0%} of that of {largest} from {first} on."
    )


def scale(page: Report, options: argparse.Namespace) -> None:
    """Time all sizes in turns and print the tables."""
    torch.set_num_threads(1)
    with ThreadPoolExecutor(2) as pool:
        calls = {
            f"{name}: {index}": make_step(
                size, options.variant, pool if "two threads" in name else None
            )
            for name, (_, sizes) in SERIES.items()
            for index, size in enumerate(sizes)
        }
        times = time_rounds(
            calls, rounds=options.rounds, seconds=options.seconds, warmup=1, clock=stopwatch
        )
    rounds = len(next(iter(times.values())))
    page.say(
        "",
        f"ctxrnn {options.variant}, N = {UNITS}, noise {NOISE}; unless it is what grows: "
        f"{NETWORKS} networks, {STEPS} steps, {BATCH} trials. "
        f"Median [quartiles] of {rounds} rounds; OFF: more than {BOUND:.0%} from the middle size.",
    )
    for name, (_, sizes) in SERIES.items():
        report(page, name, {size: times[f"{name}: {i}"] for i, size in enumerate(sizes)})

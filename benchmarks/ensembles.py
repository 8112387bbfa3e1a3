"""Time a training step of many networks on two cores, per network, beside peers alone on both.

    python benchmarks/ensembles.py --works 64x16 32x64 8x256 --markdown ensembles.md
    python benchmarks/ensembles.py --scaling --markdown scaling.md

ctxrnn's networks take their steps as `ctxrnn.train(Ensemble, threads=2)` takes them (one process,
two threads), and as a study does (two processes, one thread and half of the networks each). A peer
steps one network while nothing else runs, with one thread and with two, and, as a user with two
cores would let it, two networks in two processes at once. All rows take turns, so that a
disturbance of the machine falls on all of them, and are compared within each round.

    --works 32x64 --rounds 3 --seconds 10   tries it out
    --scaling                               instead: cost against networks, trial length, batch

With another busy process on the two cores the numbers mean little. benchmarks/README.md says how
to read the tables.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from _measure import (
    MATRIX,
    Report,
    Spread,
    Verdict,
    add_options,
    align,
    check_rounds,
    matrix_product,
    own_clock,
    ratio,
    rounds_line,
    time_rounds,
)
from _pair import Pair, Rows
from _peers import INPUTS, NOISE, OUTPUTS, PEERS, Peer, Setup
from _steps import make_data, module_step, train_step

PACKAGES = ("torch", "ctxrnn", "nn4n", "neuralrnn")
ONE, TWO, THREADS, PROCESSES = "alone, 1 thread", "alone, 2 threads", "2 threads", "2 processes"
PRODUCT = "matrix product"
REFERENCE = "nn4n CTRNN"
TARGETS = {(64, 16): (18.0, 40.0), (32, 64): (6.0, 10.0), (8, 256): (2.2, None)}
"""By (networks, N): times faster than nn4n per network that a step must be, and aims at."""
RATE = {(8, 256): 0.6}
"""By (networks, N): fraction of the rate of matrix products that a step aims at."""
WITHIN = (2.0, 1.4)
"""Times as long as `none` that a variant may take, and aims at."""
VARIANTS = {(32, 64): ("s-sym", "es")}
"""By (networks, N): variants that are timed beside `none`."""
PRODUCTS = 8


class Work(NamedTuple):
    """What is timed in one table."""

    networks: int
    units: int
    batch: int
    steps: int
    nonlinearity: str
    only: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Return networks and N, by which the targets go."""
        return self.networks, self.units

    @property
    def repeats(self) -> int:
        """Return how many steps of one network are timed together: one alone is too short."""
        return max(1, 200 // self.units)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: Network.
        way: How it is run.
        nonlinearity: phi.
        noise: Recurrent noise in training, 0 for none.
        flops: Of one network's step.
        ours: Whether it is ctxrnn's.
    """

    name: str
    way: str
    nonlinearity: str
    noise: float
    flops: float
    ours: bool

    @property
    def key(self) -> str:
        """Name and way, by which its times go."""
        return f"{self.name}, {self.way}"


def chosen_peers(work: Work) -> list[Peer]:
    """Return the installed peers and ctxrnn's rows of a table."""
    variants = ("none", *VARIANTS.get(work.size, ()))
    ours = [
        Peer(f"ctxrnn {variant}" + ("" if noise else ", no noise"), PEERS[0].build, "ctxrnn",
             noise, own="tanh", variant=variant, trained=True)
        for variant in variants
        for noise in ((NOISE, 0.0) if variant == "none" else (NOISE,))
    ]  # fmt: skip
    others = [peer for peer in PEERS if peer.package != "ctxrnn"]
    return [
        peer
        for peer in (*others, *ours)
        if importlib.util.find_spec(peer.package) is not None
        and (not work.only or any(word.lower() in peer.name.lower() for word in work.only))
    ]


def rows_of(work: Work) -> list[Row]:
    """List the lines of the table."""
    rows = []
    for peer in chosen_peers(work):
        phi, flops = (
            peer.nonlinearity(work.nonlinearity),
            peer.flops(work.batch, work.steps, work.units),
        )
        ways = (THREADS, PROCESSES) if peer.trained else (ONE, TWO, PROCESSES)
        rows += [Row(peer.name, way, phi, peer.noise, flops, peer.trained) for way in ways]
    return rows


def ensemble(
    peer: Peer, work: Work, members: range, pool: ThreadPoolExecutor | None = None
) -> Callable[[], float]:
    """Return a call in which some networks take a step each; it returns the seconds of all."""
    phi = peer.nonlinearity(work.nonlinearity)
    setups = [Setup(work.units, work.batch, phi, peer.noise, seed=seed) for seed in members]
    step = train_step(setups, peer.variant, make_data(work.batch, work.steps), pool)
    return partial(seconds_of, step, repeats=1, lead=0)


def single(peer: Peer, work: Work, *, threads: int = 1) -> Callable[[], float]:
    """Return a call in which one network of a peer takes some steps; it returns seconds per step.

    A step that is not timed goes first, to fill the caches and to wake torch's threads.
    """
    torch.manual_seed(0)
    phi = peer.nonlinearity(work.nonlinearity)
    network = peer.build(Setup(work.units, work.batch, phi, peer.noise))
    step = module_step(network, [make_data(work.batch, work.steps)])
    return partial(seconds_of, step, repeats=work.repeats, lead=1, threads=threads)


def products(pool: ThreadPoolExecutor | None = None) -> Callable[[], float]:
    """Return a call that multiplies matrices, with a pool on two threads; it returns seconds."""
    calls = [matrix_product() for _ in range(1 if pool is None else 2)]

    def several(call: Callable[[], object]) -> None:
        for _ in range(PRODUCTS):
            call()

    def step() -> None:
        list((map if pool is None else pool.map)(several, calls))

    def measured() -> float:
        return seconds_of(step, repeats=1, lead=0) / PRODUCTS

    return measured


def seconds_of(step: Callable[[], object], *, repeats: int, lead: int, threads: int = 1) -> float:
    """Return the seconds of a step, the mean of some after others that are not timed."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    for _ in range(lead):
        step()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    took = (time.perf_counter() - start) / repeats
    torch.set_num_threads(1)
    return took


def half(index: int, work: Work) -> Rows:
    """Make what one of the two processes does: half of the networks, or one of a peer's."""
    middle = work.networks // 2
    members = range(middle) if index == 0 else range(middle, work.networks)
    rows: dict[str, Callable[[], float]] = {PRODUCT: products()}
    for peer in chosen_peers(work):
        rows[peer.name] = ensemble(peer, work, members) if peer.trained else single(peer, work)
    for row in rows.values():
        row()
    return rows


def measure(work: Work, options: argparse.Namespace) -> dict[str, list[float]]:
    """Time all rows and the matrix products in turns; return seconds per network (or product)."""
    with ExitStack() as stack:
        # The pool's threads take torch's number of threads over from here.
        torch.set_num_threads(1)
        pool = stack.enter_context(ThreadPoolExecutor(2))
        pair = stack.enter_context(Pair(half, work))
        calls: dict[str, Callable[[], float]] = {
            f"{PRODUCT}, {THREADS}": products(pool),
            f"{PRODUCT}, {PROCESSES}": partial(pair.time, PRODUCT),
        }
        share: dict[str, int] = {}
        for peer in chosen_peers(work):
            calls[f"{peer.name}, {PROCESSES}"] = partial(pair.time, peer.name)
            if peer.trained:
                everyone = range(work.networks)
                calls[f"{peer.name}, {THREADS}"] = ensemble(peer, work, everyone, pool)
                share |= {f"{peer.name}, {way}": work.networks for way in (THREADS, PROCESSES)}
            else:
                calls[f"{peer.name}, {ONE}"] = single(peer, work)
                calls[f"{peer.name}, {TWO}"] = single(peer, work, threads=2)
                share[f"{peer.name}, {PROCESSES}"] = 2
        times = time_rounds(
            calls, rounds=options.rounds, seconds=options.seconds, warmup=1, clock=own_clock
        )
    return {name: [s / share.get(name, 1) for s in found] for name, found in times.items()}


def alone(times: Mapping[str, list[float]], name: str) -> str | None:
    """Return which row of a peer alone is the faster one, of one thread and two."""
    keys = [f"{name}, {way}" for way in (ONE, TWO) if f"{name}, {way}" in times]
    return min(keys, key=lambda key: Spread.of(times[key]).median, default=None)


def product_of(times: Mapping[str, list[float]], row: Row) -> tuple[list[float], int]:
    """Return the matrix products that a row is held against, and how many ran at once."""
    key = f"{PRODUCT}, {PROCESSES if row.way == PROCESSES else THREADS}"
    return times[key], 2


def fraction(times: Mapping[str, list[float]], row: Row) -> Spread:
    """Return the rate of a row as a fraction of that of matrix products on both cores."""
    product, at_once = product_of(times, row)
    share = row.flops / (2 * MATRIX**3 * at_once)
    return Spread.of([share * p / s for p, s in zip(product, times[row.key], strict=True)])


def tabulate(
    work: Work, times: Mapping[str, list[float]]
) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Return the table, heading first, and the same for JSON."""
    head = ["network", "way", "phi", "noise", "ms per network", "x nn4n alone", "x two nn4n"]
    table, records = [[*head, "GFLOP/s", "of matmul"]], []
    for row in rows_of(work):
        seconds = times[row.key]
        took, part = Spread.of([1e3 * s for s in seconds]), fraction(times, row)
        reference = REFERENCE + ("" if row.noise else ", no noise")
        keys = [alone(times, reference), f"{reference}, {PROCESSES}"]
        faster = {
            key: ratio(times[key], seconds) for key in keys if key is not None and key in times
        }
        cells = [
            "-" if key not in faster else "1" if key == row.key else faster[key].format(2)
            for key in keys
        ]
        rate = row.flops / took.median / 1e6
        noise = f"{row.noise:g}" if row.noise else "-"
        cells = [row.name, row.way, row.nonlinearity, noise, took.format(2), *cells]
        table.append([*cells, f"{rate:.0f}", f"{part.median:.0%}"])
        records.append(
            {"networks": work.networks, "units": work.units, **asdict(row)}
            | {"ms_per_network": asdict(took), "gflop_per_s": rate, "of_matmul": asdict(part)}
            | {"faster_than": {key: asdict(value) for key, value in faster.items()}}
            | {"seconds_per_network": seconds}
        )
    return table, records


def judge(work: Work, times: Mapping[str, list[float]]) -> list[Verdict]:
    """Hold the rows of ctxrnn against the targets that README.md lists."""
    found = []
    must, aim = TARGETS.get(work.size, (None, None))
    for row in rows_of(work):
        if not row.ours:
            continue
        if row.name.startswith("ctxrnn none"):
            peer = REFERENCE + ("" if row.noise else ", no noise")
            best = alone(times, peer)
            if best is not None:
                faster = ratio(times[best], times[row.key])
                found.append(Verdict(f"{row.key}: times faster than {best}", faster, must, aim))
                at_once = f"{peer}, {PROCESSES}"
                faster = ratio(times[at_once], times[row.key])
                found.append(Verdict(f"{row.key}: times faster than {at_once}", faster, None))
            wanted = RATE.get(work.size)
            what = f"{row.key}: fraction of matmul on both cores"
            found.append(Verdict(what, fraction(times, row), None, wanted))
        elif (none := f"ctxrnn none, {row.way}") in times:
            longer = ratio(times[row.key], times[none])
            what = f"{row.key}: times as long as {none}"
            found.append(Verdict(what, longer, *WITHIN, at_most=True))
    return found


def parse_works(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Work]:
    """Read sizes like 32x64."""
    works = []
    for word in options.works:
        numbers = word.lower().split("x")
        if len(numbers) != 2 or not all(n.isdigit() and int(n) > 0 for n in numbers):
            parser.error(f"--works must be NETWORKSxN, e.g. 32x64: got {word!r}")
        networks, units = map(int, numbers)
        if networks < 2:
            parser.error(f"--works must have two networks at least: got {word!r}")
        shape = (networks, units, options.batch, options.steps)
        works.append(Work(*shape, options.nonlinearity, tuple(options.only)))
    return works


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[Work]]:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--works",
        nargs="+",
        default=["64x16", "32x64", "8x256"],
        help="networks x N of each table (default 64x16 32x64 8x256)",
    )
    parser.add_argument("--steps", type=int, default=100, help="time steps (default 100)")
    parser.add_argument("--batch", type=int, default=64, help="trials of a batch (default 64)")
    parser.add_argument(
        "--nonlinearity",
        choices=("own", "tanh", "relu"),
        default="own",
        help="own: each library's default; otherwise the same for all but nn.RNN's two rows",
    )
    parser.add_argument(
        "--only", nargs="+", default=[], help="words in the names of the rows to run"
    )
    parser.add_argument(
        "--scaling", action="store_true", help="how the cost grows, in place of the tables"
    )
    parser.add_argument(
        "--variant", default="none", help="pathway variant for --scaling (default none)"
    )
    add_options(parser, rounds=30, seconds=300, per="for each table")
    options = parser.parse_args(arguments)
    check_rounds(parser, options)
    return options, parse_works(parser, options)


def compare(page: Report, works: Sequence[Work], options: argparse.Namespace) -> None:
    """Print a table and the verdicts for each size."""
    for work in works:
        times = measure(work, options)
        table, records = tabulate(work, times)
        line = rounds_line(times[f"{PRODUCT}, {THREADS}"], cores=2)
        page.say("", f"## {work.networks} networks, N = {work.units}", "", line)
        page.say("", *align(table))
        page.records += records
        page.judge(judge(work, times))


def main() -> None:
    """Measure, print and write the tables."""
    options, works = parse()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    work = (
        f"{options.batch} trials x {options.steps} steps, {INPUTS} inputs, {OUTPUTS} outputs, "
        "cross-entropy of all steps, Adam; trials made before"
    )
    if options.scaling:
        from _scaling import scale

        page = Report("How the cost of a training step grows", PACKAGES, options, work)
        scale(page, options)
    else:
        page = Report("A training step of many networks", PACKAGES, options, work)
        compare(page, works, options)
    page.write()


if __name__ == "__main__":
    main()

"""Time a packing grid (mechanisms x sizes x seeds on six tasks), beside peers one by one.

    python benchmarks/packing.py --rounds 3 --seconds 900 --markdown packing.md

How many tasks fit into a network of N units, by mechanism and seed, is a question that takes a
grid of networks: by default 4 mechanisms x 5 sizes x 5 seeds = 100 networks on 6 tasks, dt 50 ms,
ring 8, 64 trials a step. Measured: `ctxrnn.train` of each mechanism and size, an ensemble of its
seeds, for --steps steps on both cores (two processes, one thread each, as a study does), trials
drawn and evaluation included; a training step of each peer at each size, on the same trials; and
how fast neurogym makes trials one by one. Extrapolated: both to --full steps.

    --steps 20 --rounds 2 --seconds 5 --sizes 8 32   tries it out

benchmarks/README.md says how to read the tables.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import multiprocessing
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import torch
from _measure import Report, Spread, add_options, align, check_rounds, own_clock, ratio, time_rounds
from _pair import Pair, Rows, pin
from _peers import NOISE, PEERS, TAU, Peer, Setup
from _steps import module_step
from torch import Tensor

PACKAGES = ("torch", "ctxrnn", "nn4n", "neuralrnn", "neurogym")
TASKS = ("go", "anti", "dlygo", "dlyanti", "dm1", "dm2")
STEP_MS, RING, BATCH = 50.0, 8, 64
EVERY, EVALUATION = 250, 1000
"""Steps between evaluations, and trials of each, as in the studies."""
BATCHES = 8
TRIALS = "neurogym's trials"
GRID = "grid"
ALONE, AT_ONCE = "one after another", "two processes at once"


class Grid(NamedTuple):
    """The networks of the grid and how long they train.

    Attributes:
        mechanisms: Pathway variants.
        sizes: N.
        seeds: Networks of each.
        steps: Steps that are measured.
        full: Steps that a study takes.
        bank: Trials per task in the pool of each seed.
    """

    mechanisms: tuple[str, ...]
    sizes: tuple[int, ...]
    seeds: int
    steps: int
    full: int
    bank: int

    @property
    def networks(self) -> int:
        """Return the number of networks."""
        return len(self.mechanisms) * len(self.sizes) * self.seeds

    @property
    def cells(self) -> list[tuple[str, int]]:
        """Return mechanism and size of each ensemble, the longest first."""
        return [(name, units) for units in sorted(self.sizes)[::-1] for name in self.mechanisms]


@functools.lru_cache(maxsize=1)
def tasks_of() -> Any:
    """Return the task set; made once per process."""
    from ctxrnn.tasks import task_set

    return task_set(list(TASKS), dt=STEP_MS, ring=RING)


@functools.lru_cache(maxsize=32)
def bank_of(seed: int, trials: int) -> Any:
    """Return the pool of trials of a seed; made once per process."""
    return tasks_of().bank(trials, generator=seed)


def start_worker(numbers: Any) -> None:
    """Pin a process of the grid to a core of its own."""
    warnings.filterwarnings("ignore")
    pin(numbers.get())


def make_banks(grid: Grid) -> float:
    """Draw all pools; return the seconds that it took."""
    tasks_of()
    start = time.perf_counter()
    for seed in range(grid.seeds):
        bank_of(seed, grid.bank)
    return time.perf_counter() - start


def train_cell(grid: Grid, mechanism: str, units: int) -> float:
    """Train an ensemble of one mechanism and size; return the seconds that it took."""
    from ctxrnn import Ensemble, TrainConfig, train

    tasks, seeds = tasks_of(), list(range(grid.seeds))
    start = time.perf_counter()
    networks = Ensemble.of(
        tasks.inputs,
        tasks.outputs,
        [{"seed": seed} for seed in seeds],
        units=units,
        modulation=mechanism,
        contexts=len(TASKS),
        tau=TAU,
        dt=STEP_MS,
        noise=NOISE,
    )
    config = TrainConfig(
        steps=grid.steps, batch=BATCH, target=None,
        evaluate_every=EVERY, evaluation_trials=EVALUATION,
    )  # fmt: skip
    histories = train(
        networks,
        [bank_of(seed, grid.bank) for seed in seeds],
        config,
        seed=seeds,
        evaluation_tasks=tasks,
        progress=False,
        threads=1,
    )
    took = time.perf_counter() - start
    if any(history.stopped != "steps" for history in histories):
        raise RuntimeError(f"{mechanism}, N = {units}: {histories[0].stopped}, so no time counts")
    return took


class GridRunner:
    """Trains the whole grid in two processes; keeps the seconds of every ensemble.

    Attributes:
        set_up: Seconds that the pools of trials took, of the slower process.
        cells: Mechanism and size -> seconds in every round.
    """

    def __init__(self, grid: Grid, stack: ExitStack) -> None:
        context = multiprocessing.get_context("spawn")
        numbers = context.SimpleQueue()
        for index in range(2):
            numbers.put(index)
        self.grid = grid
        # Two pools of one process, so that each is sure to make its own banks before the clock.
        self.pools = [
            stack.enter_context(
                ProcessPoolExecutor(
                    1, mp_context=context, initializer=start_worker, initargs=(numbers,)
                )
            )
            for _ in range(2)
        ]
        self.set_up = max(
            future.result() for future in [p.submit(make_banks, grid) for p in self.pools]
        )
        short = grid._replace(steps=2)
        for future in [p.submit(train_cell, short, "none", 8) for p in self.pools]:
            future.result()
        self.cells: dict[tuple[str, int], list[float]] = {cell: [] for cell in grid.cells}

    def run(self) -> float:
        """Train the grid once; return the seconds that it took."""
        return run_shared(self.pools, self.grid, self.cells)


def run_shared(
    pools: Sequence[ProcessPoolExecutor], grid: Grid, kept: Mapping[tuple[str, int], list[float]]
) -> float:
    """Train every ensemble on whichever process is free; return the seconds of the whole."""
    todo = list(reversed(grid.cells))
    running: dict[Any, tuple[int, tuple[str, int]]] = {}
    start = time.perf_counter()
    free = list(range(len(pools)))
    while todo or running:
        while todo and free:
            index, cell = free.pop(), todo.pop()
            running[pools[index].submit(train_cell, grid, *cell)] = (index, cell)
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            index, cell = running.pop(future)
            kept[cell].append(future.result())
            free.append(index)
    return time.perf_counter() - start


@functools.lru_cache(maxsize=1)
def peer_data() -> list[tuple[Tensor, Tensor]]:
    """Return some batches as a peer takes them: the context as further inputs."""
    found = []
    for seed in range(BATCHES):
        batch = tasks_of().sample(BATCH, generator=torch.Generator().manual_seed(seed))
        rule = batch.context.unsqueeze(1).expand(-1, batch.inputs.shape[1], -1)
        found.append((torch.cat([batch.inputs, rule], dim=-1), batch.targets))
    return found


def peer_step(peer: Peer, units: int, *, threads: int = 1) -> Callable[[], float]:
    """Return a call in which a peer takes a step on each batch; it returns seconds per step."""
    torch.manual_seed(0)
    tasks, data = tasks_of(), peer_data()
    setup = Setup(
        units, BATCH, peer.nonlinearity("own"), peer.noise, data[0][0].shape[-1], tasks.outputs
    )
    step = module_step(peer.build(setup), data)

    def measured() -> float:
        torch.set_num_threads(threads)
        step()
        start = time.perf_counter()
        for _ in range(BATCHES):
            step()
        took = (time.perf_counter() - start) / BATCHES
        torch.set_num_threads(1)
        return took

    return measured


def neurogym_trials() -> Callable[[], float]:
    """Return a call that makes trials one by one as neurogym does; it returns s per batch."""
    import neurogym

    envs = [neurogym.make(f"yang19.{name}-v0", dt=STEP_MS, dim_ring=RING) for name in TASKS]

    def measured() -> float:
        start = time.perf_counter()
        for index in range(BATCH):
            envs[index % len(envs)].new_trial()
        return time.perf_counter() - start

    return measured


def peers_of() -> list[Peer]:
    """Return the installed peers, those of a library with noise as ctxrnn has it."""
    return [
        peer
        for peer in PEERS
        if peer.package != "ctxrnn" and importlib.util.find_spec(peer.package) is not None
    ]


def peer_rows(index: int, sizes: Sequence[int]) -> Rows:
    """Make what each of two processes does at once: one network of each peer and size, trials."""
    warnings.filterwarnings("ignore")
    rows: dict[str, Callable[[], float]] = {TRIALS: neurogym_trials()}
    for peer, units in itertools.product(peers_of(), sizes):
        rows[f"{peer.name}, {units}"] = peer_step(peer, units)
    for row in rows.values():
        row()
    return rows


def measure(grid: Grid, options: argparse.Namespace) -> tuple[dict[str, list[float]], GridRunner]:
    """Time the grid, the peers and neurogym's trials in turns."""
    with ExitStack() as stack:
        runner = GridRunner(grid, stack)
        pair = stack.enter_context(Pair(peer_rows, grid.sizes))
        calls: dict[str, Callable[[], float]] = {GRID: runner.run}
        for name, call in {TRIALS: neurogym_trials()}.items():
            calls[f"{name}, {ALONE}"] = call
            calls[f"{name}, {AT_ONCE}"] = partial(pair.time, name)
        for peer, units in itertools.product(peers_of(), grid.sizes):
            name = f"{peer.name}, {units}"
            for threads in (1, 2):
                calls[f"{name}, {threads}"] = peer_step(peer, units, threads=threads)
            calls[f"{name}, {AT_ONCE}"] = partial(pair.time, name)
        for name, call in calls.items():
            if name != GRID:
                call()
        times = time_rounds(
            calls, rounds=options.rounds, seconds=options.seconds, warmup=0, clock=own_clock
        )
    halved = {name: 2 if name.endswith(AT_ONCE) else 1 for name in times}
    return {name: [s / halved[name] for s in found] for name, found in times.items()}, runner


def step_seconds(times: Mapping[str, list[float]], peer: str, units: int, way: str) -> list[float]:
    """Return a peer's seconds per step and network: both at once, or the better thread count."""
    if way == AT_ONCE:
        return times[f"{peer}, {units}, {AT_ONCE}"]
    keys = [f"{peer}, {units}, {threads}" for threads in (1, 2)]
    return times[min(keys, key=lambda key: Spread.of(times[key]).median)]


def cell_table(grid: Grid, times: Mapping[str, list[float]], runner: GridRunner) -> list[str]:
    """Return ms per network and step by size, with both cores busy."""
    head = ["N", *(f"ctxrnn {name}" for name in grid.mechanisms)]
    table = [[*head, *(f"{peer.name}" for peer in peers_of())]]
    for units in sorted(grid.sizes):
        row = [str(units)]
        for mechanism in grid.mechanisms:
            share = 1e3 / (2 * grid.steps * grid.seeds)
            row.append(f"{Spread.of(runner.cells[mechanism, units]).median * share:.2f}")
        for peer in peers_of():
            seconds = step_seconds(times, peer.name, units, AT_ONCE)
            row.append(f"{1e3 * Spread.of(seconds).median:.2f}")
        table.append(row)
    return align(table)


Totals = Mapping[tuple[str, str, bool], list[float]]
"""Seconds of the whole study in every round, by (peer, way, whether trials are counted)."""


def totals(
    grid: Grid, times: Mapping[str, list[float]], runner: GridRunner
) -> tuple[list[float], Totals]:
    """Return the seconds of the whole study in every round: ctxrnn's and each peer's."""
    ours = [runner.set_up + s * grid.full / grid.steps for s in times[GRID]]
    per_size = len(grid.mechanisms) * grid.seeds * grid.full
    theirs: dict[tuple[str, str, bool], list[float]] = {}
    for peer, way in itertools.product(peers_of(), (ALONE, AT_ONCE)):
        columns = [step_seconds(times, peer.name, units, way) for units in grid.sizes]
        bare = [per_size * sum(row) for row in zip(*columns, strict=True)]
        trials = [grid.networks * grid.full * s for s in times[f"{TRIALS}, {way}"]]
        theirs[peer.name, way, False] = bare
        theirs[peer.name, way, True] = [a + b for a, b in zip(bare, trials, strict=True)]
    return ours, theirs


def total_table(ours: list[float], theirs: Totals, page: Report) -> list[str]:
    """Return the totals, peers beside ctxrnn, as lines of a table."""
    head = ["who", "networks run", "min, steps", "min, with trials", "x ctxrnn, steps"]
    mine = Spread.of([s / 60 for s in ours])
    table = [[*head, "x ctxrnn, with trials"]]
    table.append(["ctxrnn", "ensembles, two processes", "-", mine.format(1), "1", "1"])
    page.records.append({"who": "ctxrnn", "minutes": asdict(mine), "seconds": ours})
    for peer, way in itertools.product(peers_of(), (ALONE, AT_ONCE)):
        minutes, ratios = [], []
        for counted in (False, True):
            seconds = theirs[peer.name, way, counted]
            took, longer = Spread.of([s / 60 for s in seconds]), ratio(seconds, ours)
            minutes.append(took.format(1))
            ratios.append(longer.format(2))
            page.records.append(
                {"who": peer.name, "way": way, "trials": counted, "minutes": asdict(took)}
                | {"times_ctxrnn": asdict(longer), "seconds": seconds}
            )
        table.append([peer.name, way, *minutes, *ratios])
    return align(table)


def fastest(ours: list[float], theirs: Totals) -> list[list[str]]:
    """Compare ctxrnn with the fastest peer, each way and with trials counted or not."""
    table = [["the fastest", "is", "networks run", "its trials", "times ctxrnn's time"]]
    for way, counted in itertools.product((ALONE, AT_ONCE), (True, False)):
        rows = {key[0]: s for key, s in theirs.items() if key[1:] == (way, counted)}
        libraries = [name for name in rows if name.startswith(("nn4n", "NeuralRNN"))]
        noisy = [name for name in libraries if not name.endswith("no noise")]
        for what, names in (
            ("of all", list(rows)),
            ("library", libraries),
            ("library with noise, as ctxrnn", noisy),
        ):
            if names:
                best = min(names, key=lambda name: Spread.of(rows[name]).median)
                longer = ratio(rows[best], ours).format(2)
                trials = "neurogym's, counted" if counted else "free"
                table.append([what, best, way, trials, longer])
    return table


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, Grid]:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    mechanisms, sizes = ["none", "e-add", "s-sym", "es-add-sym"], [8, 16, 32, 64, 128]
    parser.add_argument(
        "--mechanisms", nargs="+", default=mechanisms, help="variants (default: four)"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=sizes, help="N (default 8 16 32 64 128)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="networks of each (default 5)")
    parser.add_argument(
        "--steps",
        type=int,
        default=EVERY,
        help=f"steps that are measured (default {EVERY}); a run ends with an evaluation, of which "
        f"a study makes one every {EVERY} steps: fewer steps overstate ctxrnn's time",
    )
    parser.add_argument(
        "--full", type=int, default=4000, help="steps to extrapolate to (default 4000)"
    )
    parser.add_argument(
        "--bank", type=int, default=4096, help="trials per task and seed (default 4096)"
    )
    add_options(parser, rounds=3, seconds=900, per="for the whole")
    options = parser.parse_args(arguments)
    check_rounds(parser, options)
    shape = (options.seeds, options.steps, options.full, options.bank)
    if min(*shape, *options.sizes) < 1:
        parser.error("--sizes, --seeds, --steps, --full and --bank must be at least 1")
    return options, Grid(tuple(options.mechanisms), tuple(sorted(set(options.sizes))), *shape)


def say_measured(
    page: Report, grid: Grid, times: Mapping[str, list[float]], runner: GridRunner
) -> None:
    """Print what was measured."""
    taken = Spread.of(times[GRID]).format(1)
    one, two = (
        Spread.of([BATCH / s for s in times[f"{TRIALS}, {way}"]]).format(0)
        for way in (ALONE, AT_ONCE)
    )
    page.say(
        "",
        "## Measured",
        "",
        f"{len(times[GRID])} rounds. {grid.steps} steps of all {grid.networks} networks of ctxrnn, "
        f"trials and one evaluation included: {taken} s. Making the banks, once: "
        f"{runner.set_up:.1f} s. neurogym, one trial after another: {one} trials/s in one process, "
        f"{two} in two.",
        "",
        "ms per network and step, both cores busy (two processes, per network; medians); ctxrnn's "
        "with trials and evaluation, the others' the bare step:",
        "",
        *cell_table(grid, times, runner),
    )


def say_extrapolated(
    page: Report, grid: Grid, times: Mapping[str, list[float]], runner: GridRunner
) -> None:
    """Print what follows for the whole study."""
    ours, theirs = totals(grid, times, runner)
    page.say(
        "",
        f"## Extrapolated to {grid.full} steps",
        "",
        "The measured seconds per step times the steps. A peer trains every network as its plain "
        "network, as if it had the mechanisms at no cost, and is not evaluated.",
        "",
        *total_table(ours, theirs, page),
        "",
        *align(fastest(ours, theirs)),
    )


def main() -> None:
    """Measure, print and write the tables."""
    options, grid = parse()
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    work = (
        f"{grid.networks} networks ({len(grid.mechanisms)} mechanisms x {len(grid.sizes)} sizes x "
        f"{grid.seeds} seeds), {len(TASKS)} tasks ({', '.join(TASKS)}), dt {STEP_MS:g} ms, ring "
        f"{RING}, batch {BATCH}, bank of {grid.bank} trials per task and seed"
    )
    page = Report("A packing grid", PACKAGES, options, work)
    times, runner = measure(grid, options)
    say_measured(page, grid, times, runner)
    say_extrapolated(page, grid, times, runner)
    page.records += [
        {"mechanism": m, "units": n, "seconds_of_ensemble": s} for (m, n), s in runner.cells.items()
    ] + [{"call": name, "seconds": s} for name, s in times.items()]
    page.write()


if __name__ == "__main__":
    main()

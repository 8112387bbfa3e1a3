"""Time one training step (forward, backward, Adam) of one network, beside other libraries.

    python benchmarks/training_step.py --threads 1 --units 64 256 --markdown step.md

Every network gets the same trials and the same loss, and is trained as its documentation shows;
ctxrnn's also as `ctxrnn.train` takes a step (rows "train()"). The rows take turns, one step each,
so that a disturbance of the machine falls on all of them, and are compared within each round. At
the standard size (64 trials, 100 steps, cross-entropy, one thread) the verdicts follow the table.

    --only nn.RNN "ctxrnn none"   runs some rows only
    --nonlinearity tanh           gives all networks the same nonlinearity
    --rounds 3 --seconds 5        tries it out

benchmarks/README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

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
    ratio,
    rounds_line,
    time_rounds,
)
from _peers import INPUTS, OUTPUTS, PEERS, Peer, Setup
from _steps import make_data, module_step, train_step
from torch import Tensor

PACKAGES = ("torch", "ctxrnn", "nn4n", "neuralrnn")
PRODUCT = "matrix product"
TARGETS = {64: (2.5, 1.5), 256: (1.3, 1.2)}
"""By N: times faster than nn4n that a step must be, and than nn.RNN that it aims at."""


def choose(only: Iterable[str]) -> list[Peer]:
    """Return the installed peers whose name holds one of the words (all without words)."""
    words = [word.lower() for word in only]
    wanted = [peer for peer in PEERS if not words or any(w in peer.name.lower() for w in words)]
    if not wanted:
        names = "; ".join(peer.name for peer in PEERS)
        raise SystemExit(f"--only must match at least one of: {names}")
    missing = {p.package for p in wanted if importlib.util.find_spec(p.package) is None}
    for package in sorted(missing):
        print(f'{package}: not installed, skipped; to add it: pip install -e ".[bench]"')
    return [peer for peer in wanted if peer.package not in missing]


def step_of(peer: Peer, setup: Setup, data: tuple[Tensor, Tensor]) -> Callable[[], Tensor]:
    """Return a call that makes one training step of a row and returns the loss."""
    torch.manual_seed(0)
    if peer.trained:
        return train_step([setup], peer.variant, data)
    return module_step(peer.build(setup), [data])


def measure(peers: list[Peer], units: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Time all networks of one size and the matrix product, in turns."""
    data = make_data(options.batch, options.steps, loss=options.loss)
    tasks = {}
    for peer in peers:
        phi = peer.nonlinearity(options.nonlinearity)
        tasks[peer.name] = step_of(peer, Setup(units, options.batch, phi, peer.noise), data)
    rounds = {**tasks, PRODUCT: matrix_product()}
    times = time_rounds(rounds, rounds=options.rounds, seconds=options.seconds)
    for name, step in tasks.items():
        if not bool(step().isfinite()):
            raise SystemExit(f"{name}: the loss is not finite, so its time means nothing")
    return times


def report(
    peers: list[Peer], units: int, times: dict[str, list[float]], options: argparse.Namespace
) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Return the table, heading first, and the same with all pairwise ratios for JSON."""
    against = [name for name in options.against if name in times]
    heads = [f"x {name}" for name in against]
    table = [["network", "phi", "noise", "ms", *heads, "GFLOP/s", "of matmul"]]
    records = []
    for peer in peers:
        took = times[peer.name]
        flops = peer.flops(options.batch, options.steps, units)
        fraction = ratio(times[PRODUCT], took).median * flops / (2 * MATRIX**3)
        spread = Spread.of([1e3 * second for second in took])
        ratios = {p.name: ratio(took, times[p.name]) for p in peers}
        cells = ["1" if name == peer.name else ratios[name].format(2) for name in against]
        rate = flops / spread.median / 1e6
        noise = f"{peer.noise:g}" if peer.noise else "-"
        phi = peer.nonlinearity(options.nonlinearity)
        cells = [peer.name, phi, noise, spread.format(1), *cells]
        table.append([*cells, f"{rate:.0f}", f"{fraction:.0%}"])
        records.append(
            {"network": peer.name, "nonlinearity": phi, "noise": peer.noise, "units": units}
            | {"ms": asdict(spread)}
            | {"gflop": flops / 1e9, "gflop_per_s": rate, "fraction_of_matmul": fraction}
            | {"ratio_to": {name: asdict(value) for name, value in ratios.items()}}
            | {"seconds": took}
        )
    return table, records


def judge(times: dict[str, list[float]], units: int) -> list[Verdict]:
    """Compare `none` with the peers at this size, as the targets in README.md ask."""
    if units not in TARGETS:
        return []
    found = []
    nn4n, rnn = TARGETS[units]
    for noise in ("", ", no noise"):
        for way in ("", ", train()"):
            row = f"ctxrnn none{noise}{way}"
            for peer, must, aim in (
                (f"nn4n CTRNN{noise}", nn4n, None),
                ("nn.RNN tanh", 1.0, rnn),
                ("nn.RNN relu", None, None),
            ):
                if row in times and peer in times:
                    faster = ratio(times[peer], times[row])
                    found.append(Verdict(f"{row}: times faster than {peer}", faster, must, aim))
    return found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--threads", type=int, default=1, choices=(1, 2), help="torch's threads (default 1)"
    )
    parser.add_argument(
        "--units", type=int, nargs="+", default=[64, 256], help="sizes N (default 64 256)"
    )
    parser.add_argument("--steps", type=int, default=100, help="time steps (default 100)")
    parser.add_argument("--batch", type=int, default=64, help="trials of a batch (default 64)")
    parser.add_argument("--loss", choices=("cross-entropy", "mse"), default="cross-entropy")
    parser.add_argument(
        "--nonlinearity",
        choices=("own", "tanh", "relu"),
        default="own",
        help="own: each library's default; otherwise the same for all but nn.RNN's two rows",
    )
    parser.add_argument(
        "--only", nargs="+", default=[], help="words in the names of the rows to run"
    )
    against = ["nn.RNN tanh", "ctxrnn none"]
    parser.add_argument("--against", nargs="+", default=against, help="rows to divide by")
    add_options(parser, rounds=50, seconds=60, per="for each size")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.against) - {peer.name for peer in PEERS})
    if unknown:
        names = "; ".join(peer.name for peer in PEERS)
        parser.error(f"--against must name rows ({names}): got {'; '.join(unknown)}")
    check_rounds(parser, options)
    return options


def main() -> None:
    """Measure, print and write the tables."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    peers = choose(options.only)
    work = (
        f"{options.batch} trials x {options.steps} steps, {INPUTS} inputs, {OUTPUTS} outputs, "
        f"{options.loss} of all steps, Adam, {options.threads} thread(s)"
    )
    page = Report("One training step", PACKAGES, options, work)
    standard = (options.batch, options.steps, options.loss, options.threads)
    for units in options.units:
        times = measure(peers, units, options)
        table, found = report(peers, units, times, options)
        page.say("", f"## N = {units}", "", rounds_line(times[PRODUCT]), "", *align(table))
        page.records += found
        if standard == (64, 100, "cross-entropy", 1):
            page.judge(judge(times, units))
    page.write()


if __name__ == "__main__":
    main()

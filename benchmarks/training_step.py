"""Time one training step (forward, backward, Adam) of one network, beside other libraries.

    python benchmarks/training_step.py --threads 1 --units 64 256 --markdown step.md

Every network gets the same trials and the same loss, and is trained as its documentation shows.
benchmarks/README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from _measure import MATRIX, Spread, align, describe_machine, matrix_product, ratio, time_rounds
from _peers import INPUTS, OUTPUTS, PEERS, Network, Peer, Setup
from torch import Tensor
from torch.nn import functional

PACKAGES = ("torch", "ctxrnn", "nn4n", "neuralrnn")
PRODUCT = "matrix product"


def training_step(network: Network, inputs: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    """Return a call that makes one training step and returns the loss.

    Args:
        network: The network; inputs and targets are put into its axis order here, off the clock.
        inputs: (trial, time, input).
        targets: Classes, (trial, time), or wanted outputs, (trial, time, output).
    """
    optimizer = torch.optim.Adam(network.module.parameters(), lr=1e-3)
    if network.time_first:
        inputs, targets = inputs.transpose(0, 1).contiguous(), targets.transpose(0, 1)
    wanted = targets.flatten(0, 1)
    loss_of = functional.mse_loss if wanted.is_floating_point() else functional.cross_entropy

    def step() -> Tensor:
        optimizer.zero_grad()
        outputs = network.outputs(inputs)
        loss = loss_of(outputs.flatten(0, 1), wanted)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


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


def measure(peers: list[Peer], units: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of every round, by peer and for the matrix product."""
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch, options.steps)
    inputs = torch.randn(*shape, INPUTS, generator=generator)
    if options.loss == "mse":
        targets = torch.randn(*shape, OUTPUTS, generator=generator)
    else:
        targets = torch.randint(OUTPUTS, shape, generator=generator)
    tasks: dict[str, Callable[[], Tensor]] = {}
    for peer in peers:
        torch.manual_seed(0)
        phi = peer.nonlinearity(options.nonlinearity)
        network = peer.build(Setup(units, options.batch, phi, peer.noise))
        tasks[peer.name] = training_step(network, inputs, targets)
    rounds = {**tasks, PRODUCT: matrix_product()}
    times = time_rounds(rounds, rounds=options.rounds, seconds=options.seconds)
    for name, step in tasks.items():
        if not bool(step().isfinite()):
            raise SystemExit(f"{name}: the loss is not finite, so its time means nothing")
    return times


def rounds_line(products: list[float]) -> str:
    """Say how many rounds there were and how fast the machine was in them."""
    usual, best = (2e-9 * MATRIX**3 / took for took in (Spread.of(products).median, min(products)))
    line = (
        f"median [quartiles] of {len(products)} rounds; float32 products of {MATRIX} x {MATRIX}: "
        f"{usual:.0f} GFLOP/s, at best {best:.0f}"
    )
    if usual < 0.7 * best or len(products) < 10:
        line += " (disturbed or too few rounds: do not quote)"
    return line


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


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, choices=(1, 2), help="torch threads")
    parser.add_argument("--units", type=int, nargs="+", default=[64, 256], help="sizes N")
    parser.add_argument("--steps", type=int, default=100, help="time steps of a trial")
    parser.add_argument("--batch", type=int, default=64, help="trials of a batch")
    parser.add_argument("--loss", choices=("cross-entropy", "mse"), default="cross-entropy")
    parser.add_argument(
        "--nonlinearity",
        choices=("own", "tanh", "relu"),
        default="own",
        help="own: each library's default; otherwise the same for all but nn.RNN's two rows",
    )
    parser.add_argument("--rounds", type=int, default=50, help="rounds at most, for each size")
    parser.add_argument("--seconds", type=float, default=60, help="time budget for each size")
    parser.add_argument("--only", nargs="+", default=[], help="words in the names of rows")
    against = ["nn.RNN tanh", "ctxrnn none"]
    parser.add_argument("--against", nargs="+", default=against, help="rows to divide by")
    parser.add_argument("--json", type=Path, help="write every time and ratio here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.against) - {peer.name for peer in PEERS})
    if unknown:
        names = "; ".join(peer.name for peer in PEERS)
        parser.error(f"--against must name rows ({names}): got {'; '.join(unknown)}")
    if options.rounds < 2:
        parser.error("--rounds must be at least 2: quartiles need two rounds")
    return options


def main() -> None:
    """Measure, print and write the tables."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    machine = describe_machine(PACKAGES)
    peers = choose(options.only)
    head = [f"- {key}: {value}" for key, value in machine.items()]
    head.append(
        f"- work: {options.batch} trials x {options.steps} steps, {INPUTS} inputs, {OUTPUTS} "
        f"outputs, {options.loss} of all steps, Adam, {options.threads} thread(s)"
    )
    print(*head, sep="\n")
    lines, records = ["# One training step", "", *head], []
    for units in options.units:
        times = measure(peers, units, options)
        table, found = report(peers, units, times, options)
        title = f"N = {units}: {rounds_line(times[PRODUCT])}"
        section = ["", title, "", *align(table)]
        print(*section, sep="\n", flush=True)
        lines += section
        records += found
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if options.json:
        work = {key: value for key, value in vars(options).items() if not isinstance(value, Path)}
        content = {"machine": machine, "options": work, "rows": records}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

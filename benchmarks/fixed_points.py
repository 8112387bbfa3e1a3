"""Time the search for fixed points beside Adam on q, on networks trained on a flip-flop task.

    python benchmarks/fixed_points.py --rounds 5 --seconds 120 --markdown fixed_points.md

benchmarks/README.md says how to read the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from _measure import Report, Verdict, add_options, align, check_rounds, ratio, time_rounds
from torch import Tensor

from ctxrnn import CTRNN
from ctxrnn.analysis import find_fixed_points, visited_states

PACKAGES = ("ctxrnn", "torch", "numpy")
OURS, ADAM = "find_fixed_points", "Adam on q"


def flip_flop(
    trials: int, steps: int, bits: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return pulses (trial, time, bit) and the sign of the last pulse of each bit."""
    shape = (trials, steps, bits)
    pulses = (torch.rand(shape, generator=generator) < 0.05).float()
    pulses[:, 0] = 1.0
    pulses *= torch.sign(torch.rand(shape, generator=generator) - 0.5)
    held = [pulses[:, 0]]
    for step in range(1, steps):
        held.append(torch.where(pulses[:, step] != 0, pulses[:, step], held[-1]))
    return pulses, torch.stack(held, dim=1)


def trained(nonlinearity: str, bits: int, units: int, steps: int) -> CTRNN:
    """Train a network to hold bits."""
    generator = torch.Generator().manual_seed(0)
    network = CTRNN(
        bits, units, bits, tau=100.0, dt=50.0, noise=0.02, seed=0, nonlinearity=nonlinearity
    )
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        pulses, held = flip_flop(64, 60, bits, generator)
        outputs = network(pulses, None, generator=generator).outputs
        loss = (outputs - held)[:, 5:].square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network


def adam_search(network: CTRNN, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimise q = |x(t + dt) - x(t)|^2 / 2 from all starts at once.

    The published defaults of FixedPointFinder (Golub and Sussillo 2018): Adam from a rate of 1,
    times 0.95 whenever q has not fallen for 5 iterations, until all q are below 1e-12 or change by
    less than 1e-20, for 5,000 iterations at most; float32, as there.

    Returns:
        Ends (start, unit) and q of each.
    """
    circuit = network.circuit(None)
    u = torch.zeros(len(starts), network.inputs)
    x = torch.tensor(starts, dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.95, patience=5)
    before = None
    for _ in range(5000):
        step = network.velocity(circuit, x, u) * network.dt
        q = step.square().sum(-1) / 2
        optimiser.zero_grad()
        loss = q.mean()
        (x.grad,) = torch.autograd.grad(loss, x)
        now = q.detach()
        done = now <= 1e-12
        if before is not None:
            done |= (now - before).abs() <= 1e-20
        if done.all():
            break
        before = now
        optimiser.step()
        schedule.step(loss.detach())
    return x.detach().double().numpy(), q.detach().double().numpy()


def distinct(points: np.ndarray) -> list[np.ndarray]:
    """Return points that are farther than 1e-3 from each other."""
    kept: list[np.ndarray] = []
    for point in points:
        if all(np.linalg.norm(point - other) > 1e-3 for other in kept):
            kept.append(point)
    return kept


def known(points: list[np.ndarray], reference: np.ndarray) -> tuple[int, int]:
    """Return how many of the reference points were found, and how many points are none of them."""
    if not points:
        return 0, 0
    away = np.linalg.norm(np.array(points)[:, None] - reference, axis=-1)
    # A float32 search at q = 1e-12 ends within this of a point.
    return int((away.min(axis=0) < 0.05).sum()), int((away.min(axis=1) >= 0.05).sum())


def reference_points(network: CTRNN, starts: np.ndarray) -> np.ndarray:
    """Return the points of a search apart: ten times the starts, spread wider, and more rounds."""
    spread = np.concatenate([starts] * 10)
    spread = spread + 0.5 * np.random.default_rng(1).normal(size=spread.shape)
    found = find_fixed_points(network, starts=spread, between=4)
    return found.x[~found.slow]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=64, help="N (default 64)")
    parser.add_argument("--starts", type=int, default=1024, help="starts (default 1024)")
    parser.add_argument("--bits", type=int, default=3, help="bits of the flip-flop (default 3)")
    parser.add_argument("--training", type=int, default=3000, help="training steps (default 3000)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    add_options(parser, rounds=5, seconds=120, per="per network")
    options = parser.parse_args()
    check_rounds(parser, options)
    work = (
        f"{options.starts} starts on trained {options.bits}-bit flip-flop networks of "
        f"{options.units} units, no input"
    )
    report = Report("Fixed points", PACKAGES, options, work)
    for nonlinearity, must, aim in (("tanh", 5.0, 20.0), ("relu", 20.0, 100.0)):
        torch.set_num_threads(1)
        network = trained(nonlinearity, options.bits, options.units, options.training)
        pulses, _ = flip_flop(64, 100, options.bits, torch.Generator().manual_seed(5))
        starts = visited_states(network(pulses, None, generator=1), options.starts)
        torch.set_num_threads(options.threads)
        searches: dict[str, Callable[[], object]] = {
            OURS: lambda n=network, x=starts: find_fixed_points(n, starts=x),
            ADAM: lambda n=network, x=starts: adam_search(n, x),
        }
        times = time_rounds(searches, rounds=options.rounds, seconds=options.seconds, warmup=0)
        reference = reference_points(network, starts)
        found = find_fixed_points(network, starts=starts)
        ends, q = adam_search(network, starts)
        rows = [["search", "seconds", "points", "of those known", "others", "starts converged"]]
        for name, points, share in (
            (OURS, list(found.x[~found.slow]), found.converged.mean()),
            (ADAM, distinct(ends[q <= 1e-12]), (q <= 1e-12).mean()),
        ):
            hits, others = known(points, reference)
            seconds = np.median(times[name])
            told = f"{hits} of {len(reference)}"
            rows.append(
                [name, f"{seconds:.3f}", str(len(points)), told, str(others), f"{share:.3f}"]
            )
        report.say("", f"## {nonlinearity}", "", *align(rows))
        measured = ratio(times[ADAM], times[OURS])
        report.judge([Verdict(f"{nonlinearity}: {ADAM} / {OURS}", measured, must, aim)])
        report.records.append({"nonlinearity": nonlinearity, "times": times})
    report.write()


if __name__ == "__main__":
    main()

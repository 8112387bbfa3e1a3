"""Time the search for fixed points beside Adam on q and NeuralRNN's finders, on trained networks.

    python benchmarks/fixed_points.py --rounds 5 --seconds 120 --markdown fixed_points.md

benchmarks/README.md says how to read the tables.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from _measure import (
    Report,
    Verdict,
    add_options,
    align,
    check_rounds,
    ratio,
    stopwatch,
    time_rounds,
)
from _planted import planted
from torch import Tensor, nn

from ctxrnn import CTRNN, TrainConfig, evaluate, train
from ctxrnn.analysis import FixedPoints, find_fixed_points, visited_states
from ctxrnn.tasks import task_set

PACKAGES = ("ctxrnn", "torch", "numpy", "neuralrnn")
OURS, ADAM = "find_fixed_points", "Adam on q"
NUMERIC, GOLUB = "NeuralRNN numeric", "NeuralRNN Golub"
TASKS = ("dm1", "dm2", "ctxdm1", "ctxdm2")


@dataclass(frozen=True)
class Case:
    """A trained network, where to search it, and how much faster than Adam it must be.

    Attributes:
        name: Heading.
        network: The network.
        context: c, (context,), or None.
        inputs: u, (input,).
        starts: Visited states, (start, unit).
        must: Least ratio of times.
        aim: Ratio hoped for.
    """

    name: str
    network: CTRNN
    context: np.ndarray | None
    inputs: np.ndarray
    starts: np.ndarray
    must: float
    aim: float

    def find(self, **options: Any) -> FixedPoints:
        """Search with ours."""
        starts = options.pop("starts", self.starts)
        return find_fixed_points(self.network, self.context, self.inputs, starts, **options)


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


def flip_flop_case(nonlinearity: str, options: argparse.Namespace) -> Case:
    """Return a network that holds bits, without input."""
    network = trained(nonlinearity, options.bits, options.units, options.training)
    pulses, _ = flip_flop(64, 100, options.bits, torch.Generator().manual_seed(5))
    starts = visited_states(network(pulses, None, generator=1), options.starts)
    name = f"{options.bits}-bit flip-flop, {nonlinearity}"
    return Case(name, network, None, np.zeros(options.bits), starts, must=5.0, aim=20.0)


def context_case(variant: str, options: argparse.Namespace) -> Case:
    """Return a relu network of four decision tasks, in the context of one, while it fixates."""
    tasks = task_set(TASKS, dt=50, ring=8)
    network = CTRNN(
        tasks.inputs, options.units, tasks.outputs, variant, contexts=len(TASKS), dt=50,
        nonlinearity="relu", seed=0,
    )  # fmt: skip
    steps = max(1, 2 * options.training // 3)
    train(network, tasks, TrainConfig(steps=steps, learning_rate=3e-3), seed=0, progress=False)
    scores = evaluate(network, tasks, 1000, generator=1)
    batch = tasks.sample(64, generator=3, tasks="ctxdm1")
    starts = visited_states(network(batch.inputs, batch.context, generator=1), options.starts)
    fixation = np.zeros(tasks.inputs)
    fixation[0] = 1.0
    name = f"four decision tasks, relu, {variant} (accuracy {np.mean(list(scores.values())):.2f})"
    return Case(name, network, np.eye(len(TASKS))[2], fixation, starts, must=20.0, aim=100.0)


def step_of(case: Case) -> Callable[[Tensor], Tensor]:
    """Return dx = velocity dt of a case, float32."""
    context = None if case.context is None else torch.as_tensor(case.context[None]).float()
    with torch.no_grad():
        circuit = case.network.circuit(context)
    u = torch.as_tensor(case.inputs).float()
    return lambda x: case.network.velocity(circuit, x, u.expand(len(x), -1)) * case.network.dt


def adam_search(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Minimise q = |x(t + dt) - x(t)|^2 / 2 from all starts at once.

    The published defaults of FixedPointFinder (Golub and Sussillo 2018): Adam from a rate of 1,
    times 0.95 whenever q has not fallen for 5 iterations, until all q are below 1e-12 or change by
    less than 1e-20, for 5,000 iterations at most; float32, as there.

    Returns:
        Ends (start, unit) and q of each.
    """
    step = step_of(case)
    x = torch.tensor(case.starts, dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.95, patience=5)
    before = None
    for _ in range(5000):
        q = step(x).square().sum(-1) / 2
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


class _Step(nn.Module):
    """A network as NeuralRNN's finders want it: z -> z + dz."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.step = step_of(case)
        self.config = SimpleNamespace(latent_dim=case.network.units)
        self.unused = nn.Parameter(torch.zeros(1))

    def recurrence(self, inputs: Tensor | None, z: Tensor) -> Tensor:
        return z + self.step(z)

    def jacobian(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        found = torch.autograd.functional.jacobian(
            lambda point: self.recurrence(None, point[None])[0], z
        )
        return found if isinstance(found, Tensor) else torch.stack(found)


def neuralrnn_search(case: Case, name: str) -> tuple[list[np.ndarray], float]:
    """Search with a finder of NeuralRNN and its defaults, from the case's starts.

    Returns:
        Points, and the largest |dz| of a point in the units of R.
    """
    from neuralrnn.analysis import (  # type: ignore[import-not-found,unused-ignore]
        fixed_points as finders,
    )

    model = _Step(case)
    starts = torch.as_tensor(case.starts, dtype=torch.float32)
    if name == NUMERIC:
        found = finders.NumericFixedPointFinder().find(model, init_states=starts)
    else:
        finder = finders.GolubFixedPointFinder(n_candidates=len(starts), seed=0)
        found = finder.find(model, init_states=starts)
    return [point.z for point in found], max(point.speed for point in found)


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


def reference_points(case: Case) -> np.ndarray:
    """Return the points of a search apart: ten times the starts, spread wider, and more rounds."""
    spread = np.concatenate([case.starts] * 10)
    spread = spread + 0.5 * np.random.default_rng(1).normal(size=spread.shape)
    found = case.find(starts=spread, between=4)
    return found.x[~found.slow]


def compare(case: Case, options: argparse.Namespace, report: Report) -> None:
    """Time one case and tell what each search found."""
    searches: dict[str, Callable[[], object]] = {
        OURS: lambda: case.find(),
        ADAM: lambda: adam_search(case),
    }
    times = time_rounds(searches, rounds=options.rounds, seconds=options.seconds, warmup=0)
    reference = reference_points(case)
    found = case.find()
    ends, q = adam_search(case)
    rows = [["search", "seconds", "points", "of those known", "others", "starts: converged"]]

    def tell(name: str, seconds: float, points: list[np.ndarray], share: str) -> None:
        hits, others = known(points, reference)
        told = f"{hits} of {len(reference)}"
        rows.append([name, f"{seconds:.3f}", str(len(points)), told, str(others), share])

    how = ", ".join(f"{n} {end}" for end, n in found.starts["end"].value_counts().items())
    tell(OURS, float(np.median(times[OURS])), list(found.x[~found.slow]), how)
    tell(
        ADAM, float(np.median(times[ADAM])), distinct(ends[q <= 1e-12]),
        f"{(q <= 1e-12).sum()} q <= 1e-12",
    )  # fmt: skip
    if importlib.util.find_spec("neuralrnn") and not options.no_peers:
        for name in (NUMERIC, GOLUB):
            begun = time.perf_counter()
            points, speed = neuralrnn_search(case, name)
            seconds = time.perf_counter() - begun
            tell(name, seconds, points, f"not told; largest |dz| of a point {speed:.1e}")
    report.say("", f"## {case.name}", "", *align(rows))
    measured = ratio(times[ADAM], times[OURS])
    report.judge([Verdict(f"{case.name}: {ADAM} / {OURS}", measured, case.must, case.aim)])
    report.records.append({"case": case.name, "times": times})


def recall(options: argparse.Namespace, report: Report) -> None:
    """Search planted networks, whose points are all known."""
    hits = {"stable": 0, "saddle": 0}
    total = {"stable": 0, "saddle": 0}
    others = 0
    for seed in range(20):
        system = planted(options.units, 3, seed)
        found = find_fixed_points(system.network, starts=system.starts(options.starts // 4))
        away = np.linalg.norm(found.x[~found.slow][:, None] - system.points, axis=-1)
        there = away.min(axis=0) < 1e-6
        for kind, mask in (("stable", system.index == 0), ("saddle", system.index > 0)):
            hits[kind] += int(there[mask].sum())
            total[kind] += int(mask.sum())
        others += int((away.min(axis=1) >= 1e-6).sum())
    report.say(
        "", "## Recall over 20 planted networks", "",
        f"{hits['stable']} of {total['stable']} stable points, {hits['saddle']} of "
        f"{total['saddle']} others, {others} that are none "
        f"({options.units} units, {options.starts // 4} starts each).",
    )  # fmt: skip


def large(report: Report) -> None:
    """Search 512 units from 256 starts: untrained and chaotic, the slowest case known."""
    network = CTRNN(3, 512, 3, g=1.3, seed=0)
    pulses = torch.randn(20, 60, 3, generator=torch.Generator().manual_seed(0))
    starts = visited_states(network(pulses, None, generator=0), 256)
    results: list[FixedPoints] = []
    seconds = stopwatch(lambda: results.append(find_fixed_points(network, starts=starts)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    report.say(
        "", "## 512 units, 256 starts (untrained, g = 1.3)", "",
        f"{seconds:.1f} s, most memory of the process {memory:.2f} GiB: {results[0]}.",
    )  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=64, help="N (default 64)")
    parser.add_argument("--starts", type=int, default=1024, help="starts (default 1024)")
    parser.add_argument("--bits", type=int, default=3, help="bits of the flip-flop (default 3)")
    parser.add_argument("--training", type=int, default=3000, help="training steps (default 3000)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--no-peers", action="store_true", help="leave NeuralRNN's finders out")
    add_options(parser, rounds=5, seconds=120, per="per network")
    options = parser.parse_args()
    check_rounds(parser, options)
    work = f"{options.starts} starts on trained networks of {options.units} units"
    report = Report("Fixed points", PACKAGES, options, work)
    torch.set_num_threads(1)
    cases = [flip_flop_case(name, options) for name in ("tanh", "relu")]
    cases += [context_case(name, options) for name in ("e-add", "es-add-sym")]
    torch.set_num_threads(options.threads)
    # Before the others, which would count for its memory.
    large(report)
    for case in cases:
        compare(case, options, report)
    recall(options, report)
    report.write()


if __name__ == "__main__":
    main()

"""Measure what a step of training costs against variant, N, K and trial length; fit the cost model.

    python benchmarks/cost.py

prints the constants of `ctxrnn/studies/_cost.py`. Networks are trained in ensembles of eight, as a
worker of a study does; the time of a step is processor time, the median over rounds in which all
configurations take turns. The fit is a least squares of relative errors with coefficients that are
not negative.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import numpy as np
from scipy.optimize import nnls

from ctxrnn import CTRNN, Ensemble, TrainConfig, make_generator, train
from ctxrnn.studies._cost import COMPANY, DRAW, MODEL, family, mean_steps
from ctxrnn.studies._networks import answers
from ctxrnn.studies._plan import NetworkSettings, plan_network, tasks_of

VARIANTS = ("none", "e-add", "s-sym", "s-gate-1", "es-add-sym")
SIZES = (8, 16, 32, 64, 128)
TASKS = (
    ("go", "dm1"),
    ("go", "anti", "dm1", "dms"),
    ("go", "anti", "dlygo", "dlyanti", "dm1", "dm2", "ctxdm1", "ctxdm2", "dms", "dnms"),
)
STEPS = 100


def configurations(base: NetworkSettings) -> list[Any]:
    """Return the plans to measure."""
    plans = []
    for dt in (50.0, 20.0):
        for tasks in TASKS if dt == 50.0 else TASKS[-1:]:
            settings = NetworkSettings(tasks=tasks, dt=dt, train=base.train)
            for variant in VARIANTS:
                for units in SIZES:
                    plans.append(plan_network(settings, {"variant": variant, "units": units}))
    return plans


def step_seconds(plan: Any) -> float:
    """Train an ensemble for some steps; return the seconds per network and step."""
    tasks = tasks_of(plan)
    count = COMPANY if plan.units <= 64 else 2
    networks = [
        CTRNN(
            tasks.inputs, plan.units, tasks.outputs, plan.variant, contexts=len(plan.tasks),
            dt=plan.trials["dt"], seed=seed, **plan.options,
        )
        for seed in range(count)
    ]  # fmt: skip
    started = time.process_time()
    train(Ensemble(networks), tasks, plan.train, seed=0, progress=False, threads=1)
    return (time.process_time() - started) / STEPS / count - DRAW / count


def draw_seconds(plan: Any) -> float:
    """Return the seconds to draw one batch of trials."""
    tasks, source = tasks_of(plan), make_generator(0)
    started = time.process_time()
    for _ in range(10):
        tasks.sample(plan.train.batch, generator=source)
    return (time.process_time() - started) / 10


def forward_share(plan: Any) -> float:
    """Return the time of a run without gradient as a share of a step on as many trials."""
    tasks = tasks_of(plan)
    network = CTRNN(
        tasks.inputs, plan.units, tasks.outputs, plan.variant, contexts=len(plan.tasks),
        dt=plan.trials["dt"], seed=0, **plan.options,
    )  # fmt: skip
    batch = tasks.sample(1000, generator=make_generator(0))
    times = []
    for _ in range(5):
        started = time.process_time()
        answers(network, batch, generator=make_generator(1))
        times.append(time.process_time() - started)
    cost = MODEL[family(plan.variant)]
    moments = 1000 * mean_steps(plan)
    inner = moments * (cost.linear * plan.units + cost.square * plan.units**2)
    return statistics.median(times) / inner


def fitted(plans: list[Any], seconds: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Fit the model to each family of variants; return coefficients and relative errors."""
    found, errors = {}, np.zeros(len(plans))
    for name in dict.fromkeys(family(plan.variant) for plan in plans):
        mine = [i for i, plan in enumerate(plans) if family(plan.variant) == name]
        rows = []
        for i in mine:
            plan = plans[i]
            moments = plan.train.batch * mean_steps(plan)
            n, k = plan.units, len(plan.tasks)
            rows.append([1.0, moments * n, moments * n**2, k * n**2])
        design = np.array(rows)
        scaled = design / seconds[mine][:, None]
        norm = np.linalg.norm(scaled, axis=0)
        coefficients, _ = nnls(scaled / norm, np.ones(len(mine)))
        found[name] = coefficients / norm
        errors[mine] = design @ found[name] / seconds[mine] - 1
    return found, errors


def main() -> int:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    config = TrainConfig(
        steps=STEPS, evaluate_every=STEPS, evaluation_trials=16, target=None, learning_rate=1e-3
    )
    plans = configurations(NetworkSettings(train=config))
    samples = np.zeros((arguments.rounds, len(plans)))
    for number in range(arguments.rounds):
        for place, plan in enumerate(plans):
            samples[number, place] = step_seconds(plan)
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    seconds = np.median(samples, axis=0)
    found, errors = fitted(plans, seconds)
    for name, (fixed, linear, square, contexts) in found.items():
        print(f'    "{name}": StepCost({fixed:.3g}, {linear:.3g}, {square:.3g}, {contexts:.3g}),')
    low, middle, high = np.quantile(np.abs(errors), [0.5, 0.9, 1.0])
    print(
        f"relative error of the fit: median {low:.2f}, nine in ten {middle:.2f}, worst {high:.2f}"
    )
    draws = [draw_seconds(plan) for plan in plans if plan.units == 8]
    print(f"DRAW = {statistics.median(draws):.2g}  (from {min(draws):.2g} to {max(draws):.2g})")
    shares = [forward_share(plan) for plan in plans if plan.units in (32, 64)]
    print(f"FORWARD = {statistics.median(shares):.2f}  ({min(shares):.2f} to {max(shares):.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

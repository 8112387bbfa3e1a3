"""What a network costs: time and memory against N, K, trial length and company."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ctxrnn import make_generator

if TYPE_CHECKING:
    from ctxrnn.studies._plan import Plan


@dataclass(frozen=True)
class StepCost:
    """Time of one optimiser step of one network, one thread, in seconds.

    fixed + M (linear N + square N^2) + contexts K N^2, where M is the number of time steps of all
    trials of the batch, without padding.

    Attributes:
        fixed: Seconds for each step: Python, optimiser, loss.
        linear: Seconds for each time step and unit.
        square: Seconds for each time step and pair of units: the products with W.
        contexts: Seconds for each context and pair of units: W(c) and its gradient.
    """

    fixed: float
    linear: float
    square: float
    contexts: float

    def seconds(self, units: int, contexts: int, moments: float) -> float:
        """Return the seconds of a step."""
        inner = moments * (self.linear * units + self.square * units**2)
        return self.fixed + inner + self.contexts * contexts * units**2


MODEL: Mapping[str, StepCost] = {
    "none": StepCost(7.8e-4, 4.8e-9, 6.7e-11, 0.0),
    "excitability": StepCost(8.2e-4, 4.8e-9, 6.7e-11, 2.3e-10),
    "synaptic": StepCost(1.04e-3, 5.5e-9, 6.5e-11, 7.3e-9),
    "both": StepCost(1.08e-3, 5.7e-9, 6.3e-11, 9.2e-9),
}
"""Fitted by `benchmarks/cost.py` on one core of an AMD EPYC (Zen 4)."""

DRAW = 6.6e-4
"""Seconds to draw and lay out a batch of 64 trials, once for all networks that see it."""
COMPANY = 8
"""Networks that typically share their trials."""
VARYING = 3.0
"""Time for each unit in the loop for contexts that vary, as a multiple of the compiled one's."""
PRODUCT = 0.3
"""Time of the further products of a synaptic variant there, one for each context, relative to W."""
_BASE = 6e8
"""Bytes of a worker before it does anything: torch, neurogym, the tasks."""
FORWARD = 1.0
"""A run without gradient, as a share of a training step on as many trials."""


def family(variant: str) -> str:
    """Return the row of the model that a variant belongs to."""
    prefix = variant.split("-")[0]
    return {"e": "excitability", "s": "synaptic", "es": "both"}.get(prefix, "none")


@functools.lru_cache(maxsize=64)
def _mean_steps(tasks: tuple[str, ...], trials: str) -> float:
    """Return the mean length of a trial in time steps."""
    from ctxrnn.tasks import task_set

    batch = task_set(list(tasks), **json.loads(trials)).sample(
        64 * len(tasks), generator=make_generator(0, "lengths")
    )
    return float(batch.lengths.to(torch.float64).mean())


def mean_steps(plan: Plan) -> float:
    """Return the mean length of a network's trials in time steps."""
    return _mean_steps(plan.tasks, json.dumps(dict(plan.trials), sort_keys=True))


def forward_seconds(plan: Plan, trials: float) -> float:
    """Return the seconds of running a network on so many trials."""
    cost = MODEL[family(plan.variant)]
    moments = trials * mean_steps(plan)
    return FORWARD * (cost.linear * plan.units + cost.square * plan.units**2) * moments


def varying_seconds(plan: Plan, trials: float) -> float:
    """Return the seconds of running a network on trials whose contexts vary in time.

    There W(c) acts on each trial by its factors: one product with W for each context and one more.
    """
    cost = MODEL[family(plan.variant)]
    synaptic = family(plan.variant) in ("synaptic", "both")
    products = 1 + PRODUCT * len(plan.tasks) * synaptic
    inner = VARYING * cost.linear * plan.units + cost.square * plan.units**2
    return trials * mean_steps(plan) * products * inner


def training_seconds(plan: Plan) -> float:
    """Return the seconds of training a network for all its steps, of one core."""
    config = plan.train
    moments = config.batch * mean_steps(plan)
    step = MODEL[family(plan.variant)].seconds(plan.units, len(plan.tasks), moments)
    draw = DRAW * config.batch / 64 / COMPANY
    evaluations = config.steps / config.evaluate_every
    evaluation = forward_seconds(plan, config.evaluation_trials)
    evaluation += DRAW * config.evaluation_trials / 64
    return config.steps * (step + draw) + evaluations * evaluation


def memory_bytes(plan: Plan, together: int) -> float:
    """Return the memory of a worker that trains so many such networks together.

    torch and the tasks; each network's weights, their gradient, Adam's two moments and the kept
    ones; the rates of all steps of one batch; a bank of trials if there is one.
    """
    steps, inputs = mean_steps(plan), 1 + 2 * plan.trials["ring"]
    outputs = 1 + plan.trials["ring"]
    contexts = len(plan.tasks)
    parameters = plan.units * (plan.units + inputs + outputs + 1 + 2 * contexts)
    rates = 4 * 2 * plan.train.evaluation_trials * steps * (plan.units + outputs)
    bank = 4 * plan.bank * contexts * steps * (inputs + 3)
    return _BASE + together * 4 * 5 * parameters + rates + bank


def probe(steps: int) -> float:
    """Train four small networks for some steps; return the seconds that the model expects.

    What it takes besides (building the networks, the last evaluation) does not grow with the steps.
    """
    from ctxrnn import CTRNN, Ensemble, TrainConfig, train
    from ctxrnn.studies._plan import NetworkSettings, plan_network
    from ctxrnn.tasks import task_set

    config = TrainConfig(steps=steps, evaluate_every=steps, evaluation_trials=16, target=None)
    base = NetworkSettings(tasks=("go", "dm1", "dms"), train=config)
    plans = [plan_network(base, {"variant": v, "units": 32}) for v in ("e-add", "s-sym")]
    tasks = task_set(list(base.tasks), **plans[0].trials)
    networks = [
        CTRNN(tasks.inputs, 32, tasks.outputs, plan.variant, contexts=3, dt=base.dt, seed=seed)
        for plan in plans
        for seed in (0, 1)
    ]
    train(Ensemble(networks), tasks, config, seed=0, progress=False, threads=1, ahead=False)
    drawing = steps * DRAW * (1 - 4 / COMPANY)
    return 2 * sum(training_seconds(plan) for plan in plans) + drawing

"""Training steps of the networks that are timed: as a plain loop, and as `ctxrnn.train` takes one.

What ctxrnn's own step is made of is not part of its public names; a change there may need one here.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from _peers import CONTEXTS, DT, INPUTS, OUTPUTS, Network, Setup, build_ctxrnn, contexts_of
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from ctxrnn import TrialBatch
    from ctxrnn._run import Run
    from ctxrnn._step import Prepared


def make_data(
    batch: int, steps: int, *, inputs: int = INPUTS, loss: str = "cross-entropy"
) -> tuple[Tensor, Tensor]:
    """Draw inputs, (trial, time, input), and targets: random, the same in every run.

    Returns:
        Inputs, and classes, (trial, time), or where `loss` is "mse" outputs, (trial, time, output).
    """
    generator = torch.Generator().manual_seed(0)
    stimulus = torch.randn(batch, steps, inputs, generator=generator)
    if loss == "mse":
        return stimulus, torch.randn(batch, steps, OUTPUTS, generator=generator)
    return stimulus, torch.randint(OUTPUTS, (batch, steps), generator=generator)


def module_step(network: Network, batches: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], Tensor]:
    """Return a call that makes one training step in plain PyTorch and returns the loss.

    Args:
        network: The network; batches are put into its axis order here, off the clock.
        batches: Inputs and targets as in `make_data`; the steps take them in turns.
    """
    optimizer = torch.optim.Adam(network.module.parameters(), lr=1e-3)
    if network.time_first:
        batches = [(u.transpose(0, 1).contiguous(), y.transpose(0, 1)) for u, y in batches]
    turns = itertools.cycle([(inputs, wanted.flatten(0, 1)) for inputs, wanted in batches])

    def step() -> Tensor:
        inputs, wanted = next(turns)
        optimizer.zero_grad()
        outputs = network.outputs(inputs).flatten(0, 1)
        if wanted.is_floating_point():
            loss = functional.mse_loss(outputs, wanted)
        else:
            loss = functional.cross_entropy(outputs, wanted)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


class _NoTasks:
    """Stands where a run wants its tasks; the trials that are timed are made by `prepare`."""

    names = tuple(f"task {index}" for index in range(CONTEXTS))

    def sample(self, trials: int, *, generator: torch.Generator) -> TrialBatch:
        raise NotImplementedError

    def accuracy(self, outputs: Tensor, batch: TrialBatch) -> Mapping[str, float]:
        raise NotImplementedError

    def relative(self, accuracy: Mapping[str, float]) -> Mapping[str, float]:
        raise NotImplementedError


def prepare(inputs: Tensor, targets: Tensor) -> Prepared:
    """Lay trials out as `ctxrnn.train` does: sorted by task, all steps in the loss."""
    from ctxrnn import TrialBatch
    from ctxrnn._step import Prepared

    context = contexts_of(len(inputs))
    lengths = torch.full((len(inputs),), inputs.shape[1])
    task = context.argmax(-1)
    batch = TrialBatch(
        inputs, targets, torch.ones(inputs.shape[:2]), context, task, lengths, _NoTasks.names, DT
    )
    return Prepared(batch, device=torch.device("cpu"), dtype=torch.float32)


def make_run(setup: Setup, variant: str) -> Run:
    """Return a network in training, its optimiser and its state."""
    from ctxrnn import TrainConfig
    from ctxrnn._run import Run

    tasks = _NoTasks()
    # So many steps that the learning rate never drops.
    config = TrainConfig(steps=10**9, batch=setup.batch)
    return Run(build_ctxrnn(setup, variant), tasks, tasks, config, setup.seed, ())


def train_step(
    setups: Sequence[Setup],
    variant: str,
    data: tuple[Tensor, Tensor],
    pool: ThreadPoolExecutor | None = None,
) -> Callable[[], Tensor]:
    """Return a call in which some networks take a step each as `ctxrnn.train` takes one.

    Args:
        setups: One for each network.
        variant: Pathway variant of all.
        data: Inputs and targets, which all see; laid out here, off the clock.
        pool: Threads that take the steps side by side, or None.
    """
    from ctxrnn._run import Run

    runs = [make_run(setup, variant) for setup in setups]
    batches = [prepare(*data)] * len(runs)
    each = map if pool is None else pool.map

    def step() -> Tensor:
        deque(each(Run.take_step, runs, batches), maxlen=0)
        if any(run.history.stopped for run in runs):
            raise SystemExit(f"ctxrnn {variant}: training diverged, so its time means nothing")
        return torch.tensor(runs[0].losses[-1])

    return step

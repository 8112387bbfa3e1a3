"""A speed check of some seconds: steps of training beside `torch.nn.RNN`, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from ctxrnn import CTRNN, TrainConfig, TrialBatch, _kernel, make_generator, task_loss
from ctxrnn._cli_doctor import Check
from ctxrnn._run import Run
from ctxrnn._step import Prepared
from ctxrnn._threads import limited
from ctxrnn.studies._plan import NetworkSettings
from ctxrnn.tasks import TaskSet, task_set

SECONDS = 5.0
UNITS, BATCH = 64, 64
NORMAL = {"avx512": 3.0, "avx2": 0.7, "plain": 1.1, "none": 0.2}
"""How many times as fast as `nn.RNN` a step usually is, by the compiled loop that is loaded.

Measured on one core of an AMD EPYC (Zen 4), with torch held to each instruction set.
"""


def speed(seconds: float = SECONDS) -> Iterator[Check]:
    """Compare a step of the main job's network with one of `torch.nn.RNN` on the same trials."""
    base = NetworkSettings()
    tasks = task_set(list(base.tasks), dt=base.dt, ring=base.ring)
    batch = tasks.sample(BATCH, generator=make_generator(0))
    with limited(1):
        times, share = in_turns([_ours(base, tasks, batch), _theirs(tasks, batch)], seconds)
    ours, theirs = (1 / statistics.median(one) for one in times)
    ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
    loop = _loop()
    normal = NORMAL.get(loop, NORMAL["plain"])
    told = (
        f"{ours:.0f} steps/s of one core (s-sym, {UNITS} units), {ratio:.2g} times torch.nn.RNN's "
        f"{theirs:.0f}; with loop {loop} about {normal:g} times is normal"
    )
    if share < 0.8:
        told += f" (other programs left {share:.0%} of a core)"
    values = {
        "steps_per_second": round(ours, 1), "rnn_steps_per_second": round(theirs, 1),
        "ratio": round(ratio, 3), "rounds": len(times[0]), "loop": loop, "share": round(share, 2),
    }  # fmt: skip
    if ratio >= normal / 2:
        yield Check("Speed", "training", told, values=values)
    else:
        remedy = "try again with nothing else running; if it stays so, report it with --json"
        yield Check("Speed", "training", told, "doubtful", remedy, values)


def _loop() -> str:
    """Name the instruction set of the compiled loop that is loaded, or "none"."""
    found = _kernel.library()
    name = "none" if found is None else Path(str(found._name)).name
    return name.removeprefix("_kernel_").partition(".")[0]


def in_turns(steps: list[Callable[[], object]], seconds: float) -> tuple[list[list[float]], float]:
    """Make calls in turns for some seconds, three rounds at least; the first one warms up.

    Returns:
        The processor time of each call, which other programs on the machine disturb less than the
        time on the clock; and the share of a core that the calls got.
    """
    for step in steps:
        step()
    times: list[list[float]] = [[] for _ in steps]
    begun, used = time.perf_counter(), time.process_time()
    while len(times[0]) < 3 or time.perf_counter() < begun + seconds:
        for step, kept in zip(steps, times, strict=True):
            started = time.process_time()
            step()
            kept.append(time.process_time() - started)
    return times, (time.process_time() - used) / (time.perf_counter() - begun)


def _ours(base: NetworkSettings, tasks: TaskSet, batch: TrialBatch) -> Callable[[], object]:
    network = CTRNN(
        tasks.inputs, UNITS, tasks.outputs, "s-sym", contexts=len(tasks.names), tau=base.tau,
        dt=base.dt, noise=base.noise, nonlinearity=base.nonlinearity, seed=0,
    )  # fmt: skip
    # So many steps that the learning rate never drops.
    run = Run(network, tasks, tasks, TrainConfig(steps=10**9, batch=BATCH), 0, ())
    prepared = Prepared(batch, device=torch.device("cpu"), dtype=torch.float32)
    return lambda: run.take_step(prepared)


def _theirs(tasks: TaskSet, batch: TrialBatch) -> Callable[[], object]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.RNN(tasks.inputs, UNITS, batch_first=True)
        readout = nn.Linear(UNITS, tasks.outputs)
    optimiser = torch.optim.Adam([*network.parameters(), *readout.parameters()], lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        task_loss(readout(network(batch.inputs)[0]), batch).backward()
        optimiser.step()

    return step

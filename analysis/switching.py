"""Time-scales of the two pathways: the cost of a switch of context, and noise kept out by filters.

The network is one that was trained with static contexts. Here it sees contexts that went through
low-pass filters of given time constants tau_e, tau_s (see `ctxrnn.filter_context`); it is not
changed, and filters of its own are left out.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ctxrnn import CTRNN, Contexts, make_generator
from ctxrnn._checks import check_not_negative, check_number

from ._filtered import context_noise as context_noise
from ._filtered import filtered_noise_variance as filtered_noise_variance
from ._filtered import switched_context as switched_context
from ._scoring import (
    Numbers,
    Tasks,
    Trials,
    mean_over_tasks,
    number_row,
    pathways_of,
    shifts_of,
)

if TYPE_CHECKING:
    import pandas as pd


def switch_sweep(
    network: CTRNN,
    tasks: Tasks,
    *,
    delays: Numbers,
    tau_e: Numbers,
    tau_s: Numbers,
    trials: int,
    seed: int,
    others: int | None = None,
) -> pd.DataFrame:
    """Measure accuracy after a switch of the context from each other task j to task k.

    Trials and noise are the same in every condition.

    Args:
        network: The network; one without a pathway takes no notice of that pathway's filter.
        tasks: Task set, K >= 2.
        delays: Time in ms from the switch to the first step of the trial; negative where the switch
            comes inside the trial (see `switched_context`).
        tau_e: Time constant in ms of the filter of the excitability context; one or several.
        tau_s: Likewise of the synaptic context. All pairs of both are measured.
        trials: Trials per task.
        seed: Seed of trials and noise.
        others: How many other tasks j to take for each task, drawn at random; None for all.

    Returns:
        One row per (task, other, delay, tau_e, tau_s): accuracy, clean accuracy of the task without
        switch, normalised accuracy (p - chance) / (ceiling - chance), and cost, the clean
        normalised accuracy less the normalised one.

    Raises:
        ValueError: For fewer than two tasks, negative or infinite time constants, infinite delays.

    Example:
        >>> from ctxrnn import CTRNN, TrainConfig, train
        >>> from ctxrnn.analysis import switch_sweep
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(tasks.inputs, 16, tasks.outputs, "e-add", contexts=2, dt=100, seed=0)
        >>> history = train(network, tasks, TrainConfig(steps=100, learning_rate=0.03), seed=0)
        >>> slow = {"tau_e": 10_000, "tau_s": 0}  # ms; trials last 1,000 ms
        >>> sweep = switch_sweep(network, tasks, delays=[0, 50_000], trials=20, seed=0, **slow)
        >>> print(sweep[["task", "other", "delay", "accuracy"]])
             task   other    delay  accuracy
        0    rtgo  rtanti      0.0       0.0
        1  rtanti    rtgo      0.0       0.0
        2    rtgo  rtanti  50000.0       1.0
        3  rtanti    rtgo  50000.0       1.0
    """
    import pandas as pd

    waits = number_row("delays", delays, negative=True)
    taus = {"tau_e": number_row("tau_e", tau_e), "tau_s": number_row("tau_s", tau_s)}
    run = Trials.draw(network, tasks, trials, seed)
    clean = run.accuracy(run.correct(lambda part: Contexts.of(run.clean[part])))
    base = run.normalised(clean)
    count, rows = len(tasks.names), []
    for shift in shifts_of(count, others, seed):
        known: dict[tuple[float, float, float], list[float]] = {}
        for delay, e, s in itertools.product(waits, taus["tau_e"], taus["tau_s"]):
            key = (delay, *_seen(network, e, s))
            if key not in known:
                immediate = delay >= 0 and key[1:] == (0.0, 0.0)
                known[key] = clean if immediate else _after_switch(run, shift, *key)
            normalised = run.normalised(known[key])
            for k, name in enumerate(tasks.names):
                rows.append(
                    {
                        "task": name, "other": tasks.names[(k + shift) % count], "delay": delay,
                        "tau_e": e, "tau_s": s, "accuracy": known[key][k], "clean": clean[k],
                        "normalised": normalised[k], "cost": base[k] - normalised[k],
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _seen(network: CTRNN, tau_e: float, tau_s: float) -> tuple[float, float]:
    """Return the time constants, 0 for that of a pathway which the network lacks."""
    has = pathways_of(network)
    return tau_e if "excitability" in has else 0.0, tau_s if "synaptic" in has else 0.0


def _after_switch(run: Trials, shift: int, delay: float, tau_e: float, tau_s: float) -> list[float]:
    steps, dt = run.batch.inputs.shape[1], run.network.dt
    other = run.of((run.batch.task + shift) % len(run.tasks.names))

    def contexts(part: slice) -> Contexts:
        def seen(tau: float) -> Tensor:
            return switched_context(
                run.clean[part], other[part], delay=delay, tau=tau, dt=dt, steps=steps
            )

        return Contexts.of(seen(tau_e)) if tau_e == tau_s else Contexts(seen(tau_e), seen(tau_s))

    return run.accuracy(run.correct(contexts))


def switch_cost(table: pd.DataFrame, delay: float) -> pd.DataFrame:
    """Average the cost of a switch over other tasks, then over tasks.

    Args:
        table: What `switch_sweep` returned for one network.
        delay: One of its delays in ms.

    Returns:
        One row per (tau_e, tau_s): accuracy, clean, normalised, cost.

    Raises:
        ValueError: If the delay is none of the table's.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import switch_cost
        >>> sweep = pd.DataFrame({
        ...     "task": ["go", "anti"], "other": ["anti", "go"], "delay": 100.0, "tau_e": 50.0,
        ...     "tau_s": 0.0, "accuracy": [0.9, 0.7], "clean": 1.0, "normalised": [0.8, 0.4],
        ...     "cost": [0.2, 0.6],
        ... })
        >>> print(switch_cost(sweep, delay=100).round(3))
           tau_e  tau_s  accuracy  clean  normalised  cost
        0   50.0    0.0       0.8    1.0         0.6   0.4
    """
    known = np.unique(table["delay"].to_numpy())
    chosen = table[np.isclose(table["delay"], check_number("delay", delay), rtol=1e-9, atol=0)]
    if chosen.empty:
        listed = ", ".join(f"{value:g}" for value in known)
        raise ValueError(f"delay must be one of those measured, {listed} ms: got {delay} ms")
    columns = ("accuracy", "clean", "normalised", "cost")
    return mean_over_tasks(chosen, ("tau_e", "tau_s"), columns)


def recovery_latency(table: pd.DataFrame, *, tolerance: float = 0.05) -> pd.DataFrame:
    """Find the smallest delay at which accuracy is nearly that without a switch.

    The delay at which p, averaged over other tasks and then over tasks, first reaches
    (1 - tolerance) times its clean value, interpolated between the delays measured. It is infinite
    if p never does within those delays, and the smallest of them if p does there already: then
    the latency may be shorter still.

    Args:
        table: What `switch_sweep` returned for one network.
        tolerance: Share of the clean accuracy that may be missing, in [0, 1).

    Returns:
        One row per (tau_e, tau_s): latency in ms.

    Raises:
        ValueError: If the tolerance lies outside [0, 1).

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import recovery_latency
        >>> sweep = pd.DataFrame({
        ...     "task": "go", "other": "anti", "delay": [0.0, 100.0, 200.0], "tau_e": 50.0,
        ...     "tau_s": 0.0, "accuracy": [0.5, 0.9, 1.0], "clean": 1.0,
        ... })
        >>> recovery_latency(sweep)["latency"].round(3).tolist()  # ms; 0.95 lies half-way
        [150.0]
    """
    import pandas as pd

    if not 0 <= check_number("tolerance", tolerance) < 1:
        raise ValueError(f"tolerance must lie in [0, 1): got {tolerance}")
    means = mean_over_tasks(table, ("tau_e", "tau_s", "delay"), ("accuracy", "clean"))
    rows = []
    for (e, s), part in means.groupby(["tau_e", "tau_s"]):
        part = part.sort_values("delay")
        wanted = (1 - tolerance) * part["clean"].to_numpy()
        missing = wanted - part["accuracy"].to_numpy()
        latency = _first_crossing(part["delay"].to_numpy(), missing)
        rows.append({"tau_e": e, "tau_s": s, "latency": latency})
    return pd.DataFrame(rows)


def _first_crossing(x: np.ndarray, y: np.ndarray) -> float:
    """Return where y, linear in between, first falls to zero; infinity if it never does."""
    # Accuracies are fractions of a few hundred trials: 1e-12 is rounding.
    reached = np.flatnonzero(y <= 1e-12)
    if reached.size == 0:
        return math.inf
    after = int(reached[0])
    if after == 0:
        return float(x[0])
    before = after - 1
    share = y[before] / (y[before] - y[after])
    return float(x[before] + share * (x[after] - x[before]))


def filtered_noise_sweep(
    network: CTRNN,
    tasks: Tasks,
    *,
    levels: Numbers,
    tau_n: float,
    tau_e: Numbers,
    tau_s: Numbers,
    trials: int,
    seed: int,
) -> pd.DataFrame:
    """Measure accuracy in noisy contexts that went through filters (`noise-OU`).

    c = e_k + sigma eta_t, with an Ornstein-Uhlenbeck eta of its own for each entry (see
    `context_noise`), goes to both pathways through the filters. Trials, recurrent noise and eta
    are the same in every condition; eta does not depend on the time constants of the filters.

    Args:
        network: The network; one without a pathway takes no notice of that pathway's filter.
        tasks: Task set, K >= 2.
        levels: sigma, one or several.
        tau_n: Correlation time of the noise in ms; 0 for white noise.
        tau_e: Time constant in ms of the filter of the excitability context; one or several.
        tau_s: Likewise of the synaptic context. All pairs of both are measured.
        trials: Trials per task.
        seed: Seed of trials and noise.

    Returns:
        One row per (task, level, tau_e, tau_s): tau_n, accuracy, clean accuracy, normalised
        accuracy, and cost, the clean normalised accuracy less the normalised one.

    Raises:
        ValueError: For fewer than two tasks, negative or infinite levels or time constants (an
            infinite one would let no context through).

    Example:
        >>> from ctxrnn import CTRNN, TrainConfig, train
        >>> from ctxrnn.analysis import filtered_noise_sweep
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(tasks.inputs, 16, tasks.outputs, "e-add", contexts=2, dt=100, seed=0)
        >>> history = train(network, tasks, TrainConfig(steps=100, learning_rate=0.03), seed=0)
        >>> times = {"tau_n": 0, "tau_e": [0, 2000], "tau_s": 0}  # ms; white noise
        >>> sweep = filtered_noise_sweep(network, tasks, levels=2, trials=100, seed=0, **times)
        >>> (sweep.groupby("tau_e")["accuracy"].mean() > 0.9).to_dict()  # the filter keeps it out
        {0.0: False, 2000.0: True}
    """
    import pandas as pd

    check_not_negative("tau_n", tau_n, "ms")
    sigmas = number_row("levels", levels, unit="")
    taus = {"tau_e": number_row("tau_e", tau_e), "tau_s": number_row("tau_s", tau_s)}
    run = Trials.draw(network, tasks, trials, seed)
    clean = run.accuracy(run.correct(lambda part: Contexts.of(run.clean[part])))
    base = run.normalised(clean)
    known: dict[tuple[float, float, float], list[float]] = {}
    rows = []
    for level, e, s in itertools.product(sigmas, taus["tau_e"], taus["tau_s"]):
        key = (level, *_seen(network, e, s))
        if key not in known:
            known[key] = clean if level == 0 else _in_noise(run, tau_n, *key)
        normalised = run.normalised(known[key])
        for k, name in enumerate(tasks.names):
            rows.append(
                {
                    "task": name, "level": level, "tau_n": float(tau_n), "tau_e": e, "tau_s": s,
                    "accuracy": known[key][k], "clean": clean[k], "normalised": normalised[k],
                    "cost": base[k] - normalised[k],
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _in_noise(run: Trials, tau_n: float, level: float, tau_e: float, tau_s: float) -> list[float]:
    steps, count = run.batch.inputs.shape[1], len(run.tasks.names)
    times = {"tau_n": tau_n, "tau_e": tau_e, "tau_s": tau_s, "dt": run.network.dt}

    def contexts(part: slice) -> Contexts:
        source = make_generator(run.seed, "context noise", part.start)
        shape = (2 + steps, part.stop - part.start, count)
        draws = torch.randn(shape, generator=source, dtype=torch.float64).to(run.clean)
        pure = run.clean[part].unsqueeze(1)
        return Contexts(*(pure + level * noise for noise in context_noise(draws, **times)))

    return run.accuracy(run.correct(contexts))

"""Robustness to an ambiguous context: sweeps over corruptions, areas and critical levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ctxrnn import CTRNN, Contexts, TrialBatch, make_generator
from ctxrnn._checks import check_count, check_fraction, check_number, unknown_name
from ctxrnn._feed import check_dt

from .corruption import Corruption, check_level, corrupted, corruption_of, covered

if TYPE_CHECKING:
    import pandas as pd

Pathway = Literal["both", "excitability", "synaptic"]

_BLOCK = 32
# Trials that draw their corruption together; whatever the network, a trial's draw is the same.
_NUMBERS = 2**24
# Most numbers that one run may hold; longer ones are parted.
_ALIKE = 0.8
# Trials run together if the shortest task's have at least this share of the steps.


class Tasks(Protocol):
    """What a sweep asks of a task set."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks."""

    @property
    def chance(self) -> Mapping[str, float]:
        """Accuracy without knowing the task."""

    @property
    def ceiling(self) -> Mapping[str, float]:
        """Best possible accuracy."""

    def sample(self, trials: int, *, generator: torch.Generator) -> TrialBatch:
        """Draw a balanced batch."""

    def correct(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        """Judge each trial."""


def mixed_context(context: torch.Tensor, other: torch.Tensor, level: float) -> torch.Tensor:
    """Mix each trial's context with that of another task: (1 - lambda) e_k + lambda e_j (`mix2`).

    Args:
        context: e_k, (trial, context).
        other: Index j of the other task, (trial,) int64.
        level: lambda, in [0, 1].

    Returns:
        (1 - lambda) e_k + lambda e_j, (trial, context).

    Raises:
        ValueError: If the level lies outside [0, 1].

    Example:
        >>> import torch
        >>> from ctxrnn.analysis import mixed_context
        >>> context = torch.eye(3)[[0, 0]]  # two trials of task 0
        >>> mixed_context(context, torch.tensor([1, 2]), 0.25)
        tensor([[0.7500, 0.2500, 0.0000],
                [0.7500, 0.0000, 0.2500]])
    """
    check_fraction("level", level)
    foreign = torch.nn.functional.one_hot(other, context.shape[-1]).to(context)
    return (1 - level) * context + level * foreign


@dataclass(frozen=True)
class Runs:
    """The same trials with the same recurrent noise, in contexts corrupted in one way.

    Attributes:
        network: The network.
        tasks: Task set.
        batch: The trials, (trial, ...); those that lack the corruption's period are left out.
        seed: Seed of trials, noise and corruption.
        pathway: Which pathway sees the corrupted context.
        corruption: How contexts are corrupted.
        options: Its options.
    """

    network: CTRNN
    tasks: Tasks
    batch: TrialBatch
    seed: int
    pathway: Pathway
    corruption: Corruption
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def draw(
        cls,
        network: CTRNN,
        tasks: Tasks,
        trials: int,
        seed: int,
        pathway: Pathway,
        corruption: str,
        options: Mapping[str, Any] | None,
    ) -> Runs:
        """Draw the trials.

        Args:
            network: The network.
            tasks: Task set, K >= 2.
            trials: Trials per task.
            seed: See the class; likewise the following.
            pathway: "both", "excitability" or "synaptic".
            corruption: Id of the corruption.
            options: Its options; None for the defaults.
        """
        count = len(tasks.names)
        if count < 2:
            raise ValueError(f"a mixture needs at least two tasks: got {count}")
        check_count("trials", trials)
        if pathway not in ("both", "excitability", "synaptic"):
            raise unknown_name("pathway", pathway, ("both", "excitability", "synaptic"))
        given = dict(options or {})
        chosen = corruption_of(corruption, given)
        batch = tasks.sample(trials * count, generator=make_generator(seed, "ambiguity trials"))
        check_dt(network, batch)
        kept = covered(corruption, given, batch.periods, len(batch))
        if not kept.any():
            raise ValueError(
                f"at least one task must have the period that {corruption!r} asks for with "
                f"{given}: none of {', '.join(tasks.names)} has"
            )
        batch = batch if kept.all() else batch.select(kept)
        return cls(network, tasks, batch, seed, pathway, chosen, given)

    def parts(self, chosen: Tensor | None = None) -> list[Tensor]:
        """Part trials by length, so that little padding is run, and by memory; indices each.

        Args:
            chosen: The trials, ascending; None for all.
        """
        chosen = torch.arange(len(self.batch)) if chosen is None else chosen
        lengths, task = self.batch.lengths[chosen], self.batch.task[chosen]
        network, count = self.network, len(self.tasks.names)
        present = task.unique().tolist()
        longest = {k: int(lengths[task == k].max()) for k in present}
        bins: list[list[int]] = []
        for k in sorted(present, key=lambda k: -longest[k]):
            if not bins or longest[k] < _ALIKE * longest[bins[-1][0]]:
                bins.append([])
            bins[-1].append(k)
        found = []
        for members in bins:
            rows = chosen[torch.isin(task, torch.tensor(members))]
            wide = count if self.corruption.varies else 1
            one = longest[members[0]] * (wide * network.units + network.inputs + network.outputs)
            size = max(1, _NUMBERS // ((one + count * network.units) * _BLOCK)) * _BLOCK
            found += rows.split(size)
        return found

    def contexts(self, rows: Tensor, level: float, other: Tensor) -> Contexts:
        """Return what the pathways see.

        Args:
            rows: The trials, ascending.
            level: Level of the corruption.
            other: Task j of every trial of the batch, (trial,).
        """
        clean, steps = self.batch.context[rows], int(self.batch.lengths[rows].max())
        made = []
        for at in rows.split(_BLOCK if self.corruption.random else len(rows)):
            source = make_generator(self.seed, "corruption", int(at[0]))
            spans = self.batch.periods if self.corruption.varies else {}
            made.append(
                corrupted(
                    self.corruption.id,
                    self.batch.context[at].to(self.network.dtype),
                    level,
                    other=other[at] if self.corruption.other else None,
                    steps=steps,
                    dt=self.batch.dt,
                    periods={name: span[at] for name, span in spans.items()},
                    generator=source,
                    **self.options,
                )
            )
        seen = torch.cat(made)
        if self.pathway == "both":
            return Contexts.of(seen)
        return Contexts(seen, clean) if self.pathway == "excitability" else Contexts(clean, seen)

    def outputs(self, rows: Tensor, batch: TrialBatch, level: float, other: Tensor) -> Tensor:
        """Run some trials, (trial, time, output).

        Args:
            rows: The trials, ascending.
            batch: The same, selected.
            level: See `contexts`; likewise `other`.
            other: Task j.
        """
        with torch.no_grad():
            noise = make_generator(self.seed, "ambiguity noise", int(rows[0]))
            seen = self.contexts(rows, level, other)
            return self.network(batch.inputs, seen, generator=noise).outputs.cpu()


def ambiguity_sweep(
    network: CTRNN,
    tasks: Tasks,
    *,
    levels: Sequence[float] | np.ndarray | None = None,
    trials: int,
    seed: int,
    pathway: Pathway = "both",
    corruption: str = "mix2",
    options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Measure accuracy on each task while its context is corrupted.

    Trials, recurrent noise and the random numbers of the corruption are the same at every level and
    for every other task, so that curves are smooth.

    Args:
        network: The network.
        tasks: Task set, K >= 2.
        levels: Levels of the corruption; None for its own (see `CORRUPTIONS`).
        trials: Fresh trials per task.
        seed: Seed of trials, noise and corruption.
        pathway: Which pathway sees the corrupted context; the other one keeps the clean one.
        corruption: Id of the corruption (see `corrupted`).
        options: Its options, e.g. ``{"tau_n": 50.0}`` for "noise-ou".

    Returns:
        One row per (task k, other j, level), with every j for `mix2` and `swap` and "" for the
        corruptions that need no other task: accuracy, and normalised accuracy
        (p - chance) / (ceiling - chance) of task k. NaN for tasks that lack the period which a
        window or a phase asks for.

    Raises:
        ValueError: For fewer than two tasks, levels out of range, or unknown names.

    Example:
        >>> from ctxrnn import CTRNN, TrainConfig, train
        >>> from ctxrnn.analysis import ambiguity_sweep
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(tasks.inputs, 16, tasks.outputs, "e-add", contexts=2, dt=100, seed=0)
        >>> history = train(network, tasks, TrainConfig(steps=100, learning_rate=0.03), seed=0)
        >>> sweep = ambiguity_sweep(network, tasks, levels=[0, 1], trials=20, seed=0)
        >>> print(sweep[["task", "other", "level", "accuracy"]])  # 1: the context of the other task
             task   other  level  accuracy
        0    rtgo  rtanti    0.0       1.0
        1  rtanti    rtgo    0.0       1.0
        2    rtgo  rtanti    1.0       0.0
        3  rtanti    rtgo    1.0       0.0
    """
    import pandas as pd

    grid = levels_of(corruption_of(corruption, options), levels, len(tasks.names))
    run = Runs.draw(network, tasks, trials, seed, pathway, corruption, options)
    count, known = len(tasks.names), run.corruption
    parts = [(rows, run.batch.select(rows)) for rows in run.parts()]
    clean: list[float] | None = None
    rows = []
    for level in grid:
        for shift in range(1, count) if known.other else [0]:
            accuracy = clean if level == known.clean else None
            accuracy = accuracy or _accuracy(run, parts, level, (run.batch.task + shift) % count)
            clean = accuracy if level == known.clean else clean
            for index, name in enumerate(tasks.names):
                other = tasks.names[(index + shift) % count] if known.other else ""
                rows.append(
                    {"task": name, "other": other, "level": level, "accuracy": accuracy[index]}
                )
    table = pd.DataFrame(rows)
    chance = table["task"].map(dict(tasks.chance))
    ceiling = table["task"].map(dict(tasks.ceiling))
    table["normalised"] = (table["accuracy"] - chance) / (ceiling - chance)
    return table


def levels_of(
    corruption: Corruption, levels: Sequence[float] | np.ndarray | None, contexts: int
) -> list[float]:
    """Check levels, or take the corruption's own.

    Args:
        corruption: The corruption.
        levels: The levels, or None.
        contexts: K.
    """
    if levels is None:
        lowest = 1 / contexts if corruption.id == "posterior" else 0.0
        return [level for level in corruption.levels if level >= lowest]
    row = np.atleast_1d(np.asarray(levels, dtype=float))
    if row.ndim != 1 or row.size == 0:
        raise ValueError(f"levels must be a row of at least one number: got shape {row.shape}")
    return [check_level(corruption, float(level), contexts) for level in row]


def _accuracy(
    run: Runs, parts: Sequence[tuple[Tensor, TrialBatch]], level: float, other: Tensor
) -> list[float]:
    """Return the accuracy of each task; NaN where it has no trial."""
    right = torch.zeros(len(run.batch), dtype=torch.float64)
    for rows, batch in parts:
        outputs = run.outputs(rows, batch, level, other)
        right[rows] = run.tasks.correct(outputs, batch).to(torch.float64)
    return [float(right[run.batch.task == k].mean()) for k in range(len(run.tasks.names))]


def ambiguity_curve(table: pd.DataFrame) -> pd.DataFrame:
    """Average a sweep over the other tasks, then over tasks: columns level, normalised, accuracy.

    Args:
        table: What `ambiguity_sweep` returned for one network.

    Returns:
        One row per level, rising: level, accuracy and normalised, both means over tasks.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import ambiguity_curve
        >>> sweep = pd.DataFrame({
        ...     "task": ["go", "anti", "go", "anti"], "other": ["anti", "go", "anti", "go"],
        ...     "level": [0.0, 0.0, 0.5, 0.5], "accuracy": [1.0, 0.8, 0.6, 0.4],
        ...     "normalised": [1.0, 0.75, 0.5, 0.25],
        ... })
        >>> print(ambiguity_curve(sweep))
           level  accuracy  normalised
        0    0.0       0.9       0.875
        1    0.5       0.5       0.375
    """
    by_task = table.groupby(["level", "task"], as_index=False)[["accuracy", "normalised"]].mean()
    return by_task.groupby("level", as_index=False)[["accuracy", "normalised"]].mean()


def _curve(
    levels: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray
) -> np.ndarray:
    x, y = np.asarray(levels, dtype=float), np.asarray(values, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or x.size < 2:
        raise ValueError(
            f"levels and values must be two equally long rows of at least 2: got {x.shape} "
            f"and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("levels and values must be finite")
    order = np.argsort(x)
    curve = np.stack([x[order], y[order]])
    if (np.diff(curve[0]) <= 0).any():
        raise ValueError("levels must differ from each other")
    return curve


def robustness_area(
    levels: Sequence[float] | np.ndarray,
    normalised: Sequence[float] | np.ndarray,
    *,
    upto: float = 0.5,
) -> float:
    """Return the area under a robustness curve, the mean of p~ up to a level.

        A = (1 / upto) int_0^upto p~(lambda) d lambda

    Trapezoid rule between the levels given; p~ at `upto` is interpolated if it is not one.

    Args:
        levels: lambda or sigma, must include 0 and reach `upto`. For a corruption whose clean level
            is not 0 (`posterior`, with a = 1), give the distance from it, 1 - a.
        normalised: p~ at each level.
        upto: Upper limit; with `mix2`, 0.5 is where both contexts weigh the same.

    Returns:
        A, without unit; 1 for a curve that stays at 1.

    Raises:
        ValueError: If the rows differ in length, hold fewer than two numbers or some that are not
            finite, or the levels do not run from 0 to `upto`.

    Example:
        >>> from ctxrnn.analysis import robustness_area
        >>> robustness_area([0, 0.25, 0.5], [1.0, 1.0, 1.0])  # keeps its accuracy
        1.0
        >>> robustness_area([0, 0.25, 0.5], [1.0, 0.5, 0.0])  # loses it steadily
        0.5
    """
    x, y = _curve(levels, normalised)
    if x[0] != 0 or x[-1] < upto:
        raise ValueError(f"levels must run from 0 to at least {upto}: got {x[0]} to {x[-1]}")
    inside = x < upto
    grid = np.append(x[inside], upto)
    values = np.append(y[inside], np.interp(upto, x, y))
    return float(np.trapezoid(values, grid) / upto)


def relative_area(
    levels: Sequence[float] | np.ndarray,
    normalised: Sequence[float] | np.ndarray,
    *,
    upto: float = 0.5,
) -> float:
    """Return A / p~(0), the robustness area relative to the clean value; NaN if p~(0) <= 0.

    Args:
        levels: lambda or sigma, must include 0 and reach `upto`.
        normalised: p~ at each level.
        upto: Upper limit.

    Returns:
        The area where the clean value is 1.

    Raises:
        ValueError: As `robustness_area`.

    Example:
        >>> from ctxrnn.analysis import relative_area, robustness_area
        >>> levels, poor = [0, 0.25, 0.5], [0.5, 0.5, 0.5]  # knows little, loses nothing
        >>> robustness_area(levels, poor), relative_area(levels, poor)
        (0.5, 1.0)
    """
    area = robustness_area(levels, normalised, upto=upto)
    clean = float(_curve(levels, normalised)[1, 0])
    return area / clean if clean > 0 else float("nan")


def lambda_50(
    levels: Sequence[float] | np.ndarray, normalised: Sequence[float] | np.ndarray
) -> float:
    """Return the level at which normalised accuracy first falls to half of its clean value.

    Linear interpolation between levels; NaN if it never does, or if the clean value is not above
    zero.

    Args:
        levels: lambda, must include 0.
        normalised: p~ at each level.

    Returns:
        The level, without unit.

    Raises:
        ValueError: If the rows differ in length, hold fewer than two numbers or some that are not
            finite, or the levels do not start at 0.

    Example:
        >>> from ctxrnn.analysis import lambda_50
        >>> lambda_50([0, 0.25, 0.5], [1.0, 0.75, 0.25])  # 0.5 lies between the last two
        0.375
    """
    return critical_noise(levels, normalised, fraction=0.5)


def critical_noise(
    levels: Sequence[float] | np.ndarray,
    normalised: Sequence[float] | np.ndarray,
    fraction: float = 0.8,
) -> float:
    """Return the level at which normalised accuracy first falls to a fraction of its clean value.

    With the fraction 0.8 and noise this is sigma_80.

    Linear interpolation between levels; NaN if it never does within them, or if the clean value is
    not above zero.

    Args:
        levels: sigma, or any level that is 0 where there is no corruption; must include 0.
        normalised: p~ at each level.
        fraction: In (0, 1).

    Returns:
        The level, in the unit of `levels`.

    Raises:
        ValueError: If the rows differ in length, hold fewer than two numbers or some that are not
            finite, the levels do not start at 0, or the fraction lies outside (0, 1).

    Example:
        >>> from ctxrnn.analysis import critical_noise
        >>> sigma = critical_noise([0, 0.5, 1.0], [1.0, 0.9, 0.7])  # 0.8 lies between the last two
        >>> round(sigma, 6)
        0.75
    """
    if not 0 < check_number("fraction", fraction) < 1:
        raise ValueError(f"fraction must lie in (0, 1): got {fraction}")
    x, y = _curve(levels, normalised)
    if x[0] != 0:
        raise ValueError(f"levels must start at 0: got {x[0]}")
    wanted = fraction * y[0]
    below = np.flatnonzero(y <= wanted)
    if y[0] <= 0 or below.size == 0:
        return float("nan")
    after = int(below[0])
    before = after - 1
    share = (y[before] - wanted) / (y[before] - y[after])
    return float(x[before] + share * (x[after] - x[before]))

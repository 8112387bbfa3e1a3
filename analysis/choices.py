"""Two controls of robustness: which task was answered, and noise matched in its effect.

Choices are split on trials on which two tasks that show the same stimuli want different answers;
trials on which they agree are judged apart. The effect of a corruption is how far it moves the
vector field.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from ctxrnn import CTRNN, Contexts, TrialBatch, make_generator

from ._tables import check_columns, check_rows
from .ambiguity import Pathway, Runs, Tasks, levels_of
from .corruption import corruption_of

if TYPE_CHECKING:
    import pandas as pd

_FULL = tuple(step / 20 for step in range(21))


class TwinTasks(Tasks, Protocol):
    """What is asked of a task set besides: what other tasks would want on its trials."""

    @property
    def twins(self) -> tuple[tuple[str, str], ...]:
        """Pairs of tasks that show the same stimuli."""

    def wanted(self, batch: TrialBatch, others: Tensor) -> Tensor:
        """Return the last step's target of other tasks; -1 or NaN where undefined."""


def choice_shares(
    network: CTRNN,
    tasks: TwinTasks,
    *,
    levels: Sequence[float] | np.ndarray | None = None,
    trials: int,
    seed: int,
    pathway: Pathway = "both",
    corruption: str = "mix2",
    options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Split the answers to task k in a context corrupted towards task j, for pairs of twins.

    A trial is conflicting if no answer is right for both tasks, congruent if both want the same.
    With vectors as answers, directions closer than twice the tolerance leave room for an answer
    that is right for both: such trials are neither, and left out.

    Args:
        network: The network.
        tasks: Task set with at least one pair of `twins`.
        levels: Levels of the corruption; None for a full sweep, 0 to 1, with `mix2`, and the
            corruption's own otherwise.
        trials: Fresh trials per task.
        seed: Seed of trials, noise and corruption.
        pathway: Which pathway sees the corrupted context.
        corruption: Id of the corruption (see `corrupted`). Those that need no other task are split
            in the same way, though they do not lead towards task j.
        options: Its options.

    Returns:
        One row per (task k, twin j, level): as_task, as_other and neither, the shares of
        conflicting trials answered as k, as j, and otherwise, which add up to 1; conflicting, the
        number of those trials; congruent_accuracy, and congruent, the number of those trials.
        Shares of no trial are NaN.

    Raises:
        ValueError: If no two tasks are twins, levels are out of range, or a name is unknown.
        TypeError: If the tasks cannot tell what other tasks want.

    Example:
        >>> from ctxrnn import CTRNN, TrainConfig, train
        >>> from ctxrnn.analysis import choice_shares
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(tasks.inputs, 16, tasks.outputs, "e-add", contexts=2, dt=100, seed=0)
        >>> history = train(network, tasks, TrainConfig(steps=100, learning_rate=0.03), seed=0)
        >>> shares = choice_shares(network, tasks, levels=[0, 1], trials=20, seed=0)
        >>> print(shares[["task", "other", "level", "as_task", "as_other"]])
             task   other  level  as_task  as_other
        0    rtgo  rtanti    0.0      1.0       0.0
        1    rtgo  rtanti    1.0      0.0       1.0
        2  rtanti    rtgo    0.0      1.0       0.0
        3  rtanti    rtgo    1.0      0.0       1.0
    """
    import pandas as pd

    if not (hasattr(tasks, "twins") and hasattr(tasks, "wanted")):
        raise TypeError(
            "tasks must have twins and wanted, as sets made by ctxrnn.tasks.task_set do: got "
            f"{type(tasks).__name__}"
        )
    if not tasks.twins:
        raise ValueError(
            "at least two tasks must show the same stimuli, such as go and anti: none of "
            f"{', '.join(tasks.names)} do"
        )
    given = _FULL if levels is None and corruption == "mix2" else levels
    grid = levels_of(corruption_of(corruption, options), given, len(tasks.names))
    run = Runs.draw(network, tasks, trials, seed, pathway, corruption, options)
    index = {name: k for k, name in enumerate(tasks.names)}
    pairs = [(index[a], index[b]) for pair in tasks.twins for a, b in (pair, pair[::-1])]
    found = [row for k, j in sorted(pairs) for row in _pair(run, tasks, k, j, grid)]
    return pd.DataFrame(found)


def _pair(
    run: Runs, tasks: TwinTasks, k: int, j: int, levels: Sequence[float]
) -> list[dict[str, Any]]:
    """Return the rows of one pair of tasks."""
    rows = (run.batch.task == k).nonzero().squeeze(-1)
    other = torch.full((len(run.batch),), j)
    found = []
    judged = _Judge(tasks, run.batch.select(rows), j) if len(rows) else None
    for level in levels:
        shares = {"as_task": math.nan, "as_other": math.nan, "neither": math.nan}
        counts = {"conflicting": 0, "congruent_accuracy": math.nan, "congruent": 0}
        if judged is not None:
            outputs = [
                run.outputs(part, run.batch.select(part), level, other) for part in run.parts(rows)
            ]
            shares, counts = judged(_joined(outputs, judged.batch.inputs.shape[1]))
        pair = {"task": tasks.names[k], "other": tasks.names[j], "level": level}
        found.append({**pair, **shares, **counts})
    return found


def _joined(outputs: Sequence[Tensor], steps: int) -> Tensor:
    padded = [torch.nn.functional.pad(y, (0, 0, 0, steps - y.shape[1])) for y in outputs]
    return torch.cat(padded)


class _Judge:
    """Judges answers to one task's trials by that task and by a twin.

    Args:
        tasks: Task set.
        batch: The trials, of one task.
        other: Index of the twin.
    """

    def __init__(self, tasks: TwinTasks, batch: TrialBatch, other: int) -> None:
        own = batch.last(batch.targets)
        wanted = tasks.wanted(batch, torch.full((len(batch),), other))
        self.tasks, self.batch = tasks, batch
        self.as_other = _with_targets(batch, wanted)
        if not own.is_floating_point():
            self.congruent = wanted == own
            self.conflicting = (wanted >= 0) & ~self.congruent
            return
        self.congruent = (wanted == own).all(-1)
        # Half-way between two targets an answer is right for both, if any is.
        between = torch.zeros_like(batch.targets)
        between = _with_targets(batch, (own + wanted) / 2, between).targets
        both = tasks.correct(between, batch) & tasks.correct(between, self.as_other)
        self.conflicting = ~wanted.isnan().any(-1) & ~self.congruent & ~both

    def __call__(self, outputs: Tensor) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the shares among conflicting trials, and the rest of a row."""
        own = self.tasks.correct(outputs, self.batch)
        other = self.tasks.correct(outputs, self.as_other) & self.conflicting
        conflicting, congruent = int(self.conflicting.sum()), int(self.congruent.sum())
        as_task = _share(own & self.conflicting, conflicting)
        as_other = _share(other, conflicting)
        shares = {"as_task": as_task, "as_other": as_other, "neither": 1 - as_task - as_other}
        right = _share(own & self.congruent, congruent)
        counts = {"conflicting": conflicting, "congruent_accuracy": right, "congruent": congruent}
        return shares, counts


def _share(chosen: Tensor, count: int) -> float:
    return int(chosen.sum()) / count if count else math.nan


def _with_targets(batch: TrialBatch, last: Tensor, targets: Tensor | None = None) -> TrialBatch:
    """Return a batch with other targets at the last step of its trials."""
    changed = (batch.targets if targets is None else targets).clone()
    changed[torch.arange(len(batch)), batch.lengths - 1] = last.to(changed)
    return dataclasses.replace(batch, targets=changed)


def crossing(shares: pd.DataFrame) -> pd.DataFrame:
    """Find where answers as j become as frequent as answers as k, and how sharply.

    The level at which as_task - as_other first falls to zero, by linear interpolation between
    levels. Its slope there is (as_other - as_task)' / 2: 1 per unit of lambda if the share of
    answers as j is lambda itself (a blend), large where the winner takes all. It cannot exceed
    1 / (distance of the levels).

    Args:
        shares: What `choice_shares` returned for one network, best from a full sweep.

    Returns:
        One row per (task, other): level, slope, and neither, the share of answers that are
        neither, at the crossing; NaN where the shares do not cross, or k does not lead at first.

    Raises:
        ValueError: If columns are missing, or levels occur twice.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import crossing
        >>> level = [0.0, 0.25, 0.5, 0.75, 1.0]
        >>> for other in (level, [0, 0, 0, 1, 1]):  # a blend; the winner takes all
        ...     shares = pd.DataFrame({"task": "go", "other": "anti", "level": level})
        ...     shares = shares.assign(as_other=other, as_task=1 - pd.Series(other), neither=0.0)
        ...     print(crossing(shares)[["level", "slope"]].values.tolist())
        [[0.5, 1.0]]
        [[0.625, 4.0]]
    """
    import pandas as pd

    keys = ("task", "other")
    check_columns(shares, (*keys, "level", "as_task", "as_other", "neither"))
    check_rows(shares, (*keys, "level"))
    found = []
    for pair, rows in shares.groupby(list(keys), sort=False):
        rows = rows.sort_values("level")
        level, neither = rows["level"].to_numpy(dtype=float), rows["neither"].to_numpy(dtype=float)
        lead = (rows["as_task"] - rows["as_other"]).to_numpy(dtype=float)
        found.append({**dict(zip(keys, pair, strict=True)), **_crossing(level, lead, neither)})
    return pd.DataFrame(found)


def _crossing(level: np.ndarray, lead: np.ndarray, neither: np.ndarray) -> dict[str, float]:
    lost = np.flatnonzero(lead <= 0)
    if lost.size == 0 or lost[0] == 0 or np.isnan(lead).any():
        return dict.fromkeys(("level", "slope", "neither"), math.nan)
    after = int(lost[0])
    before = after - 1
    fall, width = lead[before] - lead[after], level[after] - level[before]
    share = lead[before] / fall
    return {
        "level": float(level[before] + share * width),
        "slope": float(fall / width / 2),
        "neither": float(neither[before] + share * (neither[after] - neither[before])),
    }


def context_effect(
    network: CTRNN,
    batch: TrialBatch,
    context: Tensor | Contexts,
    *,
    generator: torch.Generator | int | None = None,
) -> float:
    """Measure how far another context moves the vector field where the network has been.

        sqrt(<|F(x, c') - F(x, c)|^2> / <|F(x, c)|^2>)

    with F = dx/dt and the mean over the states that the network visits in the clean context c, in
    all steps of all trials. The ratio of root mean squares is taken, not the mean of ratios: near
    fixed points F tends to zero and a single ratio has no bound. It is proportional to the size
    of c' - c where F is linear in c. Filters of the network's contexts act on both contexts.

    Args:
        network: The network.
        batch: The trials with their clean contexts.
        context: c', (trial, context) or (trial, time, context), or one for each pathway.
        generator: Source of the recurrent noise of the clean run, or a seed; None for a run without
            noise.

    Returns:
        The effect, without unit; 0 if c' = c.

    Raises:
        ValueError: If the network does not move in its clean contexts, or shapes do not fit.

    Example:
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import context_effect
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(tasks.inputs, 8, tasks.outputs, "e-add", contexts=2, dt=100, seed=0)
        >>> batch = tasks.sample(8, generator=0)
        >>> other = batch.context.flip(1)  # that of the other task
        >>> whole, half = (context_effect(network, batch, batch.context.lerp(other, share))
        ...                for share in (1.0, 0.5))
        >>> round(whole / half, 3)  # the drive of "e-add" is linear in the context
        2.0
    """
    return _Field(network, batch, generator).effect(Contexts.of(context))


class _Field:
    """The vector field at the states that a network visits in its clean contexts.

    Args:
        network: The network.
        batch: The trials.
        generator: See `context_effect`.
    """

    def __init__(
        self, network: CTRNN, batch: TrialBatch, generator: torch.Generator | int | None
    ) -> None:
        self.network, self.batch = network, batch
        self.inputs = batch.inputs.to(device=network.device, dtype=network.dtype)
        noise = 0.0 if generator is None else None
        shape = self.inputs.shape[:2]
        with torch.no_grad():
            _, start, _ = network.prepare_run(batch.context, *shape, noise=0.0)
            run = network(self.inputs, batch.context, generator=generator, noise=noise)
            # The state before each step, where the step's velocity is taken.
            self.states = torch.cat([start.unsqueeze(1), run.potentials[:, :-1]], dim=1)
            self.valid = batch.valid.to(network.device)
            self.clean = self._velocities(Contexts.of(batch.context))
        self.power = float(self.clean[self.valid].double().square().sum())
        if self.power == 0:
            raise ValueError("the network must move in its clean contexts: dx/dt is 0 everywhere")

    def effect(self, context: Contexts) -> float:
        """Return the effect of another context."""
        with torch.no_grad():
            moved = (self._velocities(context) - self.clean)[self.valid]
        return math.sqrt(float(moved.double().square().sum()) / self.power)

    def _velocities(self, context: Contexts) -> Tensor:
        """Return F at the states, (trial, time, unit)."""
        network = self.network
        seen, _, _ = network.prepare_run(context, *self.inputs.shape[:2], noise=0.0)
        circuit = network.circuit(_at(seen, 0))
        found = []
        steps = zip(self.states.unbind(1), self.inputs.unbind(1), strict=True)
        for step, (x, u) in enumerate(steps):
            if seen is not None and seen.varies:
                circuit = network.circuit(_at(seen, step))
            found.append(network.velocity(circuit, x, u))
        return torch.stack(found, dim=1)


def _at(contexts: Contexts | None, step: int) -> Contexts | None:
    """Return the contexts of one step."""
    if contexts is None:
        return None
    both = (contexts.excitability, contexts.synaptic)
    one, two = (c[:, step] if c.ndim == 3 else c for c in both)
    return Contexts.of(one) if both[0] is both[1] else Contexts(one, two)


def effect_matched_levels(
    network: CTRNN,
    tasks: Tasks,
    effects: Sequence[float] | np.ndarray,
    *,
    corruption: str = "noise-frozen",
    pathway: Pathway = "both",
    trials: int = 64,
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Find the levels at which a corruption has given effects on the vector field.

    So networks can be compared at equal effect instead of equal noise in context space: sweep each
    over its own levels. The effect (see `context_effect`) is measured with one draw of trials and
    of the corruption for all levels. Where F is linear in the context, as for `e-add` and, with
    outer-linear mixing, `s-sym`, the level is proportional to the effect; otherwise a root is
    found, taking the effect to grow with the level.

    Args:
        network: The network.
        tasks: Task set, K >= 2.
        effects: Wanted |dF| / |F|, zero or more.
        corruption: Id of the corruption. With `mix2` and `swap` the other tasks take turns.
        pathway: Which pathway sees the corrupted context.
        trials: Trials per task.
        seed: Seed of trials, noise and corruption.
        options: Options of the corruption.

    Returns:
        Levels, (effect,); NaN for effects that the corruption does not reach, as in a pathway that
        the network does not have.

    Raises:
        ValueError: For effects below zero, and as `ambiguity_sweep` does.

    Example:
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import effect_matched_levels
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(tasks.inputs, 8, tasks.outputs, "e-add", contexts=2, dt=100, seed=0)
        >>> levels = effect_matched_levels(network, tasks, [0.0, 0.1, 0.2], seed=0)
        >>> (levels / levels[1]).round(3).tolist()  # linear contexts: twice the noise for twice
        [0.0, 1.0, 2.0]
    """
    wanted = np.atleast_1d(np.asarray(effects, dtype=float))
    if wanted.ndim != 1 or wanted.size == 0 or not (np.isfinite(wanted) & (wanted >= 0)).all():
        raise ValueError(f"effects must be a row of numbers of zero or more: got {effects!r}")
    run = Runs.draw(network, tasks, trials, seed, pathway, corruption, options)
    rows = torch.arange(len(run.batch))
    count, known = len(tasks.names), run.corruption
    other = (run.batch.task + 1 + rows % (count - 1)) % count
    field = _Field(network, run.batch, make_generator(seed, "ambiguity noise"))
    last = 1 / count if known.id == "posterior" else known.limit

    @cache
    def effect(level: float) -> float:
        return field.effect(run.contexts(rows, level, other))

    return np.array([_level(effect, float(e), known.clean, last) for e in wanted])


_FARTHEST = 2.0**20
# Relative; above the rounding of float32, far below the sampling error of an effect.
_CLOSE = 1e-5


def _level(effect: Callable[[float], float], wanted: float, clean: float, last: float) -> float:
    """Return the level, from `clean` towards `last`, at which an effect has a wanted size."""
    if wanted == 0:
        return clean
    # Proportional effects are found at once.
    probe = last if math.isfinite(last) else 1.0
    slope = effect(probe) / (probe - clean)
    if slope == 0:
        return math.nan
    guess = clean + wanted / slope
    inside = math.isinf(last) or min(clean, last) <= guess <= max(clean, last)
    if inside and abs(effect(guess) / wanted - 1) <= _CLOSE:
        return guess
    far = probe
    while math.isinf(last) and effect(far) < wanted and far < _FARTHEST:
        far *= 2
    if effect(far) < wanted:
        return math.nan
    return float(brentq(lambda level: effect(level) - wanted, clean, far, xtol=1e-12, rtol=1e-9))

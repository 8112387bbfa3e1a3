"""Sets of tasks that one network learns together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ctxrnn import TrialBatch
from ctxrnn._checks import (
    check_count,
    derive_seed,
    make_generator,
    unknown_name,
)

from . import _criterion, _levels
from ._assemble import assemble, merge
from ._catalogue import FAMILY, short_name
from ._recipe import read_recipe
from ._twins import Twins, wanted
from ._vectorised import VectorisedSource, to_batch

if TYPE_CHECKING:
    from ._bank import TrialBank
    from ._neurogym import Source
    from ._raw import RawTrial

_DESCRIBED = 256


class TaskSet:
    """Tasks with equal inputs and outputs, as a source of batches; made by `task_set`.

    Attributes:
        names: Short names of the tasks; the context is one-hot over them, in this order.
        dt: Time step in ms.
        ring: Directions on the ring (yang19 tasks).
        encoding: "ring" or "vector".
        repairs: Names of the repairs in force (see `REPAIRS`).
        noise: Factor on neurogym's own noise.
        response_grace: Start of the response without weight in the loss, in ms.
        sampler: "vectorised" or "neurogym" (see `task_set`).
        vectorised: Names of the tasks whose trials are drawn all at once.
        options: Further options of the environments.
        kind: "class" (targets are classes), "vector" (fixation, sine, cosine) or "regression".
        inputs: Channels of the stimulus.
        outputs: Channels of the output.

    Example:
        >>> from torch.nn.functional import one_hot
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["go", "anti"], dt=50, ring=8)
        >>> batch = tasks.sample(64, generator=0)
        >>> tasks.accuracy(one_hot(batch.targets, 9).float(), batch)  # of a perfect network
        {'go': 1.0, 'anti': 1.0}
        >>> tasks.chance
        {'go': 0.125, 'anti': 0.125}
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        dt: float,
        ring: int,
        encoding: str,
        repairs: tuple[str, ...],
        noise: float,
        response_grace: float,
        sampler: str,
        options: Mapping[str, Any],
    ) -> None:
        self._sources = tuple(sources)
        self.names = tuple(source.name for source in sources)
        self.dt = dt
        self.ring = ring
        self.encoding = encoding
        self.repairs = repairs
        self.noise = noise
        self.response_grace = response_grace
        self.sampler = sampler
        self.options = dict(options)
        vector = encoding == "vector"
        self.kind = "vector" if vector else sources[0].kind
        self.inputs = 5 if vector else sources[0].inputs
        self.outputs = 3 if vector else sources[0].outputs
        spans = [torch.from_numpy(source.span) for source in sources if source.span is not None]
        self._spans = torch.stack(spans) if spans else None
        recipes = {s: read_recipe(s) for s in self._sources} if sampler == "vectorised" else {}
        fast = {source: recipe for source, recipe in recipes.items() if recipe is not None}
        self.vectorised = tuple(source.name for source in fast)
        # Position of each task among the vectorised ones; -1 where it is not.
        self._fast_index = np.array(
            [self.vectorised.index(name) if name in self.vectorised else -1 for name in self.names]
        )
        self._fast = (
            VectorisedSource(tuple(fast), tuple(fast.values()), dt=dt, vector=vector)
            if fast
            else None
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.names)}; dt={self.dt:g} ms, {self.kind})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._settings(),)

    def sample(
        self,
        trials: int,
        *,
        generator: torch.Generator | int,
        tasks: str | Sequence[str] | None = None,
        balanced: bool = True,
    ) -> TrialBatch:
        """Draw a batch.

        The batch is a pure function of the set and of the generator's state: it depends neither
        on what was drawn before nor on the process. The trials are grouped by task, in the order
        of `names`.

        Args:
            trials: Number of trials in all.
            generator: Source of randomness, or a seed. One number is drawn from a generator.
            tasks: Draw only these tasks, or one name per trial, in the order of the trials.
            balanced: Spread the trials over the tasks evenly, the remainder at random tasks;
                otherwise every trial's task is drawn independently.

        Raises:
            ValueError: If `trials` is below one, or a task is unknown.
        """
        return self._draw(*self._request(trials, generator, tasks, balanced))

    def _request(
        self,
        trials: int,
        generator: torch.Generator | int,
        tasks: str | Sequence[str] | None,
        balanced: bool,
    ) -> tuple[Tensor, int]:
        """Return the task of every trial, (trial,) int64, and the seed of the trials."""
        check_count("trials", trials)
        if not isinstance(generator, torch.Generator):
            if isinstance(generator, bool) or not hasattr(generator, "__index__"):
                raise TypeError(f"generator must be a torch.Generator or a seed: got {generator!r}")
            generator = int(generator)
        source = make_generator(generator, "trials")
        task = self._assign(int(trials), source, tasks, balanced)
        return task, int(torch.randint(2**62, (), generator=source))

    def _assign(
        self,
        trials: int,
        generator: torch.Generator,
        tasks: str | Sequence[str] | None,
        balanced: bool,
    ) -> Tensor:
        """Choose the task of every trial, (trial,) int64."""
        # In NumPy, as torch would start threads for a few numbers.
        if tasks is None:
            pool = np.array(range(len(self.names)))
        else:
            chosen = self._positions(tasks)
            if len(chosen) == trials:
                return torch.tensor(chosen)
            if not chosen or len(set(chosen)) < len(chosen):
                raise ValueError(
                    f"tasks must be different names, or one name for each of the {trials} trials: "
                    f"got {[self.names[index] for index in chosen]}"
                )
            pool = np.array(sorted(chosen))
        if balanced:
            whole, rest = divmod(trials, len(pool))
            counts = np.full(len(pool), whole)
            counts[torch.randperm(len(pool), generator=generator)[:rest].numpy()] += 1
            return torch.from_numpy(np.repeat(pool, counts))
        picked = torch.randint(len(pool), (trials,), generator=generator)
        return torch.from_numpy(np.sort(pool[picked.numpy()]))

    def _positions(self, tasks: str | Sequence[str]) -> list[int]:
        position = {name: index for index, name in enumerate(self.names)}
        names = [tasks] if isinstance(tasks, str) else list(tasks)
        for name in names:
            if short_name(name) not in position:
                raise unknown_name("task of this set", name, self.names)
        return [position[short_name(name)] for name in names]

    def _draw(self, task: Tensor, seed: int) -> TrialBatch:
        """Draw one trial for every entry of `task`."""
        if len(self.vectorised) == len(self.names):
            return self._draw_at_once(task, seed)
        fast = self._fast_index[task.numpy()]
        ways = ((np.flatnonzero(fast >= 0), self._draw_at_once),
                (np.flatnonzero(fast < 0), self._draw_one_by_one))  # fmt: skip
        return merge([(rows, way(task[rows], seed)) for rows, way in ways if len(rows)])

    def _draw_at_once(self, task: Tensor, seed: int) -> TrialBatch:
        assert self._fast is not None
        index = self._fast_index[task.numpy()]
        if (index[1:] < index[:-1]).any():
            order = task.argsort(stable=True)
            return self._draw_at_once(task[order], seed).select(order.argsort())
        drawn = self._fast.draw(index, seed)
        arrays = self._fast.render(drawn, seed, self.response_grace)
        return to_batch(arrays, task, self.names, self.dt)

    def _draw_one_by_one(self, task: Tensor, seed: int) -> TrialBatch:
        trials: list[RawTrial | None] = [None] * len(task)
        for index in task.unique().tolist():
            rows = (task == index).nonzero().squeeze(-1).tolist()
            source = self._sources[index]
            drawn = source.draw(len(rows), derive_seed(seed, source.name))
            for row, trial in zip(rows, drawn, strict=True):
                trials[row] = trial
        return assemble(
            trials,  # type: ignore[arg-type]
            task,
            self.names,
            dt=self.dt,
            grace=self.response_grace,
            ring=self.ring if self.kind == "vector" else None,
        )

    def bank(self, trials_per_task: int, *, generator: torch.Generator | int) -> TrialBank:
        """Draw a pool of trials once, from which batches are then picked (see `TrialBank`).

        Args:
            trials_per_task: Trials of each task in the pool.
            generator: Source of randomness, or a seed.
        """
        from ._bank import TrialBank

        return TrialBank(self, trials_per_task, generator=generator)

    def correct(self, outputs: Tensor, batch: TrialBatch, *, fixation: bool = False) -> Tensor:
        """Judge each trial by its last step, (trial,) bool.

        Args:
            outputs: The network's outputs, (trial, time, output).
            batch: The trials.
            fixation: Also ask that fixation was kept before the response (see `fixation_kept`).

        Raises:
            ValueError: If the outputs do not fit the batch.
        """
        _criterion.check_outputs(outputs, batch, self.outputs)
        right = _criterion.correct(outputs, batch, self.kind, self._spans)
        return right & self.fixation_kept(outputs, batch) if fixation else right

    def fixation_kept(self, outputs: Tensor, batch: TrialBatch) -> Tensor:
        """Tell whether the network fixates at every step before the response, (trial,) bool."""
        _criterion.check_outputs(outputs, batch, self.outputs)
        return _criterion.fixation_kept(outputs, batch, self.kind)

    def accuracy(
        self, outputs: Tensor, batch: TrialBatch, *, fixation: bool = False
    ) -> dict[str, float]:
        """Return the fraction p of correct trials of each task in the batch (see `correct`)."""
        right = self.correct(outputs, batch, fixation=fixation).cpu()
        task = batch.task.cpu()
        return {batch.names[k]: float(right[task == k].double().mean()) for k in task.unique()}

    @cached_property
    def _twins(self) -> Twins:
        return Twins(self._sources)

    @property
    def twins(self) -> tuple[tuple[str, str], ...]:
        """Pairs of tasks that show the same stimuli, so that a trial of one could be the other's.

        See `ctxrnn.tasks._twins.Twins` for which these are.
        """
        pairs = np.argwhere(np.triu(self._twins.related)).tolist()
        return tuple((self.names[i], self.names[j]) for i, j in pairs)

    def wanted(self, batch: TrialBatch, others: Tensor) -> Tensor:
        """Return what other tasks would want at the end of the very trials of a batch.

        Args:
            batch: The trials, with the conditions that this set gave them.
            others: Index of a task for each trial, (trial,) int64.

        Returns:
            The last step's target of task `others[i]` on trial i: (trial,) int64, -1 where it is
            not defined, or (trial, output), NaN where it is not. It is defined for the trial's own
            task and for its twins (see `twins`), but for ties in the twin's decision.

        Raises:
            ValueError: If the batch is of another set or lacks conditions, or `others` are not
                tasks of this set.
        """
        return wanted(self._twins, batch, others, self.names, self.ring, self.kind)

    @cached_property
    def chance(self) -> dict[str, float]:
        """Accuracy of the better of always fixating and answering at random, per task."""
        return {s.name: _levels.chance(s, self.kind == "vector") for s in self._sources}

    @cached_property
    def ceiling(self) -> dict[str, float]:
        """Accuracy of an ideal observer per task; 1 for tasks outside yang19, where none is known.

        See `ctxrnn.tasks._observer` for what the observer knows.
        """
        return {s.name: _levels.ceiling(s, self.kind == "vector") for s in self._sources}

    def normalised(self, accuracy: Mapping[str, float]) -> dict[str, float]:
        """Return (p - chance) / (ceiling - chance) per task; NaN if they are equal."""
        return {
            name: (p - self.chance[name]) / (self.ceiling[name] - self.chance[name])
            if self.ceiling[name] != self.chance[name]
            else float("nan")
            for name, p in self._known(accuracy)
        }

    def relative(self, accuracy: Mapping[str, float]) -> dict[str, float]:
        """Return p / ceiling per task."""
        return {name: p / self.ceiling[name] for name, p in self._known(accuracy)}

    def _known(self, accuracy: Mapping[str, float]) -> list[tuple[str, float]]:
        for name in accuracy:
            if name not in self.names:
                raise unknown_name("task of this set", name, self.names)
        return [(name, float(p)) for name, p in accuracy.items()]

    def describe(self) -> pd.DataFrame:
        """Tabulate the tasks: one row each.

        The columns are name, family, inputs, outputs, the shortest, mean and longest trial in
        ms (over 256 seeded trials), chance, ceiling, and the repairs that change the task.
        """
        rows = []
        for source in self._sources:
            task = torch.full((_DESCRIBED,), self.names.index(source.name))
            lengths = (TaskSet._draw(self, task, 0).lengths * self.dt).tolist()
            rows.append(
                {
                    "name": source.name,
                    "family": FAMILY.get(source.name, "neurogym"),
                    "inputs": self.inputs,
                    "outputs": self.outputs,
                    "shortest_ms": min(lengths),
                    "mean_ms": sum(lengths) / len(lengths),
                    "longest_ms": max(lengths),
                    "chance": self.chance[source.name],
                    "ceiling": self.ceiling[source.name],
                    "repairs": ", ".join(source.repairs),
                }
            )
        return pd.DataFrame(rows)

    def _settings(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "dt": self.dt,
            "ring": self.ring,
            "encoding": self.encoding,
            "repairs": list(self.repairs),
            "noise": self.noise,
            "response_grace": self.response_grace,
            "sampler": self.sampler,
            **self.options,
        }

    def config(self) -> dict[str, Any]:
        """Return what rebuilds the set: ``task_set(**config)``; can be written as JSON.

        Raises:
            ValueError: If an option, e.g. a function in `timing`, cannot be written as JSON.
        """
        try:
            return json.loads(json.dumps(self._settings()))
        except TypeError as error:
            raise ValueError(
                f"the options of the tasks must be numbers, strings and lists to be stored: {error}"
            ) from None


def _rebuild(settings: dict[str, Any]) -> TaskSet:
    from ._factory import task_set

    return task_set(**settings)

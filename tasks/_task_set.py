"""Sets of tasks that one network learns together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

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
from ._assemble import assemble
from ._catalogue import FAMILY, short_name

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
        options: Further options of the environments.
        kind: "class" (targets are classes), "vector" (fixation, sine, cosine) or "regression".
        inputs: Channels of the stimulus.
        outputs: Channels of the output.
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
        self.options = dict(options)
        vector = encoding == "vector"
        self.kind = "vector" if vector else sources[0].kind
        self.inputs = 5 if vector else sources[0].inputs
        self.outputs = 3 if vector else sources[0].outputs
        spans = [torch.from_numpy(source.span) for source in sources if source.span is not None]
        self._spans = torch.stack(spans) if spans else None

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
        check_count("trials", trials)
        if not isinstance(generator, torch.Generator):
            if isinstance(generator, bool) or not hasattr(generator, "__index__"):
                raise TypeError(f"generator must be a torch.Generator or a seed: got {generator!r}")
            generator = int(generator)
        source = make_generator(generator, "trials")
        task = self._assign(int(trials), source, tasks, balanced)
        return self._draw(task, int(torch.randint(2**62, (), generator=source)))

    def _assign(
        self,
        trials: int,
        generator: torch.Generator,
        tasks: str | Sequence[str] | None,
        balanced: bool,
    ) -> Tensor:
        """Choose the task of every trial, (trial,) int64."""
        names = [tasks] if isinstance(tasks, str) else list(self.names if tasks is None else tasks)
        position = {name: index for index, name in enumerate(self.names)}
        chosen = []
        for name in names:
            if short_name(name) not in position:
                raise unknown_name("task of this set", name, self.names)
            chosen.append(position[short_name(name)])
        if tasks is not None and len(chosen) == trials:
            return torch.tensor(chosen)
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError(
                f"tasks must be different names, or one name for each of the {trials} trials: "
                f"got {names}"
            )
        pool = torch.tensor(chosen).sort().values
        if balanced:
            whole, rest = divmod(trials, len(pool))
            extra = pool[torch.randperm(len(pool), generator=generator)[:rest]]
            picked = torch.cat([pool.repeat(whole), extra])
        else:
            picked = pool[torch.randint(len(pool), (trials,), generator=generator)]
        return picked.sort().values

    def _draw(self, task: Tensor, seed: int) -> TrialBatch:
        """Draw one trial for every entry of `task`."""
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
        """Draw a pool of trials once, from which batches are then picked (see `TrialBank`)."""
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
            lengths = [len(t.inputs) * self.dt for t in source.draw(_DESCRIBED, 0)]
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

"""Trials of unequal lengths stored one after the other, without padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ctxrnn import TrialBatch


@dataclass(frozen=True)
class FlatTrials:
    """Trials as rows of steps; the first row is zero and stands for all padding.

    What belongs to a trial lies together, so that picking one touches few places in memory.

    Attributes:
        inputs: Stimulus, (row, input).
        targets: Right class, (row,), or wanted output, (row, output).
        mask: Weight in the loss, (row,).
        heads: First row, steps and task of each trial, then for every period its first step and
            the one after its last, (trial, 3 + 2 periods).
        period_names: Names of the periods.
        numbers: Numerical conditions, (trial, condition).
        number_names: Their names.
        others: Name of any other condition -> (trial,).
        names: The tasks.
        dt: Time step in ms.
    """

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    heads: np.ndarray
    period_names: tuple[str, ...]
    numbers: np.ndarray
    number_names: tuple[str, ...]
    others: dict[str, np.ndarray]
    names: tuple[str, ...]
    dt: float

    @classmethod
    def join(cls, batches: Iterable[TrialBatch]) -> FlatTrials:
        """Store batches of one task set; each is read once and may be a temporary."""
        rows: dict[str, list[np.ndarray]] = {"inputs": [], "targets": [], "mask": []}
        lengths, tasks = [], []
        periods, conditions = [], []
        for batch in batches:
            valid = batch.valid
            whole = bool(valid.all())
            for key, parts in rows.items():
                values = getattr(batch, key)
                if not parts:
                    parts.append(np.zeros_like(values.numpy()[0, :1]))
                parts.append((values.flatten(0, 1) if whole else values[valid]).numpy())
            lengths.append(batch.lengths.numpy())
            tasks.append(batch.task.numpy())
            periods.append(batch.periods)
            conditions.append(batch.conditions)
        sizes = list(map(len, lengths))
        length = np.concatenate(lengths)
        spans = _join_periods(periods, sizes)
        columns = _join_conditions(conditions, sizes)
        numbers = {name: v for name, v in columns.items() if v.dtype == np.float64}
        heads = [1 + np.cumsum(length) - length, length, np.concatenate(tasks)]
        heads += [steps for span in spans.values() for steps in span.T]
        return cls(
            **{key: np.concatenate(parts) for key, parts in rows.items()},
            heads=np.stack(heads, axis=1),
            period_names=tuple(spans),
            numbers=np.stack([*numbers.values(), np.zeros(len(length))], axis=1)[:, :-1].copy(),
            number_names=tuple(numbers),
            others={name: v for name, v in columns.items() if name not in numbers},
            names=batch.names,
            dt=batch.dt,
        )

    def __len__(self) -> int:
        return len(self.heads)

    def take(self, index: np.ndarray) -> TrialBatch:
        """Return some trials as a padded batch, in the given order."""
        heads = self.heads.take(index, axis=0)
        start, lengths, task = heads[:, :3].T.copy()
        step = np.arange(lengths.max())
        row = (start[:, None] + step) * (step < lengths[:, None])
        # With "clip" NumPy copies without checking every index first.
        inputs, targets, mask = (
            torch.from_numpy(values.take(row, axis=0, mode="clip"))
            for values in (self.inputs, self.targets, self.mask)
        )
        periods = heads[:, 3:].reshape(len(index), -1, 2).transpose(1, 0, 2).copy()
        numbers = self.numbers.take(index, axis=0).T.copy()
        return TrialBatch(
            inputs=inputs,
            targets=targets,
            mask=mask,
            context=torch.from_numpy(np.eye(len(self.names), dtype=np.float32).take(task, axis=0)),
            task=torch.from_numpy(task),
            lengths=torch.from_numpy(lengths),
            names=self.names,
            dt=self.dt,
            periods=dict(zip(self.period_names, torch.from_numpy(periods).unbind(), strict=True)),
            conditions={
                **dict(zip(self.number_names, numbers, strict=True)),
                **{name: values.take(index) for name, values in self.others.items()},
            },
        )


def _join_periods(
    parts: Sequence[Mapping[str, torch.Tensor]], sizes: Sequence[int]
) -> dict[str, np.ndarray]:
    """Join the periods of several batches; -1, -1 where absent."""
    names = dict.fromkeys(name for part in parts for name in part)
    pairs = list(zip(parts, sizes, strict=True))
    return {
        name: torch.cat([part.get(name, torch.full((size, 2), -1)) for part, size in pairs]).numpy()
        for name in names
    }


def _join_conditions(
    parts: Sequence[Mapping[str, np.ndarray]], sizes: Sequence[int]
) -> dict[str, np.ndarray]:
    """Join the columns of several batches; NaN, or None in columns of objects, where absent."""
    joined = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        given = [part[name] for part in parts if name in part]
        numeric = all(values.dtype == np.float64 for values in given)
        missing: float | None = np.nan if numeric else None
        kind = np.float64 if numeric else object
        joined[name] = np.concatenate(
            [
                part[name].astype(kind) if name in part else np.full(size, missing, dtype=kind)
                for part, size in zip(parts, sizes, strict=True)
            ]
        )
    return joined

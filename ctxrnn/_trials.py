"""A batch of trials: stimulus, target and context, kept apart; padding of unequal lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class TrialBatch:
    """Trials of one or several tasks, padded at their end to one length.

    The stimulus never holds the rule: which task a trial belongs to is told by `context` alone.

    Attributes:
        inputs: Stimulus u, (trial, time, input).
        targets: Class per step, (trial, time) int64, for cross-entropy; or the wanted output,
            (trial, time, output) floating point, for squared error.
        mask: Weight of each step in the loss, (trial, time); 0 in the padding.
        context: Context c, (trial, context); one-hot in standard training.
        task: Index of each trial's task, (trial,) int64; refers to `names`.
        lengths: Steps of each trial without its padding, (trial,) int64.
        names: The tasks that `task` and the columns of `context` refer to.
        dt: Time step in ms.
        periods: Name of a period -> (trial, 2) int64: its first step and the one after its last;
            -1, -1 where the trial has no such period.
        conditions: Name of a condition -> (trial,) NumPy array; NaN or None where it has none.

    Raises:
        TypeError: If targets, tasks or lengths are of another type.
        ValueError: If shapes do not fit, or lengths or tasks are out of range.

    Example:
        >>> import torch
        >>> from ctxrnn import TrialBatch
        >>> batch = TrialBatch(
        ...     inputs=torch.randn(4, 50, 3), targets=torch.zeros(4, 50, dtype=torch.int64),
        ...     mask=torch.ones(4, 50), context=torch.eye(2)[[0, 0, 1, 1]],
        ...     task=torch.tensor([0, 0, 1, 1]), lengths=torch.tensor([50, 50, 40, 40]),
        ...     names=("left", "right"), dt=20.0,
        ... )
        >>> right = batch.select(batch.task == 1)
        >>> len(right), right.inputs.shape  # without the padding that they no longer need
        (2, torch.Size([2, 40, 3]))
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    context: Tensor
    task: Tensor
    lengths: Tensor
    names: tuple[str, ...]
    dt: float
    periods: Mapping[str, Tensor] = field(default_factory=dict)
    conditions: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.inputs.ndim != 3:
            raise ValueError(
                f"inputs must have shape (trial, time, input): got {tuple(self.inputs.shape)}"
            )
        trials, steps = self.inputs.shape[:2]
        if trials == 0 or steps == 0:
            raise ValueError(
                f"a batch must hold at least one trial of one step: got {trials} trials "
                f"of {steps} steps"
            )
        wanted = {
            "targets": (self.targets.shape[:2], (trials, steps)),
            "mask": (self.mask.shape, (trials, steps)),
            "context": (self.context.shape, (trials, len(self.names))),
            "task": (self.task.shape, (trials,)),
            "lengths": (self.lengths.shape, (trials,)),
        }
        for name, (got, want) in wanted.items():
            if tuple(got) != want:
                raise ValueError(
                    f"{name} must have shape {want} to match inputs "
                    f"{tuple(self.inputs.shape)}: got {tuple(got)}"
                )
        classes = self.targets.dtype == torch.int64 and self.targets.ndim == 2
        if not classes and not (self.targets.is_floating_point() and self.targets.ndim == 3):
            raise TypeError(
                "targets must be classes, (trial, time) int64, or wanted outputs, "
                f"(trial, time, output) floating point: got {tuple(self.targets.shape)} "
                f"{self.targets.dtype}"
            )
        for name in ("task", "lengths"):
            if getattr(self, name).dtype != torch.int64:
                raise TypeError(f"{name} must be int64: got {getattr(self, name).dtype}")
        shortest, longest = (int(end) for end in self.lengths.aminmax())
        if shortest < 1 or longest > steps:
            raise ValueError(
                f"lengths must lie in [1, {steps}], the steps of inputs: got "
                f"{shortest} to {longest}"
            )
        lowest, highest = (int(end) for end in self.task.aminmax())
        if lowest < 0 or highest >= len(self.names):
            raise ValueError(
                f"task must lie in [0, {len(self.names) - 1}], as there are {len(self.names)} "
                f"names: got {lowest} to {highest}"
            )
        for name, steps_of in self.periods.items():
            if tuple(steps_of.shape) != (trials, 2):
                raise ValueError(
                    f"period {name!r} must have shape {(trials, 2)}: got {tuple(steps_of.shape)}"
                )
        for name, values in self.conditions.items():
            if len(values) != trials:
                raise ValueError(f"condition {name!r} must have {trials} values: got {len(values)}")

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def valid(self) -> Tensor:
        """True for steps that are not padding, (trial, time) bool."""
        steps = torch.arange(self.inputs.shape[1], device=self.inputs.device)
        return steps < self.lengths[:, None]

    def last(self, values: Tensor) -> Tensor:
        """Pick each trial's last step that is not padding: (trial, time, ...) -> (trial, ...)."""
        trials = torch.arange(len(self), device=values.device)
        return values[trials, self.lengths.to(values.device) - 1]

    def select(self, trials: Tensor | np.ndarray | Sequence[int]) -> TrialBatch:
        """Take some trials, by indices or by a bool mask, in the given order.

        Padding that no chosen trial needs is cut off.
        """
        index = torch.as_tensor(trials, device=self.inputs.device)
        if index.dtype == torch.bool:
            index = index.nonzero().squeeze(-1)
        if index.numel() == 0:
            raise ValueError("a batch must hold at least one trial: the selection is empty")
        lengths = self.lengths[index]
        steps = int(lengths.max())
        rows = index.cpu().numpy()
        return replace(
            self,
            inputs=self.inputs[index, :steps],
            targets=self.targets[index, :steps],
            mask=self.mask[index, :steps],
            context=self.context[index],
            task=self.task[index],
            lengths=lengths,
            periods={name: value[index] for name, value in self.periods.items()},
            conditions={name: value[rows] for name, value in self.conditions.items()},
        )

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> TrialBatch:
        """Move to a device and give the floating-point tensors a dtype; `to(dtype)` does, too."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device

        def move(tensor: Tensor) -> Tensor:
            wanted = dtype if tensor.is_floating_point() else None
            return tensor.to(device=device, dtype=wanted)

        return replace(
            self,
            inputs=move(self.inputs),
            targets=move(self.targets),
            mask=move(self.mask),
            context=move(self.context),
            task=move(self.task),
            lengths=move(self.lengths),
            periods={name: move(value) for name, value in self.periods.items()},
        )


def pad_trials(arrays: Sequence[np.ndarray], value: float = 0.0) -> np.ndarray:
    """Stack arrays of shape (time, ...) into (trial, time, ...), padded at the end.

    Args:
        arrays: One array per trial; all must agree in dtype and in every axis but the first.
        value: What the padding holds.

    Raises:
        ValueError: If there is no trial, or the trials differ in more than their length, or their
            type cannot hold `value`.

    Example:
        >>> import numpy as np
        >>> from ctxrnn import pad_trials
        >>> pad_trials([np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0])])
        array([[1., 2., 0.],
               [3., 4., 5.]])
    """
    if not arrays:
        raise ValueError("a batch must hold at least one trial: got none")
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"trials must differ in length only: got shapes {sorted(shapes)}")
    types = {str(array.dtype) for array in arrays}
    if len(types) != 1:
        raise ValueError(f"trials must have one dtype: got {', '.join(sorted(types))}")
    if np.isnan(value) and not np.issubdtype(arrays[0].dtype, np.inexact):
        raise ValueError(f"padding of {arrays[0].dtype} cannot be NaN: give another value")
    padded = np.full(
        (len(arrays), max(len(array) for array in arrays), *arrays[0].shape[1:]),
        value,
        dtype=arrays[0].dtype,
    )
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded

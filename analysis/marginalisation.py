"""Averages over trials by condition, and what in them depends on which conditions.

Averages are arrays (condition axes..., time, unit) with a value for every combination of
conditions: a balanced design.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ctxrnn._checks import unknown_name

from .subspaces import Samples

if TYPE_CHECKING:
    import pandas as pd

TIME = "time"
Labels = Mapping[str, Any]
Groups = Mapping[str, Sequence[str | Sequence[str]]]
Partition = Mapping[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class ConditionAverages:
    """Averages over trials in every combination of conditions.

    Attributes:
        states: (level of the first axis, ..., time, unit).
        axes: Names of all axes but the last, "time" at the end.
        levels: Axis -> its levels in the order of `states`; the time axis has none.
        counts: Trials in each combination, (level of the first axis, ...).
        noise: Unbiased covariance of single trials about their average, (unit, unit): mean over
            time and over the combinations of two trials or more. None where there are none.
        cells: Combination of each trial, an index into `counts.ravel()`, (trial,).

    Example: that of `condition_averages`.
    """

    states: np.ndarray
    axes: tuple[str, ...]
    levels: Mapping[str, np.ndarray]
    counts: np.ndarray
    noise: np.ndarray | None
    cells: np.ndarray


def condition_averages(
    states: Samples, labels: Labels | pd.DataFrame, axes: Sequence[str]
) -> ConditionAverages:
    """Average trials in every combination of conditions.

    Args:
        states: (trial, time, unit), e.g. the potentials of a trajectory. All trials must be
            finite and as long: cut them to one period.
        labels: Condition -> its level in each trial, (trial,): a table or `TrialBatch.conditions`.
        axes: Conditions to keep as axes, in this order; "time" may be named last.

    Returns:
        The averages, with the number of trials in each combination and the noise of single trials.

    Raises:
        ValueError: If a condition is unknown, a trial lacks one, or a combination has no trial.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import condition_averages
        >>> trials = np.array([1.0, 3.0, 10.0, 12.0]).reshape(4, 1, 1).repeat(2, axis=1)
        >>> labels = {"stimulus": ["left", "left", "right", "right"]}
        >>> averages = condition_averages(trials, labels, ["stimulus"])
        >>> averages.axes, averages.states.shape, averages.counts.tolist()
        (('stimulus', 'time'), (2, 2, 1), [2, 2])
        >>> averages.states[:, 0, 0].tolist(), averages.noise.tolist()
        ([2.0, 11.0], [[2.0]])
    """
    x = array_of(states)
    if isinstance(axes, str):
        raise TypeError(f"axes must list conditions: got {axes!r}; write [{axes!r}]")
    names = tuple(axes[:-1] if len(axes) and axes[-1] == TIME else axes)
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"single trials must have shape (trial, time, unit): got {x.shape}")
    _check_finite(x)
    coded = {name: _levels(labels, name, len(x)) for name in names}
    levels = {name: found for name, (found, _) in coded.items()}
    shape = tuple(len(levels[name]) for name in names)
    _check_axes((*names, TIME), (*shape, x.shape[1]))
    codes = [code for _, code in coded.values()]
    cells = np.ravel_multi_index(codes, shape) if names else np.zeros(len(x), dtype=int)
    counts = np.bincount(cells, minlength=math.prod(shape)).reshape(shape)
    empty = np.argwhere(counts == 0)
    if len(empty):
        first = {name: levels[name].tolist()[k] for name, k in zip(names, empty[0], strict=True)}
        raise ValueError(
            f"every combination of {', '.join(names)} must have a trial: {len(empty)} of "
            f"{counts.size} have none, e.g. {first}; draw more trials, select levels that were "
            "combined, or leave out an axis"
        )
    means, noise = means_and_noise(x, cells, counts.size)
    return ConditionAverages(
        means.reshape(*shape, *x.shape[1:]), (*names, TIME), levels, counts, noise, cells
    )


def marginalise(
    states: Samples, axes: Sequence[str], groups: Groups | None = None
) -> dict[str, np.ndarray]:
    """Split averages into what depends on which conditions.

    With M_a the mean over axis a, the part of a subset S of axes is

        X_S = prod_{a in S} (1 - M_a) prod_{a not in S} M_a X

    Parts of different subsets are orthogonal over samples, X_S X_S'^T = 0, and all add up to the
    averages less their mean (the identity of a balanced analysis of variance).

    Args:
        states: Averages, (condition axes..., time, unit).
        axes: Names of all axes of `states` but the last.
        groups: Name of a group -> the marginalisations that it joins, each an axis or a sequence
            of axes; every subset must be in one group. None joins those that differ by "time"
            only, so that there is a group "time" and one per subset of the others, such as
            "context x stimulus".

    Returns:
        Group -> its part, in the shape of `states`.

    Raises:
        ValueError: If axes do not match, a value is missing, or groups are no partition.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import marginalise
        >>> averages = np.array([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]])  # one unit, (stimulus, time)
        >>> parts = marginalise(averages[:, :, None], ["stimulus", "time"])
        >>> parts["stimulus"][:, :, 0].tolist()  # less the mean of all, 4
        [[-2.0, -2.0, -2.0], [2.0, 2.0, 2.0]]
        >>> parts["time"][:, :, 0].tolist()
        [[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]
    """
    x = averages_of(states, axes)
    return parts_of(x, tuple(axes), partition_of(tuple(axes), groups))


def parts_of(x: np.ndarray, axes: tuple[str, ...], groups: Partition) -> dict[str, np.ndarray]:
    """Return the part of each group, in the shape of `x`."""
    split: dict[tuple[str, ...], np.ndarray] = {(): x}
    for place, axis in enumerate(axes):
        halves = {}
        for subset, part in split.items():
            mean = part.mean(axis=place, keepdims=True)
            halves[subset], halves[(*subset, axis)] = mean, part - mean
        split = halves
    found = {}
    for name, subsets in groups.items():
        found[name] = np.zeros_like(x)
        for subset in subsets:
            found[name] += split[subset]
    return found


def partition_of(axes: tuple[str, ...], groups: Groups | None) -> Partition:
    """Return the marginalisations of each group, each in the order of the axes."""
    every = [s for size in range(1, len(axes) + 1) for s in itertools.combinations(axes, size)]
    if groups is None:
        joined: dict[str, list[tuple[str, ...]]] = {}
        for subset in every:
            rest = tuple(axis for axis in subset if axis != TIME)
            joined.setdefault(" x ".join(rest or (TIME,)), []).append(subset)
        return {name: tuple(subsets) for name, subsets in joined.items()}
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for name, members in groups.items():
        if isinstance(members, str):
            raise TypeError(
                f"group {name!r} must list its marginalisations: got {members!r}; write "
                f"[{members!r}]"
            )
        own = [(m,) if isinstance(m, str) else tuple(m) for m in members]
        for axis in itertools.chain.from_iterable(own):
            if axis not in axes:
                raise unknown_name("axis", axis, axes)
        found[name] = tuple(tuple(a for a in axes if a in subset) for subset in own)
    given = list(itertools.chain.from_iterable(found.values()))
    if sorted(given) != sorted(every):
        missing = [" x ".join(s) for s in every if s not in given]
        twice = sorted({" x ".join(s) for s in given if given.count(s) > 1})
        raise ValueError(
            "groups must hold every subset of the axes once: missing "
            f"{', '.join(missing) or 'none'}; more than once {', '.join(twice) or 'none'}"
        )
    return found


def means_and_noise(
    x: np.ndarray, cells: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean of each combination, (combination, time, unit), and their mean covariance.

    Every combination weighs the same in both, whatever its number of trials.
    """
    means = np.stack([x[cells == cell].mean(axis=0) for cell in range(count)])
    trials = np.bincount(cells, minlength=count)
    several = trials > 1
    if not several.any():
        return means, None
    weights = np.where(several, 1 / np.maximum(trials - 1, 1), 0) / (several.sum() * x.shape[1])
    scaled = (x - means[cells]) * np.sqrt(weights)[cells, None, None]
    scaled = scaled.reshape(-1, x.shape[-1])
    return means, np.asarray(scaled.T @ scaled)


def averages_of(states: Samples, axes: Sequence[str]) -> np.ndarray:
    """Return averages as an array of floats, checked against the names of their axes."""
    x = array_of(states)
    if isinstance(axes, str) or x.ndim != len(axes) + 1 or not x.size:
        raise ValueError(
            "axes must name every axis of the averages but the last, which is the unit: got "
            f"{axes!r} for shape {x.shape}"
        )
    _check_axes(tuple(axes), x.shape[:-1])
    _check_finite(x)
    return x


def array_of(values: Samples) -> np.ndarray:
    """Return values as an array of floats."""
    given = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return given.astype(float)


def _check_axes(axes: tuple[str, ...], sizes: Iterable[int]) -> None:
    if len(set(axes)) < len(axes):
        raise ValueError(f"axes must differ: got {', '.join(axes)}")
    for axis, size in zip(axes, sizes, strict=True):
        if size < 2:
            raise ValueError(f"axis {axis!r} must have two levels or more: got {size}; drop it")


def _check_finite(x: np.ndarray) -> None:
    bad = int((~np.isfinite(x)).any(axis=-1).sum())
    if bad:
        raise ValueError(
            f"states must be finite for every combination of conditions and time: {bad} of "
            f"{x.size // x.shape[-1]} samples are not; leave out padded steps and levels that "
            "were not combined"
        )


def _levels(labels: Labels | pd.DataFrame, name: str, trials: int) -> tuple[np.ndarray, np.ndarray]:
    import pandas as pd

    if name not in labels:
        raise unknown_name("condition", name, map(str, labels))
    values = labels[name]
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.shape != (trials,):
        raise ValueError(f"condition {name!r} must have {trials} values: got shape {values.shape}")
    codes, found = pd.factorize(values, sort=True)
    if (codes < 0).any():
        raise ValueError(
            f"condition {name!r} must be known in every trial: {int((codes < 0).sum())} of "
            f"{trials} have none; select the others first"
        )
    return np.asarray(found), codes

"""From conditions to padded arrays, without a loop over trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ._conditions import Conditions, Tables
from ._encoding import input_projection, vector_targets
from ._recipe import DECISION, FIRST, SECOND, SLOTS

_SHOWN = (FIRST, SECOND, DECISION)
_NOISY = (FIRST, SECOND)


def slot_ends(durations: np.ndarray, dt: float) -> np.ndarray:
    """Return the step after the last of each slot, (trial, slot).

    As in neurogym, times in ms are added up first and cut to whole steps afterwards.
    """
    return (np.cumsum(durations, axis=1) / dt).astype(np.int64)


def render_inputs(
    tables: Tables,
    drawn: Conditions,
    ends: np.ndarray,
    steps: int,
    generators: Sequence[torch.Generator | None],
    *,
    vector: bool,
) -> np.ndarray:
    """Return what the trials show, (trial, steps, input) float32; 0 in the padding.

    Args:
        tables: The tasks.
        drawn: The trials, sorted by task.
        ends: See `slot_ends`.
        steps: Steps of the padded batch.
        generators: Source of the noise, one per task of `tables`; unused for tasks without noise.
        vector: Whether to project the rings on vectors.
    """
    frames = _frames(tables, drawn)
    if vector:
        frames = frames @ input_projection(tables.ring)
    trials, width = len(ends), frames.shape[2]
    counts = np.empty((trials, SLOTS + 1), dtype=np.int64)
    counts[:, 0], counts[:, SLOTS] = ends[:, 0], steps - ends[:, DECISION]
    np.subtract(ends[:, 1:], ends[:, :-1], out=counts[:, 1:SLOTS])
    flat = np.repeat(frames.reshape(-1, width), counts.ravel(), axis=0)
    starts = ends - counts[:, :SLOTS] + steps * np.arange(trials)[:, None]
    stimuli = flat[:, 1:].reshape(len(flat), 2, -1)
    kind = tables.noise[drawn.task]
    matrix = input_projection(tables.ring)[1 : 1 + tables.ring, 1:3] if vector else None
    for modalities in (1, 2):
        rows = np.flatnonzero(kind == modalities)
        if not len(rows):
            continue
        count = counts[rows][:, _NOISY]
        noise = _noise(tables, drawn.task[rows], count.sum(1), modalities, generators)
        if matrix is not None:
            noise = noise @ matrix
        at = _spans(starts[rows][:, _NOISY].ravel(), count.ravel())
        if modalities == 2:
            stimuli[at] += noise
        else:
            stimuli[at, np.repeat(drawn.modality[rows], count.sum(1))] += noise[:, 0]
    return flat.reshape(trials, steps, width)


def _frames(tables: Tables, drawn: Conditions) -> np.ndarray:
    """Return the noiseless input of each slot, and of the padding, (trial, slot + 1, input)."""
    trials, ring = len(drawn.task), tables.ring
    frames = np.zeros((trials, SLOTS + 1, 1 + 2 * ring), dtype=np.float32)
    frames[:, :SLOTS, 0] = tables.cue[drawn.task]
    strength = tables.shows[drawn.task][:, _SHOWN, None] * drawn.strengths[:, None]
    bump = tables.bumps[np.stack([drawn.first, drawn.second], axis=1)]
    stimulus = strength.reshape(trials, -1, 2) @ bump
    frames[:, _SHOWN, 1:] = stimulus.reshape(trials, len(_SHOWN), 2 * ring)
    return frames


def _noise(
    tables: Tables,
    task: np.ndarray,
    steps: np.ndarray,
    modalities: int,
    generators: Sequence[torch.Generator | None],
) -> np.ndarray:
    """Draw noise, each task's from its own generator, (step, modality, direction) float32.

    Args:
        tables: The tasks.
        task: Task of each noisy trial, ascending, (trial,).
        steps: Its steps with noise, (trial,).
        modalities: How many modalities have noise in each step.
        generators: One per task.
    """
    # torch's normal numbers come more than twice as fast as NumPy's.
    noise = torch.empty(int(steps.sum()), modalities, tables.ring)
    done = 0
    for index, count in enumerate(np.bincount(task, weights=steps).astype(np.int64).tolist()):
        if count:
            noise[done : done + count].normal_(
                0.0, float(tables.sigma[index]), generator=generators[index]
            )
            done += count
    return noise.numpy()


def _spans(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return first, first + 1, ..., `count` numbers for each entry, one after the other."""
    before = np.cumsum(count) - count
    return np.repeat(first - before, count) + np.arange(int(count.sum()))


def render_targets(
    drawn: Conditions, ends: np.ndarray, steps: int, ring: int, *, vector: bool
) -> np.ndarray:
    """Return the right class per step, (trial, steps) int64, or vectors (trial, steps, 3)."""
    answer = np.zeros((len(ends), 3), dtype=np.int64)
    answer[:, 1] = drawn.answer
    wanted = vector_targets(answer, ring) if vector else answer[..., None]
    wanted[:, 2] = 0
    onset = ends[:, DECISION - 1]
    counts = np.stack([onset, ends[:, DECISION] - onset, steps - ends[:, DECISION]], axis=1)
    flat = np.repeat(wanted.reshape(-1, wanted.shape[2]), counts.ravel(), axis=0)
    return flat.reshape((len(ends), steps, -1) if vector else (len(ends), steps))


def render_mask(ends: np.ndarray, free: np.ndarray, steps: int) -> np.ndarray:
    """Return the weights of the steps in the loss, (trial, steps) float32 (see `loss_mask`).

    Args:
        ends: See `slot_ends`.
        free: Steps of each response without weight, (trial,).
        steps: Steps of the padded batch.
    """
    onset, end = ends[:, DECISION - 1], ends[:, DECISION]
    counts = np.stack([onset, free, end - onset - free, steps - end], axis=1)
    weights = np.tile(np.array([1, 0, 5, 0], dtype=np.float32), len(ends))
    return np.repeat(weights, counts.ravel()).reshape(len(ends), steps)

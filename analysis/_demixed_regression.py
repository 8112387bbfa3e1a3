"""The regression of low rank in demixed PCA, and the choice of its ridge by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import linalg

from ctxrnn import derive_seed

from .marginalisation import ConditionAverages, Partition, means_and_noise, parts_of


class Regression:
    """Regressions on one set of averages, for any marginalisation and ridge.

    Args:
        flat: Averages less their mean, X^T, (sample, unit).
        noise: Covariance of single trials, (unit, unit), or None.
    """

    def __init__(self, flat: np.ndarray, noise: np.ndarray | None) -> None:
        self.flat = flat
        self.norm = float(np.linalg.norm(flat))
        rows = flat
        if noise is not None:
            values, vectors = linalg.eigh(noise)
            root = vectors * np.sqrt(len(flat) * values.clip(0))
            rows = np.concatenate([flat, root.T])
        # M = P^T (s^2 + mu^2) P. Directions that are left out carry neither averages nor noise:
        # the regression has nothing there, whatever the ridge.
        u, s, p = linalg.svd(rows, full_matrices=False)
        keep = s > max(rows.shape) * np.finfo(float).eps * s[0]
        self._u, self._s, self._p = u[: len(flat), keep], s[keep], p[keep]

    def solve(self, part: np.ndarray, most: int, ridge: float) -> tuple[np.ndarray, np.ndarray]:
        """Return encoders and decoders of one marginalisation, (component, unit) each."""
        scale = 1 / np.sqrt(self._s**2 + (ridge * self.norm) ** 2)
        # A M^(1/2) in the coordinates of P: its left singular vectors are those of A M A^T.
        whitened = part.T @ (self._u * (self._s * scale))
        u, s, _ = linalg.svd(whitened, full_matrices=False)
        # Rounding error of the whole, not of this part: a part that is zero has no component.
        floor = max(self.flat.shape) * np.finfo(float).eps * self.norm
        encoder = u.T[: min(most, int((s > floor).sum()))]
        largest = np.abs(encoder).argmax(axis=1)
        encoder = encoder * np.sign(encoder[np.arange(len(encoder)), largest])[:, None]
        return encoder, (encoder @ whitened * scale) @ self._p


def check_trials(averages: ConditionAverages, estimated: bool) -> None:
    """Check that a trial of every combination can be held out, and noise estimated from others."""
    counts = averages.counts
    if counts.min() < 2:
        raise ValueError(
            "cross-validation must have two trials or more in every combination: "
            f"{int((counts < 2).sum())} of {counts.size} have one; draw more, or give one ridge"
        )
    if estimated and counts.max() < 3:
        raise ValueError(
            "cross-validation must have a combination of three trials or more, to estimate noise "
            "from those not held out: draw more, or give one ridge or noise=False"
        )


def cross_validate(
    x: np.ndarray,
    averages: ConditionAverages,
    groups: Partition,
    most: Mapping[str, int],
    ridges: Sequence[float],
    *,
    noise: np.ndarray | None,
    estimated: bool,
    folds: int,
    seed: int,
) -> dict[float, float]:
    """Return the mean error of each ridge.

    Args:
        x: Single trials, (trial, time, unit).
        averages: Their averages.
        groups: Group -> its marginalisations.
        most: Group -> most components.
        ridges: Candidates.
        noise: Covariance of single trials, if it is not estimated.
        estimated: Estimate it in each fold from the trials that are not held out.
        folds: Random choices of held-out trials.
        seed: Seed of that choice.
    """
    check_trials(averages, estimated)
    draw = np.random.default_rng(derive_seed(seed, "dpca"))
    size, units = averages.counts.size, x.shape[-1]
    members = [np.flatnonzero(averages.cells == cell) for cell in range(size)]
    errors = np.zeros(len(ridges))
    for _ in range(folds):
        held = np.array([draw.choice(trials) for trials in members])
        left = np.delete(np.arange(len(x)), held)
        train, found = means_and_noise(x[left], averages.cells[left], size)
        train = train.reshape(averages.states.shape)
        mean = train.reshape(-1, units).mean(axis=0)
        test = x[held].reshape(-1, units) - mean
        regression = Regression(train.reshape(-1, units) - mean, found if estimated else noise)
        for name, part in parts_of(train, averages.axes, groups).items():
            flat = part.reshape(-1, units)
            for place, ridge in enumerate(ridges):
                f, d = regression.solve(flat, most[name], ridge)
                errors[place] += ((flat - test @ d.T @ f) ** 2).sum() / regression.norm**2
    return dict(zip(ridges, (errors / folds).tolist(), strict=True))

"""Ceilings of the noisy yang19 tasks: the accuracy of an ideal observer.

The observer sees what a network sees: at each of n stimulus steps the ring activity plus
independent Gaussian noise of standard deviation e per unit (e = noise / sqrt(dt), dt in ms). It
knows the noise, the timing, the modality in force and the distribution of the strengths. In the
decision tasks it is also told the two directions, so that its accuracy is an upper bound for a
network that has to find them. It answers with the largest posterior probability. Everything but
noise and ties is thus free of error: reach tasks, which have no noise, have ceiling 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from ._encoding import bumps, projection

Steps = tuple[tuple[tuple[int, int], float], ...]
"""Pairs of ((steps of the first stimulus, of the second), probability)."""

_NODES = 512
_TRIALS = 32768


@dataclass(frozen=True)
class Decision:
    """A decision task, as the observer sees it.

    Attributes:
        ring: Directions on the ring.
        noise: Standard deviation e of the noise of one unit in one step.
        steps: Distribution of the stimulus' steps.
        strengths: Coherences; the pairs (1 + c)/2, (1 - c)/2 or, delayed, two different ones.
        weights: Weight of each modality that counts.
        delayed: Whether the two directions are shown one after the other.
        redraw: Whether trials without a right answer are drawn again.
        vector: Whether stimulus and answer are vectors.
    """

    ring: int
    noise: float
    steps: Steps
    strengths: tuple[float, ...]
    weights: tuple[float, ...]
    delayed: bool
    redraw: bool
    vector: bool


@dataclass(frozen=True)
class Match:
    """A match task, as the observer sees it; `ring`, `noise`, `steps`, `vector` as in `Decision`.

    Attributes:
        category: Whether categories are to be matched, not directions.
        go_on_match: Whether a match asks for an answer, and a non-match to withhold it.
        one_rule: Whether sample and test are assigned to categories by the same rule.
    """

    ring: int
    noise: float
    steps: Steps
    vector: bool
    category: bool
    go_on_match: bool
    one_rule: bool


def window(ring: int, vector: bool) -> int:
    """Return how many neighbouring directions one answer can be right for.

    A vector answer is right within 0.2 pi to either side, exclusive: w directions 2 pi / ring
    apart fit if (w - 1) 2 pi / ring < 0.4 pi.
    """
    return math.ceil(0.2 * ring - 1e-9) if vector else 1


def _templates(ring: int, noise: float, vector: bool) -> tuple[np.ndarray, float]:
    """Return the noiseless stimulus per direction, (ring, channel), and the noise per channel."""
    if not vector:
        return bumps(ring), noise
    matrix = projection(ring)
    return bumps(ring) @ matrix, noise * float(np.linalg.norm(matrix[:, 0]))


@lru_cache(maxsize=256)
def ceiling(task: Decision | Match) -> float:
    """Return the accuracy of the ideal observer.

    Non-delayed decisions on one modality have a closed form: with D half the difference of the
    two templates, the projected mean stimulus is N(c, e^2 / (n |D|^2)), the sign of it decides,
    and p = mean over directions and c of Phi(|c| |D| sqrt(n) / e). The other decisions average
    the larger posterior over 512 Sobol points per combination of strengths (error below 0.001,
    see the tests); matches average it over 32,768 seeded trials (standard error below 0.0015).
    """
    total = 0.0
    for counts, probability in task.steps:
        one = _decision(task, counts) if isinstance(task, Decision) else _match(task, counts)
        total += probability * one
    return total


def _decision(task: Decision, counts: tuple[int, int]) -> float:
    templates, noise = _templates(task.ring, task.noise, task.vector)
    near = window(task.ring, task.vector)
    total = 0.0
    for distance in range(1, task.ring):
        # One vector answer between two directions this close is right for both.
        if min(distance, task.ring - distance) < near:
            total += 1.0
            continue
        if task.delayed:
            lengths = np.linalg.norm(templates[[0, distance]], axis=1)
        else:
            lengths = np.full(1, np.linalg.norm(templates[0] - templates[distance]) / 2)
        signal = np.sqrt(np.array(counts[: len(lengths)])) * lengths
        snr = tuple(signal / noise) if noise > 0 else (math.inf,) * len(lengths)
        total += _compare(
            tuple(round(s, 9) for s in snr), task.strengths, task.weights, task.delayed, task.redraw
        )
    return total / (task.ring - 1)


@lru_cache(maxsize=1024)
def _compare(
    snr: tuple[float, ...],
    strengths: tuple[float, ...],
    weights: tuple[float, ...],
    delayed: bool,
    redraw: bool,
) -> float:
    """Return P(correct) given |D| sqrt(n) / e for each stimulus of a modality."""
    c = np.array(strengths, dtype=float)
    if delayed:
        pairs = np.array([(a, b) for i, a in enumerate(c) for j, b in enumerate(c) if i != j])
        evidence = pairs[:, 0] - pairs[:, 1]
    else:
        pairs = np.concatenate([c, -c])[:, None]
        evidence = pairs[:, 0]
    single = len(weights) == 1
    if single and not delayed:
        return float(ndtr(np.abs(c) * snr[0]).mean())
    states = np.stack([g.ravel() for g in np.meshgrid(*[np.arange(len(pairs))] * len(weights))], 1)
    balance = evidence[states] @ np.array(weights)
    tied = np.abs(balance) <= 1e-6
    ties = 0.0 if redraw else float(tied.mean())
    states, balance = states[~tied], balance[~tied]
    if not math.isfinite(snr[0]):
        return 1 - ties / 2
    means = (pairs * np.array(snr))[states].reshape(len(states), -1)
    return (1 - ties) * _larger_posterior(means, balance > 0) + ties / 2


def _larger_posterior(means: np.ndarray, first: np.ndarray) -> float:
    """Average the larger posterior of two answers over data N(mean, 1).

    Args:
        means: Noiseless data of equally likely states, (state, channel).
        first: Whether the first answer is right, (state,).
    """
    nodes = ndtri(qmc.Sobol(means.shape[1], scramble=False).random(_NODES) + 0.5 / _NODES)
    total = 0.0
    for mean in means:
        data = mean + nodes
        log = data @ means.T - (means**2).sum(1) / 2
        weight = np.exp(log - log.max(1, keepdims=True))
        posterior = weight[:, first].sum(1) / weight.sum(1)
        total += float(np.maximum(posterior, 1 - posterior).mean())
    return total / len(means)


def _label_tables(task: Match) -> tuple[np.ndarray, np.ndarray]:
    """Return P(sample, test, go) and P(sample, test, withhold), each (ring, ring)."""
    ring, half = task.ring, task.ring // 2
    index = np.arange(ring)
    if task.category:
        sample = index >= half if task.one_rule else index > half
        same = sample[:, None] == (index >= half)[None, :]
        match, other = same / (ring * half), ~same / (ring * half)
    else:
        match = np.eye(ring) / ring
        other = np.roll(match, half, axis=1)
    return (match / 2, other / 2) if task.go_on_match else (other / 2, match / 2)


def _match(task: Match, counts: tuple[int, int]) -> float:
    if task.noise == 0:
        return 1.0
    templates, noise = _templates(task.ring, task.noise, task.vector)
    go, withhold = _label_tables(task)
    rng = np.random.default_rng(0)
    pairs = rng.choice(go.size, size=_TRIALS, p=(go + withhold).ravel())
    sample = _likelihood(pairs // task.ring, templates, noise / math.sqrt(counts[0]), rng)
    test = _likelihood(pairs % task.ring, templates, noise / math.sqrt(counts[1]), rng)
    answers = (sample @ go) * test
    rest = ((sample @ withhold) * test).sum(1)
    near = window(task.ring, task.vector)
    best = sum(np.roll(answers, -shift, axis=1) for shift in range(near)).max(1)  # type: ignore[union-attr]
    return float((np.maximum(best, rest) / (answers.sum(1) + rest)).mean())


def _likelihood(
    shown: np.ndarray, templates: np.ndarray, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Simulate mean stimuli; return the likelihood of each direction up to a factor per trial."""
    data = templates[shown] + noise * rng.standard_normal((len(shown), templates.shape[1]))
    log = (data @ templates.T - (templates**2).sum(1) / 2) / noise**2
    return np.exp(log - log.max(1, keepdims=True))

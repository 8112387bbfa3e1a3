"""The conditions of a whole batch of yang19 trials, drawn at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ._encoding import bumps
from ._recipe import SLOTS, Recipe

# Which of a trial's uniform numbers decides what.
_A, _B, _STATE, _TIE, _ORDER, _FLIP, _TIME = range(7)
NUMBERS = _TIME + SLOTS
"""Uniform random numbers that the conditions of one trial take."""


class Tables:
    """The recipes of several tasks as arrays over tasks, to be indexed by the trials' tasks.

    Attributes:
        recipes: The recipes.
        ring: Directions on the ring.
        rows: Family -> (task,) bool.
        theta: Directions in radians, (task, ring).
        bumps: Noiseless stimulus of strength 1 per direction, (ring, ring).
        cue: Fixation input, (task, slot).
        shows: Whether A and B are shown, (task, slot, 2).
        noise: Modalities with noise, (task,); 0 also where the standard deviation is 0.
        sigma: Standard deviation of the noise, (task,).
    """

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        self.recipes = tuple(recipes)
        self.ring = len(recipes[0].theta)
        self.theta = np.stack([r.theta for r in recipes])
        self.bumps = bumps(self.ring)
        self.cue = np.array([r.cue for r in recipes], dtype=np.float32)
        self.shows = np.array([r.shows for r in recipes])
        self.sigma = np.array([r.sigma for r in recipes])
        self.noise = np.array([r.noise if r.sigma > 0 else 0 for r in recipes])
        self.rows = {
            family: np.array([r.family == family for r in recipes])
            for family in ("reach", "decision", "match")
        }
        self.anti = np.array([r.anti for r in recipes])
        self.category = np.array([r.category for r in recipes])
        self.border = np.array([r.border for r in recipes])
        self.go_on_match = np.array([r.go_on_match for r in recipes])
        self._stack_states()
        self._stack_durations()

    def _stack_states(self) -> None:
        none = np.zeros((1, 2, 2))
        states = [none if r.states is None else r.states for r in self.recipes]
        totals = [none[:, 0] if r.totals is None else r.totals for r in self.recipes]
        self.states, self.totals = np.concatenate(states), np.concatenate(totals)
        self.state_count = np.array([len(part) for part in states])
        self.state_start = np.cumsum(self.state_count) - self.state_count

    def _stack_durations(self) -> None:
        durations = [d for r in self.recipes for d in r.durations]
        shape = (len(self.recipes), SLOTS)
        count = np.array([len(d.values) for d in durations])
        self.values = np.array([value for d in durations for value in d.values])
        self.value_count = count.reshape(shape)
        self.value_start = (np.cumsum(count) - count).reshape(shape)
        self.spread, self.mean, self.low, self.high = (
            np.array([getattr(d, key) for d in durations]).reshape(shape)
            for key in ("spread", "mean", "low", "high")
        )
        self.exponential = bool((self.mean > 0).any())


@dataclass
class Conditions:
    """What was drawn for a batch of trials, sorted by task.

    Attributes:
        task: Index of the task among the recipes, (trial,).
        durations: Duration of each slot in ms, a whole number of steps, (trial, slot).
        first: Index of direction A, (trial,).
        second: Index of direction B, (trial,); as A where the task has none.
        modality: 0 or 1, (trial,); -1 in decision tasks.
        strengths: Strength of A and B in each modality, (trial, modality, 2).
        match: Whether sample and test match, (trial,) bool.
        answer: Right class in the decision: 0 to withhold, else 1 + direction, (trial,).
    """

    task: np.ndarray
    durations: np.ndarray
    first: np.ndarray
    second: np.ndarray
    modality: np.ndarray
    strengths: np.ndarray
    match: np.ndarray
    answer: np.ndarray


def draw_conditions(tables: Tables, task: np.ndarray, uniform: np.ndarray, dt: float) -> Conditions:
    """Turn uniform random numbers into the conditions of trials.

    Args:
        tables: The tasks.
        task: Index of each trial's task, ascending, (trial,).
        uniform: Independent numbers in [0, 1), (trial, NUMBERS).
        dt: Time step in ms.
    """
    first = _pick(uniform[:, _A], tables.ring)
    drawn = Conditions(
        task=task,
        durations=draw_durations(tables, task, uniform[:, _TIME:], dt),
        first=first,
        second=first.copy(),
        modality=_balance(task, uniform[:, _ORDER], uniform[:, _FLIP]),
        strengths=np.zeros((len(task), 2, 2)),
        match=np.zeros(len(task), dtype=bool),
        answer=first + 1,
    )
    for family, fill in (("reach", _reach), ("decision", _decision), ("match", _match)):
        rows = np.flatnonzero(tables.rows[family][task])
        if len(rows):
            fill(tables, drawn, rows, uniform[rows])
    return drawn


def _pick(uniform: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """Turn numbers in [0, 1) into integers from 0 to count - 1."""
    return (uniform * count).astype(np.int64)


def draw_durations(tables: Tables, task: np.ndarray, uniform: np.ndarray, dt: float) -> np.ndarray:
    """Return durations in ms, cut to whole steps as neurogym does, (trial, slot).

    Durations drawn by a function are left at 0.
    """
    picked = tables.value_start[task] + _pick(uniform, tables.value_count[task])
    duration = tables.values[picked] + uniform * tables.spread[task]
    if tables.exponential:
        mean = tables.mean[task]
        low, high = tables.low[task], tables.high[task]
        scale = np.where(mean > 0, mean, 1.0)
        # Beyond `low` it is again exponential, so that its distribution function is inverted.
        inside = -np.expm1(-(high - low) / scale)
        duration = np.where(mean > 0, low - scale * np.log1p(-uniform * inside), duration)
    return (duration // dt) * dt


def _balance(task: np.ndarray, order: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """Return modalities 0 and 1: equally often in each task, up to one trial, in random order."""
    start = np.searchsorted(task, task)
    modality = np.empty(len(task), dtype=np.int64)
    modality[np.lexsort((order, task))] = (np.arange(len(task)) - start + (flip[start] < 0.5)) % 2
    return modality


def _reach(tables: Tables, drawn: Conditions, rows: np.ndarray, uniform: np.ndarray) -> None:
    """Show one direction, or with `anti` its opposite."""
    half = tables.ring // 2 * tables.anti[drawn.task[rows]]
    drawn.first[rows] = drawn.second[rows] = (drawn.first[rows] + half) % tables.ring
    drawn.strengths[rows, drawn.modality[rows]] = 1.0


def _decision(tables: Tables, drawn: Conditions, rows: np.ndarray, uniform: np.ndarray) -> None:
    """Compare the summed strengths of two different directions."""
    task, first = drawn.task[rows], drawn.first[rows]
    second = (first + 1 + _pick(uniform[:, _B], tables.ring - 1)) % tables.ring
    state = tables.state_start[task] + _pick(uniform[:, _STATE], tables.state_count[task])
    drawn.second[rows] = second
    drawn.modality[rows] = -1
    drawn.strengths[rows] = tables.states[state]
    # neurogym breaks ties, and only these, with a number of this size.
    totals, tie = tables.totals[state], 2e-6 * uniform[:, _TIE] - 1e-6
    drawn.answer[rows] = 1 + np.where(totals[:, 0] + tie > totals[:, 1], first, second)


def _match(tables: Tables, drawn: Conditions, rows: np.ndarray, uniform: np.ndarray) -> None:
    """Show a sample, and a test that does or does not match it."""
    task, sample = drawn.task[rows], drawn.first[rows]
    half = tables.ring // 2
    match = uniform[:, _STATE] < 0.5
    second_half = (sample >= tables.border[task]) == match
    by_category = _pick(uniform[:, _B], half) + half * second_half
    by_direction = (sample + half * ~match) % tables.ring
    test = np.where(tables.category[task], by_category, by_direction)
    drawn.second[rows] = test
    drawn.match[rows] = match
    drawn.strengths[rows, drawn.modality[rows]] = 1.0
    drawn.answer[rows] = np.where(match == tables.go_on_match[task], 1 + test, 0)

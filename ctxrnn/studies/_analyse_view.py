"""What the parts of `analyse` share: a network with its trials, run once; what a part returns."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctxrnn import CTRNN, make_generator
from ctxrnn.analysis import (
    PCA,
    Branches,
    ContextPath,
    FixedPoints,
    find_fixed_points,
    fit_pca,
    follow_fixed_points,
    plots,
    task_variance,
    visited_states,
)
from ctxrnn.tasks import TaskSet

if TYPE_CHECKING:
    import pandas as pd

# States that are compared with each other pair by pair.
_COMPARED = 400


@dataclass(frozen=True)
class Part:
    """A part of the analysis.

    Attributes:
        title: Heading.
        caption: What it shows, of how many, and how it was computed.
        tables: Name of a file -> table.
        figure: The matplotlib Figure, or None.
        shown: Name of the table that the page shows, or None.
    """

    title: str
    caption: str
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figure: Any = None
    shown: str | None = None


class View:
    """A network with trials of its tasks, run without noise; what several parts need, once.

    Args:
        network: The network.
        tasks: Its tasks; task k has the context e_k.
        trials: Trials per task.
        starts: Starts of the search for fixed points in each context.
        pairs: Pairs of tasks between whose contexts points are followed.
        seed: Seed of trials and starts.
    """

    def __init__(
        self,
        network: CTRNN,
        tasks: TaskSet,
        *,
        trials: int,
        starts: int,
        pairs: tuple[tuple[str, str], ...],
        seed: int,
    ) -> None:
        # A copy, since to move a network to another device changes it.
        self.network, self.tasks, self.seed = copy.deepcopy(network).cpu().eval(), tasks, seed
        self.trials, self.starts, self.pairs = trials, starts, pairs
        self.names = tasks.names
        self.modulated = network.variant != "none"
        self.contexts = np.eye(len(self.names)) if self.modulated else None
        self.batch = tasks.sample(
            trials * len(self.names), generator=make_generator(seed, "analysis")
        )
        with torch.no_grad():
            run = self.network(
                self.batch.inputs, self.batch.context if self.modulated else None, noise=0.0
            )
        self.states = (run.potentials if network.form == "current" else run.rates).double().numpy()
        # The stimulus is off and the fixation cue is on, as in the first step of every trial.
        self.stimulus = self.batch.inputs[:, 0].double().median(dim=0).values.numpy()

    def rows(self, task: int) -> np.ndarray:
        """Return the trials of a task."""
        return np.flatnonzero(self.batch.task.numpy() == task)

    def visited(self, task: int) -> np.ndarray:
        """Return the states of a task's trials, (sample, unit), without padding."""
        rows = self.rows(task)
        return np.asarray(self.states[rows][self.batch.valid[rows].numpy()])

    def averages(self, task: int) -> list[np.ndarray]:
        """Return mean trajectories over the trials of one correct answer, each (time, unit).

        The answer is what is wanted at the end of a trial.
        """
        rows = self.rows(task)
        valid = self.batch.valid[rows].numpy()
        last = valid.shape[1] - 1 - valid[:, ::-1].argmax(axis=1)
        wanted = self.batch.targets[rows, last].numpy()
        answers = wanted.argmax(axis=-1) if wanted.ndim > 1 else wanted
        found = []
        for answer in np.unique(answers):
            mine = answers == answer
            steps = int(valid[mine].sum(axis=1).min())
            found.append(self.states[rows[mine], :steps].mean(axis=0))
        return found

    @functools.cached_property
    def plane(self) -> PCA:
        """Principal components of all visited states."""
        return fit_pca(np.concatenate([self.visited(k) for k in range(len(self.names))]))

    @property
    def state(self) -> str:
        """What the states are called."""
        return "potentials" if self.network.form == "current" else "rates"

    @property
    def colour(self) -> str:
        """Colour of the network's mechanism."""
        return plots.MECHANISM_COLOURS[plots.mechanism(str(self.network.variant))]

    @functools.cached_property
    def variance(self) -> pd.DataFrame:
        """Task variance of each unit, (unit, task)."""
        return task_variance(self.network, self.tasks, trials=self.trials, seed=self.seed)

    @functools.cached_property
    def points(self) -> FixedPoints:
        """Fixed points in every context, from states visited in any, stimulus off."""
        states = np.concatenate([self.visited(k) for k in range(len(self.names))])
        starts = visited_states(states, self.starts, seed=self.seed)
        return find_fixed_points(self.network, self.contexts, self.stimulus, starts)

    def followed(self, a: str, b: str, *, stable: bool = False) -> Branches:
        """Follow the fixed points of two tasks' contexts along c = (1 - lambda) e_a + lambda e_b.

        Args:
            a: The task at lambda = 0.
            b: The task at lambda = 1.
            stable: Begin from stable points alone, in both contexts.
        """
        if self.contexts is None:
            raise ValueError("a network without contexts has no path between them")
        ends = [self.names.index(name) for name in (a, b)]
        start, end = self.contexts[ends]
        path = ContextPath(self.network, start, end, self.stimulus)
        known = self.points
        usable = ~known.slow & (known.stable if stable else True)
        begin = [
            (float(place), x)
            for place, k in enumerate(ends)
            for x in known.x[(known.condition == k) & usable]
        ]
        return follow_fixed_points(path, points=begin) if begin else Branches(())

    def few(self, states: np.ndarray) -> np.ndarray:
        """Return as many states as can be compared pair by pair, evenly from all of them."""
        rows = np.linspace(0, len(states) - 1, min(len(states), _COMPARED))
        return states[rows.astype(int)]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions in which fixed points were sought."""
        return self.names if self.modulated else ("no context",)

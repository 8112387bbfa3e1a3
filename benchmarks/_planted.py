"""Networks whose fixed points are all known: separate groups of units with rank-one weights."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize

from ctxrnn import CTRNN


@dataclass(frozen=True)
class Planted:
    """A network and its fixed points.

    Attributes:
        network: Current form, tanh, without contexts.
        points: All of them, (point, unit).
        index: Number of unstable directions of each, (point,).
        directions: m of each group, (group, unit), 0 outside it.
        bias: (unit,).
        seed: What it was made from.
    """

    network: CTRNN
    points: np.ndarray
    index: np.ndarray
    directions: np.ndarray
    bias: np.ndarray
    seed: int

    def starts(self, count: int) -> np.ndarray:
        """Return states on the way from random initial ones, without input, with some noise."""
        generator = np.random.default_rng([self.seed, 1])
        weight = self.network.weight.detach().numpy()
        reach = 1.5 * np.abs((self.points - self.bias) @ np.linalg.pinv(self.directions)).max()
        amounts = generator.uniform(-reach, reach, size=(count // 8 + 1, len(self.directions)))
        x = self.bias + amounts @ self.directions
        states = []
        for _ in range(8):
            states.append(x)
            x = x + 0.3 * (-x + np.tanh(x) @ weight.T + self.bias)
        visited = np.concatenate(states)[:count]
        return visited + 0.05 * generator.normal(size=visited.shape)


def planted(units: int, groups: int, seed: int) -> Planted:
    """Make a network of groups that do not see each other, each bistable.

    In a group x = m k + b with k = n' tanh(m k + b): a function of one variable, whose three roots
    are found by a dense scan. The network's points are all combinations, 3^groups. A root is
    unstable in its group's direction where n' (tanh'(m k + b) m) > 1, and stable in all others.
    """
    generator = np.random.default_rng(seed)
    parts = np.array_split(generator.permutation(units), groups)
    directions, weight = np.zeros((groups, units)), np.zeros((units, units))
    bias = 0.1 * generator.normal(size=units)
    roots: list[list[tuple[float, bool]]] = []
    for number, part in enumerate(parts):
        found: list[tuple[float, bool]] = []
        while len(found) != 3:
            m = generator.normal(size=len(part))
            n = (generator.uniform(2, 5) * m + generator.normal(size=len(part))) / len(part)
            found = _roots(m, n, bias[part])
        directions[number, part] = m
        weight[np.ix_(part, part)] = np.outer(m, n)
        roots.append(found)
    combinations = list(itertools.product(*roots))
    amounts = np.array([[k for k, _ in chosen] for chosen in combinations])
    network = CTRNN(1, units, 1, nonlinearity="tanh", dtype=torch.float64, seed=0)
    with torch.no_grad():
        network.weight.copy_(torch.from_numpy(weight))
        network.bias.copy_(torch.from_numpy(bias))
    return Planted(
        network=network,
        points=amounts @ directions + bias,
        index=np.array([sum(grows for _, grows in chosen) for chosen in combinations]),
        directions=directions,
        bias=bias,
        seed=seed,
    )


def _roots(m: np.ndarray, n: np.ndarray, b: np.ndarray) -> list[tuple[float, bool]]:
    """Return the roots of k = n' tanh(m k + b), and whether each is unstable."""

    def residual(k: float) -> float:
        return float(n @ np.tanh(m * k + b) - k)

    bound = np.abs(n).sum() + 1
    grid = np.linspace(-bound, bound, 4001)
    values = np.tanh(grid[:, None] * m + b) @ n - grid
    found = []
    for place in np.flatnonzero(np.sign(values[:-1]) != np.sign(values[1:])):
        k = optimize.brentq(residual, grid[place], grid[place + 1], xtol=1e-14)
        slope = float(n @ ((1 - np.tanh(m * k + b) ** 2) * m))
        # Nearly at a fold a scan could miss a pair of roots, and no search could tell them apart.
        if abs(slope - 1) < 0.05:
            return []
        found.append((k, slope > 1))
    return found

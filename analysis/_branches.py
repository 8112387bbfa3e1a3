"""What continuation returns: branches of fixed points and their bifurcations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Bifurcation:
    """A point at which a branch changes its stability or turns.

    Attributes:
        kind: "fold" (the branch turns), "pitchfork" (it crosses a branch that turns there, or
            turns there itself), "branch point" (it crosses a branch that does not turn:
            transcritical; or one that was not followed), "Hopf" (a pair of complex modes changes
            its stability; of a map "Neimark-Sacker"), "period doubling" (of a map: a multiplier
            passes -1) or "multiple" (several modes change their stability within the least step,
            or jump at a kink of the field: they cannot be told apart, nor are the branches there
            followed).
        parameter: Where.
        x: The state, (unit,).
        direction: (unit,), of norm 1: of a fold the mode that loses its stability, of a branch
            point the other branch, of others the real part of one mode that changes.
        frequency: Of the oscillation born at a Hopf or Neimark-Sacker point or a period doubling,
            in Hz; 0 for others.
        index: Number of unstable modes on the side of the branch that has fewer: 0 where a stable
            point is born, lost or turned unstable.
        modes: Number of modes that change their stability: 2 at a Hopf point.

    Example: that of `follow_fixed_points`.
    """

    kind: str
    parameter: float
    x: np.ndarray
    direction: np.ndarray
    frequency: float = 0.0
    index: int = 0
    modes: int = 1


@dataclass(frozen=True)
class Branch:
    """Fixed points along a curve.

    Attributes:
        parameter: (point,).
        x: (point, unit).
        index: Number of unstable modes, (point,).
        leading: Largest real part of the eigenvalues, per ms, (point,).
        bifurcations: Those on the branch, in order.
        ends: Why each end of the branch is one: "range" (the parameter left its range), "closed"
            (it came back to its beginning), "lost" (no correction converged: the branch ends where
            the field is not smooth, or the least step is too large), "steps".

    Example: that of `follow_fixed_points`.
    """

    parameter: np.ndarray
    x: np.ndarray
    index: np.ndarray
    leading: np.ndarray
    bifurcations: tuple[Bifurcation, ...]
    ends: tuple[str, str]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def stable(self) -> np.ndarray:
        """Whether no mode grows, (point,)."""
        return np.asarray(self.index == 0)

    def at(self, parameter: float) -> np.ndarray:
        """Return the states at which the branch passes a parameter, linear between its points.

        Args:
            parameter: The parameter.

        Returns:
            (crossing, unit); a branch that folds may pass several times, or never.
        """
        p = self.parameter
        found = []
        for i in range(len(p) - 1):
            low, high = sorted((p[i], p[i + 1]))
            if low <= parameter <= high and low < high:
                share = (parameter - p[i]) / (p[i + 1] - p[i])
                if share < 1 or i == len(p) - 2:
                    found.append((1 - share) * self.x[i] + share * self.x[i + 1])
        return np.array(found).reshape(-1, self.x.shape[1])


@dataclass(frozen=True)
class Branches:
    """All branches that were followed.

    Attributes:
        branches: The branches.

    Example: that of `follow_fixed_points`.
    """

    branches: tuple[Branch, ...]

    def __len__(self) -> int:
        return len(self.branches)

    def __iter__(self) -> Any:
        return iter(self.branches)

    def __getitem__(self, number: int) -> Branch:
        return self.branches[number]

    def table(self) -> pd.DataFrame:
        """Return one row per point: branch, step, parameter, index, stable, leading."""
        import pandas as pd

        parts = [
            pd.DataFrame(
                {
                    "branch": number, "step": np.arange(len(branch)),
                    "parameter": branch.parameter, "index": branch.index,
                    "stable": branch.stable, "leading": branch.leading,
                }
            )
            for number, branch in enumerate(self.branches)
        ]  # fmt: skip
        names = ["branch", "step", "parameter", "index", "stable", "leading"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)

    def bifurcations(self) -> pd.DataFrame:
        """Return one row per bifurcation: branch, kind, parameter, frequency, index, modes."""
        import pandas as pd

        rows = [
            {
                "branch": n, "kind": b.kind, "parameter": b.parameter, "frequency": b.frequency,
                "index": b.index, "modes": b.modes,
            }
            for n, branch in enumerate(self.branches)
            for b in branch.bifurcations
        ]  # fmt: skip
        names = ["branch", "kind", "parameter", "frequency", "index", "modes"]
        return pd.DataFrame(rows, columns=names)

"""Demixed PCA (Kobak et al. 2016): components of averages that each depend on few conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg

from ctxrnn._checks import check_count, check_not_negative, unknown_name

from ._demixed_regression import Regression, cross_validate
from .marginalisation import (
    ConditionAverages,
    Groups,
    Labels,
    Partition,
    array_of,
    averages_of,
    condition_averages,
    partition_of,
    parts_of,
)
from .subspaces import Samples

if TYPE_CHECKING:
    import pandas as pd

RIDGES = tuple(float(ridge) for ridge in np.geomspace(1e-4, 1.0, 25))


@dataclass(frozen=True)
class DemixedPCA:
    """Demixed principal components.

    Components of a group are ordered by how much of its marginalisation they reconstruct. The sign
    of each is such that the largest entry of its encoder is positive.

    Attributes:
        mean: Mean over all averages, (unit,).
        axes: Names of all axes of the averages but the last.
        groups: Group -> its marginalisations, each a tuple of axes.
        encoders: Group -> F^T, orthonormal rows, (component, unit).
        decoders: Group -> D, (component, unit).
        variances: Group -> share of the total variance that each component explains,
            1 - |X - f d X|^2 / |X|^2, (component,). It may be negative with a ridge or noise.
        shares: Group -> share of each group's marginalisation in the variance of each component,
            |d X_g|^2 / |d X|^2, (component, group); rows add up to 1. The largest of a row is the
            paper's demixing index.
        marginal: Group -> share of its marginalisation in the total variance.
        explained: Share of the total variance that all components together explain.
        ridge: The one used.
        errors: Candidate ridge -> mean cross-validated error; empty without cross-validation. A
            minimum at an end asks for other candidates.

    Example: that of `fit_dpca`.
    """

    mean: np.ndarray
    axes: tuple[str, ...]
    groups: Partition
    encoders: Mapping[str, np.ndarray]
    decoders: Mapping[str, np.ndarray]
    variances: Mapping[str, np.ndarray]
    shares: Mapping[str, np.ndarray]
    marginal: Mapping[str, float]
    explained: float
    ridge: float
    errors: Mapping[float, float] = field(default_factory=dict)

    def project(self, states: Samples, group: str) -> np.ndarray:
        """Return the coordinates D (x - mean) of averages or single trials, (..., component).

        Args:
            states: (..., unit).
            group: Whose components.
        """
        return np.asarray(self._centred(states) @ self._known(group).T)

    def reconstruct(self, states: Samples, group: str | None = None) -> np.ndarray:
        """Return what the components make of states, (..., unit).

        Args:
            states: (..., unit).
            group: F D (x - mean) of this group, an estimate of its marginalisation; None gives the
                mean and the sum over groups.
        """
        x = self._centred(states)
        names = self.groups if group is None else [group]
        total = sum(x @ self._known(name).T @ self.encoders[name] for name in names)
        return np.asarray(total + (self.mean if group is None else 0))

    def table(self) -> pd.DataFrame:
        """Return one row per component, by falling variance.

        Columns: group, component (from 0), variance (share of the total) and `share_...`, the
        share of each group's marginalisation in the component.
        """
        import pandas as pd

        rows = [
            {"group": name, "component": number, "variance": variance}
            | {f"share_{other}": share for other, share in zip(self.groups, row, strict=True)}
            for name in self.groups
            for number, (variance, row) in enumerate(
                zip(self.variances[name], self.shares[name], strict=True)
            )
        ]
        columns = ["group", "component", "variance", *(f"share_{name}" for name in self.groups)]
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values("variance", ascending=False, kind="stable", ignore_index=True)

    def _known(self, group: str) -> np.ndarray:
        if group not in self.decoders:
            raise unknown_name("group", group, self.decoders)
        return self.decoders[group]

    def _centred(self, states: Samples) -> np.ndarray:
        x = array_of(states)
        if x.ndim < 1 or x.shape[-1] != len(self.mean):
            raise ValueError(f"states must have {len(self.mean)} units: got shape {x.shape}")
        return np.asarray(x - self.mean)


def fit_dpca(
    states: Samples,
    axes: Sequence[str],
    *,
    labels: Labels | pd.DataFrame | None = None,
    components: int | Mapping[str, int] = 10,
    groups: Groups | None = None,
    ridge: float | Sequence[float] | None = None,
    noise: Samples | bool | None = None,
    folds: int = 10,
    seed: int = 0,
) -> DemixedPCA:
    """Fit demixed principal components (Kobak et al. 2016, eLife 5:e10989).

    With X the n averages less their mean, (unit, n), X_g the marginalisation of group g
    (`marginalise`) and C the covariance of single trials about them, decoders D and encoders F
    minimise

        sum_g |X_g - F_g D_g X|^2 + n tr(F_g D_g C D_g^T F_g^T) + mu^2 |F_g D_g|^2

    with mu = ridge |X|. For each group, F D is the ridge regression

        A = X_g X^T M^+,    M = X X^T + n C + mu^2 I

    cut to rank q: F holds the leading q eigenvectors of A M A^T, and D = F^T A.

    In cross-validation, one trial of every combination of conditions, X', is held out, the rest are
    averaged and fitted, and the error is sum_g |X_g - F_g D_g X'|^2 / |X|^2 with X_g, X and the
    mean of those averages; the ridge with the least mean over folds is taken.

    Without ridge and noise, D may weigh directions in which the averages hardly vary; with as many
    units as averages it demixes anything. Prefer single trials.

    Args:
        states: Averages (condition axes..., time, unit), or with `labels` single trials
            (trial, time, unit). The design must be balanced: a value for every combination.
            Combinations weigh the same whatever their number of trials.
        axes: Names of all axes but the last, e.g. ("context", "stimulus", "time"). With `labels`,
            the conditions to use; time follows by itself.
        labels: Condition -> its level in each trial (`condition_averages`).
        components: Most components per group, or group -> that number. A group has no more than
            the rank of its marginalisation's regression.
        groups: Which marginalisations are joined (`marginalise`).
        ridge: Ridge parameter, without unit; several are candidates for cross-validation, which
            needs `labels`. None takes 25 candidates from 1e-4 to 1 with single trials, 0 without.
        noise: C, (unit, unit). None estimates it where a combination has two single trials or more
            and else leaves it out, False leaves it out.
        folds: Random choices of held-out trials.
        seed: Seed of that choice.

    Returns:
        The components of each group.

    Raises:
        ValueError: If a value or a combination is missing, or the averages do not vary.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import fit_dpca
        >>> averages = np.zeros((2, 3, 2))  # (stimulus, time, unit)
        >>> averages[:, :, 0] = [[-1], [1]]  # unit 0 tells the stimulus
        >>> averages[:, :, 1] = [-1, 0, 1]  # unit 1 tells the time
        >>> found = fit_dpca(averages, ["stimulus", "time"])
        >>> print(found.table()[["group", "variance"]].round(3))
              group  variance
        0  stimulus       0.6
        1      time       0.4
        >>> abs(found.encoders["stimulus"]).round(3).tolist()
        [[1.0, 0.0]]
    """
    single = None if labels is None else condition_averages(states, labels, axes)
    if single is not None:
        axes = single.axes
    x = averages_of(states if single is None else single.states, axes)
    known = partition_of(tuple(axes), groups)
    most = _components(components, known)
    ridges = _ridges(ridge, single is not None)
    covariance = _covariance(noise, single, x.shape[-1])
    errors: dict[float, float] = {}
    if len(ridges) > 1:
        if single is None:
            raise ValueError(
                f"ridge must be one number for averages: got {len(ridges)} candidates; "
                "cross-validation needs single trials, give them with labels"
            )
        check_count("folds", folds)
        errors = cross_validate(
            array_of(states), single, known, most, ridges, noise=covariance,
            estimated=noise is None or noise is True, folds=folds, seed=seed,
        )  # fmt: skip
    best = min(errors, key=lambda value: errors[value]) if errors else ridges[0]
    return _fitted(x, tuple(axes), known, most, best, covariance, errors)


def _fitted(
    x: np.ndarray,
    axes: tuple[str, ...],
    groups: Partition,
    most: Mapping[str, int],
    ridge: float,
    noise: np.ndarray | None,
    errors: Mapping[float, float],
) -> DemixedPCA:
    units = x.shape[-1]
    mean = x.reshape(-1, units).mean(axis=0)
    flat = x.reshape(-1, units) - mean
    total = float((flat**2).sum())
    # The mean of n numbers errs by no more than n eps times the largest.
    if total <= (len(flat) * np.finfo(float).eps * np.abs(x).max()) ** 2 * x.size:
        raise ValueError("states must vary: all averages are equal")
    parts = {name: part.reshape(-1, units) for name, part in parts_of(x, axes, groups).items()}
    regression = Regression(flat, noise)
    encoders, decoders, variances, shares = {}, {}, {}, {}
    left = flat
    for name, part in parts.items():
        f, d = regression.solve(part, most[name], ridge)
        encoders[name], decoders[name] = f, d
        scores = flat @ d.T
        # |X|^2 - |X - f d X|^2 with |f| = 1.
        gain = 2 * ((flat @ f.T) * scores).sum(axis=0) - (scores**2).sum(axis=0)
        variances[name] = gain / total
        own = np.stack([((other @ d.T) ** 2).sum(axis=0) for other in parts.values()], axis=1)
        shares[name] = own / own.sum(axis=1, keepdims=True)
        left = left - scores @ f
    return DemixedPCA(
        mean, axes, groups, encoders, decoders, variances, shares,
        {name: float((part**2).sum()) / total for name, part in parts.items()},
        1 - float((left**2).sum()) / total, ridge, errors,
    )  # fmt: skip


def _components(components: int | Mapping[str, int], groups: Mapping[str, Any]) -> dict[str, int]:
    if not isinstance(components, Mapping):
        check_count("components", components)
        return dict.fromkeys(groups, components)
    for name, number in components.items():
        if name not in groups:
            raise unknown_name("group", name, groups)
        check_count(f"components of {name!r}", number, 0)
    missing = [name for name in groups if name not in components]
    if missing:
        raise ValueError(f"components must be given for every group: missing {', '.join(missing)}")
    return dict(components)


def _ridges(ridge: float | Sequence[float] | None, single: bool) -> tuple[float, ...]:
    if ridge is None:
        return RIDGES if single else (0.0,)
    ridges = tuple(ridge) if isinstance(ridge, Sequence | np.ndarray) else (ridge,)
    if not ridges:
        raise ValueError("ridge must be a number or several: got none")
    for value in ridges:
        check_not_negative("ridge", value)
    return tuple(dict.fromkeys(float(value) for value in ridges))


def _covariance(
    noise: Samples | bool | None, single: ConditionAverages | None, units: int
) -> np.ndarray | None:
    if noise is False:
        return None
    if noise is None or noise is True:
        estimate = None if single is None else single.noise
        if noise is True and estimate is None:
            raise ValueError(
                "noise=True must come with labels and two trials or more in a combination: give "
                "the covariance or noise=False"
            )
        return estimate
    found = array_of(noise)
    if found.shape != (units, units) or not np.isfinite(found).all():
        raise ValueError(f"noise must be a finite covariance, {(units, units)}: got {found.shape}")
    values = linalg.eigvalsh(found)
    if not np.allclose(found, found.T) or values[0] < -1e-8 * max(values[-1], 0):
        raise ValueError("noise must be symmetric without negative eigenvalues")
    return found

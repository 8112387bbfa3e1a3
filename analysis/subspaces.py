"""Trajectories and the spaces they lie in: PCA, dimension, angles, captured variance, tangling.

States are arrays (..., unit), e.g. (trial, time, unit); all axes but the last hold samples.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg
from scipy.spatial import procrustes
from torch import Tensor

from ctxrnn._checks import check_count, check_fraction, check_positive

if TYPE_CHECKING:
    import pandas as pd

Samples = np.ndarray | Tensor | Sequence[Any]


def samples_of(states: Samples, name: str = "states", least: int = 1) -> np.ndarray:
    """Return states as (sample, unit), float64.

    Args:
        states: (..., unit).
        name: What they are called in errors.
        least: Fewest samples.

    Raises:
        ValueError: If they are no such array, too few, or not finite.
    """
    array = states.detach().cpu().numpy() if isinstance(states, Tensor) else np.asarray(states)
    array = array.astype(float)
    if array.ndim < 2 or not array.shape[-1]:
        raise ValueError(f"{name} must have shape (..., unit): got {array.shape}")
    array = array.reshape(-1, array.shape[-1])
    if len(array) < least:
        raise ValueError(f"{name} must hold at least {least} samples: got {len(array)}")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} must be finite: {int(bad.sum())} of {len(array)} samples are not; leave out "
            "padded steps (TrialBatch.valid)"
        )
    return array


@dataclass(frozen=True)
class PCA:
    """Principal components of states.

    Attributes:
        mean: (unit,).
        components: Orthonormal rows, (component, unit), by falling variance; the sign of each is
            such that its largest entry is positive.
        variances: Variance along each, (component,).
        total: Variance in all dimensions.

    Example: that of `fit_pca`.
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    total: float

    @property
    def ratios(self) -> np.ndarray:
        """Share of the variance along each component, (component,)."""
        return np.asarray(self.variances / self.total) if self.total else self.variances

    def project(self, states: Samples) -> np.ndarray:
        """Return the coordinates of states, (..., component)."""
        array = states.detach().cpu().numpy() if isinstance(states, Tensor) else np.asarray(states)
        return np.asarray((array - self.mean) @ self.components.T)

    def restore(self, coordinates: Samples) -> np.ndarray:
        """Return the states of coordinates, (..., unit)."""
        return np.asarray(np.asarray(coordinates) @ self.components + self.mean)

    def leading(self, share: float = 0.9) -> np.ndarray:
        """Return the first components that hold a share of the variance, (component, unit)."""
        check_fraction("share", share)
        number = int(np.searchsorted(np.cumsum(self.ratios), share - 1e-12)) + 1
        return self.components[:number]


def fit_pca(states: Samples, components: int | None = None) -> PCA:
    """Fit principal components (scikit-learn's, full singular value decomposition).

    Args:
        states: (..., unit), at least two samples. Average over trials first for the components of
            trial averages.
        components: How many; None for all.

    Returns:
        The components, with their variances.

    Raises:
        ValueError: If states are too few or not finite, or components are more than there can be.

    Example:
        >>> from ctxrnn.analysis import fit_pca
        >>> states = [[3.0, 3.0], [-3.0, -3.0], [1.0, -1.0], [-1.0, 1.0]]
        >>> pca = fit_pca(states)
        >>> pca.components[0].round(3).tolist(), pca.ratios.round(3).tolist()
        ([0.707, 0.707], [0.9, 0.1])
        >>> pca.project([[2.0, 2.0]]).round(3).tolist()[0][0]  # 2 sqrt 2 along the first
        2.828
    """
    from sklearn.decomposition import PCA as Fitted

    x = samples_of(states, least=2)
    if components is not None:
        check_count("components", components)
        if components > min(x.shape):
            raise ValueError(
                f"components must be at most {min(x.shape)} for {x.shape[0]} samples of "
                f"{x.shape[1]} units: got {components}"
            )
    fitted = Fitted(n_components=components, svd_solver="full").fit(x)
    rows = fitted.components_
    signs = np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])
    return PCA(
        fitted.mean_,
        rows * signs[:, None],
        fitted.explained_variance_,
        float(x.var(axis=0, ddof=1).sum()),
    )


def participation_ratio(states: Samples) -> float:
    """Return the participation ratio (sum l)^2 / sum l^2 of the covariance's eigenvalues l.

    Between 1 (a line) and the number of units (a ball). NaN where nothing varies.

    Args:
        states: (..., unit), at least two samples.

    Raises:
        ValueError: If there are fewer than two samples, or some are not finite.

    Example:
        >>> from ctxrnn.analysis import participation_ratio
        >>> plane = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]
        >>> line = [[1, 1, 1], [-1, -1, -1], [2, 2, 2], [-2, -2, -2]]
        >>> round(participation_ratio(plane), 6), round(participation_ratio(line), 6)
        (2.0, 1.0)
    """
    covariance = np.atleast_2d(np.cov(samples_of(states, least=2), rowvar=False))
    squares = float((covariance**2).sum())
    return float(np.trace(covariance) ** 2 / squares) if squares else float("nan")


def principal_angles(a: Samples, b: Samples) -> np.ndarray:
    """Return the angles between two spaces in radians, smallest first (Björck and Golub 1973).

    Args:
        a: Rows that span the first space, (vector, unit).
        b: Rows that span the second.

    Returns:
        As many angles as the smaller space has dimensions: 0 for a shared direction, pi / 2 for
        one at right angles to all of the other space.

    Raises:
        ValueError: If both spaces do not lie in one, or a number is not finite.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import principal_angles
        >>> floor = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
        >>> ramp = [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]  # shares an axis, and rises by 45 degrees
        >>> np.degrees(principal_angles(floor, ramp)).round(3).tolist()
        [0.0, 45.0]
    """
    first, second = samples_of(a, "a"), samples_of(b, "b")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"a and b must lie in one space: got {first.shape[1]} and {second.shape[1]} units"
        )
    return np.asarray(linalg.subspace_angles(first.T, second.T)[::-1])


def captured_variance(states: Samples, basis: Samples) -> float:
    """Return the share of the states' variance that lies in a space.

    Args:
        states: (..., unit), at least two samples.
        basis: Rows that span the space, (vector, unit).

    Returns:
        The share, in [0, 1]; NaN where nothing varies.

    Raises:
        ValueError: If there are fewer than two samples, or a number is not finite.

    Example:
        >>> from ctxrnn.analysis import captured_variance
        >>> states = [[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]  # squares 8 and 2
        >>> round(captured_variance(states, [[1.0, 0.0]]), 6)
        0.8
    """
    x = samples_of(states, least=2)
    q = linalg.orth(samples_of(basis, "basis").T)
    x = x - x.mean(axis=0)
    total = float((x**2).sum())
    return float(((x @ q) ** 2).sum() / total) if total else float("nan")


def alignment_index(states: Samples, basis: Samples) -> float:
    """Return the variance captured by a space over the most that one of its dimension can capture.

    1 where the space is that of the leading components (Elsayed et al. 2016, Nature Communications
    7:13239).

    Args:
        states: (..., unit), at least two samples.
        basis: Rows that span the space, (vector, unit).

    Returns:
        The index, in [0, 1]; NaN where nothing varies.

    Raises:
        ValueError: If there are fewer than two samples, or a number is not finite.

    Example:
        >>> from ctxrnn.analysis import alignment_index
        >>> states = [[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]  # shares 0.8 and 0.2
        >>> round(alignment_index(states, [[1.0, 0.0]]), 6)
        1.0
        >>> round(alignment_index(states, [[0.0, 1.0]]), 6)  # 0.2 / 0.8
        0.25
    """
    own = fit_pca(states)
    size = np.linalg.matrix_rank(samples_of(basis, "basis"))
    best = float(own.variances[:size].sum() / own.total) if own.total else float("nan")
    return captured_variance(states, basis) / best


def compare_subspaces(
    by_context: Mapping[Hashable, Samples], *, share: float = 0.9
) -> pd.DataFrame:
    """Compare the spaces of states in each of several contexts, all pairs.

    Args:
        by_context: Context -> states, (..., unit).
        share: The space of a context is that of the leading components with this share of its
            variance.

    Returns:
        One row per ordered pair: a, b, captured (share of the variance of a that the space of b
        captures), alignment (the same over the most possible), smallest and largest principal
        angle and their mean (radians), dimension of each.

    Raises:
        ValueError: If there are fewer than two contexts, or states are too few or not finite.

    Example:
        >>> from ctxrnn.analysis import compare_subspaces
        >>> states = {"go": [[1.0, 0.0], [-1.0, 0.0]], "anti": [[1.0, 1.0], [-1.0, -1.0]]}
        >>> table = compare_subspaces(states)  # lines at 45 degrees
        >>> print(table[["a", "b", "captured", "mean", "dimension_a"]].round(3))
              a     b  captured   mean  dimension_a
        0    go  anti       0.5  0.785            1
        1  anti    go       0.5  0.785            1
    """
    import pandas as pd

    if len(by_context) < 2:
        raise ValueError(f"at least two contexts must be given: got {len(by_context)}")
    spaces = {name: fit_pca(states).leading(share) for name, states in by_context.items()}
    rows = []
    for a, states in by_context.items():
        for b, space in spaces.items():
            if a == b:
                continue
            angles = principal_angles(spaces[a], space)
            rows.append(
                {
                    "a": a, "b": b, "captured": captured_variance(states, space),
                    "alignment": alignment_index(states, space), "smallest": angles[0],
                    "largest": angles[-1], "mean": angles.mean(),
                    "dimension_a": len(spaces[a]), "dimension_b": len(space),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def centroid_distances(by_context: Mapping[Hashable, Samples]) -> pd.DataFrame:
    """Measure how far contexts lie apart, against how far states spread within them.

    Args:
        by_context: Context -> states of one epoch, (..., unit).

    Returns:
        One row per pair: a, b, distance between the means, spread (root of the mean of both
        variances, summed over units), ratio distance / spread.

    Raises:
        ValueError: If a context has fewer than two samples, or a number is not finite.

    Example:
        >>> from ctxrnn.analysis import centroid_distances
        >>> states = {"go": [[-1.0, 0.0], [1.0, 0.0]], "anti": [[2.0, 4.0], [4.0, 4.0]]}
        >>> table = centroid_distances(states)
        >>> table[["distance", "spread"]].round(3).values.tolist()  # from (0, 0) to (3, 4)
        [[5.0, 1.414]]
    """
    import pandas as pd

    names = list(by_context)
    arrays = {name: samples_of(states, least=2) for name, states in by_context.items()}
    rows = []
    for place, a in enumerate(names):
        for b in names[place + 1 :]:
            distance = float(np.linalg.norm(arrays[a].mean(axis=0) - arrays[b].mean(axis=0)))
            both = [arrays[name].var(axis=0, ddof=1).sum() for name in (a, b)]
            spread = float(np.sqrt(np.mean(both)))
            ratio = distance / spread if spread else float("inf")
            rows.append({"a": a, "b": b, "distance": distance, "spread": spread, "ratio": ratio})
    return pd.DataFrame(rows, columns=["a", "b", "distance", "spread", "ratio"])


def tangling(
    states: Samples,
    velocity: Samples,
    *,
    others: tuple[Samples, Samples] | None = None,
    epsilon: float | None = None,
) -> np.ndarray:
    """Return the tangling of each state (Russo et al. 2018, Neuron 97:953).

        Q(t) = max_t' |x'(t) - x'(t')|^2 / (|x(t) - x(t')|^2 + epsilon)

    High where close states move apart: a smooth autonomous flow tangles little.

    Args:
        states: x, (..., unit).
        velocity: x', the same shape, per ms.
        others: States and velocities over which the maximum is taken, e.g. those of another
            context; None takes the states themselves.
        epsilon: Keeps the denominator from 0; None takes 0.1 times the total variance of x.

    Returns:
        Q, (sample,), per ms^2.

    Raises:
        ValueError: If shapes differ, a number is not finite, or epsilon is not positive.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import tangling
        >>> t = np.arange(8) * np.pi / 4  # ms
        >>> c, s = np.cos(t), np.sin(t)
        >>> circle = np.array([c, s]).T, np.array([-s, c]).T  # states and velocities
        >>> eight = np.array([c, 2 * s * c]).T, np.array([-s, 2 * c**2 - 2 * s**2]).T
        >>> for states, velocity in (circle, eight):  # an eight passes its centre in two directions
        ...     print(tangling(states, velocity).max().round(1))
        1.0
        40.0
    """
    x, v = samples_of(states), samples_of(velocity, "velocity")
    y, w = (x, v) if others is None else (samples_of(o, "others") for o in others)
    if x.shape != v.shape or y.shape != w.shape or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"states and velocity must have the same shape: got {x.shape} and {v.shape}, others "
            f"{y.shape} and {w.shape}"
        )
    if epsilon is None:
        epsilon = 0.1 * float(x.var(axis=0).sum())
    check_positive("epsilon", epsilon)
    found = np.empty(len(x))
    block = max(1, 20_000_000 // (len(y) * x.shape[1] + 1))
    for first in range(0, len(x), block):
        rows = slice(first, first + block)
        near = ((x[rows, None] - y) ** 2).sum(-1)
        apart = ((v[rows, None] - w) ** 2).sum(-1)
        found[rows] = (apart / (near + epsilon)).max(axis=1)
    return found


def linear_cka(a: Samples, b: Samples) -> float:
    """Return linear centred kernel alignment of two sets of states (Kornblith et al. 2019).

        |B^T A|_F^2 / (|A^T A|_F |B^T B|_F), columns centred

    1 for spaces that agree up to rotation and one scale, 0 for unrelated ones.

    Args:
        a: States of one network, (..., unit).
        b: States of another at the same conditions and times; it may have other units.

    Returns:
        The alignment, in [0, 1]; NaN where nothing varies.

    Raises:
        ValueError: If the numbers of samples differ, are below two, or a number is not finite.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import linear_cka
        >>> states = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> round(linear_cka(states, 3 * states[:, ::-1]), 6)  # turned and scaled
        1.0
        >>> linear_cka(states, [[1.0], [-1.0], [1.0], [-1.0]])  # tells apart what states do not
        0.0
    """
    x, y = _same_samples(a, b)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / scale) if scale else float("nan")


def procrustes_distance(a: Samples, b: Samples) -> float:
    """Return what is left between two sets of states after shift, scale and rotation.

    The sum of squared differences of both, each scaled to norm 1: between 0 and 1 (SciPy's
    `procrustes`). The set with fewer units gets columns of zeros.

    Args:
        a: States of one network, (..., unit).
        b: States of another at the same conditions and times.

    Returns:
        The distance, in [0, 1]; NaN where nothing varies.

    Raises:
        ValueError: If the numbers of samples differ, are below two, or a number is not finite.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import procrustes_distance
        >>> states = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> round(procrustes_distance(states, 3 * states[:, ::-1] + 1), 6)
        0.0
        >>> round(procrustes_distance(states, states[:, :1]), 6)  # one of two equal dimensions
        0.5
    """
    x, y = _same_samples(a, b)
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(z, ((0, 0), (0, width - z.shape[1]))) for z in (x, y))
    if not (x.std(axis=0).any() and y.std(axis=0).any()):
        return float("nan")
    return float(procrustes(x, y)[2])


def _same_samples(a: Samples, b: Samples) -> tuple[np.ndarray, np.ndarray]:
    x, y = samples_of(a, "a", 2), samples_of(b, "b", 2)
    if len(x) != len(y):
        raise ValueError(
            f"a and b must hold the same conditions and times: got {len(x)} and {len(y)} samples"
        )
    return x, y

"""What a modulator and its gains do: decoder noise, fidelity of the label, change, groups.

Couplings c and gains g are (context, unit), activity (image, unit) or (image, context, unit).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from ctxrnn._checks import check_count

from ._permutations import permutation_p, permuted
from ._scores import check_both_classes, numbers
from .fields import Values
from .subspaces import Samples, linear_cka, samples_of

if TYPE_CHECKING:
    import pandas as pd

# Numbers of an array that permutations are taken at a time.
_CHUNK = 4_000_000


def modulator_noise(logits: Values) -> np.ndarray:
    """Return the variance of logits over the modulator against that over images.

        mean_x Var_m[z] / Var_x[mean_m z]

    Of M independent draws the denominator holds 1 / M of the numerator besides: compare at equal M.
    It is NaN where nothing varies.

    Args:
        logits: z with the noise left on, (draw, image, output).

    Returns:
        (output,).

    Raises:
        ValueError: If logits are not of that shape, with two draws and two images, or not finite.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import modulator_noise
        >>> images = np.array([0.0, 4.0])  # variance 8
        >>> draws = np.array([-1.0, 1.0])  # variance 2
        >>> logits = (images + draws[:, None])[:, :, None]  # (draw, image, output)
        >>> modulator_noise(logits).tolist()
        [0.25]
    """
    z = numbers(logits, "logits")
    if z.ndim != 3 or min(z.shape[:2]) < 2 or not z.shape[2]:
        raise ValueError(
            f"logits must be (draw, image, output), of two draws and images or more: got {z.shape}"
        )
    # Measured from the first draw and image, so that what never varies has a variance of 0.
    noise = (z - z[:1]).var(axis=0, ddof=1).mean(axis=0)
    signal = (z - z[:1, :1]).mean(axis=0).var(axis=0, ddof=1)
    return _ratio(noise, signal)


def discriminability(activity: Values, labels: Values) -> np.ndarray:
    """Return d' of every unit: the difference of class means over the pooled standard deviation.

        d' = (mean[a | 1] - mean[a | 0]) / s,    s^2 = sum_x (a - mean[a | y])^2 / (n - 2)

    0 for a unit that never varies, infinite for one that varies between classes alone.

    Args:
        activity: (image, unit), or (image, context, unit) with labels (image, context).
        labels: 0 or 1, (image,) or (image, context).

    Returns:
        (unit,) for labels (image,), else (context, unit).

    Raises:
        ValueError: If shapes do not fit, values are not finite, or images are all of one class.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import discriminability
        >>> labels = [0, 0, 0, 1, 1, 1]
        >>> activity = np.array([[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]]).T  # both of spread s = 1
        >>> discriminability(activity, labels).tolist()
        [3.0, 0.0]
    """
    a, y = numbers(activity, "activity"), numbers(labels, "labels")
    single = y.ndim == 1
    y = y[:, None] if single else y
    fits = y.ndim == 2 and a.ndim in (2, 3) and a.shape[:1] == y.shape[:1] and a.size and y.size
    if not fits or (a.ndim == 3 and (single or a.shape[1] != y.shape[1])):
        raise ValueError(
            "activity must be (image, unit) or (image, context, unit), labels (image,) or (image, "
            f"context): got {a.shape} and {np.shape(labels)}"
        )
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1: got {y[~np.isin(y, (0, 1))].flat[0]:g}")
    if len(y) < 3:
        raise ValueError(f"a pooled standard deviation needs three images or more: got {len(y)}")
    check_both_classes(y == 1, "d'")
    found = [
        _separation(a[:, place] if a.ndim == 3 else a, y[:, place] == 1)
        for place in range(y.shape[1])
    ]
    return found[0] if single else np.stack(found)


def _separation(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    means = [a[y == side].mean(axis=0) for side in (True, False)]
    squares = sum(
        ((a[y == side] - mean) ** 2).sum(axis=0)
        for side, mean in zip((True, False), means, strict=True)
    )
    # Of a unit that never varies, rounding of the mean is no difference.
    size = np.finfo(float).eps * np.abs(a).max(axis=0) * len(a)
    apart = means[0] - means[1]
    apart = np.where(np.abs(apart) > size, apart, 0.0)
    spread = np.sqrt(squares / (len(a) - 2))
    spread = np.where(spread > size, spread, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(apart == 0, 0.0, apart / spread)


def class_noise(logits: Values, labels: Values) -> np.ndarray:
    """Return the variance of logits within classes over the squared difference of class means.

    This is 1 / d'^2 of every output, infinite where classes have one mean.

    Args:
        logits: z_k for its own attribute k, (image, attribute).
        labels: 0 or 1, likewise.

    Returns:
        (attribute,).

    Raises:
        ValueError: If shapes differ, logits are not finite, or an attribute's images are all of one
            class.

    Example:
        >>> from ctxrnn.analysis import class_noise
        >>> logits = [[0], [1], [2], [3], [4], [5]]  # means 3 apart, variance 1 within classes
        >>> labels = [[0], [0], [0], [1], [1], [1]]
        >>> class_noise(logits, labels).round(3).tolist()
        [0.111]
    """
    z, y = numbers(logits, "logits"), numbers(labels, "labels")
    if z.ndim != 2 or z.shape != y.shape:
        raise ValueError(
            f"logits and labels must both be (image, attribute): got {z.shape} and {y.shape}"
        )
    d = discriminability(z[:, :, None], y)[:, 0]
    with np.errstate(divide="ignore"):
        return np.asarray(1 / d**2)


def label_fidelity(strength: Values, discriminabilities: Values) -> np.ndarray:
    """Return Spearman's correlation of couplings, or gains, with |d'|, in each context.

    NaN where either is the same for all units. Of `shuffled-label` it should be about 0.

    Args:
        strength: c or g, (context, unit) or (unit,).
        discriminabilities: d' of the same units for the context's own label, likewise.

    Returns:
        (context,).

    Raises:
        ValueError: If shapes differ, there are fewer than two units, or a number is NaN.

    Example:
        >>> from ctxrnn.analysis import label_fidelity
        >>> separation = [0.1, -2.0, 1.0]  # d' of three units; its sign does not count
        >>> label_fidelity([0.2, 0.9, 0.5], separation).round(3).tolist()  # the most for the best
        [1.0]
        >>> label_fidelity([0.9, 0.2, 0.5], separation).round(3).tolist()
        [-1.0]
    """
    x = _rows(strength, "strength")
    d = numbers(discriminabilities, "discriminabilities", finite=False)
    d = np.abs(d[None] if d.ndim == 1 else d)
    if x.shape != d.shape or np.isnan(d).any() or x.shape[1] < 2:
        raise ValueError(
            "strength and discriminabilities must be of the same contexts and units, two units or "
            f"more, and not NaN: got {x.shape} and {d.shape}"
        )
    ranks = [stats.rankdata(values, axis=1) for values in (x, d)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    return _ratio((a * b).sum(1), np.sqrt((a**2).sum(1) * (b**2).sum(1)))


def share_above_one(gain: Values) -> np.ndarray:
    """Return the share of units with a gain above 1, (context,).

    Args:
        gain: g, (context, unit) or (unit,).

    Raises:
        ValueError: If gains are not of that shape, or not finite.

    Example:
        >>> from ctxrnn.analysis import share_above_one
        >>> share_above_one([[0.5, 1.0, 1.5, 2.0], [1.2, 1.3, 1.4, 1.5]]).tolist()
        [0.5, 1.0]
    """
    return np.asarray((_rows(gain, "gain") > 1).mean(axis=1))


def effective_units(gain: Values) -> np.ndarray:
    """Return the effective number of units (sum g)^2 / sum g^2, (context,).

    All of them where gains are equal, 1 where a single unit has one, NaN where none has.

    Args:
        gain: g >= 0, (context, unit) or (unit,).

    Raises:
        ValueError: If gains are negative, not of that shape, or not finite.

    Example:
        >>> from ctxrnn.analysis import effective_units
        >>> effective_units([[1, 1, 1, 1], [2, 2, 0, 0], [3, 0, 0, 0]]).tolist()
        [4.0, 2.0, 1.0]
    """
    g = _rows(gain, "gain")
    if (g < 0).any():
        raise ValueError(f"gains must be zero or more: got {g.min():g}")
    return _ratio(g.sum(axis=1) ** 2, (g**2).sum(axis=1))


@dataclass(frozen=True)
class RepresentationChange:
    """How far activity moved, both centred over images.

    Attributes:
        relative: |A - B|_F / |B|_F, of A after and B before; NaN where nothing varied before.
        cka: Their linear centred kernel alignment, which sees neither rotation nor scale.

    Example: that of `representation_change`.
    """

    relative: float
    cka: float


def representation_change(before: Samples, after: Samples) -> RepresentationChange:
    """Compare the activity of the same units for the same images before and after tuning.

    Args:
        before: B, (..., unit).
        after: A, likewise.

    Raises:
        ValueError: If shapes differ, there are fewer than two samples, or some are not finite.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import representation_change
        >>> before = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> change = representation_change(before, 1.5 * before)  # half as large again, one shape
        >>> round(change.relative, 3), round(change.cka, 3)
        (0.5, 1.0)
    """
    b, a = samples_of(before, "before", 2), samples_of(after, "after", 2)
    if a.shape != b.shape:
        raise ValueError(
            f"before and after must be of the same images and units: got {b.shape} and {a.shape}"
        )
    b, a = b - b.mean(axis=0), a - a.mean(axis=0)
    scale = np.linalg.norm(b)
    relative = float(np.linalg.norm(a - b) / scale) if scale else float("nan")
    return RepresentationChange(relative, linear_cka(b, a))


def cosine_similarity(
    rows: Values, names: Sequence[Hashable] | None = None, *, centred: bool = False
) -> pd.DataFrame:
    """Return the cosines of all pairs of rows, e.g. of the couplings of contexts.

    Rows that are not negative have cosines of 0 or more, near 1 where units differ little: centred
    over contexts they show what sets contexts apart.

    Args:
        rows: (context, unit).
        names: Names of the contexts; None numbers them.
        centred: Whether the mean over contexts is taken away first.

    Returns:
        (context, context); NaN for a context whose row is 0.

    Raises:
        ValueError: If there is not one name for each context, or a number is not finite.

    Example:
        >>> from ctxrnn.analysis import cosine_similarity
        >>> couplings = [[1.0, 0.0], [1.0, 1.0]]  # 45 degrees apart
        >>> print(cosine_similarity(couplings, ["beak", "wing"]).round(3))
               beak   wing
        beak  1.000  0.707
        wing  0.707  1.000
    """
    import pandas as pd

    x = _rows(rows, "rows")
    x = x - x.mean(axis=0) if centred else x
    names = list(range(len(x))) if names is None else list(names)
    if len(names) != len(x):
        raise ValueError(f"names must be one for each of {len(x)} contexts: got {len(names)}")
    sizes = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(sizes > 0, sizes, np.nan)
    return pd.DataFrame(np.clip(unit @ unit.T, -1, 1), index=names, columns=names)


@dataclass(frozen=True)
class GroupStructure:
    """How well groups of contexts stand apart.

    Attributes:
        silhouette: Mean silhouette over contexts, from -1 to 1; above 0 where contexts are nearer
            to their own group than to the next.
        p: One-sided p of the permutation of groups among contexts.
        groups: Number of groups.
        permutations: How many were used.
        exact: Whether they are all of them.

    Example: that of `group_structure`.
    """

    silhouette: float
    p: float
    groups: int
    permutations: int
    exact: bool

    def __str__(self) -> str:
        kind = "exact" if self.exact else f"{self.permutations} permutations"
        return f"silhouette {self.silhouette:.3f}, p = {self.p:.3g} ({kind})"


def group_structure(
    similarity: pd.DataFrame | Values,
    groups: Sequence[Hashable],
    *,
    permutations: int = 10_000,
    seed: int = 0,
) -> GroupStructure:
    """Test whether contexts of one group are more alike than those of different groups.

    The silhouette (Rousseeuw 1987) of the distances 1 - similarity; 0 for a context that is alone
    in its group. Groups are permuted among contexts.

    Args:
        similarity: (context, context), e.g. from `cosine_similarity`.
        groups: Group of each context.
        permutations: All are used where they are no more than that; otherwise so many are drawn.
        seed: Seed of the draw.

    Raises:
        ValueError: If the matrix is not square, symmetric and finite, or there are not two groups
            or more, with two contexts in one of them.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import group_structure
        >>> similarity = np.kron(np.eye(2), np.ones((3, 3)))  # alike within groups alone
        >>> print(group_structure(similarity, list("aaabbb")))  # 72 of 720 orders part them so
        silhouette 1.000, p = 0.1 (exact)
    """
    check_count("permutations", permutations)
    values = numbers(similarity, "similarity")
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(groups) != len(values):
        raise ValueError(
            "similarity must be (context, context), with a group for each context: got "
            f"{values.shape} and {len(groups)} groups"
        )
    if not np.allclose(values, values.T, atol=1e-9):
        raise ValueError("similarity must be symmetric: average it with its transpose")
    numbered = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    codes = np.array([numbered[name] for name in groups])
    if not 2 <= len(numbered) < len(codes):
        raise ValueError(
            f"groups must be two or more, and fewer than the {len(codes)} contexts: got "
            f"{len(numbered)}"
        )
    apart = 1 - values
    np.fill_diagonal(apart, 0)
    orders, exact = permuted(len(codes), permutations, seed)
    every = codes[np.array(list(orders))]
    size = max(1, _CHUNK // (len(codes) * len(numbered)))
    found = np.concatenate(
        [_silhouettes(apart, every[first : first + size]) for first in range(0, len(every), size)]
    )
    observed = float(_silhouettes(apart, codes[None])[0])
    p = permutation_p(observed, found, exact)
    return GroupStructure(observed, p, len(numbered), len(found), exact)


def _silhouettes(apart: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the mean silhouette of every assignment of contexts to groups, (assignment,).

    Args:
        apart: Distances, (context, context), 0 on the diagonal.
        codes: Number of each context's group, (assignment, context).
    """
    member = (codes[..., None] == np.arange(codes.max() + 1)).astype(float)
    sizes = member.sum(axis=1)[:, None]
    sums = apart @ member
    own = codes[..., None]
    mates = np.take_along_axis(np.broadcast_to(sizes, sums.shape), own, axis=2)[..., 0] - 1
    near = np.take_along_axis(sums, own, axis=2)[..., 0] / np.maximum(mates, 1)
    far = np.where(member > 0, np.inf, sums / sizes).min(axis=2)
    larger = np.maximum(near, far)
    scores = np.where((mates > 0) & (larger > 0), (far - near) / np.where(larger > 0, larger, 1), 0)
    return np.asarray(scores.mean(axis=1))


def _rows(values: Values, name: str) -> np.ndarray:
    x = numbers(values, name)
    x = x[None] if x.ndim == 1 else x
    if x.ndim != 2 or not x.size:
        raise ValueError(f"{name} must be (context, unit), or (unit,): got shape {x.shape}")
    return x


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return above / below, NaN for 0 / 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above / below)

"""Similarity of contexts or tasks by one measure against that by another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats
from torch import Tensor

from ctxrnn._checks import check_count

from ._permutations import permutation_p, permuted
from .fields import Values

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class MatrixCorrelation:
    """Rank correlation of two matrices of similarities.

    Attributes:
        correlation: Spearman's rho over pairs of contexts; NaN where a matrix is constant.
        p: Two-sided p of the Mantel test.
        contexts: K.
        permutations: How many were used; K! where they are all.
        exact: Whether they are all.

    Example: that of `similarity_of_tasks`.
    """

    correlation: float
    p: float
    contexts: int
    permutations: int
    exact: bool

    def __str__(self) -> str:
        kind = "exact" if self.exact else f"{self.permutations} permutations"
        return f"rho = {self.correlation:.3f}, p = {self.p:.3g} ({kind}, K = {self.contexts})"


def similarity_of_tasks(
    first: pd.DataFrame | Values,
    second: pd.DataFrame | Values,
    *,
    permutations: int = 10_000,
    seed: int = 0,
) -> MatrixCorrelation:
    """Correlate two similarity matrices over pairs of contexts (Mantel test).

    Spearman's rho of the entries above the diagonal. Entries in one row are not independent, so
    that p comes from permuting the contexts of one matrix, rows and columns alike (Mantel 1967,
    Cancer Research 27:209). The smallest p is 1 / K!, that of an exact test, or larger where
    permutations leave a matrix unchanged: with three contexts nothing can be shown.

    Args:
        first: (context, context), e.g. one of `context_similarity`. A matrix that is not symmetric,
            such as that of `cross_context`, is averaged with its transpose; the diagonal is unused.
        second: Likewise, e.g. `linear_cka` of all pairs. Two tables are brought to one order by
            their labels.
        permutations: All K! are used where they are no more than that; otherwise so many are
            drawn.
        seed: Seed of the draw.

    Returns:
        Spearman's rho with the p of the test.

    Raises:
        ValueError: If matrices differ in shape or labels, have fewer than three contexts, or hold
            values off the diagonal that are not finite.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import similarity_of_tasks
        >>> weights = np.array([[1, 0.9, 0.2, 0.1], [0.9, 1, 0.3, 0.15], [0.2, 0.3, 1, 0.8],
        ...                     [0.1, 0.15, 0.8, 1]])
        >>> behaviour = weights**2  # another measure that puts the pairs in the same order
        >>> print(similarity_of_tasks(weights, behaviour))  # one of 4! = 24 orders
        rho = 1.000, p = 0.0417 (exact, K = 4)
    """
    check_count("permutations", permutations)
    first, second = _ordered(first, second)
    a, b = _square(first, "first"), _square(second, "second")
    if a.shape != b.shape:
        raise ValueError(f"both matrices must have one shape: got {a.shape} and {b.shape}")
    count = len(a)
    pairs = np.triu_indices(count, 1)
    ranks = np.zeros((count, count))
    ranks[pairs] = stats.rankdata(b[pairs])
    ranks += ranks.T
    x = stats.rankdata(a[pairs]) - (len(pairs[0]) + 1) / 2
    mean = (len(pairs[0]) + 1) / 2
    scale = float(np.sqrt((x**2).sum() * ((ranks[pairs] - mean) ** 2).sum()))
    if scale == 0:
        return MatrixCorrelation(np.nan, np.nan, count, 0, False)
    orders, exact = permuted(count, permutations, seed)
    every = np.array(list(orders))
    drawn = ranks[every[:, pairs[0]], every[:, pairs[1]]]
    rho = float(x @ ranks[pairs]) / scale
    p = permutation_p(abs(rho), np.abs(drawn @ x) / scale, exact)
    return MatrixCorrelation(rho, p, count, len(drawn), exact)


def _ordered(
    first: pd.DataFrame | Values, second: pd.DataFrame | Values
) -> tuple[pd.DataFrame | Values, pd.DataFrame | Values]:
    """Return both tables in the order of the first one's rows."""
    import pandas as pd

    if not (isinstance(first, pd.DataFrame) and isinstance(second, pd.DataFrame)):
        return first, second
    labels = list(first.index)
    for own in (first.columns, second.index, second.columns):
        if set(own) != set(labels) or len(own) != len(labels):
            raise ValueError(
                f"both tables must be labelled by the same contexts: got {labels} and {list(own)}; "
                "give context_similarity the names of the tasks"
            )
    return first.loc[labels, labels], second.loc[labels, labels]


def _square(matrix: pd.DataFrame | Values, name: str) -> np.ndarray:
    given = matrix.detach().cpu().numpy() if isinstance(matrix, Tensor) else matrix
    values = np.array(given, dtype=float)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) < 3:
        raise ValueError(
            f"{name} must be square, of three contexts or more: got shape {values.shape}"
        )
    np.fill_diagonal(values, 0)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name} must be finite off the diagonal: leave out contexts without an effect, which "
            "have no direction"
        )
    return (values + values.T) / 2

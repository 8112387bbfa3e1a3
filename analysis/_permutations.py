"""Permutations for tests: all of them where there are few, drawn ones otherwise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from ctxrnn import derive_seed

# Statistics that are equal but for rounding are equal.
_ROUNDING = 1e-12


def permuted(
    count: int, limit: int, seed: int, groups: np.ndarray | None = None
) -> tuple[Iterator[np.ndarray], bool]:
    """Return permutations of 0 ... count - 1, and whether they are all of them.

    Args:
        count: How many things are permuted.
        limit: All permutations are taken, the identity among them, where these are no more than
            that; otherwise so many are drawn.
        seed: Seed of the draw.
        groups: Number of each thing's group, 0 to G - 1, within which they are permuted.
    """
    codes = np.zeros(count, dtype=int) if groups is None else groups
    members = [np.flatnonzero(codes == group) for group in range(int(codes.max()) + 1)]
    order = np.argsort(np.concatenate(members))
    if math.prod(math.factorial(len(one)) for one in members) <= limit:
        every = itertools.product(*map(itertools.permutations, members))
        return (np.concatenate(parts)[order] for parts in every), True
    generator = np.random.default_rng(derive_seed(seed, "permutations"))
    drawn = (map(generator.permutation, members) for _ in range(limit))
    return (np.concatenate(list(parts))[order] for parts in drawn), False


def permutation_p(observed: float, found: np.ndarray, exact: bool) -> float:
    """Return the share of permutations with a statistic at least as large as the observed one.

    b / B over all permutations, (1 + b) / (1 + B) over drawn ones, which keeps the level of the
    test (Phipson and Smyth 2010).

    Args:
        observed: Statistic of the data; large values speak against the null hypothesis.
        found: Statistic of each permutation; of all of them where `exact`.
        exact: Whether they are all permutations.
    """
    if math.isnan(observed):
        return math.nan
    above = int((found >= observed - _ROUNDING * max(1.0, abs(observed))).sum())
    return above / len(found) if exact else (1 + above) / (1 + len(found))

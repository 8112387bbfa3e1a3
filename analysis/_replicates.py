"""Replicates of a condition as arrays, and what a bootstrap over them estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctxrnn._checks import check_positive

from ._bootstrap import bootstrap_ends, group_codes
from ._crossing import Estimate, first_pass, of_chains, of_medians
from ._tables import check_columns, check_rows, check_values

if TYPE_CHECKING:
    import pandas as pd


def checked(
    table: pd.DataFrame,
    theta: float,
    value: str,
    axes: Sequence[str],
    replicate: Sequence[str],
    groups: str | None,
) -> list[str]:
    """Check a table of networks; return the columns that tell replicates apart."""
    columns = [replicate] if isinstance(replicate, str) else list(replicate)
    check_positive("theta", theta)
    check_columns(table, [value, *axes, *columns])
    check_rows(table, [*axes, *columns])
    check_values(table, [value, *axes[1:]])
    if groups is not None and groups not in columns:
        raise ValueError(f"groups must be one of the replicate columns {columns}: got {groups!r}")
    return columns


def scores_of(
    rows: pd.DataFrame,
    value: str,
    replicate: list[str],
    groups: str | None,
    axes: Sequence[str],
    grids: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return scores, (replicate, *axes) with NaN where not measured, and the replicates' groups."""
    places = [{v: i for i, v in enumerate(grid)} for grid in grids]
    keys = list(dict.fromkeys(rows[replicate].itertuples(index=False, name=None)))
    number = {key: i for i, key in enumerate(keys)}
    scores = np.full((len(keys), *(len(grid) for grid in grids)), np.nan)
    at = [[number[key] for key in rows[replicate].itertuples(index=False, name=None)]]
    at += [[place[v] for v in rows[axis]] for axis, place in zip(axes, places, strict=True)]
    scores[tuple(at)] = rows[value].to_numpy(dtype=float)
    if groups is None:
        return scores, None
    return scores, group_codes([key[replicate.index(groups)] for key in keys], len(keys))


def prepared(
    scores: np.ndarray, grid: np.ndarray, theta: float, continuous: bool
) -> tuple[np.ndarray, Estimate, str]:
    """Return what the bootstrap draws from, (replicate, ...), what it estimates, and the method."""
    places = np.log(grid.astype(float))
    measured = ~np.isnan(scores)
    present = measured.any(-1, keepdims=True)
    if (measured == measured.any(0)).all(where=present):
        return scores, of_medians(places, theta, continuous=continuous), "grid"
    return first_pass(scores, places, theta, continuous=continuous), of_chains, "chains"


def with_ends(
    data: np.ndarray,
    estimate: Estimate,
    codes: np.ndarray | None,
    level: float,
    resamples: int,
    seed: int,
) -> tuple[float, float, float]:
    """Return estimate, low and high for the one condition that `data` has."""
    ends = bootstrap_ends(
        data, lambda d: estimate(d)[..., 0], codes, level=level, resamples=resamples, seed=seed
    )
    return float(estimate(data)[0]), *ends

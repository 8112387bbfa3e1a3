"""Guards against taking slow training for a limit of capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from ctxrnn._checks import check_count

from ._bootstrap import Interval, group_codes
from ._paired import independent, interval_of_mean, joined_arms, labels_of
from ._tables import check_columns, check_rows

if TYPE_CHECKING:
    import pandas as pd

CELL = ("variant", "units", "tasks", "order", "seed")


@dataclass(frozen=True)
class OptimisationGuard:
    """What a larger training budget changed.

    Attributes:
        rise: Mean rise of the score with its interval.
        rising: Cells that rose by more than one standard error: cell, before, after, rise, error.
        falling: Number of cells that fell by more than one standard error.
        cells: Number of cells compared.
        independent: Number of independent ones: groups, or cells.
        expected: Number of cells that would rise so far by the chance of the test trials alone, at
            most about. Training anew moves a network besides: compare with `falling`.

    Example: that of `optimisation_guard`.
    """

    rise: Interval
    rising: pd.DataFrame
    falling: int
    cells: int
    independent: int
    expected: float

    def __str__(self) -> str:
        return (
            f"rise {self.rise}; {len(self.rising)} of {self.cells} cells rose, {self.falling} fell "
            f"by more than one standard error (about {self.expected:.1f} each by the chance of the "
            "test trials alone)"
        )


def optimisation_guard(
    table: pd.DataFrame,
    *,
    trials: int,
    value: str = "relative_min",
    budget: str = "budget",
    factors: tuple[float, float] = (1, 2),
    on: Sequence[str] = CELL,
    groups: str | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> OptimisationGuard:
    """Compare the same cells at two training budgets, over those that have both.

    A cell still rose if p_2 - p_1 > sqrt(p_1 (1 - p_1) / n + p_2 (1 - p_2) / n), the standard error
    of the difference of two shares of n test trials. The chance of the trials alone gives that to a
    share 0.16 of cells, fewer at scores near 1. Cells of one task order have tasks in common and
    are not independent: name it as `groups`.

    Args:
        table: One row per cell and budget.
        trials: n, test trials behind each score (per task, where the score is that of one task).
        value: Score, a share of trials; values above 1 (relative to a ceiling) count as 1 where
            cells are counted.
        budget: Column that tells the budgets apart.
        factors: Its two values, the smaller one first.
        on: Columns that make a cell.
        groups: Column of groups for the interval of the mean rise, e.g. "order".
        level: Confidence level.
        resamples: Number of resamples of groups, or cells; below five of them the interval is that
            of Student's t (`mean_interval`).
        seed: Their seed.

    Returns:
        The mean rise, the cells that rose, and how many would by chance.

    Raises:
        ValueError: If a column is missing, a cell occurs twice, or none has both budgets.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import optimisation_guard
        >>> table = pd.DataFrame({
        ...     "variant": "e-add", "units": 16, "tasks": 4, "order": 0,
        ...     "seed": [0, 1, 2, 0, 1, 2], "budget": [1, 1, 1, 2, 2, 2],
        ...     "relative_min": [0.80, 0.90, 0.85, 0.95, 0.90, 0.86],
        ... })
        >>> guard = optimisation_guard(table, trials=100)
        >>> round(guard.rise.mean, 3)
        0.053
        >>> guard.rising["seed"].tolist()  # 0.15 is more than a standard error, 0.01 is not
        [0]
    """
    check_count("trials", trials)
    small, large = factors
    joined, _ = joined_arms(table, [value], by=budget, arms=factors, on=on, groups=groups)
    before, after = (joined[(value, factor)].to_numpy(dtype=float) for factor in (small, large))
    shares = np.clip([before, after], 0, 1)
    error = np.sqrt((shares * (1 - shares)).sum(axis=0) / trials)
    rise = after - before
    change = shares[1] - shares[0]
    cells = joined.index.to_frame(index=False)
    cells = cells.assign(before=before, after=after, rise=rise, error=error)
    codes = group_codes(labels_of(joined, groups), len(rise))
    return OptimisationGuard(
        interval_of_mean(rise, codes, level=level, resamples=resamples, seed=seed),
        # Rounding alone is no rise.
        cells[change > error + 1e-12].reset_index(drop=True),
        int((change < -error - 1e-12).sum()),
        len(cells),
        independent(codes, len(rise)),
        float(stats.norm.sf(1) * (error > 0).sum()),
    )


def best_rate(
    table: pd.DataFrame, *, selection: str, rate: str = "rate", on: Sequence[str] = CELL
) -> pd.DataFrame:
    """Keep, in each cell, the learning rate with the highest selection score.

    The selection score must come from evaluation during training, never from the test trials:
    the better of two test scores is biased upwards. Equal scores go to the smaller rate; NaN (a
    network that diverged) loses against any number.

    Args:
        table: One row per cell and learning rate.
        selection: Column that selects, e.g. the last evaluation accuracy.
        rate: Column of learning rates.
        on: Columns that make a cell.

    Returns:
        The rows kept, in the table's order, with a column `rates`: how many rates were compared.

    Raises:
        ValueError: If a column is missing or a cell has two rows with one rate.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import best_rate
        >>> table = pd.DataFrame({
        ...     "variant": "e-add", "units": 16, "tasks": 4, "order": 0, "seed": [0, 0, 1, 1],
        ...     "rate": [0.001, 0.003, 0.001, 0.003], "evaluation": [0.80, 0.90, 0.95, 0.85],
        ... })
        >>> print(best_rate(table, selection="evaluation")[["seed", "rate", "evaluation", "rates"]])
           seed   rate  evaluation  rates
        0     0  0.003        0.90      2
        1     1  0.001        0.95      2
    """
    cell = [on] if isinstance(on, str) else list(on)
    check_columns(table, [selection, rate, *cell])
    check_rows(table, [*cell, rate], "cell")
    rows = table.reset_index(drop=True)
    ranked = rows.sort_values([selection, rate], ascending=[False, True], na_position="last")
    kept = ranked.drop_duplicates(cell).sort_index()
    return kept.assign(rates=rows.groupby(cell)[rate].transform("size")[kept.index]).reset_index(
        drop=True
    )

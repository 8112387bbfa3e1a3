"""Checks of tables with one row per network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctxrnn._checks import unknown_name

if TYPE_CHECKING:
    import pandas as pd


def check_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise ValueError for a column that the table lacks, or for an empty table."""
    for column in columns:
        if column not in table.columns:
            raise unknown_name("column", column, map(str, table.columns))
    if not len(table):
        raise ValueError("the table must have at least one row: got none")


def check_rows(table: pd.DataFrame, by: Sequence[str], what: str = "network") -> None:
    """Raise ValueError unless the columns `by` are filled and single out each row."""
    columns = list(by)
    if table[columns].isna().to_numpy().any():
        raise ValueError(f"columns {', '.join(columns)} must hold no missing value")
    twice = table.duplicated(columns)
    if twice.any():
        first = table.loc[twice, columns].iloc[0].to_dict()
        raise ValueError(
            f"each {what} must have one row per {', '.join(columns)}: got several for {first}; "
            "select one condition first, average, or name more columns"
        )


def check_values(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise ValueError unless some columns are finite numbers."""
    for column in columns:
        bad = int((~np.isfinite(table[column].to_numpy(dtype=float))).sum())
        if bad:
            raise ValueError(
                f"{column} must be finite: {bad} of {len(table)} rows are not; drop rows that were "
                "not measured, and give networks that failed to train their score"
            )

"""Cells: the points of a study's grid."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Cell = dict[str, Any]
"""Names of axes and their values: strings, numbers, booleans or None."""

Axes = Mapping[str | tuple[str, ...], Sequence[Any]]
"""Name of an axis -> its values. Several names at once, `("order", "seed"): [(0, 0), (1, 1)]`, go
together."""


def expand(axes: Axes) -> list[Cell]:
    """Return all combinations of the values of some axes, the first axis outermost.

    Raises:
        ValueError: If an axis is empty, is named twice, or values of joint axes do not fit.
    """
    choices: list[list[Cell]] = []
    seen: set[str] = set()
    for key, values in axes.items():
        names = (key,) if isinstance(key, str) else tuple(key)
        if seen & set(names) or len(set(names)) < len(names):
            raise ValueError(f"an axis must be named once: got {', '.join(names)} again")
        seen.update(names)
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise ValueError(f"axis {key!r} must be a list of values: got {values!r}")
        rows = [(value,) if isinstance(key, str) else tuple(value) for value in values]
        if not rows:
            raise ValueError(f"axis {key!r} must have at least one value: got none")
        for row in rows:
            if len(row) != len(names):
                raise ValueError(f"axes {names} need {len(names)} values at once: got {row!r}")
        choices.append([dict(zip(names, row, strict=True)) for row in rows])
    return [
        {name: value for part in parts for name, value in part.items()}
        for parts in itertools.product(*choices)
    ]


def checked(cells: Iterable[Mapping[str, Any]]) -> list[Cell]:
    """Return cells as plain dictionaries, in order, each once.

    Raises:
        ValueError: If they differ in their axes, or a value cannot stand in a table.
    """
    found: dict[str, Cell] = {}
    for given in cells:
        cell = {str(name): _plain(name, value) for name, value in given.items()}
        if not cell:
            raise ValueError("a cell must have at least one axis: got {}")
        if "seconds" in cell:
            raise ValueError("an axis must not be named 'seconds', which is a column of the table")
        first = next(iter(found.values()), cell)
        if set(first) != set(cell):
            raise ValueError(
                "all cells of a study must have the same axes: got "
                f"{', '.join(sorted(first))} and {', '.join(sorted(cell))}"
            )
        found.setdefault(cell_key(cell), cell)
    return list(found.values())


def _plain(name: str, value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if value is not None and not isinstance(value, str | bool | int | float):
        raise ValueError(
            f"axis {name!r} must hold strings, numbers, booleans or None: got {value!r}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"axis {name!r} must be finite: got {value}")
    return value


def cell_key(cell: Mapping[str, Any]) -> str:
    """Return what identifies a cell: its axes and values as JSON, sorted by name."""
    return json.dumps(cell, sort_keys=True, separators=(",", ":"))


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "default" if value is None else str(value)


def cell_text(cell: Mapping[str, Any]) -> str:
    """Return a cell for people to read: `variant=s-sym, units=16`."""
    return ", ".join(f"{name}={_word(value)}" for name, value in cell.items())

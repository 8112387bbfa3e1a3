"""Pathways that act on a part of the units: which units, their parameters, neutral values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from ctxrnn._checks import check_integer, check_number
from ctxrnn._modulation import Seed, normal

On = float | tuple[int, int]
"""A fraction of the units, or the first of them and the one after the last."""

Side = Literal["first", "last"]


def check_on(on: object) -> On | None:
    """Return `on` in its plain form, or raise.

    Raises:
        TypeError: If it is neither a number nor two integers.
        ValueError: If it is a number outside (0, 1], or not two.
    """
    if on is None:
        return None
    if isinstance(on, Sequence) and not isinstance(on, str):
        if len(on) != 2:
            raise ValueError(
                f"on must be a fraction, or the first unit and the one after the last: got {on!r}"
            )
        for end in on:
            check_integer("on", end)
        return int(on[0]), int(on[1])
    number = check_number("on", on)
    if not 0 < number <= 1:
        raise ValueError(
            f"on must be a fraction of the units in (0, 1], or a pair (first, stop): got {on!r}"
        )
    return number


def units_on(on: On | None, units: int, side: Side) -> tuple[int, int]:
    """Return the first unit that a pathway acts on and the one after the last.

    The first share f of the units ends, and the last share begins, at the nearest whole number to
    f N or (1 - f) N, halves rounded up; at least one unit is on. So f of the one side and 1 - f of
    the other split the units: of 7 units two halves are the first four and the last three.

    Args:
        on: From `check_on`.
        units: N.
        side: Which units a fraction stands for.

    Raises:
        ValueError: If a range does not lie within the units or is empty.
    """
    if on is None:
        return 0, units
    if isinstance(on, tuple):
        first, stop = on
        if not 0 <= first < stop <= units:
            raise ValueError(
                f"on must be a range (first, stop) with 0 <= first < stop <= {units}, as there "
                f"are {units} units: got {on}"
            )
        return on
    share = on if side == "first" else 1 - on
    # Rounded first, since 1 - 0.9 is a little less than 0.1.
    bound = math.floor(round(share * units, 9) + 0.5)
    return (0, max(1, bound)) if side == "first" else (min(units - 1, bound), units)


def normal_on(
    shape: tuple[int, ...], sd: float, seed: Seed, name: str, *, axis: int, span: tuple[int, int]
) -> nn.Parameter:
    """Draw an initial parameter, and keep the rows of the units that are on.

    They are those of the pathway that acts on all units.

    Args:
        shape: Shape with all units.
        sd: Standard deviation.
        seed: See `ctxrnn._modulation.normal`, likewise the next.
        name: Its name.
        axis: Axis of the units.
        span: From `units_on`.
    """
    drawn = normal(shape, sd, seed, name)
    if span == (0, shape[axis]):
        return drawn
    return nn.Parameter(drawn.detach().narrow(axis, span[0], span[1] - span[0]).clone())


def spread(values: Tensor, span: tuple[int, int], units: int, neutral: float = 0.0) -> Tensor:
    """Give the units that are off their neutral value, (..., on) -> (..., unit)."""
    if span == (0, units):
        return values
    return functional.pad(values, (span[0], units - span[1]), value=neutral)

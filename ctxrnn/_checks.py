"""Checks of what a user passes in, and random seeds derived by name."""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch


def natural_key(name: str) -> tuple[str | int, ...]:
    """Sort key that puts `s-add-2` before `s-add-10`."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def unknown_name(what: str, name: object, known: Iterable[str]) -> ValueError:
    """Build the error for an unknown name: lists the known ones and the nearest."""
    names = sorted(known, key=natural_key)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {what} {name!r}.{hint} Known: {', '.join(names)}")


def check_positive(name: str, value: float, unit: str = "") -> None:
    """Raise ValueError unless `value` is a finite number above zero."""
    number = check_number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be positive and finite: got {value}{unit and ' ' + unit}")


def check_not_negative(name: str, value: float, unit: str = "") -> None:
    """Raise ValueError unless `value` is a finite number of at least zero."""
    number = check_number(name, value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(
            f"{name} must be zero or more and finite: got {value}{unit and ' ' + unit}"
        )


def check_number(name: str, value: object) -> float:
    """Raise TypeError unless `value` is a real number (a bool is not)."""
    if isinstance(value, bool) or not hasattr(value, "__float__") or isinstance(value, str):
        raise TypeError(f"{name} must be a number: got {value!r}")
    return float(value)


def check_fraction(name: str, value: float) -> None:
    """Raise ValueError unless `value` lies in [0, 1]."""
    number = check_number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must lie in [0, 1]: got {value}")


def check_integer(name: str, value: object) -> None:
    """Raise TypeError unless `value` is an integer (a bool is not)."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer: got {value!r}")


def check_count(name: str, value: int, minimum: int = 1) -> None:
    """Raise unless `value` is an integer of at least `minimum`."""
    check_integer(name, value)
    if int(value) < minimum:
        raise ValueError(f"{name} must be at least {minimum}: got {value}")


def check_rising(
    name: str,
    values: Sequence[float],
    *,
    least: int = 2,
    reach: float = 0.0,
    most: float = math.inf,
) -> None:
    """Raise ValueError unless levels start at 0, rise, and end between `reach` and `most`."""
    row = np.asarray(values, dtype=float)
    good = len(row) >= least and np.isfinite(row).all() and row[0] == 0
    if not (good and (np.diff(row) > 0).all() and reach <= row[-1] <= most):
        end = f", up to {reach:g} at least" if reach else ""
        end += f" and {most:g} at most" if most < math.inf else ""
        raise ValueError(
            f"{name} must be at least {least} numbers that start at 0 and rise{end}: got "
            f"{list(values)}"
        )


def check_finite(name: str, tensor: torch.Tensor, remedy: str) -> None:
    """Raise ValueError if `tensor` holds a NaN or an infinity."""
    # A NaN or an infinity survives the sum, which is cheaper than a mask of the whole tensor;
    # a finite sum that overflows is told apart below.
    if not torch.isfinite(tensor.detach().sum()):
        bad = int((~torch.isfinite(tensor.detach())).sum())
        if bad:
            raise ValueError(
                f"{name} must be finite: {bad} of {tensor.numel()} values are NaN or infinite. "
                f"{remedy}"
            )


def derive_seed(seed: int, *keys: str | int | float) -> int:
    """Derive a seed from a seed and names, the same on every machine.

    The result depends on the keys alone, so that a random number does not depend on how many
    others were drawn before it.

    Args:
        seed: Base seed, any integer.
        keys: What the numbers are for, e.g. `("W",)` or `("trials", "e-add", 3)`.

    Returns:
        An integer in [0, 2**63).

    Example:
        >>> from ctxrnn import derive_seed
        >>> derive_seed(0, "network", 3) == derive_seed(0, "network", 3)
        True
        >>> derive_seed(0, "network", 3) == derive_seed(0, "network", 4)
        False
    """
    # NumPy's numbers print otherwise than Python's, though they are equal.
    plain = [key.item() if isinstance(key, np.generic) else key for key in keys]
    text = "\x1f".join([repr(int(seed)), *(repr(key) for key in plain)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(
    seed: int | torch.Generator, *keys: str | int | float, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Make a torch generator from a seed and names (see `derive_seed`).

    Args:
        seed: Base seed; of a generator one number is drawn to use as the seed.
        keys: What the numbers are for.
        device: Where the generator draws.

    Example:
        >>> import torch
        >>> from ctxrnn import make_generator
        >>> first = torch.randn(3, generator=make_generator(0, "trials"))
        >>> again = torch.randn(3, generator=make_generator(0, "trials"))
        >>> torch.equal(first, again)  # whatever was drawn elsewhere in between
        True
    """
    if isinstance(seed, torch.Generator):
        seed = int(torch.randint(2**62, (), generator=seed, device=seed.device))
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *keys))

"""words: a text drawn from a source of known entropy, in the place of English."""

from __future__ import annotations

import os
from bisect import bisect
from functools import cache

import numpy as np

from ctxrnn._checks import derive_seed

from ._text_files import Source

# Space first, then the letters by their frequency in English.
SYMBOLS = " etaoinshrdlcumwfgypbvkjxqz"
CHARACTERS = 200_000
# How uneven transitions are: exponential weights to this power.
_POWER = 2.0


def words(data: str | os.PathLike[str] | None, characters: int | None) -> Source:
    """Draw a text in which a character depends on the two before it; it is always the same one.

    Args:
        data: Must be None.
        characters: How many are drawn; fewer are the beginning of more. None for 200,000.
    """
    if data is not None:
        raise ValueError(f"words is not read from a file: leave out data={os.fspath(data)!r}")
    table, start = transitions(), stationary()
    count = CHARACTERS if characters is None else int(characters)
    rng = np.random.default_rng(derive_seed(0, "text", "words"))
    pair = int(np.searchsorted(np.cumsum(start), rng.random() * start.sum(), side="right"))
    first, second = divmod(pair, len(SYMBOLS))
    sums = np.cumsum(table, axis=-1)
    # Rounding must not leave a gap below 1.
    sums[..., -1] = 1
    edges = sums.tolist()
    drawn = [first, second]
    for level in rng.random(max(0, count - 2)).tolist():
        first, second = second, bisect(edges[first][second], level)
        drawn.append(second)
    text = "".join(SYMBOLS[number] for number in drawn[:count])
    return Source(text, "an English text", entropy_rate())


@cache
def transitions() -> np.ndarray:
    """Return the probabilities of a character after two others, (before last, last, next).

    A space never follows a space; everything else can happen.
    """
    rng = np.random.default_rng(derive_seed(0, "text", "transitions"))
    size = len(SYMBOLS)
    common = 1 / (2 + np.arange(size))
    # Uniform numbers alone: NumPy keeps their stream.
    after_one = common * (-np.log1p(-rng.random((size, size)))) ** _POWER
    after_two = after_one * (-np.log1p(-rng.random((size, size, size)))) ** _POWER
    after_two[:, 0, 0] = 0
    table = after_two / after_two.sum(-1, keepdims=True)
    table.setflags(write=False)
    return table


@cache
def stationary() -> np.ndarray:
    """Return how often each pair of characters occurs in the long run, (pair,)."""
    table = transitions()
    size = len(SYMBOLS)
    step = np.zeros((size, size, size, size))
    for last in range(size):
        step[:, last, last, :] = table[:, last, :]
    equations = step.reshape(size**2, size**2).T - np.eye(size**2)
    # One equation follows from the others; the sum takes its place.
    equations[-1] = 1
    shares = np.linalg.solve(equations, np.eye(size**2)[-1])
    # Two spaces never follow each other; rounding must not say otherwise.
    shares[0] = 0
    shares.setflags(write=False)
    return shares


def entropy_rate() -> float:
    """Return the entropy of a character after those before it, in bits."""
    table = transitions().reshape(-1, len(SYMBOLS))
    bits = np.zeros_like(table)
    np.log2(table, out=bits, where=table > 0)
    return float(-(stationary() @ (table * bits).sum(-1)))

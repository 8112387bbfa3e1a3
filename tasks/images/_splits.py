"""Splits that a seed gives, with the classes in proportion."""

from __future__ import annotations

import numpy as np

from ctxrnn._checks import check_count, derive_seed


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """Return random numbers that depend on the seed and the names alone."""
    return np.random.default_rng(derive_seed(seed, "images", *keys))


def drawn_counts(
    name: str, images: int, validation: int | None, test: int | None
) -> dict[str, int]:
    """Return the sizes of the splits of drawn images; None is a sixth of them.

    Raises:
        ValueError: If none are left to train on.
    """
    check_count("images", images)
    held = {"validation": validation, "test": test}
    counts = {what: images // 6 if count is None else count for what, count in held.items()}
    for what, count in counts.items():
        check_count(what, count)
    train = images - sum(counts.values())
    if train < 1:
        raise ValueError(
            f"{name}: images must exceed validation + test, to leave some to train on: got "
            f"{images} with {counts['validation']} + {counts['test']}"
        )
    return {"train": train, **counts}


def consecutive(counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Return the rows of splits that follow each other."""
    ends = np.cumsum([0, *counts.values()])
    return {split: np.arange(*ends[i : i + 2]) for i, split in enumerate(counts)}


def hold_out(
    name: str, rows: np.ndarray, classes: np.ndarray, count: int, seed: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out some rows, each class in its proportion.

    Args:
        name: Of the image set, for errors.
        rows: Rows to choose from, (row,).
        classes: The class of each of these rows, (row,).
        count: How many are held out. A class gets count times its share, rounded so that the sum
            is right (largest remainders).
        seed: Which ones.
        what: Name of the split, for errors and for the random numbers.

    Returns:
        The rows that remain and the rows held out, each in the order of `rows`.
    """
    check_count(what, count, 0)
    if count >= len(rows):
        raise ValueError(
            f"{name}: {what} must leave images to train on: got {count} of {len(rows)}; "
            f"choose {what} below {len(rows)}"
        )
    held = np.zeros(len(rows), dtype=bool)
    rng = generator(seed, name, what)
    known, sizes = np.unique(classes, return_counts=True)
    for label, quota in zip(known, _quotas(sizes, count), strict=True):
        held[rng.permutation(np.flatnonzero(classes == label))[:quota]] = True
    return rows[~held], rows[held]


def _quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    exact = sizes * count / sizes.sum()
    quotas = np.floor(exact).astype(np.int64)
    remainders = np.argsort(quotas - exact, kind="stable")
    quotas[remainders[: count - quotas.sum()]] += 1
    return quotas

"""Probabilities, logits and labels of images, checked."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .fields import Values


def numbers(values: float | Values, name: str, *, finite: bool = True) -> np.ndarray:
    """Return values as an array of float64.

    Raises:
        ValueError: If some are not finite, and `finite`.
    """
    given = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    array = np.asarray(given, dtype=float)
    if finite and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{name} must be finite: {bad} of {array.size} values are not")
    return array


def attribute_arrays(
    scores: Values, labels: Values, *, logits: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (or logits) and labels (bool) of attributes, (image, attribute).

    Raises:
        ValueError: Unless there is at least one image, shapes are the same, probabilities lie in
            [0, 1] and labels are 0 or 1.
    """
    name = "logits" if logits else "probabilities"
    p, y = numbers(scores, name), numbers(labels, "labels")
    if p.shape != y.shape or p.ndim not in (1, 2) or not p.size:
        raise ValueError(
            f"{name} and labels must have one shape, (image, attribute), of at least one image: "
            f"got {p.shape} and {y.shape}"
        )
    if not logits:
        check_probabilities(p)
    if not np.isin(y, (0, 1)).all():
        wrong = y[~np.isin(y, (0, 1))].flat[0]
        raise ValueError(f"labels must be 0 or 1: got {wrong:g}; map -1 to 0")
    if p.ndim == 1:
        p, y = p[:, None], y[:, None]
    return p, y == 1


def class_arrays(scores: Values, labels: Values, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scores, (image, class), and numbers of classes (int), (image,).

    Scores of classes that are ruled out may be -inf.

    Raises:
        ValueError: Unless there is at least one image, shapes fit, scores are neither NaN nor inf,
            and labels are numbers of classes.
    """
    z, y = numbers(scores, name, finite=False), numbers(labels, "labels")
    if z.ndim != 2 or y.shape != z.shape[:1] or not z.size:
        raise ValueError(
            f"{name} must be (image, class) and labels (image,), of at least one image: got "
            f"{z.shape} and {y.shape}"
        )
    bad = np.isnan(z) | (z == np.inf)
    if bad.any():
        raise ValueError(f"{name} must be numbers, or -inf: {int(bad.sum())} of {z.size} are not")
    known = (y == np.round(y)) & (y >= 0) & (y < z.shape[1])
    if not known.all():
        raise ValueError(
            f"labels must be numbers of classes, 0 to {z.shape[1] - 1}: got {y[~known].flat[0]:g}"
        )
    return z, y.astype(int)


def check_probabilities(p: np.ndarray) -> None:
    """Raise ValueError unless all lie in [0, 1]."""
    out = p[(p < 0) | (p > 1)]
    if out.size:
        raise ValueError(
            f"probabilities must lie in [0, 1]: got {out.flat[0]:g}, {out.size} of {p.size} lie "
            "outside; are these logits?"
        )


def check_both_classes(labels: np.ndarray, what: str, skip: bool = False) -> np.ndarray:
    """Return which attributes have images of both classes, (attribute,).

    Raises:
        ValueError: If one has not, unless `skip`.
    """
    both = np.asarray(labels.any(axis=0) & ~labels.all(axis=0))
    if skip or both.all():
        return both
    places = np.flatnonzero(~both)
    named = ", ".join(map(str, places[:8])) + (", ..." if len(places) > 8 else "")
    raise ValueError(
        f"{what} needs images with and without each attribute: all are of one class for {named} of "
        f"{len(both)}; leave these out"
    )

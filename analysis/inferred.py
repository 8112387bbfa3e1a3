"""What an inferred context tells: its entropy, and its information about labels."""

from __future__ import annotations

import numpy as np

from ._scores import numbers
from .fields import Values


def context_entropy(contexts: Values) -> np.ndarray:
    """Return the entropy of soft contexts in bits, H(c) = -sum_k c_k log2 c_k.

    0 where one context is in force, log2 K where all are alike.

    Args:
        contexts: c, (..., context), shares that add up to 1.

    Returns:
        (...,).

    Raises:
        ValueError: If contexts are no shares that add up to 1.

    Example:
        >>> from ctxrnn.analysis import context_entropy
        >>> context_entropy([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]]).tolist()
        [0.0, 1.0, 2.0]
    """
    c = _shares(contexts)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A difference, so that a sum of 0 does not become -0.
        return np.asarray(0.0 - np.where(c > 0, c * np.log2(c), 0.0).sum(axis=-1))


def context_information(contexts: Values, labels: Values) -> float:
    """Return the mutual information of a context and a label in bits.

        I(k; y) = sum_ky p(k, y) log2 p(k, y) / (p(k) p(y)),   p(k, y) = mean of c_k 1[label = y]

    k is drawn from c. It is at most H(k) and H(y). Of n samples without any relation the estimate
    is about (K - 1)(Y - 1) / (2 n ln 2) above 0 for contexts that are all or none, less for soft
    ones.

    Args:
        contexts: c, (..., context), shares that add up to 1.
        labels: One for each, (...,): integers.

    Returns:
        I in bits.

    Raises:
        ValueError: If contexts are no shares that add up to 1, or there is not one label for each.

    Example:
        >>> from ctxrnn.analysis import context_information
        >>> labels = [0, 0, 1, 1]
        >>> context_information([[1, 0], [1, 0], [0, 1], [0, 1]], labels)  # tells the label
        1.0
        >>> context_information([[1, 0], [0, 1], [1, 0], [0, 1]], labels)  # tells nothing of it
        0.0
    """
    c = _shares(contexts)
    y = np.asarray(labels)
    if y.shape != c.shape[:-1]:
        raise ValueError(
            f"labels must have the shape of contexts but for their last axis, {c.shape[:-1]}: got "
            f"{y.shape}"
        )
    _, codes = np.unique(y, return_inverse=True)
    flat, codes = c.reshape(-1, c.shape[-1]), np.asarray(codes).reshape(-1)
    joint = np.zeros((codes.max() + 1, flat.shape[1]))
    np.add.at(joint, codes, flat)
    joint /= len(flat)
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(joint > 0, joint * np.log2(joint / apart), 0.0)
    return float(max(0.0, terms.sum()))


def _shares(contexts: Values) -> np.ndarray:
    c = numbers(contexts, "contexts")
    if c.ndim < 2 or not c.size:
        raise ValueError(f"contexts must be (..., context), not empty: got shape {c.shape}")
    if (c < 0).any() or not np.allclose(c.sum(axis=-1), 1, atol=1e-4):
        raise ValueError(
            "contexts must be shares that add up to 1, as those of a softmax encoder do: got "
            f"values from {c.min():.3g}, sums from {c.sum(axis=-1).min():.3g} to "
            f"{c.sum(axis=-1).max():.3g}"
        )
    return c

"""The ring of directions, and its projection on two numbers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_WIDTH = np.pi / 8
_PEAK = 0.8


@lru_cache(maxsize=64)
def directions(ring: int) -> np.ndarray:
    """Return the preferred directions of the ring in radians, (ring,)."""
    theta = np.arange(ring) * (2 * np.pi / ring)
    theta.setflags(write=False)
    return theta


@lru_cache(maxsize=64)
def bumps(ring: int) -> np.ndarray:
    """Return neurogym's noiseless bump of unit strength at every direction, (ring, ring).

    Row i is ``0.8 exp(-(d / (pi / 8))**2 / 2)`` with d the angle between direction i and the
    preferred direction of each unit, at most pi.
    """
    theta = directions(ring)
    angle = np.abs(theta[:, None] - theta[None, :])
    angle = np.minimum(angle, 2 * np.pi - angle)
    bump = _PEAK * np.exp(-((angle / _WIDTH) ** 2) / 2)
    bump.setflags(write=False)
    return bump


@lru_cache(maxsize=64)
def projection(ring: int) -> np.ndarray:
    """Return the matrix that turns a ring observation into (sine, cosine), (ring, 2).

    With preferred directions theta_k and observation o,

        (s, c) = a sum_k o_k (sin theta_k, cos theta_k),

    where a is chosen so that a noiseless bump of unit strength at direction theta gives exactly
    (sin theta, cos theta). Independent noise of standard deviation e per unit becomes
    independent noise of standard deviation ``a e sqrt(ring / 2)`` on each of the two.
    """
    theta = directions(ring)
    length = float(bumps(ring)[0] @ np.cos(theta))
    matrix = np.stack([np.sin(theta), np.cos(theta)], axis=1) / length
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=64)
def input_projection(ring: int) -> np.ndarray:
    """Return the matrix from the ring observation to the vector one, (1 + 2 ring, 5).

    The channels are fixation, sine and cosine of the first modality, sine and cosine of the
    second.
    """
    matrix = np.zeros((1 + 2 * ring, 5), dtype=np.float32)
    matrix[0, 0] = 1
    matrix[1 : 1 + ring, 1:3] = projection(ring)
    matrix[1 + ring :, 3:5] = projection(ring)
    matrix.setflags(write=False)
    return matrix


def vector_targets(truth: np.ndarray, ring: int) -> np.ndarray:
    """Turn classes into wanted outputs (fixation, sine, cosine), (..., 3) float32.

    Class 0 (fixate) gives (1, 0, 0), class 1 + k gives (0, sin theta_k, cos theta_k).
    """
    go = truth > 0
    theta = directions(ring)[np.maximum(truth - 1, 0)]
    parts = [~go, np.sin(theta) * go, np.cos(theta) * go]
    return np.stack([part.astype(np.float32) for part in parts], axis=-1)

"""Real matrices compared up to an orthogonal change of basis, in float64."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import linalg, optimize
from scipy.stats import ortho_group


def angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Return the angle between a and c b c^T in radians, for matrices of Frobenius norm 1.

    2 arcsin(|a - c b c^T| / 2), which resolves small angles; the arccos of the inner product
    resolves none below the root of the rounding error.
    """
    return 2 * float(np.arcsin(min(float(np.linalg.norm(a - c @ b @ c.T)) / 2, 1.0)))


def smallest_angle(a: np.ndarray, b: np.ndarray, starts: Iterable[np.ndarray]) -> float:
    """Return the smallest angle between a and c b c^T found, over orthogonal c, in radians.

    Args:
        a: (n, n), of Frobenius norm 1.
        b: Likewise.
        starts: Orthogonal matrices, (n, n), each of which leads to a minimum.
    """
    best = np.pi
    for c in starts:
        # As it is, too: at an exact match a gradient of rounding errors could only lead away.
        best = min(best, angle(a, b, c), angle(a, b, refined(a, b, c)))
    return best


def refined(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Turn c until tr(a^T c b c^T) is largest nearby (L-BFGS).

    The turn is the Cayley transform q = (1 - k)^-1 (1 + k) of a skew k, so that c keeps its
    determinant.
    """
    n = len(a)
    below, one = np.tril_indices(n, -1), np.eye(n)
    start = c @ b @ c.T

    def cayley(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        k = np.zeros((n, n))
        k[below] = values
        k -= k.T
        inverse = np.linalg.inv(one - k)
        return k, inverse, inverse @ (one + k)

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        _, inverse, q = cayley(values)
        turned = q @ start
        by_q = a @ q @ start.T + a.T @ turned
        by_k = inverse.T @ by_q @ (one + q).T
        return -float((a * (turned @ q.T)).sum()), (by_k.T - by_k)[below]

    found = optimize.minimize(
        objective, np.zeros(len(below[0])), jac=True, method="L-BFGS-B",
        options={"maxiter": 1000, "maxfun": 2000, "gtol": 1e-10, "ftol": 1e-15},
    )  # fmt: skip
    return np.asarray(nearest(cayley(found.x)[2] @ c))


def nearest(c: np.ndarray) -> np.ndarray:
    """Return the orthogonal matrix nearest to c."""
    u, _, v = np.linalg.svd(c)
    return np.asarray(u @ v)


def spectral(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Match the eigenvectors of b to those of a.

    Eigenvalues are paired such that the sum of Re(conj(l) m) is largest: for normal matrices no
    unitary change of basis does better (Hoffman and Wielandt 1953).
    """
    first, u = linalg.schur(a, output="complex")
    second, v = linalg.schur(b, output="complex")
    inner = (np.diag(first).conj()[:, None] * np.diag(second)).real
    rows, columns = optimize.linear_sum_assignment(inner, maximize=True)
    return nearest((u[:, rows] @ v[:, columns].conj().T).real)


def drawn(n: int, count: int, seed: int) -> list[np.ndarray]:
    """Draw orthogonal matrices uniformly, rotations and reflections by turns."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        c = np.eye(1) if n == 1 else ortho_group.rvs(n, random_state=generator)
        if (np.linalg.det(c) > 0) == bool(number % 2):
            c[0] *= -1
        found.append(np.asarray(c))
    return found

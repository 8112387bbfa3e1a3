"""Linearisation at any state: modes, what they take in and pass on, transient growth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import linalg

from ctxrnn._checks import check_finite, check_positive

from .fields import Values, VectorField

# Bytes of Jacobians that are held at once.
_MEMORY = 256 * 2**20


def eigenvalues(field: VectorField, x: Values, condition: Values | int = 0) -> np.ndarray:
    """Return the eigenvalues of the linearisation at states, (point, unit), per ms.

    Of a map with multipliers mu they are log(mu) / step. The least stable come first.

    Args:
        field: The system.
        x: States, (point, unit).
        condition: Number of each state's condition, or one for all.

    Raises:
        ValueError: If states do not fit the field.

    Example:
        >>> import torch
        >>> from ctxrnn.analysis import FunctionField, eigenvalues
        >>> matrix = torch.tensor([[-0.01, 0.09], [0.0, -0.1]], dtype=torch.float64)  # per ms
        >>> field = FunctionField(lambda x: x @ matrix.mT, units=2)
        >>> found = eigenvalues(field, [[0.0, 0.0]])
        >>> (-1 / found.real).round(3).tolist()  # time constants in ms, slowest first
        [[100.0, 10.0]]
    """
    states, places = field.checked(x, condition)
    found = np.zeros(tuple(states.shape), dtype=complex)
    block = max(1, int(_MEMORY // (8 * field.units**2)))
    for rows in torch.arange(len(states)).split(block):
        matrices = _matrices(field, states[rows], places[rows])
        found[rows.numpy()] = _rates(field, np.linalg.eigvals(matrices))
    order = np.argsort(-found.real, axis=1, kind="stable")
    return np.asarray(np.take_along_axis(found, order, axis=1))


def _matrices(field: VectorField, x: torch.Tensor, condition: torch.Tensor) -> np.ndarray:
    """Return the linearisation per ms or, of a map, the Jacobian of a step."""
    jacobian = field.jacobian(x, condition)
    if field.discrete:
        jacobian.diagonal(dim1=-2, dim2=-1).add_(1)
        return np.asarray(jacobian.cpu().numpy())
    return np.asarray((jacobian * field.rates[:, None]).cpu().numpy())


def _rates(field: VectorField, values: np.ndarray) -> np.ndarray:
    if not field.discrete:
        return values
    with np.errstate(divide="ignore"):
        logarithms = np.log(values.astype(complex))
    # By parts: the logarithm of 0 is -inf, which a division of complex numbers makes NaN.
    return np.asarray((logarithms.view(float) / field.step).view(complex))


@dataclass(frozen=True)
class Modes:
    """Modes of a linear system d(delta x)/dt = A delta x, or of a map.

    Attributes:
        values: Eigenvalues lambda, (mode,), per ms, least stable first; of a map log(mu) / step.
        right: Right eigenvectors r as columns, (unit, mode), of norm 1.
        left: Left eigenvectors l as rows, (mode, unit), scaled such that l_i r_j = delta_ij.
        matrix: A, (unit, unit), per ms; of a map the Jacobian of a step.

    Example: that of `modes_of`.
    """

    values: np.ndarray
    right: np.ndarray
    left: np.ndarray
    matrix: np.ndarray

    @property
    def condition_numbers(self) -> np.ndarray:
        """|l_i| |r_i| of each mode: 1 for a normal matrix, large where modes nearly coincide."""
        return np.asarray(np.linalg.norm(self.left, axis=1) * np.linalg.norm(self.right, axis=0))

    def selection(self, directions: Values, mode: int = 0) -> np.ndarray:
        """Return how far inputs along directions are integrated by a mode, (direction,).

        |l . b| / |b| with the left eigenvector l, the selection vector of Mante et al. (2013): what
        an input b leaves along the mode once all faster modes have decayed.

        Args:
            directions: b, (direction, unit), e.g. the columns of B, or (unit,).
            mode: Number of the mode; 0 is the least stable one.
        """
        b = _rows(directions, len(self.values), "directions")
        return np.asarray(np.abs(b @ self.left[mode]) / np.linalg.norm(b, axis=1))

    def readout(self, weights: Values, mode: int = 0) -> np.ndarray:
        """Return how much of a mode outputs see, (output,): |w . r| / |w|.

        Args:
            weights: w, (output, unit): dy/dx at the state, e.g. C diag(phi'(x)).
            mode: Number of the mode.
        """
        w = _rows(weights, len(self.values), "weights")
        return np.asarray(np.abs(w @ self.right[:, mode]) / np.linalg.norm(w, axis=1))


def modes(field: VectorField, x: Values, condition: int = 0) -> Modes:
    """Return the modes of the linearisation at a state.

    Args:
        field: The system.
        x: The state, (unit,).
        condition: Number of the condition.

    Returns:
        The modes, least stable first.

    Raises:
        ValueError: If the matrix is defective, so that it has no full set of modes.

    Example:
        >>> import numpy as np
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import modes, vector_field
        >>> network = CTRNN(1, 2, 1, tau=100.0, seed=0)
        >>> network.weight.data[:] = 0.45  # units that excite each other and themselves
        >>> found = modes(vector_field(network), np.zeros(2))
        >>> (-1 / found.values.real).round().tolist()  # ms: both together slow, apart as tau
        [1000.0, 100.0]
        >>> abs(found.right[:, 0]).round(3).tolist()
        [0.707, 0.707]
    """
    states, places = field.checked(x, condition)
    if len(states) != 1:
        raise ValueError(f"x must be a single state: got {len(states)}")
    return modes_of(
        _matrices(field, states, places)[0], step=field.step if field.discrete else None
    )


def modes_of(matrix: Values, *, step: float | None = None) -> Modes:
    """Return the modes of a matrix.

    Args:
        matrix: A, (unit, unit), per ms, or the Jacobian of a map's step.
        step: Duration of the step in ms, of a map.

    Returns:
        The modes, least stable first.

    Raises:
        ValueError: If the matrix is not square or finite, or has no full set of modes.

    Example:
        >>> from ctxrnn.analysis import modes_of
        >>> found = modes_of([[-0.01, 0.09], [0.0, -0.1]])  # per ms; unit 1 feeds unit 0
        >>> found.values.real.round(3).tolist()
        [-0.01, -0.1]
        >>> abs(found.right[:, 0]).round(3).tolist()  # the slow mode is unit 0 alone,
        [1.0, 0.0]
        >>> found.selection([[1.0, 0.0], [0.0, 1.0]]).round(3).tolist()  # but takes in both
        [1.0, 1.0]
    """
    a = _square(matrix)
    values, right = np.linalg.eig(a)
    if np.linalg.cond(right) > 1e13:
        raise ValueError(
            "the matrix is defective: its eigenvectors span fewer dimensions than it has; use "
            "eigenvalues and scipy.linalg.schur"
        )
    if step is not None:
        check_positive("step", step, "ms")
        with np.errstate(divide="ignore"):
            values = np.log(values.astype(complex)) / step
    order = np.argsort(-values.real, kind="stable")
    values, right = values[order].astype(complex), right[:, order].astype(complex)
    return Modes(values, right, np.linalg.inv(right), a)


def henrici_index(matrix: Values) -> float:
    """Return Henrici's departure from normality, sqrt(|A|_F^2 - sum |lambda|^2) / |A|_F.

    0 for a normal matrix, towards 1 for one without feedback (Trefethen and Embree 2005).

    Args:
        matrix: A, (unit, unit).

    Returns:
        The index, in [0, 1).

    Raises:
        ValueError: If the matrix is not square, or not finite.

    Example:
        >>> from ctxrnn.analysis import henrici_index
        >>> henrici_index([[0.0, 1.0], [0.0, 0.0]])  # a chain without feedback
        1.0
        >>> round(henrici_index([[0.0, 1.0], [1.0, 0.0]]), 6)  # as much feedback
        0.0
    """
    a = _square(matrix)
    total = float((np.abs(a) ** 2).sum())
    if total == 0:
        return 0.0
    # The strict upper triangle of the Schur form, which is free of the cancellation of the
    # difference.
    upper = np.triu(linalg.schur(a, output="complex")[0], 1)
    return float(np.sqrt((np.abs(upper) ** 2).sum() / total))


def numerical_abscissa(matrix: Values) -> float:
    """Return the fastest growth of any perturbation at first, per ms.

    The largest eigenvalue of (A + A^T) / 2; above 0 in a stable system there is transient growth.

    Args:
        matrix: A, (unit, unit), per ms.

    Raises:
        ValueError: If the matrix is not square, or not finite.

    Example:
        >>> from ctxrnn.analysis import numerical_abscissa
        >>> round(numerical_abscissa([[-1.0, 4.0], [0.0, -1.0]]), 6)  # stable, but grows at first
        1.0
    """
    a = _square(matrix)
    return float(np.linalg.eigvalsh((a + a.T) / 2)[-1])


def transient_growth(
    matrix: Values, times: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest growth of any perturbation after each time, and which one grows most.

        G(t) = max |exp(A t) v| / |v|, the largest singular value of exp(A t)

    Args:
        matrix: A, (unit, unit), per ms.
        times: t in ms.

    Returns:
        G, (time,), and the perturbations v of norm 1, (time, unit).

    Raises:
        ValueError: If the matrix is not square, or a number is not finite, or a time is negative.

    Example:
        >>> from ctxrnn.analysis import transient_growth
        >>> growth, best = transient_growth([[-1.0, 4.0], [0.0, -1.0]], [0.0, 1.0, 10.0])
        >>> growth.round(2).tolist()  # stable, and yet larger after 1 ms
        [1.0, 1.56, 0.0]
        >>> abs(best[1]).round(2).tolist()  # what grows begins in unit 1, which feeds unit 0
        [0.23, 0.97]
    """
    a = _square(matrix)
    growth, best = [], []
    for time in np.asarray(times, dtype=float).ravel():
        if not np.isfinite(time) or time < 0:
            raise ValueError(f"times must be zero or more and finite: got {time} ms")
        _, values, right = np.linalg.svd(linalg.expm(a * time))
        growth.append(values[0])
        best.append(right[0])
    return np.array(growth), np.array(best).reshape(-1, len(a))


def _square(matrix: Values) -> np.ndarray:
    a = np.asarray(torch.as_tensor(matrix).detach().cpu(), dtype=float)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not a.size:
        raise ValueError(f"matrix must be square: got shape {a.shape}")
    check_finite("matrix", torch.as_tensor(a), "Leave out states at which it is not.")
    return a


def _rows(values: Values, units: int, name: str) -> np.ndarray:
    rows = np.asarray(torch.as_tensor(values).detach().cpu(), dtype=float)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != units:
        raise ValueError(f"{name} must have shape (row, unit={units}): got {rows.shape}")
    if not (np.linalg.norm(rows, axis=1) > 0).all():
        raise ValueError(f"{name} must not be 0: they have no direction")
    return rows

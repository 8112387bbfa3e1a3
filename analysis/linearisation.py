"""Linearisation of a system at any state."""

from __future__ import annotations

import numpy as np
import torch

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
    """
    states, places = field.checked(x, condition)
    found = np.zeros(tuple(states.shape), dtype=complex)
    block = max(1, int(_MEMORY // (8 * field.units**2)))
    for rows in torch.arange(len(states)).split(block):
        jacobian = field.jacobian(states[rows], places[rows])
        if field.discrete:
            jacobian.diagonal(dim1=-2, dim2=-1).add_(1)
            with np.errstate(divide="ignore"):
                values = np.log(np.linalg.eigvals(jacobian.cpu().numpy()).astype(complex))
            values = values / field.step
        else:
            values = np.linalg.eigvals((jacobian * field.rates[:, None]).cpu().numpy())
        found[rows.numpy()] = values
    order = np.argsort(-found.real, axis=1, kind="stable")
    return np.asarray(np.take_along_axis(found, order, axis=1))

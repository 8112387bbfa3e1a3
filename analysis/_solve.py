"""Many small linear systems at once."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve M d = b for many small systems; NaN where M is singular.

    On a CPU by NumPy: its LAPACK is faster here, and torch's batched one fails in several threads.

    Args:
        matrix: M, (point, unit, unit).
        right: b, (point, unit, side).

    Returns:
        d, (point, unit, side).
    """
    if matrix.device.type != "cpu":
        step, info = torch.linalg.solve_ex(matrix, right)
        return torch.where((info == 0)[:, None, None], step, torch.nan)
    a, b = matrix.numpy(), right.numpy()
    try:
        return torch.from_numpy(np.linalg.solve(a, b))
    except np.linalg.LinAlgError:
        found = np.full(right.shape, np.nan)
        for row in range(len(a)):
            with contextlib.suppress(np.linalg.LinAlgError):
                found[row] = np.linalg.solve(a[row], b[row])
        return torch.from_numpy(found)

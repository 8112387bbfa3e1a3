"""Many small linear systems at once."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor

from ctxrnn._kernel import FORMS, library


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


def newton_steps(
    weight: Tensor, group: Tensor, slope: Tensor, right: Tensor, form: str
) -> tuple[Tensor, Tensor]:
    """Solve J d = b with J = W diag(s) - 1, or diag(s) W - 1 in the rate form, in compiled code.

    No J is formed but in the cache; columns, or rows, that are 0 are left out of the factorisation.

    Args:
        weight: W of every group, (group, unit, unit), float64 on the CPU, as all others.
        group: Whose W each point has, (point,).
        slope: s, (point, unit).
        right: b, (point, unit, side).
        form: "current" or "rate".

    Returns:
        d, (point, unit, side), NaN where J is singular, and the Frobenius norm of what was
        factorised, (point,).
    """
    compiled = library()
    if compiled is None:
        raise RuntimeError("the compiled code is not there: install ctxrnn again with a C compiler")
    w, s, b = weight.contiguous(), slope.contiguous(), right.mT.contiguous()
    which = group.contiguous()
    found, norm = torch.empty_like(b), torch.empty_like(b[:, 0, 0])
    arrays = (w, which, s, b, found, norm)
    counts = (len(b), b.shape[2], b.shape[1], FORMS.index(form))
    if not compiled.newton_steps(*(array.data_ptr() for array in arrays), *counts):
        raise MemoryError(f"no memory for Newton steps of {b.shape[2]} units")
    return found.mT, norm

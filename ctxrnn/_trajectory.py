"""What a run of a network returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Trajectory:
    """What a network did in a batch of trials; index t is the state after step t.

    Attributes:
        potentials: x, (trial, time, unit); in the rate form, where the state is the rate, r.
        rates: r, (trial, time, unit).
        outputs: y, (trial, time, output).

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> network = CTRNN(inputs=1, units=8, outputs=1, tau=100.0, dt=1.0, g=0.0)  # W = 0
        >>> run = network(torch.ones(1, 1000, 1), noise=0.0)  # a constant stimulus for 1000 ms
        >>> share = run.potentials[0, 99] / run.potentials[0, 999]
        >>> round(share.mean().item(), 2)  # 1 - 1 / e after tau = 100 ms
        0.63
    """

    potentials: Tensor
    rates: Tensor
    outputs: Tensor

    def numpy(self) -> dict[str, np.ndarray]:
        """Return the three as NumPy arrays, detached and on the CPU."""
        return {
            name: getattr(self, name).detach().cpu().numpy()
            for name in ("potentials", "rates", "outputs")
        }

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

"""Recurrent noise by counter: each number is a function of a key, the step, the trial, the unit.

So the compiled loop, the loops in torch, a run that is resumed and a part of a trial that is run
again all see the same noise. Bits come from Threefry-4x32-20 (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), normal numbers from them by Box and Muller's transformation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ctxrnn import _kernel

_TURNS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
_LANES = 16


@dataclass(frozen=True)
class RecurrentNoise:
    """The noise current of one run.

    Attributes:
        scale: Its standard deviation at one step, a number or (unit,).
        key: Where the numbers come from; None where they were drawn on another device.
        drawn: Standard normal numbers, (time, trial, unit), where there is no key.
        first: Number of the first step, for runs that go on from another.
    """

    scale: Tensor | float
    key: Tensor | None
    drawn: Tensor | None = None
    first: int = 0

    def after(self, steps: int) -> RecurrentNoise:
        """Return the noise from a later step on."""
        drawn = None if self.drawn is None else self.drawn[steps:]
        return replace(self, drawn=drawn, first=self.first + steps)

    def current(self, steps: int, like: Tensor) -> Tensor:
        """Return the noise current, (time, trial, unit), for states like (trial, unit)."""
        if self.key is None:
            assert self.drawn is not None
            return self.drawn[:steps] * self.scale
        numbers = normals(self.key, steps, *like.shape, first=self.first)
        return numbers.to(device=like.device, dtype=like.dtype) * self.scale


def draw_key(generator: torch.Generator | None) -> Tensor:
    """Draw a key of four 32-bit words, (4,) int32, from a generator (None: torch's own)."""
    device = "cpu" if generator is None else generator.device
    words = torch.randint(-(2**31), 2**31, (4,), generator=generator, device=device)
    return words.to(device="cpu", dtype=torch.int32)


def normals(key: Tensor, steps: int, trials: int, units: int, *, first: int = 0) -> Tensor:
    """Return standard normal numbers, (step, trial, unit) float32.

    Args:
        key: From `draw_key`.
        steps: Number of steps.
        trials: Number of trials.
        units: N.
        first: Number of the first step.
    """
    padded = -(-units // 16) * 16
    drawn = torch.empty(steps, trials, padded)
    library = _kernel.library()
    for step in range(steps):
        if library is not None:
            library.normals(key.data_ptr(), first + step, trials * padded, drawn[step].data_ptr())
        else:
            drawn[step] = torch.from_numpy(_plane(key, first + step, trials * padded)).view(
                trials, padded
            )
    return drawn[..., :units]


def threefry(key: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Return Threefry-4x32-20 of counters.

    Args:
        key: (4,) uint32.
        counter: (4, n) uint32.

    Returns:
        (4, n) uint32.
    """
    x = counter.astype(np.uint32)
    schedule = [*key, np.uint32(0x1BD11BDA) ^ key[0] ^ key[1] ^ key[2] ^ key[3]]
    for word in range(4):
        x[word] += schedule[word]
    for turn in range(20):
        first, second = (1, 3) if turn % 2 == 0 else (3, 1)
        by = _TURNS[turn % 8]
        x[0] += x[first]
        x[first] = _rotate(x[first], by[0]) ^ x[0]
        x[2] += x[second]
        x[second] = _rotate(x[second], by[1]) ^ x[2]
        if turn % 4 == 3:
            injection = turn // 4 + 1
            for word in range(4):
                x[word] += schedule[(injection + word) % 5]
            x[3] += np.uint32(injection)
    return x


def _rotate(x: np.ndarray, by: int) -> np.ndarray:
    return (x << np.uint32(by)) | (x >> np.uint32(32 - by))


def _plane(key: Tensor, step: int, count: int) -> np.ndarray:
    """Return the numbers of one step, (count,) float32; what `normals` of the kernel returns."""
    blocks = -(-count // (4 * _LANES))
    counter = np.zeros((4, blocks * _LANES), dtype=np.uint32)
    counter[0] = np.arange(blocks * _LANES)
    counter[1] = step
    words = threefry(key.numpy().view(np.uint32), counter)
    radius = np.sqrt(-2 * np.log(np.minimum((words[::2] + 0.5) * 2.0**-32, 1.0)))
    # Two bits tell the quadrant; the rest, signed, how far from its axis, up to 45 degrees.
    part = (words[1::2] << np.uint32(2)).view(np.int32) >> 2
    angle = (words[1::2] >> np.uint32(30)) * (np.pi / 2) + part * (np.pi / 2**31)
    pair = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pair.reshape(4, blocks, _LANES).swapaxes(0, 1).reshape(-1)[:count].astype(np.float32)

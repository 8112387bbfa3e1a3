"""Where images are: in an array, or in JPEG files that are decoded when they are read."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Pixels(Protocol):
    """Images of one shape, read by number."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image: (channel, height, width)."""

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> Tensor:
        """Return images, uint8 (row, channel, height, width)."""


class ArrayPixels:
    """Images in memory, or in a file that is mapped into it."""

    def __init__(self, array: np.ndarray) -> None:
        if array.ndim != 4 or array.dtype != np.uint8:
            raise ValueError(
                "images must be uint8 (image, channel, height, width): got "
                f"{array.dtype} {array.shape}"
            )
        self.array = array

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image: (channel, height, width)."""
        _, channels, height, width = self.array.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.array)

    def read(self, rows: np.ndarray) -> Tensor:
        """Return images, uint8 (row, channel, height, width)."""
        # Indexing by a list copies, so that the tensor never shares memory with the set.
        return torch.from_numpy(np.ascontiguousarray(self.array[rows]))

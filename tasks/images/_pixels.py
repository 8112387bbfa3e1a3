"""Where images are: in an array, or in JPEG files that are decoded when they are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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


class JpegPixels:
    """Photographs in files of a folder, decoded and resized whenever they are read.

    Args:
        name: Of the image set, for errors.
        folder: The folder.
        files: Names of the files, in the order of the rows.
        source: Width and height that the photographs must have.
        size: Width and height that they are resized to (bilinear, with antialiasing).
        threads: How many decode at once.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        files: Sequence[str],
        *,
        source: tuple[int, int],
        size: tuple[int, int],
        threads: int,
    ) -> None:
        self.name, self.folder, self.files = name, folder, tuple(files)
        self.source, self.size, self.threads = source, size, threads

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image: (channel, height, width)."""
        return 3, self.size[1], self.size[0]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, rows: np.ndarray) -> Tensor:
        """Return images, uint8 (row, channel, height, width)."""
        images = torch.empty(len(rows), *self.shape, dtype=torch.uint8)

        def decode(place: int) -> None:
            images[place] = self._decoded(self.folder / self.files[rows[place]])

        if self.threads == 1 or len(rows) < 2:
            for place in range(len(rows)):
                decode(place)
        else:
            # Made anew for every batch: threads do not survive the fork of a loader's workers.
            with ThreadPoolExecutor(min(self.threads, len(rows))) as pool:
                list(pool.map(decode, range(len(rows))))
        return images

    def _decoded(self, path: Path) -> Tensor:
        from torchvision.datasets.folder import pil_loader
        from torchvision.transforms.functional import pil_to_tensor, resize

        try:
            picture = pil_loader(str(path))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.name}: missing {path.name} in {path.parent}; unpack the images again"
            ) from error
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"{self.name}: {path} is damaged and cannot be decoded ({error}); "
                "unpack the images again"
            ) from error
        if picture.size != self.source:
            raise ValueError(
                f"{self.name}: {path} must have {self.source[0]} x {self.source[1]} pixels: got "
                f"{picture.size[0]} x {picture.size[1]}; unpack the aligned images"
            )
        return pil_to_tensor(resize(picture, [self.size[1], self.size[0]]))


def packed(name: str, pixels: Pixels, path: Path) -> ArrayPixels:
    """Return images from an array file that is mapped into memory; make the file where it is not.

    Args:
        name: Of the image set, for errors.
        pixels: The images.
        path: The file, in NumPy's format.

    Raises:
        ValueError: If the file holds other images.
    """
    shape = (len(pixels), *pixels.shape)
    if not path.exists():
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        array = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        for rows in np.array_split(np.arange(len(pixels)), max(1, len(pixels) // 512)):
            array[rows] = pixels.read(rows).numpy()
        array.flush()
        del array
        part.replace(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name}: {path} is not a file of packed images ({error}); delete it"
        ) from error
    sample = np.linspace(0, len(pixels) - 1, min(8, len(pixels))).astype(int)
    if (
        array.shape != shape
        or array.dtype != np.uint8
        or not np.array_equal(array[sample], pixels.read(sample).numpy())
    ):
        raise ValueError(f"{name}: {path} holds other images; delete it, or pass another packed=")
    return ArrayPixels(array)

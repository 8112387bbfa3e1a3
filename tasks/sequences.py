"""Images read as sequences: row by row, column by column, or pixel by pixel, permuted or not."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrnn._checks import check_count, check_integer, derive_seed, unknown_name

from .images import ImageSet, image_set
from .images._catalogue import CATALOGUE

READINGS = ("rows", "columns", "pixels")
_CHUNK = 4096


@dataclass(frozen=True, eq=False, repr=False)
class SequenceSet:
    """Images with classes, as sequences.

    Attributes:
        images: Where they come from.
        reading: "rows", "columns" or "pixels".
        order: Which pixel takes the place of each, int64 (pixel,), row by row; None to leave all
            where they are.
        splits: Rows of "train", "validation" and "test", disjoint.
        standardise: Whether values have the mean 0 and the variance 1 of the training images.
        permutation: Seed of `order`, for records.

    Example:
        >>> from ctxrnn.tasks import sequence_set
        >>> digits = sequence_set("digits", reading="pixels", permutation=0)
        >>> digits.title, digits.steps, digits.features, len(digits.classes)
        ('digits, permuted pixels', 64, 1, 10)
        >>> batch = digits.read(digits.rows("train")[:32])
        >>> batch.shape
        torch.Size([32, 64, 1])
    """

    images: ImageSet
    reading: str
    order: np.ndarray | None
    splits: Mapping[str, np.ndarray]
    standardise: bool = False
    permutation: int | None = None

    def __post_init__(self) -> None:
        for array in (*self.splits.values(), *([] if self.order is None else [self.order])):
            array.setflags(write=False)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(rows)}" for split, rows in self.splits.items())
        return (
            f"SequenceSet({self.title}; {self.steps} steps of {self.features}, "
            f"{len(self.classes)} classes; {sizes})"
        )

    @property
    def name(self) -> str:
        """Name of the image set."""
        return self.images.name

    @property
    def stand_in_for(self) -> str | None:
        """What drawn or unverified images stand in for."""
        return self.images.stand_in_for

    @property
    def title(self) -> str:
        """Name of the images, how they are read, and what they stand in for."""
        how = f"{'permuted ' if self.order is not None else ''}{self.reading}"
        return f"{self.images.title}, {how}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.images.label_names

    @property
    def labels(self) -> np.ndarray:
        """Class of each image, int64 (image,)."""
        return self.images.labels

    @property
    def steps(self) -> int:
        """Length of a sequence."""
        _, height, width = self.images.shape
        return {"rows": height, "columns": width, "pixels": height * width}[self.reading]

    @property
    def features(self) -> int:
        """Values at each step."""
        return int(np.prod(self.images.shape)) // self.steps

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of "train", "validation" or "test"."""
        if split not in self.splits:
            raise unknown_name("split", split, self.splits)
        return self.splits[split]

    def read(self, rows: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Return sequences, float32 (image, time, feature), in [0, 1] or standardised.

        A step holds the pixels of a row from left to right, or of a column from top to bottom, the
        channels of a pixel together.

        Args:
            rows: Numbers of images, in any order.
        """
        images = self.images.read(rows).float() / 255
        if self.standardise:
            mean, deviation = self._scale
            images = (images - mean) / deviation
        channels, height, width = self.images.shape
        pixels = images.permute(0, 2, 3, 1).reshape(-1, height * width, channels)
        if self.order is not None:
            pixels = pixels[:, torch.tensor(self.order)]
        if self.reading == "columns":
            pixels = pixels.reshape(-1, height, width, channels).transpose(1, 2)
        return pixels.reshape(-1, self.steps, self.features)

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the training images, (channel, 1, 1)."""
        rows = self.splits["train"]
        sums = torch.zeros(2, self.images.shape[0], dtype=torch.float64)
        for start in range(0, len(rows), _CHUNK):
            values = self.images.read(rows[start : start + _CHUNK]).double() / 255
            sums += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        mean, square = sums / (len(rows) * self.images.shape[1] * self.images.shape[2])
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        if (deviation < 1e-6).any():
            raise ValueError(
                f"{self.name}: training images of one gray level cannot be standardised; leave out "
                "standardise=True"
            )
        return mean.float()[:, None, None], deviation.float()[:, None, None]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the images, how they are read, and the splits; names caches."""
        head = [self.images.fingerprint, self.reading, self.standardise]
        digest = hashlib.sha256(json.dumps(head).encode())
        order = np.arange(0) if self.order is None else self.order
        for array in (order, *self.splits.values()):
            digest.update(str(array.shape).encode())
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()[:32]


def sequence_set(
    name: str,
    data: str | os.PathLike[str] | None = None,
    *,
    reading: str = "rows",
    permutation: int | None = None,
    most: int | None = None,
    standardise: bool = False,
    **options: Any,
) -> SequenceSet:
    """Return images with classes as sequences; the splits are those of `image_set`.

    Args:
        name: Of an image set with classes, e.g. "fashion-mnist" or "digits".
        data: Folder of the data, as `image_set` takes it.
        reading: "rows" (a step is a row; its features are columns times channels), "columns" (a
            step is a column) or "pixels" (a step is a pixel, row by row; its features are
            channels).
        permutation: Seed of one permutation of the pixels for all images, drawn for their number
            alone; it acts before they are cut into rows or columns. None for none.
        most: Use this many images of each split at most, its first.
        standardise: Whether values get mean 0 and variance 1, per channel, by the training images
            that are used; otherwise they lie in [0, 1].
        **options: Of the image set, e.g. `validation=1000`; `seed` and `download`, too.

    Raises:
        ValueError: If a name or option is unknown, or the images have attributes.
        FileNotFoundError: If files are missing.

    Example:
        >>> import torch
        >>> from ctxrnn.tasks import sequence_set
        >>> rows, columns = (sequence_set("digits", reading=name) for name in ("rows", "columns"))
        >>> rows.read([0]).shape  # (image, time, feature)
        torch.Size([1, 8, 8])
        >>> torch.equal(rows.read([0]), columns.read([0]).mT)
        True
    """
    if reading not in READINGS:
        raise unknown_name("reading", reading, READINGS)
    if most is not None:
        check_count("most", most)
    if name in CATALOGUE and "kind" in inspect.signature(CATALOGUE[name].make).parameters:
        options = {"kind": "classes"} | options
    images = image_set(name, data, **options)
    if images.kind != "classes":
        raise ValueError(
            f"{name}: sequences need images with classes, and these have attributes; leave out "
            "kind=, or use another set, such as fashion-mnist or digits"
        )
    return SequenceSet(
        images=images,
        reading=reading,
        order=_order(permutation, images.shape[1] * images.shape[2]),
        splits={split: rows[:most] for split, rows in images.splits.items()},
        standardise=bool(standardise),
        permutation=None if permutation is None else int(permutation),
    )


def _order(seed: int | None, pixels: int) -> np.ndarray | None:
    if seed is None:
        return None
    check_integer("permutation", seed)
    rng = np.random.default_rng(derive_seed(seed, "sequences", "permutation"))
    return rng.permutation(pixels)

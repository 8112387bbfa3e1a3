"""Images with labels, groups of labels and splits, whatever they are read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ctxrnn._checks import check_count, unknown_name

from ._pixels import Pixels

SPLITS = ("train", "validation", "test")
_SAMPLE = 64


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with binary attributes, or with classes that belong to superclasses.

    Attributes:
        name: Its name in `image_set`, e.g. "fashion-mnist".
        stand_in_for: "CelebA" or "CIFAR-100" for images that only take their place; None for data
            that go by their own name. `title` says so, for figures and records.
        kind: "attributes" (every image has or lacks each) or "classes" (every image has one).
        label_names: Names of the attributes or classes.
        groups: Groups of attributes, or the classes of each superclass; they partition the labels.
        labels: Attributes, uint8 (image, attribute), 0 or 1; or classes, int64 (image,).
        splits: Rows of "train", "validation" and "test", disjoint.
        pixels: Where the images are.
        options: What it was made with, for records.

    Raises:
        ValueError: If labels, groups or splits do not fit the images.

    Example:
        >>> from ctxrnn.tasks import image_set
        >>> digits = image_set("digits")  # with attributes, in three groups
        >>> [digits.label_names[k] for k in digits.groups["shape"]]
        ['has a loop', 'has two loops', 'straight']
        >>> first = digits.rows("train")[:100]
        >>> digits.read(first).shape, digits.labels[first].shape
        (torch.Size([100, 1, 8, 8]), (100, 8))
    """

    name: str
    stand_in_for: str | None
    kind: Literal["attributes", "classes"]
    label_names: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]]
    labels: np.ndarray
    splits: Mapping[str, np.ndarray]
    pixels: Pixels
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_partition(self.name, self.groups, len(self.label_names))
        self._check_labels()
        self._check_splits()
        for array in (self.labels, *self.splits.values()):
            array.setflags(write=False)

    def _check_labels(self) -> None:
        count, outputs = len(self.pixels), len(self.label_names)
        attributes = self.kind == "attributes"
        wanted = ((count, outputs), np.uint8, 2) if attributes else ((count,), np.int64, outputs)
        shape, dtype, levels = wanted
        if self.labels.shape != shape or self.labels.dtype != dtype:
            raise ValueError(
                f"{self.name}: labels must be {np.dtype(dtype)} {shape}, for {count} images: got "
                f"{self.labels.dtype} {self.labels.shape}"
            )
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < levels:
            raise ValueError(
                f"{self.name}: labels must lie in 0..{levels - 1}: got "
                f"{self.labels.min()} to {self.labels.max()}"
            )

    def _check_splits(self) -> None:
        if tuple(self.splits) != SPLITS:
            raise ValueError(f"{self.name}: splits must be {', '.join(SPLITS)}: got {self.splits}")
        rows = np.concatenate(list(self.splits.values()))
        if len(np.unique(rows)) < len(rows):
            raise ValueError(f"{self.name}: an image occurs twice in the splits")
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise ValueError(f"{self.name}: splits must hold rows in 0..{len(self) - 1}")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(rows)}" for split, rows in self.splits.items())
        shape = "x".join(map(str, self.shape))
        return (
            f"ImageSet({self.title}; {shape}, {len(self.label_names)} {self.kind} in "
            f"{len(self.groups)} groups; {sizes})"
        )

    @property
    def title(self) -> str:
        """Its name, and what it stands in for."""
        if self.stand_in_for is None:
            return self.name
        return f"{self.name} (stand-in for {self.stand_in_for})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image: (channel, height, width)."""
        return self.pixels.shape

    @property
    def group_of(self) -> np.ndarray:
        """Number of the group of each label, (label,)."""
        return group_numbers(self.groups, len(self.label_names))

    @property
    def coarse(self) -> np.ndarray:
        """Number of the superclass of each image, int64 (image,).

        Raises:
            ValueError: If the labels are attributes.
        """
        if self.kind != "classes":
            raise ValueError(
                f"{self.name}: attributes have no superclasses; use an image set with classes"
            )
        return self.group_of[self.labels]

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of "train", "validation" or "test"."""
        if split not in self.splits:
            raise unknown_name("split", split, self.splits)
        return self.splits[split]

    def read(self, rows: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Return images as bytes, uint8 (row, channel, height, width).

        Args:
            rows: Numbers of images, in 0..len - 1, in any order.

        Raises:
            FileNotFoundError: If the file of an image is missing.
            ValueError: If a file is damaged.
        """
        chosen = np.asarray(rows)
        if chosen.ndim != 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
            raise ValueError(
                f"{self.name}: rows must be a list of integers: got shape {chosen.shape}, "
                f"{chosen.dtype}"
            )
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise ValueError(
                f"{self.name}: rows must lie in 0..{len(self) - 1}: got {chosen.min()} to "
                f"{chosen.max()}"
            )
        return self.pixels.read(chosen.astype(np.int64))

    def dataset(self, split: str) -> ImageDataset:
        """Return a split for torch's DataLoader: pairs of an image (uint8) and its labels.

        A loader with workers reads ahead, and a batch is read at once.
        """
        return ImageDataset(self, self.rows(split))

    def probe(self, count: int = 2048) -> np.ndarray:
        """Return the first training rows, at most `count`, on which gains are measured."""
        check_count("count", count)
        return self.splits["train"][:count]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of name, options, labels, splits and a sample of 64 images; names caches."""
        head = [self.name, self.stand_in_for, self.kind, self.label_names, list(self.shape)]
        text = json.dumps([*head, dict(self.groups), dict(self.options)], sort_keys=True)
        digest = hashlib.sha256(text.encode())
        sample = np.linspace(0, len(self) - 1, min(_SAMPLE, len(self))).astype(int)
        images = self.read(sample).numpy()
        for array in (self.labels, *self.splits.values(), images):
            digest.update(str(array.shape).encode())
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()[:32]


class ImageDataset(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Some rows of an image set, for torch's DataLoader; made by `ImageSet.dataset`.

    An item is an image, uint8 (channel, height, width), and its attributes, (attribute,), or class.

    Args:
        images: The image set.
        rows: Numbers of its images.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from ctxrnn.tasks import image_set
        >>> dataset = image_set("digits", kind="classes").dataset("train")
        >>> images, labels = next(iter(DataLoader(dataset, batch_size=32, shuffle=True)))
        >>> images.shape, labels.shape
        (torch.Size([32, 1, 8, 8]), torch.Size([32]))
    """

    def __init__(self, images: ImageSet, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        # DataLoader calls this for a whole batch.
        rows = self.rows[np.asarray(indices)]
        labels = torch.from_numpy(self.images.labels[rows])
        return list(zip(self.images.read(rows), labels, strict=True))


def group_numbers(groups: Mapping[str, tuple[int, ...]], count: int) -> np.ndarray:
    """Return the number of the group of each label, int64 (label,)."""
    numbers = np.zeros(count, dtype=np.int64)
    for number, members in enumerate(groups.values()):
        numbers[list(members)] = number
    return numbers


def check_partition(name: str, groups: Mapping[str, tuple[int, ...]], count: int) -> None:
    """Raise ValueError unless every label is in exactly one group, and no group is empty."""
    members = sorted(label for group in groups.values() for label in group)
    if members != list(range(count)) or not all(groups.values()):
        raise ValueError(
            f"{name}: groups must hold each of the labels 0..{count - 1} once: got {dict(groups)}"
        )

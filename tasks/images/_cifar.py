"""CIFAR-100 (Krizhevsky, 2009): 60,000 photographs of 32 by 32 pixels, 20 superclasses of 5."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ._image_set import ImageSet
from ._pixels import ArrayPixels
from ._places import base_folder, check_digest, check_files, check_library, data_folder, fetch
from ._splits import hold_out
from ._unpickle import read_pickle

NAME = "cifar100"
SUPERCLASSES, CHILDREN = 20, 5
_BASE = "cifar-100-python"
_FILES = ("train", "test", "meta")
_REMEDY = (
    "get 'CIFAR-100 python version' from the page 'The CIFAR-10 and CIFAR-100 datasets' and "
    "unpack it, or pass download=True"
)


def cifar100(
    data: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    seed: int = 0,
    validation: int = 5000,
    checksums: bool = True,
) -> ImageSet:
    """Read CIFAR-100 by torchvision's reader: a hundred classes in twenty superclasses.

    Its files are pickles, which can run code. They are read only if they have their published
    checksums; and before torchvision reads them, by a reader that makes nothing but dicts, lists,
    strings, numbers and arrays, and refuses everything else.

    Args:
        data: Folder that holds the folder `cifar-100-python`.
        download: Get missing files by torchvision.
        seed: Which images validate.
        validation: How many of the 50,000 training images are held out, each class in proportion.
        checksums: Whether the files must be the published ones. Others in the same format are
            labelled a stand-in.

    References:
        Krizhevsky (2009), Learning multiple layers of features from tiny images.
    """
    check_library(NAME, "torchvision")
    if download:
        _download(data_folder(data))
    folder = find(data)
    for file, digest in _digests().items() if checksums else ():
        check_digest(NAME, folder / file, digest)
    contents = {file: read_pickle(NAME, folder / file) for file in _FILES}
    for part in ("train", "test"):
        _check_part(folder / part, contents[part])
    fine_names, coarse_names = _names(folder / "meta", contents["meta"])
    coarse = [np.asarray(contents[part]["coarse_labels"]) for part in ("train", "test")]
    readers = [_parsed(folder, train, checksums) for train in (True, False)]
    labels = np.concatenate([np.asarray(reader.targets) for reader in readers])
    train_count = len(readers[0].targets)
    rows = np.arange(train_count)
    train, held = hold_out(NAME, rows, labels[:train_count], validation, seed, "validation")
    images = np.concatenate([reader.data for reader in readers]).transpose(0, 3, 1, 2)
    return ImageSet(
        name=NAME,
        stand_in_for=None if checksums else "CIFAR-100",
        kind="classes",
        label_names=fine_names,
        groups=_groups(folder, labels, np.concatenate(coarse), coarse_names),
        labels=labels.astype(np.int64),
        splits={"train": train, "validation": held, "test": np.arange(train_count, len(labels))},
        pixels=ArrayPixels(np.ascontiguousarray(images)),
        options={"seed": seed, "validation": validation},
    )


def find(data: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the files.

    Raises:
        FileNotFoundError: If some are missing.
    """
    folder = base_folder(NAME, data_folder(data), _BASE, _FILES)
    check_files(NAME, folder, _FILES, _REMEDY)
    return folder


def _digests() -> dict[str, str]:
    from torchvision.datasets import CIFAR100

    return {**dict(CIFAR100.train_list + CIFAR100.test_list), "meta": CIFAR100.meta["md5"]}


def _download(root: Path) -> None:
    from torchvision.datasets import CIFAR100

    # Not its constructor, which would unpickle what it got.
    def download() -> None:
        reader = CIFAR100.__new__(CIFAR100)
        reader.root = str(root)
        reader.download()

    fetch(NAME, download, _REMEDY)


def _parsed(folder: Path, train: bool, checksums: bool) -> Any:
    from torchvision.datasets import CIFAR100

    class Unchecked(CIFAR100):
        train_list = tuple((file, None) for file, _ in CIFAR100.train_list)
        test_list = tuple((file, None) for file, _ in CIFAR100.test_list)
        meta = CIFAR100.meta | {"md5": None}

    return (CIFAR100 if checksums else Unchecked)(folder.parent, train=train)


def _check_part(path: Path, content: dict[str, Any]) -> None:
    """Check what one file of images holds."""
    for key in ("data", "fine_labels", "coarse_labels"):
        if key not in content:
            raise ValueError(
                f"{NAME}: {path} must hold {key!r}: got {', '.join(map(str, content))}"
            )
    images = content["data"]
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.shape[1:] != (3072,)
    ):
        raise ValueError(
            f"{NAME}: {path} must hold 'data' of bytes, (image, 3072): got "
            f"{getattr(images, 'dtype', type(images).__name__)} {getattr(images, 'shape', '')}"
        )
    for key, levels in (("fine_labels", SUPERCLASSES * CHILDREN), ("coarse_labels", SUPERCLASSES)):
        labels = np.asarray(content[key])
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{NAME}: {path} must hold a whole number in {key!r} for each of {len(images)} "
                f"images: got {labels.dtype} {labels.shape}"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < levels:
            raise ValueError(
                f"{NAME}: {path} must hold {key!r} in 0..{levels - 1}: got {labels.min()} to "
                f"{labels.max()}"
            )


def _names(path: Path, content: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = []
    wanted = {"fine_label_names": SUPERCLASSES * CHILDREN, "coarse_label_names": SUPERCLASSES}
    for key, count in wanted.items():
        got = content.get(key)
        if not isinstance(got, list) or len(set(map(str, got))) != count:
            raise ValueError(
                f"{NAME}: {path} must hold {count} names in {key!r}: got "
                f"{len(got) if isinstance(got, list) else type(got).__name__}"
            )
        names.append(tuple(map(str, got)))
    return names[0], names[1]


def _groups(
    folder: Path, fine: np.ndarray, coarse: np.ndarray, names: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """Read off the labels which classes each superclass has."""
    pairs = np.unique(np.stack([coarse, fine], 1), axis=0)
    groups = {
        name: tuple(int(label) for label in pairs[pairs[:, 0] == number, 1])
        for number, name in enumerate(names)
    }
    members = [label for group in groups.values() for label in group]
    sizes = {len(group) for group in groups.values()}
    if sizes != {CHILDREN} or len(set(members)) < SUPERCLASSES * CHILDREN:
        raise ValueError(
            f"{NAME}: by the labels in {folder} each of {SUPERCLASSES} superclasses must have "
            f"{CHILDREN} classes of its own: got {min(sizes)} to {max(sizes)}, "
            f"{len(set(members))} classes in all"
        )
    return groups

"""Fashion-MNIST (Xiao et al., 2017): 70,000 pictures of clothes, 28 by 28, in ten classes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ._idx import read_idx
from ._image_set import ImageSet
from ._pixels import ArrayPixels
from ._places import check_files, check_library, data_folder, fetch, missing_files
from ._splits import hold_out

NAME = "fashion-mnist"
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
GROUPS = {"tops": (0, 2, 4, 6), "footwear": (5, 7, 9), "other": (1, 3, 8)}
# MD5 sums of what the files hold, unpacked: the packages that carry them pack them differently.
DIGESTS = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_REMEDY = (
    "install the Debian package dataset-fashion-mnist, or pass the folder as data=, or "
    "data=DIR, download=True"
)


def fashion_mnist(
    data: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    seed: int = 0,
    validation: int = 5000,
    checksums: bool = True,
) -> ImageSet:
    """Read Fashion-MNIST: ten classes in three superclasses, which are ours.

    Args:
        data: Folder of the four files, or one with FashionMNIST/raw; None for the usual place,
            then that of the Debian package.
        download: Get missing files into FashionMNIST/raw of `data`, by torchvision.
        seed: Which images validate.
        validation: How many of the 60,000 training images are held out, each class in proportion.
        checksums: Whether the files must be the published ones. Others in the same format are
            labelled a stand-in.
    """
    if download and missing(_folder(data)):
        _download(data_folder(data))
    folder = find(data)
    train_images, train_labels = _read_part(folder, "train", checksums)
    test_images, test_labels = _read_part(folder, "t10k", checksums)
    if train_images.shape[1:] != test_images.shape[1:]:
        raise ValueError(
            f"{NAME}: images to train and to test must be of one size in {folder}: got "
            f"{train_images.shape[1:]} and {test_images.shape[1:]}; get the files again"
        )
    rows = np.arange(len(train_labels))
    train, held = hold_out(NAME, rows, train_labels, validation, seed, "validation")
    test = np.arange(len(train_labels), len(train_labels) + len(test_labels))
    return ImageSet(
        name=NAME,
        stand_in_for=None if checksums else "Fashion-MNIST",
        kind="classes",
        label_names=CLASSES,
        groups=GROUPS,
        labels=np.concatenate([train_labels, test_labels]).astype(np.int64),
        splits={"train": train, "validation": held, "test": test},
        pixels=ArrayPixels(np.concatenate([train_images, test_images])[:, None]),
        options={"seed": seed, "validation": validation},
    )


def find(data: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the files.

    Raises:
        FileNotFoundError: If some are missing.
    """
    folder = _folder(data)
    absent = missing(folder)
    # Packed or not: a file that is here is listed by the name that it has.
    wanted = [f"{file}.gz" if file in absent else _path(folder, file).name for file in DIGESTS]
    check_files(NAME, folder, wanted, _REMEDY)
    return folder


def _folder(data: str | os.PathLike[str] | None) -> Path:
    """Return the folder that holds most of the files, among those where they may be."""
    root = data_folder(data)
    places = [root, root / "FashionMNIST" / "raw", root / NAME]
    if data is None:
        places.append(DEBIAN)
    return min(places, key=lambda folder: len(missing(folder)))


def missing(folder: Path) -> list[str]:
    """List the files, packed or not, that are not in a folder."""
    return [file for file in DIGESTS if len(missing_files(folder, (file, f"{file}.gz"))) == 2]


def _path(folder: Path, file: str) -> Path:
    packed = folder / f"{file}.gz"
    return packed if packed.is_file() else folder / file


def _read_part(folder: Path, part: str, checksums: bool) -> tuple[np.ndarray, np.ndarray]:
    arrays = []
    for what, axes in (("images-idx3", 3), ("labels-idx1", 1)):
        file = f"{part}-{what}-ubyte"
        digest = DIGESTS[file] if checksums else None
        arrays.append(read_idx(NAME, _path(folder, file), axes, digest))
    images, labels = arrays
    if len(images) != len(labels):
        raise ValueError(
            f"{NAME}: {part} files in {folder} must hold as many labels as images: got "
            f"{len(labels)} and {len(images)}; get them again"
        )
    if len(labels) and labels.max() >= len(CLASSES):
        raise ValueError(
            f"{NAME}: {_path(folder, file)} must hold labels in 0..{len(CLASSES) - 1}: got "
            f"{labels.max()}; get it again"
        )
    return images, labels


def _download(root: Path) -> None:
    check_library(NAME, "torchvision")
    from torchvision.datasets import FashionMNIST

    fetch(NAME, lambda: FashionMNIST(root, download=True), _REMEDY)

"""Fashion-MNIST (Xiao et al., 2017): 70,000 pictures of clothes, 28 by 28, in ten classes."""

from __future__ import annotations

import os
from pathlib import Path

from ._idx_set import IdxSet
from ._image_set import ImageSet

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST = IdxSet(
    name="fashion-mnist",
    title="Fashion-MNIST",
    classes=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    groups={"tops": (0, 2, 4, 6), "footwear": (5, 7, 9), "other": (1, 3, 8)},
    digests={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    folders=(".", "FashionMNIST/raw", "fashion-mnist"),
    reader="FashionMNIST",
    remedy=(
        "install the Debian package dataset-fashion-mnist, or pass the folder as data=, or "
        "data=DIR, download=True"
    ),
    system=DEBIAN,
)  # fmt: skip


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
    return FASHION_MNIST.read(data, download, seed, validation, checksums)

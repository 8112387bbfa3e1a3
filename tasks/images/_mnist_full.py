"""MNIST (LeCun et al., 1998) in full: 70,000 handwritten digits, 28 by 28."""

from __future__ import annotations

import os

from ._digits import CLASS_GROUPS, CLASSES
from ._idx_set import IdxSet
from ._image_set import ImageSet

MNIST_FULL = IdxSet(
    name="mnist-full",
    title="MNIST",
    classes=CLASSES,
    groups=CLASS_GROUPS,
    digests={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    # The files of Fashion-MNIST have the same names and may lie in the folder itself: it is last.
    folders=("MNIST/raw", "mnist-full", "."),
    reader="MNIST",
    remedy="pass the folder of the four files as data=, or data=DIR, download=True",
)


def mnist_full(
    data: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    seed: int = 0,
    validation: int = 5000,
    checksums: bool = True,
) -> ImageSet:
    """Read the 70,000 digits of MNIST: ten classes, grouped by the shape of the digit.

    Args:
        data: Folder of the four files, or one with MNIST/raw or mnist-full; None for the usual
            place.
        download: Get missing files into MNIST/raw of `data`, by torchvision.
        seed: Which images validate.
        validation: How many of the 60,000 training images are held out, each digit in proportion.
        checksums: Whether the files must be the published ones. Others in the same format are
            labelled a stand-in.
    """
    return MNIST_FULL.read(data, download, seed, validation, checksums)

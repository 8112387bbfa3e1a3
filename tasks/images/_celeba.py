"""CelebA (Liu et al., 2015): 202,599 photographs of faces with forty binary attributes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ctxrnn._checks import check_count

from ._image_set import ImageSet
from ._pixels import JpegPixels, Pixels, packed
from ._places import base_folder, check_digest, check_files, check_library, data_folder, fetch

NAME = "celeba"
ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs",
    "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows",
    "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup",
    "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard",
    "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns",
    "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip
# The groups of Pascal et al. (2021), whose network has one head for each.
GROUPS = {
    "global": (2, 10, 13, 14, 18, 20, 25, 26, 39),
    "eyes": (3, 15, 23, 1, 12),
    "hair": (4, 5, 8, 9, 11, 17, 28, 32, 33),
    "mouth": (6, 21, 31, 36),
    "nose": (7, 27),
    "beard": (0, 16, 22, 24, 30),
    "cheeks": (19, 29),
    "wearing": (34, 35, 37, 38),
}
_BASE, _IMAGES = "celeba", "img_align_celeba"
_LABELS, _PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
_FILES = (
    _LABELS, _PARTITION, "identity_CelebA.txt", "list_bbox_celeba.txt",
    "list_landmarks_align_celeba.txt",
)  # fmt: skip
_WIDTH, _HEIGHT = 178, 218
_REMEDY = (
    "get them from the page 'Large-scale CelebFaces Attributes (CelebA) Dataset' (aligned images, "
    "annotations, partition), or pass download=True, which needs gdown"
)


def celeba(
    data: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    seed: int = 0,
    side: int = 64,
    square: bool = False,
    threads: int | None = None,
    pack: str | os.PathLike[str] | None = None,
    checksums: bool = True,
) -> ImageSet:
    """Read CelebA by torchvision's reader: forty attributes, the official partition.

    Photographs stay in their files and are decoded when they are read.

    Args:
        data: Folder that holds the folder `celeba`, with five text files and `img_align_celeba`.
        download: Get missing files by torchvision.
        seed: Without effect: nothing is drawn.
        side: Length of the short side after resizing; 64 gives width 64 and height 78.
        square: Whether both sides get this length, which changes proportions.
        threads: How many decode at once; None for the number of processors, at most 8.
        pack: File for the decoded images (3 GB at 64 x 78), made on first use and mapped into
            memory thereafter; None to decode them every time.
        checksums: Whether the text files must be the published ones. Others in the same format are
            labelled a stand-in.

    References:
        Liu et al. (2015), Deep learning face attributes in the wild, ICCV. Pascal et al. (2021),
        Maximum roaming multi-task learning, AAAI (groups, size of images).
    """
    del seed
    check_count("side", side)
    if threads is not None:
        check_count("threads", threads)
    check_library(NAME, "torchvision")
    if download:
        _download(data_folder(data))
    folder = find(data)
    for file, digest in _digests().items() if checksums else ():
        check_digest(NAME, folder / file, digest)
    labelled = _check_labels(folder)
    reader = _parsed(folder, checksums)
    files = [str(file) for file in reader.filename]
    _check_images(folder / _IMAGES, files)
    size = (side, side) if square else (side, int(side * _HEIGHT / _WIDTH))
    pixels: Pixels = JpegPixels(
        NAME, folder / _IMAGES, files, source=(_WIDTH, _HEIGHT), size=size,
        threads=threads or min(os.cpu_count() or 1, 8),
    )  # fmt: skip
    if pack is not None:
        pixels = packed(NAME, pixels, Path(pack).expanduser())
    return ImageSet(
        name=NAME,
        stand_in_for=None if checksums else "CelebA",
        kind="attributes",
        label_names=ATTRIBUTES,
        groups=GROUPS,
        labels=reader.attr[:, : len(ATTRIBUTES)].numpy().astype(np.uint8),
        splits=_splits(folder, files, labelled),
        pixels=pixels,
        options={"side": side, "square": square},
    )


def find(data: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the text files.

    Raises:
        FileNotFoundError: If some are missing, or the folder of images.
    """
    folder = base_folder(NAME, data_folder(data), _BASE, _FILES)
    check_files(NAME, folder, _FILES, _REMEDY)
    if not (folder / _IMAGES).is_dir():
        archive = folder / f"{_IMAGES}.zip"
        remedy = f"unpack {archive.name} there" if archive.exists() else _REMEDY
        raise FileNotFoundError(f"{NAME}: missing the folder {_IMAGES} in {folder}; {remedy}")
    return folder


def _digests() -> dict[str, str]:
    from torchvision.datasets import CelebA

    return {file: digest for _, digest, file in CelebA.file_list if file in _FILES}


def _download(root: Path) -> None:
    from torchvision.datasets import CelebA

    fetch(NAME, lambda: CelebA(root, split="all", download=True), _REMEDY)


def _parsed(folder: Path, checksums: bool) -> Any:
    """Let torchvision parse all five files."""
    from torchvision.datasets import CelebA

    class Unchecked(CelebA):
        file_list = tuple((where, None, file) for where, _, file in CelebA.file_list)

    try:
        reader = (CelebA if checksums else Unchecked)(folder.parent, split="all")
    except (ValueError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"{NAME}: torchvision cannot parse the text files in {folder} ({error}); get them again"
        ) from error
    parts = ("filename", "attr", "identity", "bbox", "landmarks_align")
    counts = [len(getattr(reader, part)) for part in parts]
    if len(set(counts)) > 1:
        raise ValueError(
            f"{NAME}: the text files in {folder} must list equally many images: got "
            f"{', '.join(map(str, counts))} (partition, attributes, identity, boxes, landmarks); "
            "get them again"
        )
    return reader


def _table(path: Path, skip: int, columns: int) -> pd.DataFrame:
    """Read names of images and whole numbers."""
    try:
        table = pd.read_csv(path, sep=r"\s+", header=None, skiprows=skip, dtype={0: str})
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{NAME}: {path} cannot be read ({str(error).strip()}); get it again"
        ) from error
    numbers = table.iloc[:, 1:]
    whole = all(pd.api.types.is_integer_dtype(dtype) for dtype in numbers.dtypes)
    if numbers.shape[1] != columns or not whole:
        raise ValueError(
            f"{NAME}: every line of {path} must be the name of an image and {columns} whole "
            "numbers; get it again"
        )
    return table


def _check_labels(folder: Path) -> list[str]:
    """Check count, names and values, of which torchvision checks none; return the images."""
    path = folder / _LABELS
    with path.open(encoding="utf-8", errors="replace") as lines:
        count, names = lines.readline().strip(), lines.readline().split()
    # Blanks at the end of the line of names would make a name of their own when split at each.
    if tuple(names) != ATTRIBUTES:
        pairs = zip(names, ATTRIBUTES, strict=False)
        odd = next((f"{got!r} for {name!r}" for got, name in pairs if got != name), None)
        raise ValueError(
            f"{NAME}: the second line of {path} must name the {len(ATTRIBUTES)} attributes in "
            f"their order: got {odd or f'{len(names)} names'}; get the file again"
        )
    table = _table(path, 2, len(ATTRIBUTES))
    if count != str(len(table)):
        raise ValueError(
            f"{NAME}: {path} must list as many images as its first line says: got {len(table)}, "
            f"not {count}; get it again"
        )
    values = table.iloc[:, 1:].to_numpy()
    wrong = np.argwhere(np.abs(values) != 1)
    if len(wrong):
        row, label = wrong[0]
        raise ValueError(
            f"{NAME}: {path} must hold -1 or 1: got {values[row, label]} for {ATTRIBUTES[label]} "
            f"of {table[0][row]}; get it again"
        )
    return list(table[0])


def _splits(folder: Path, files: list[str], labelled: list[str]) -> dict[str, np.ndarray]:
    path = folder / _PARTITION
    parts = _table(path, 0, 1)[1].to_numpy()
    if labelled != files:
        row = next(i for i, file in enumerate(files) if labelled[i] != file)
        raise ValueError(
            f"{NAME}: {path} and {_LABELS} must list the same images in one order: got "
            f"{files[row]!r} and {labelled[row]!r} in place {row + 1}; get them again"
        )
    for row in np.flatnonzero((parts < 0) | (parts > 2))[:1]:
        raise ValueError(
            f"{NAME}: {path} must hold 0 (train), 1 (validation) or 2 (test): got {parts[row]} "
            f"for {files[row]}; get it again"
        )
    return {
        split: np.flatnonzero(parts == part)
        for part, split in enumerate(("train", "validation", "test"))
    }


def _check_images(folder: Path, files: list[str]) -> None:
    absent = sorted(set(files) - set(os.listdir(folder)))
    if absent:
        raise FileNotFoundError(
            f"{NAME}: {len(absent)} of {len(files)} images are missing in {folder}, the first is "
            f"{absent[0]}; unpack {_IMAGES}.zip again"
        )

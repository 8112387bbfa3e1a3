"""Image sets in the four IDX files of MNIST: images and labels, to train and to test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ._idx import read_idx
from ._image_set import ImageSet
from ._pixels import ArrayPixels
from ._places import check_files, check_library, data_folder, fetch, missing_files
from ._splits import hold_out


@dataclass(frozen=True)
class IdxSet:
    """An image set with classes that is published as four IDX files.

    Attributes:
        name: Its name in `image_set`.
        title: What other files in the same format stand in for.
        classes: Names of the classes, in the order of the labels.
        groups: Classes of each superclass.
        digests: MD5 sum of what each file holds, unpacked: those who carry the files pack them
            differently.
        folders: Where the files may be, below the folder of the data; of several that lack as
            many files, the first.
        reader: Class of torchvision.datasets that downloads them.
        remedy: How to get them, for errors.
        system: Where a package of the system puts them.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]]
    digests: Mapping[str, str]
    folders: tuple[str, ...]
    reader: str
    remedy: str
    system: Path | None = None

    def read(
        self,
        data: str | os.PathLike[str] | None,
        download: bool,
        seed: int,
        validation: int,
        checksums: bool,
    ) -> ImageSet:
        """Read the set; some of the images to train on are held out.

        Args:
            data: Folder of the data; None for the usual place, then that of the system.
            download: Get missing files by torchvision.
            seed: Which images validate.
            validation: How many are held out, each class in proportion.
            checksums: Whether the files must be the published ones.
        """
        if download and self.missing(self._folder(data)):
            self._download(data_folder(data))
        folder = self.find(data)
        train_images, train_labels = self._read_part(folder, "train", checksums)
        test_images, test_labels = self._read_part(folder, "t10k", checksums)
        if train_images.shape[1:] != test_images.shape[1:]:
            raise ValueError(
                f"{self.name}: images to train and to test must be of one size in {folder}: got "
                f"{train_images.shape[1:]} and {test_images.shape[1:]}; get the files again"
            )
        rows = np.arange(len(train_labels))
        train, held = hold_out(self.name, rows, train_labels, validation, seed, "validation")
        test = np.arange(len(train_labels), len(train_labels) + len(test_labels))
        return ImageSet(
            name=self.name,
            stand_in_for=None if checksums else self.title,
            kind="classes",
            label_names=self.classes,
            groups=self.groups,
            labels=np.concatenate([train_labels, test_labels]).astype(np.int64),
            splits={"train": train, "validation": held, "test": test},
            pixels=ArrayPixels(np.concatenate([train_images, test_images])[:, None]),
            options={"seed": seed, "validation": validation},
        )

    def find(self, data: str | os.PathLike[str] | None) -> Path:
        """Return the folder of the files.

        Raises:
            FileNotFoundError: If some are missing.
        """
        folder = self._folder(data)
        absent = self.missing(folder)
        # Packed or not: a file that is here is listed by the name that it has.
        wanted = [
            f"{file}.gz" if file in absent else _path(folder, file).name for file in self.digests
        ]
        check_files(self.name, folder, wanted, self.remedy)
        return folder

    def missing(self, folder: Path) -> list[str]:
        """List the files, packed or not, that are not in a folder."""
        return [
            file for file in self.digests if len(missing_files(folder, (file, f"{file}.gz"))) == 2
        ]

    def _folder(self, data: str | os.PathLike[str] | None) -> Path:
        """Return the folder that holds most of the files, among those where they may be."""
        root = data_folder(data)
        places = [root / folder for folder in self.folders]
        if data is None and self.system is not None:
            places.append(self.system)
        return min(places, key=lambda folder: len(self.missing(folder)))

    def _read_part(self, folder: Path, part: str, checksums: bool) -> tuple[np.ndarray, np.ndarray]:
        arrays = []
        for what, axes in (("images-idx3", 3), ("labels-idx1", 1)):
            file = f"{part}-{what}-ubyte"
            digest = self.digests[file] if checksums else None
            arrays.append(read_idx(self.name, _path(folder, file), axes, digest))
        images, labels = arrays
        if len(images) != len(labels):
            raise ValueError(
                f"{self.name}: {part} files in {folder} must hold as many labels as images: got "
                f"{len(labels)} and {len(images)}; get them again"
            )
        if len(labels) and labels.max() >= len(self.classes):
            raise ValueError(
                f"{self.name}: {_path(folder, file)} must hold labels in "
                f"0..{len(self.classes) - 1}: got {labels.max()}; get it again"
            )
        return images, labels

    def _download(self, root: Path) -> None:
        check_library(self.name, "torchvision")
        from torchvision import datasets

        reader = getattr(datasets, self.reader)
        fetch(self.name, lambda: reader(root, download=True), self.remedy)


def _path(folder: Path, file: str) -> Path:
    packed = folder / f"{file}.gz"
    return packed if packed.is_file() else folder / file

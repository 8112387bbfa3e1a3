"""Folders of data, and what is missing in them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterable
from pathlib import Path

VARIABLE = "CTXRNN_DATA"


def data_folder(data: str | os.PathLike[str] | None) -> Path:
    """Return the folder that is given, else that of CTXRNN_DATA, else `data` where one is."""
    return Path(data if data is not None else os.environ.get(VARIABLE) or "data").expanduser()


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """List the files of these names that a folder lacks."""
    return [name for name in names if not (folder / name).is_file()]


def check_files(name: str, folder: Path, names: Iterable[str], remedy: str) -> None:
    """Raise FileNotFoundError that says which files are missing where, and how to get them."""
    wanted = tuple(names)
    missing = missing_files(folder, wanted)
    if not missing:
        return
    state = "" if folder.is_dir() else " (no such folder)"
    partial = "" if len(missing) == len(wanted) else f" ({len(missing)} of {len(wanted)} files)"
    raise FileNotFoundError(
        f"{name}: missing {', '.join(missing)}{partial} in {folder}{state}; {remedy}"
    )


def check_library(name: str, library: str) -> None:
    """Raise ImportError with the remedy where a library of the extra `images` is absent."""
    if importlib.util.find_spec(library) is None:
        raise ImportError(
            f"{name} needs {library}, which is not installed; pip install 'ctxrnn[images]'"
        )


def base_folder(name: str, root: Path, base: str, files: Iterable[str]) -> Path:
    """Return root / base, as torchvision wants it.

    Raises:
        FileNotFoundError: If the files lie in the root itself.
    """
    folder = root / base
    if not folder.is_dir() and any((root / file).is_file() for file in files):
        where = root.absolute()
        remedy = f"pass data={where.parent}" if where.name == base else f"move them to {folder}"
        raise FileNotFoundError(
            f"{name}: {root} holds the files itself; they must lie in a folder {base!r} below "
            f"data=: {remedy}"
        )
    return folder


def check_digest(name: str, path: Path, digest: str) -> None:
    """Raise ValueError unless a file has this MD5 sum."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != digest:
        raise ValueError(
            f"{name}: {path} is damaged or another file: its MD5 sum is {found}, not {digest}; "
            "get it again"
        )


def fetch(name: str, download: Callable[[], object], remedy: str) -> None:
    """Download, with one clear line where that fails."""
    try:
        download()
    except (OSError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{name}: the download failed ({reason}); {remedy}") from error

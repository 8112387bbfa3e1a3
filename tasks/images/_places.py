"""Folders of data, and what is missing in them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
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

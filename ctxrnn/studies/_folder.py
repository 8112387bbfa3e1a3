"""A results folder: its settings, its finished cells, and its tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrnn._checkpoint import as_json, write_atomically
from ctxrnn._run import difference

if TYPE_CHECKING:
    import pandas as pd

_SETTINGS = "settings.json"
_RECORD = {"variant", "number", "seed", "seconds", "learning", "accuracy", "ambiguity"}


class ResultsFolder:
    """A folder that belongs to one study with one set of settings.

    Finished cells lie in `cells/`, one JSON file each, written atomically; a study that was
    stopped at any moment goes on with the cells that are missing.

    Args:
        path: The folder; made if it does not exist.
        settings: JSON-able settings of the study.

    Raises:
        ValueError: If the folder holds other things, or a study with other settings (says which).
        OSError: If it cannot be written.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.settings = as_json(settings)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file: choose a folder for the results with --out")
        existing = self.path / _SETTINGS
        if existing.exists():
            self._check_same(existing)
        elif self.path.exists() and any(self.path.iterdir()):
            raise ValueError(
                f"{self.path} is not empty and holds no study: choose a new folder with --out"
            )
        try:
            for folder in (self.path, self.path / "cells", self.path / "networks"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot make the results folder {self.path}: {error.strerror}. Choose another "
                "with --out",
            ) from error
        self.write_json(_SETTINGS, self.settings)

    def _check_same(self, existing: Path) -> None:
        try:
            before = json.loads(existing.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{existing} is damaged ({error}): choose a new folder with --out"
            ) from error
        differing = difference(before, self.settings)
        if differing:
            raise ValueError(
                f"{self.path} holds results with other settings: {differing}. Choose a new folder "
                "with --out, or the same settings to go on"
            )

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, atomically."""
        text = json.dumps(as_json(value), indent=1)
        write_atomically(self.path / name, text.encode())

    def finished(self, cell: str) -> dict[str, Any] | None:
        """Return the record of a finished cell, or None if it or its network is missing."""
        path = self.path / "cells" / f"{cell}.json"
        if not path.exists() or not (self.path / "networks" / f"{cell}.safetensors").exists():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            missing = _RECORD - set(record)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): delete it, and the cell is run again"
            ) from error
        if missing:
            raise ValueError(
                f"{path} is damaged (it lacks {', '.join(sorted(missing))}): delete it, and the "
                "cell is run again"
            )
        return dict(record)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table as Parquet and as CSV, atomically."""
        write_atomically(self.path / f"{name}.parquet", table.to_parquet(index=False))
        write_atomically(self.path / f"{name}.csv", table.to_csv(index=False).encode())

"""A results folder: its settings, its lock, its store, and its tables."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
from safetensors import SafetensorError, safe_open

from ctxrnn._checkpoint import as_json, write_atomically
from ctxrnn._run import difference
from ctxrnn.studies._store import Row, Store

if TYPE_CHECKING:
    import pandas as pd

SETTINGS, STORE, _LOCK, _OWNER = "settings.json", "records.sqlite", ".lock", ".owner.json"
_FOLDERS = ("networks", "training")

Tables = dict[str, "pd.DataFrame"]


class ResultsFolder:
    """A folder that belongs to one study with one set of settings.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @contextlib.contextmanager
    def claimed(
        self,
        settings: Mapping[str, Any],
        completed: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    ) -> Iterator[Store]:
        """Make the folder ours while we write to it.

        Args:
            settings: JSON-able settings of the study.
            completed: Fills settings of an older version with the defaults of later ones.

        Raises:
            ValueError: If it holds other things, or a study with other settings (says which).
            OSError: If it cannot be written, or another process writes to it.
        """
        self._make()
        lock = filelock.FileLock(self.path / _LOCK, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise OSError(
                f"{self.path} is in use by {self._owner()}: wait for it, or choose another folder "
                "with --out"
            ) from error
        try:
            self._check(as_json(settings), completed)
            self._sweep()
            owner = {"process": os.getpid(), "host": platform.node()}
            self.write_json(_OWNER, owner)
            if not (self.path / SETTINGS).exists():
                self.write_json(SETTINGS, settings)
            with Store(self.path / STORE, create=True) as store:
                yield store
        finally:
            lock.release()

    def _make(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file: choose a folder for the results with --out")
        if self.path.is_dir() and not (self.path / SETTINGS).exists():
            # What a run leaves that was killed before it wrote its settings is not strange.
            strange = [
                p.name
                for p in self.path.iterdir()
                if p.name not in (_LOCK, _OWNER)
                and not p.name.endswith(".part")
                and not (p.name in _FOLDERS and p.is_dir() and not any(p.iterdir()))
            ]
            if strange:
                raise ValueError(
                    f"{self.path} is not empty and holds no study: choose a new folder with --out"
                )
        try:
            for folder in _FOLDERS:
                (self.path / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot make the results folder {self.path}: {error.strerror}. Choose another "
                "with --out",
            ) from error

    def _sweep(self) -> None:
        """Delete what writers left half done that were killed."""
        for folder in (".", *_FOLDERS, "figures"):
            for part in (self.path / folder).glob(".*.part"):
                part.unlink(missing_ok=True)

    def _check(
        self,
        settings: Mapping[str, Any],
        completed: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None,
    ) -> None:
        if not (self.path / SETTINGS).exists():
            return
        before: Mapping[str, Any] = self.settings()
        differing = difference(before, settings)
        if differing and completed is not None:
            differing = difference(as_json(completed(before)), settings)
        if differing:
            raise ValueError(
                f"{self.path} holds results with other settings: {differing}. Choose a new folder "
                "with --out, or the same settings to go on"
            )

    def settings(self) -> dict[str, Any]:
        """Return the settings of the study that the folder holds."""
        path = self.path / SETTINGS
        if not path.is_file():
            raise FileNotFoundError(f"no study in {self.path}: {SETTINGS} is missing")
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): choose a new folder with --out"
            ) from None

    def in_use(self) -> str | None:
        """Return who writes to the folder now, or None."""
        if not (self.path / _LOCK).exists():
            return None
        try:
            with filelock.FileLock(self.path / _LOCK, timeout=0):
                return None
        except filelock.Timeout:
            return self._owner()
        except OSError:
            return None

    def _owner(self) -> str:
        try:
            owner = json.loads((self.path / _OWNER).read_text(encoding="utf-8"))
            return f"process {owner['process']} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def store(self) -> Store:
        """Open the store for reading."""
        return Store(self.path / STORE)

    def whole(self, row: Row) -> bool:
        """Tell whether all files of a finished cell are there, networks uncut."""
        return all(_uncut(self.path / name) for name in row.record.get("files", ()))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, atomically."""
        text = json.dumps(as_json(value), indent=1)
        write_atomically(self.path / name, text.encode())

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table as Parquet and as CSV, atomically."""
        write_atomically(self.path / f"{name}.parquet", _alike(table).to_parquet(index=False))
        write_atomically(self.path / f"{name}.csv", table.to_csv(index=False).encode())


def _uncut(path: Path) -> bool:
    if not path.exists() or path.suffix != ".safetensors":
        return path.exists()
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError, ValueError):
        return False


def _alike(table: pd.DataFrame) -> pd.DataFrame:
    """Write columns of several types, which Parquet cannot hold, as text."""
    mixed = [
        name
        for name in table
        if table[name].dtype == object
        and len(
            {
                str if isinstance(v, str) else bool if isinstance(v, bool) else float
                for v in table[name]
                if v is not None and v == v
            }
        )
        > 1
    ]
    return table.assign(
        **{name: table[name].map(lambda v: v if v is None else str(v)) for name in mixed}
    )


def as_tables(rows: list[Row]) -> Tables:
    """Return records as tables: "cells" with one row per finished cell, and those of the measures.

    The rows of a measure's table bear the axes of their cell in front of its own columns.
    """
    import pandas as pd

    cells: list[dict[str, Any]] = []
    parts: dict[str, list[pd.DataFrame]] = {}
    for row in rows:
        if row.status != "done":
            continue
        cells.append({**row.cell, **row.record["values"], "seconds": row.seconds})
        for name, columns in row.record["tables"].items():
            table = pd.DataFrame(columns)
            new = [key for key in row.cell if key not in table]
            for place, key in enumerate(new):
                table.insert(place, key, [row.cell[key]] * len(table))
            parts.setdefault(name, []).append(table)
    tables = {"cells": _exact(pd.DataFrame(cells), cells)}
    for name, pieces in parts.items():
        full = [piece for piece in pieces if len(piece)] or pieces[:1]
        tables[name] = pd.concat(full, ignore_index=True)
    return tables


def _exact(table: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Keep the digits of integers that a column of floats, with gaps, would round."""
    import pandas as pd

    for name in table:
        values = [row.get(name) for row in rows]
        whole = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
        numbers = [v for v in values if v is not None and not isinstance(v, bool)]
        if whole and len(whole) == len(numbers) and max(map(abs, whole)) > 2**53:
            table[name] = pd.array(values, dtype="Int64")
    return table


def failures(rows: list[Row]) -> pd.DataFrame:
    """Return the failed cells as a table: their axes and the error."""
    import pandas as pd

    failed = [
        {**row.cell, "error": row.error.splitlines()[0], "traceback": row.error}
        for row in rows
        if row.status == "failed"
    ]
    return pd.DataFrame(failed)

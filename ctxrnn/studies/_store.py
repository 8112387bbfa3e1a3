"""The records of a study: one row per cell in an SQLite file, each written whole or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrnn._checkpoint import as_json
from ctxrnn.studies._cells import Cell, cell_key

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
_APPLICATION = 0x63747852  # "ctxR", so that another program's file is told apart.
_SCHEMA = """
CREATE TABLE cells (
    key TEXT PRIMARY KEY, place INTEGER NOT NULL, cell TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('planned', 'done', 'failed')),
    record TEXT, error TEXT, seconds REAL, run INTEGER, finished TEXT
);
CREATE TABLE runs (run INTEGER PRIMARY KEY, started TEXT, provenance TEXT);
"""


class StoreFullError(OSError):
    """The disk is full; what was written before is kept."""


@dataclass(frozen=True)
class Result:
    """What a cell gave.

    Attributes:
        values: Name -> number, string or boolean: the columns of the table "cells".
        tables: Name -> table with any number of rows for this cell.
        files: Names of files in the study's folder without which the record is not whole.
        seconds: Time that it took, of one core.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Row:
    """A cell in the store.

    Attributes:
        cell: The cell.
        status: "planned", "done" or "failed".
        record: Values, tables (name -> column -> list) and files, if done.
        error: What went wrong, with its traceback, if failed.
        seconds: Time that it took, of one core.
    """

    cell: Cell
    status: str
    record: dict[str, Any]
    error: str
    seconds: float


class Store:
    """The store of a study.

    One process writes, those that read may come and go. A rollback journal with extra
    synchronisation is used: it survives `kill -9` and a power cut, and needs no shared memory, so
    that it also works on network file systems.

    Args:
        path: The file.
        create: Whether to make it if it is missing.

    Raises:
        FileNotFoundError: If it is missing and not to be made.
        ValueError: If it is not a whole store of this program.
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise FileNotFoundError(f"no study in {self.path.parent}: {self.path.name} is missing")
        with self._told():
            self._connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._connection.execute("PRAGMA synchronous = EXTRA")
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            empty = not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            if empty and application == 0:
                if not create:
                    self._connection.close()
                    raise FileNotFoundError(
                        f"no study in {self.path.parent}: {self.path.name} is "
                        "empty; give the command of the study again"
                    )
                with self._transaction():
                    for statement in _SCHEMA.split(";"):
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                    self._connection.execute(f"PRAGMA user_version = {FORMAT}")
                application, version = _APPLICATION, FORMAT
        if application != _APPLICATION or version > FORMAT:
            self._connection.close()
        if application != _APPLICATION:
            raise ValueError(f"{self.path} was not written by ctxrnn: choose another folder")
        if version > FORMAT:
            raise ValueError(
                f"{self.path} has format {version}, this version reads up to {FORMAT}: upgrade "
                "ctxrnn"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn SQLite's errors into lines that say which file, what and the remedy."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if "full" in text or "disk I/O" in text:
                raise StoreFullError(
                    f"cannot write {self.path}: {text}. Free some space and give the same command "
                    "again; what was finished before is kept"
                ) from error
            if isinstance(error, sqlite3.OperationalError):
                raise OSError(f"cannot use {self.path}: {text}") from error
            raise ValueError(
                f"{self.path} is damaged ({text}): restore it from a copy, or choose a new folder"
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def plan(self, cells: Iterable[Cell]) -> None:
        """Note cells as planned, unless they are known."""
        rows = [(cell_key(cell), json.dumps(cell)) for cell in cells]
        with self._told(), self._transaction():
            (start,) = self._connection.execute("SELECT COUNT(*) FROM cells").fetchone()
            self._connection.executemany(
                "INSERT OR IGNORE INTO cells (key, place, cell, status) "
                "VALUES (?, ?, ?, 'planned')",
                [(key, start + index, text) for index, (key, text) in enumerate(rows)],
            )

    def write(self, cell: Cell, result: Result, run: int) -> None:
        """Write the record of a finished cell, durably."""
        record = {
            "values": as_json(dict(result.values)),
            "tables": {
                name: {str(key): as_json(column.tolist()) for key, column in table.items()}
                for name, table in result.tables.items()
            },
            "files": list(result.files),
        }
        self._set(cell, "done", json.dumps(record), None, result.seconds, run)

    def fail(self, cell: Cell, error: str, run: int) -> None:
        """Write that a cell failed, and why."""
        self._set(cell, "failed", None, error, 0.0, run)

    def forget(self, cell: Cell) -> None:
        """Mark a cell as still to be done."""
        self._set(cell, "planned", None, None, 0.0, None)

    def _set(
        self,
        cell: Cell,
        status: str,
        record: str | None,
        error: str | None,
        seconds: float,
        run: int | None,
    ) -> None:
        with self._told(), self._transaction():
            changed = self._connection.execute(
                "UPDATE cells SET status = ?, record = ?, error = ?, seconds = ?, run = ?, "
                "finished = datetime('now') WHERE key = ?",
                (status, record, error, seconds, run, cell_key(cell)),
            )
            if changed.rowcount != 1:
                raise ValueError(f"cell {cell_key(cell)} was not planned")

    def start(self, provenance: Mapping[str, Any]) -> int:
        """Note that a run starts; return its number."""
        with self._told(), self._transaction():
            added = self._connection.execute(
                "INSERT INTO runs (started, provenance) VALUES (datetime('now'), ?)",
                (json.dumps(as_json(provenance)),),
            )
        return int(added.lastrowid or 0)

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs that wrote here: number, start (UTC) and provenance."""
        with self._told():
            rows = self._connection.execute("SELECT run, started, provenance FROM runs").fetchall()
        return [{"run": run, "started": started, **json.loads(text)} for run, started, text in rows]

    def rows(self, status: str | None = None) -> list[Row]:
        """Return the cells, those of one status or all, in the order in which they were planned."""
        with self._told():
            found = self._connection.execute(
                "SELECT cell, status, record, error, seconds FROM cells "
                "WHERE ? IS NULL OR status = ? ORDER BY place, key",
                (status, status),
            ).fetchall()
        return [
            Row(
                json.loads(cell),
                state,
                {} if record is None else json.loads(record),
                error or "",
                float(seconds or 0.0),
            )
            for cell, state, record, error, seconds in found
        ]

    def counts(self) -> dict[str, int]:
        """Return the number of cells of each status."""
        with self._told():
            found = dict(
                self._connection.execute(
                    "SELECT status, COUNT(*) FROM cells GROUP BY status"
                ).fetchall()
            )
        return {name: int(found.get(name, 0)) for name in ("planned", "done", "failed")}

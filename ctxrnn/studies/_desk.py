"""Where cells are computed: what a work function is given, and how its results are told."""

from __future__ import annotations

import errno
import logging
import re
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ctxrnn.studies._cells import Cell, cell_key, cell_text
from ctxrnn.studies._store import Result

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("ctxrnn")

Event = tuple[Any, ...]
"""("group", slot, cells, number), ("step", cell, fraction), ("done", cell, Result),
("failed", cell, text), ("file", name, bytes), ("note", text), ("tick",)."""

Emit = Callable[[Event], None]

_STOPS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class Desk:
    """What the computation of some cells may use beside them.

    Args:
        folder: The study's folder, or one in its place on another machine.
        emit: Where events go.
        remote: Whether files must be sent to the study's folder.
    """

    def __init__(self, folder: Path, emit: Emit, *, remote: bool = False) -> None:
        self.folder, self.emit, self.remote = folder, emit, remote

    def report(self, cell: Cell, fraction: float) -> None:
        """Tell how much of a cell is done, from 0 to 1."""
        self.emit(("step", cell, fraction))

    def note(self, text: str) -> None:
        """Tell the user something in one line."""
        self.emit(("note", text))

    def path(self, name: str) -> Path:
        """Return the path of a file in the folder, whose own folder is made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def keep(self, name: str) -> None:
        """Say that a file written at `path(name)` belongs to the results."""
        if self.remote:
            self.emit(("file", name, (self.folder / name).read_bytes()))


class Work(Protocol):
    """How cells are computed; must be picklable."""

    def __call__(
        self, cells: Sequence[Cell], desk: Desk
    ) -> Iterator[tuple[Cell, Result | Exception]]:
        """Compute cells together; yield each with its result, or its error, once it is done."""

    def unit(self, cell: Cell) -> Hashable:
        """Return what cells share that must be computed by the same process."""

    def shared(self, cell: Cell) -> Hashable:
        """Return what cells share that makes them cheaper together, e.g. their trials."""

    def cost(self, cell: Cell) -> float:
        """Return the time in seconds that a cell takes, of one core, as far as can be told."""


class OneByOne(ABC):
    """The work of cells that are computed one after another, with a clock for each."""

    @abstractmethod
    def compute(self, cell: Cell, desk: Desk) -> Mapping[str, Any]:
        """Return the values and tables of one cell."""

    def __call__(
        self, cells: Sequence[Cell], desk: Desk
    ) -> Iterator[tuple[Cell, Result | Exception]]:
        """Compute the cells; yield each with its result, or its error, once it is done."""
        for cell in cells:
            started = time.process_time()
            try:
                found = self.compute(cell, desk)
                yield cell, as_result(found, seconds=time.process_time() - started)
            except Exception as error:
                if stops(error):
                    raise
                yield cell, error

    def unit(self, cell: Cell) -> Hashable:
        """Every cell is its own."""
        return cell_key(cell)


class EachCell:
    """The work of a function that computes one cell: `function(cell)` -> name -> value.

    Values that are tables (pandas) become tables of their own.

    Args:
        function: The function.
        seconds: Time that a cell takes, or a function of the cell that tells it.
    """

    def __init__(
        self,
        function: Callable[[Cell], Mapping[str, Any]],
        seconds: float | Callable[[Cell], float] = 1.0,
    ) -> None:
        self.function, self.seconds = function, seconds

    def __call__(
        self, cells: Sequence[Cell], desk: Desk
    ) -> Iterator[tuple[Cell, Result | Exception]]:
        """Compute the cells one after another."""
        for cell in cells:
            try:
                measured = self.function(dict(cell))
                result = as_result(measured)
                check_names(measured, cell, "the cell")
                yield cell, result
            except Exception as error:
                if stops(error):
                    raise
                yield cell, error

    def unit(self, cell: Cell) -> Hashable:
        """Every cell is its own."""
        return cell_key(cell)

    def shared(self, cell: Cell) -> Hashable:
        """Cells share nothing; any may be computed together."""
        return None

    def cost(self, cell: Cell) -> float:
        """Return the seconds given."""
        return float(self.seconds(cell) if callable(self.seconds) else self.seconds)


def as_result(measured: Mapping[str, Any], **more: Any) -> Result:
    """Split what a measure returned into values and tables.

    Raises:
        TypeError: If it is not a mapping, or a value is neither a number, a string, a boolean,
            None nor a table of these.
    """
    import pandas as pd

    from ctxrnn._checkpoint import as_json

    if not isinstance(measured, Mapping):
        raise TypeError(
            "a measure must return a mapping of names to numbers, strings and tables: got "
            f"{type(measured).__name__}"
        )
    values: dict[str, Any] = {}
    tables: dict[str, pd.DataFrame] = {}
    for name, value in measured.items():
        if isinstance(value, pd.DataFrame):
            value = _checked_table(str(name), value)
            for column, entries in value.items():
                wrong = next((v for v in entries.tolist() if not _plain(as_json(v))), None)
                if wrong is not None:
                    raise TypeError(
                        f"a measure's table {name!r} must hold numbers (of 64 bits), strings and "
                        f"booleans: column {column!r} holds {_told_value(wrong)}"
                    )
            tables[str(name)] = value
            continue
        plain = as_json(value)
        if not _plain(plain):
            raise TypeError(
                f"a measure's {name!r} must be a number (of 64 bits), string, boolean, None or a "
                f"pandas DataFrame: got {_told_value(value)}"
            )
        values[str(name)] = plain
    return Result(values, tables, **more)


def _plain(value: Any) -> bool:
    """Tell whether a value can stand in a record and in a table's cell."""
    if isinstance(value, int) and not isinstance(value, bool):
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, str | bool | float)


def _told_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int) else type(value).__name__


RESERVED = frozenset({"cells", "failures", "records", "settings", "provenance", "findings"})
"""Names of tables that a study writes itself."""


def _checked_table(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return a measure's table with its named index as columns; refuse what would be lost."""
    if name in RESERVED or not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(
            f"a measure's table must be named by letters, digits, '_' and '-', and not like a "
            f"table of the study ({', '.join(sorted(RESERVED))}): got {name!r}"
        )
    if any(part is not None for part in table.index.names):
        table = table.reset_index()
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise ValueError(f"columns of a measure's table must differ: {name!r} has {twice!r} twice")
    return table


def check_names(measured: Mapping[str, Any], taken: Iterable[str], whose: str) -> None:
    """Raise ValueError if a measure returns a name that is taken."""
    clash = sorted(set(map(str, measured)) & set(taken))
    if clash:
        raise ValueError(
            f"a measure must return names of its own: {', '.join(clash)} belongs to {whose}"
        )


def stops(error: BaseException) -> bool:
    """Tell whether an error concerns the whole study, such as a full disk, not one cell."""
    return isinstance(error, OSError) and error.errno in _STOPS


def told(error: BaseException) -> str:
    """Return an error's line, and its traceback below."""
    line = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return line + "\n" + "".join(traceback.format_exception(error))


def run_group(work: Work, cells: Sequence[Cell], desk: Desk) -> None:
    """Compute cells together and emit what becomes of each; after an error, one by one.

    Raises:
        OSError: If the disk is full or cannot be written; what was emitted stays.
        KeyboardInterrupt: If the work was interrupted.
    """
    left = {cell_key(cell): cell for cell in cells}
    for cell, outcome in _outcomes(work, cells, desk):
        if cell is None:
            _one_by_one(work, list(left.values()), desk, outcome)
            return
        del left[cell_key(cell)]
        if isinstance(outcome, Result):
            desk.emit(("done", cell, outcome))
        else:
            desk.emit(("failed", cell, told(outcome)))
    for cell in left.values():
        desk.emit(("failed", cell, "RuntimeError: the work gave no result for this cell"))


def _outcomes(
    work: Work, cells: Sequence[Cell], desk: Desk
) -> Iterator[tuple[Cell | None, Result | Exception]]:
    """Yield what the work yields, and without a cell the error that ended it.

    An error of the one who takes the results, such as a full disk, is none of the work.
    """
    left = {cell_key(cell) for cell in cells}
    try:
        for cell, outcome in work(cells, desk):
            if cell_key(cell) not in left:
                raise RuntimeError(f"{cell_text(cell)} was not asked for, or came twice")
            left.remove(cell_key(cell))
            yield cell, outcome
    except Exception as error:
        if stops(error):
            raise
        yield None, error


def _one_by_one(work: Work, left: Sequence[Cell], desk: Desk, error: Result | Exception) -> None:
    """Go on after an error of the work as a whole, which is the last cell's own."""
    text = told(error) if isinstance(error, Exception) else ""
    if len(left) == 1:
        desk.emit(("failed", left[0], text))
        return
    if left:
        desk.note(f"{text.splitlines()[0]}; {len(left)} cells go on one by one")
    for cell in left:
        run_group(work, [cell], desk)

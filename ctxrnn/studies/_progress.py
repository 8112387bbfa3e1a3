"""Progress of a study: time left, a line per worker, and lines for a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from ctxrnn.studies._cells import Cell, cell_key, cell_text
from ctxrnn.studies._desk import Event

logger = logging.getLogger("ctxrnn")

_EVERY = 60.0
"""Seconds between lines where there is no terminal."""


class Progress:
    """Shows how far a study is.

    On a terminal: one bar with the time left by the cost of what is done, and one line for each
    worker. Elsewhere: a line each minute.

    Args:
        name: Name of the study.
        weights: Cost of each missing cell, by its key.
        cells: Number of all cells known so far.
        finished: How many of them were finished before.
        groups: Number of groups.
        slots: Number of workers.
        show: Whether to show anything; None shows bars on a terminal.
    """

    def __init__(
        self,
        name: str,
        weights: dict[str, float],
        *,
        cells: int,
        finished: int,
        groups: int,
        slots: int,
        show: bool | None,
    ) -> None:
        self.name, self.weights, self.cells, self.finished = name, weights, cells, finished
        self.groups, self.show, self.failed = groups, show, 0
        self.fractions: dict[str, float] = {}
        self.current: dict[int, tuple[int, Sequence[Cell]]] = {}
        self.total = sum(weights.values()) or 1.0
        self.started = self.told = time.monotonic()
        self.quiet = show is False
        hidden = None if show is None else not show
        self.bar = tqdm(
            total=1.0,
            disable=hidden,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left",
            smoothing=0.05,
        )
        bars = 0 if self.bar.disable else slots
        self.rows = [
            tqdm(total=0, position=1 + slot, bar_format="{desc}", leave=False)
            for slot in range(bars)
        ]
        self._describe()

    def _describe(self) -> None:
        failed = f", {self.failed} failed" if self.failed else ""
        self.bar.set_description_str(f"{self.name}: {self.finished} of {self.cells} cells{failed}")

    @property
    def done(self) -> float:
        """Fraction of the cost that is done."""
        return sum(self.weights.get(k, 0.0) * f for k, f in self.fractions.items()) / self.total

    def take(self, event: Event) -> None:
        """Take notice of an event."""
        kind = event[0]
        if kind == "group":
            _, slot, cells, number = event
            self.current[slot] = (number, cells)
            self._line(slot)
        elif kind == "step":
            key = cell_key(event[1])
            self.fractions[key] = max(self.fractions.get(key, 0.0), event[2])
        elif kind == "tick":
            for slot in self.current:
                self._line(slot)
        elif kind in ("done", "failed"):
            self.fractions[cell_key(event[1])] = 1.0
            if kind == "done":
                self.finished += 1
            else:
                self.failed += 1
                self.say(f"failed: {cell_text(event[1])}: {event[2].splitlines()[0]}")
            self._describe()
        elif kind == "note":
            self.say(event[1])
        self._advance()

    def _advance(self) -> None:
        done = self.done
        self.bar.update(max(0.0, min(done, 1.0) - self.bar.n))
        now = time.monotonic()
        if self.bar.disable and not self.quiet and now - self.told >= _EVERY:
            self.told = now
            left = (now - self.started) * (1 - done) / done if done else float("nan")
            logger.info(
                "%s: %.0f %% (%d of %d cells), about %s left",
                self.name, 100 * done, self.finished, self.cells, duration(left),
            )  # fmt: skip

    def _line(self, slot: int) -> None:
        """Show what a worker does."""
        if slot >= len(self.rows):
            return
        number, cells = self.current[slot]
        done = [self.fractions.get(cell_key(cell), 0.0) for cell in cells]
        more = ", ..." if len(cells) > 1 else ""
        self.rows[slot].set_description_str(
            f"  worker {slot + 1}: group {number} of {self.groups}, {len(cells)} cells, "
            f"{100 * sum(done) / len(done):.0f} % ({cell_text(cells[0])}{more})"
        )

    def say(self, text: str) -> None:
        """Tell a line beside the bars."""
        if self.quiet:
            logger.debug(text)
        else:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Take the bars away."""
        for row in reversed(self.rows):
            row.close()
        self.bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def duration(seconds: float) -> str:
    """Return a time in words: "40 s", "12 min", "3.5 h"."""
    if seconds != seconds:
        return "an unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

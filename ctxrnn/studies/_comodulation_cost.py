"""How long cells of the studies of comodulation take, as far as can be told beforehand."""

from __future__ import annotations

from ctxrnn.studies._cells import Cell
from ctxrnn.studies._comodulation_settings import ComodulationSettings


def cell_seconds(settings: ComodulationSettings, cell: Cell) -> float:
    """Return seconds of one core (or of the device) for a cell, with its share of stage one."""
    del settings, cell
    return 10.0

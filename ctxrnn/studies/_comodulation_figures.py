"""Figures of the studies of comodulation."""

from __future__ import annotations

from typing import Any

from ctxrnn.studies._comodulation_settings import ComodulationSettings
from ctxrnn.studies._results import Tables


def figures(settings: ComodulationSettings, tables: Tables) -> dict[str, Any]:
    """Draw everything."""
    del settings, tables
    return {}

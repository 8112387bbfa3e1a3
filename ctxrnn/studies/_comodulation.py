"""The studies of stochastic comodulation: from settings to a study."""

from __future__ import annotations

import functools
from typing import Any

from ctxrnn.studies._comodulation_settings import ComodulationSettings, cells_of
from ctxrnn.studies._configured import to_dict
from ctxrnn.studies._results import Tables
from ctxrnn.studies._study import Study


def comodulation(name: str, question: str, settings: ComodulationSettings) -> Study:
    """Return a study of comodulation."""
    from ctxrnn.studies._comodulation_tables import study_findings, study_tables
    from ctxrnn.studies._comodulation_work import Comodulation, check_data

    return Study(
        name=name,
        question=question,
        grid=cells_of(settings),
        work=Comodulation(settings),
        tables=functools.partial(study_tables, settings),
        findings=functools.partial(study_findings, settings),
        figure=functools.partial(_figures, settings),
        settings=_identity(settings),
        ready=functools.partial(check_data, settings),
    )


def _identity(settings: ComodulationSettings) -> dict[str, Any]:
    """Return what a folder must agree in: not where data lie and where it is computed."""
    values = to_dict(settings)
    for name in ("data_dir", "device", "keep_features"):
        del values[name]
    return values


def _figures(settings: ComodulationSettings, tables: Tables) -> dict[str, Any]:
    from ctxrnn.studies._comodulation_figures import figures

    return figures(settings, tables)

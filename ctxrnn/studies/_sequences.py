"""The studies of inferred contexts: from settings to a study."""

from __future__ import annotations

import functools
from typing import Any

from ctxrnn.studies._configured import to_dict
from ctxrnn.studies._results import Tables
from ctxrnn.studies._sequence_settings import SequenceSettings
from ctxrnn.studies._study import Study


def sequences(name: str, question: str, settings: SequenceSettings) -> Study:
    """Return a study of inferred contexts."""
    from ctxrnn.studies._sequence_tables import study_findings, study_tables
    from ctxrnn.studies._sequence_work import SequenceWork, cells_of, check_data

    identity = to_dict(settings)
    for place in ("data_dir", "device"):
        del identity[place]
    return Study(
        name=name,
        question=question,
        grid=cells_of(settings),
        work=SequenceWork(settings),
        tables=functools.partial(study_tables, settings),
        findings=functools.partial(study_findings, settings),
        figure=functools.partial(_figures, settings),
        settings=identity,
        ready=functools.partial(check_data, settings),
    )


def _figures(settings: SequenceSettings, tables: Tables) -> dict[str, Any]:
    from ctxrnn.studies._sequence_figures import figures

    return figures(settings, tables)

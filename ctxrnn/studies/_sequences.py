"""The studies of inferred contexts: from settings to a study."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

from ctxrnn.studies._configured import to_dict
from ctxrnn.studies._results import Tables
from ctxrnn.studies._sequence_settings import SequenceSettings
from ctxrnn.studies._study import Study


def sequences(name: str, question: str, settings: SequenceSettings) -> Study:
    """Return a study of inferred contexts."""
    from ctxrnn.studies._sequence_tables import study_findings, study_tables
    from ctxrnn.studies._sequence_work import SequenceWork, cells_of, check_data

    if settings.data == "file" and settings.data_digest is None:
        settings = dataclasses.replace(settings, data_digest=_digest(settings.data_dir))
    identity = to_dict(settings)
    del identity["device"]
    if settings.data != "file":
        del identity["data_dir"]
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


def _digest(path: str | None) -> str | None:
    """Return the digest of a text, None where there is none: a run will say so."""
    if path is None or not Path(path).is_file():
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _figures(settings: SequenceSettings, tables: Tables) -> dict[str, Any]:
    from ctxrnn.studies._sequence_figures import figures

    return figures(settings, tables)

"""The study that kills.py kills: 24 small networks, each measured twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ctxrnn import TrainConfig
from ctxrnn.studies import NetworkSettings, Study, Trained

MARKS = "CTXRNN_KILLS_MARKS"
"""Environment variable: a folder where a file tells that a worker measures."""
_LEVELS = {"lower": (0.0, 0.25, 0.5), "upper": (0.5, 0.75, 1.0)}


def measure(trained: Trained) -> dict[str, Any]:
    """Measure something that takes a moment, and leave a mark meanwhile."""
    from ctxrnn.analysis import ambiguity_sweep

    mark = Path(os.environ[MARKS]) / str(os.getpid())
    mark.touch()
    table = ambiguity_sweep(
        trained.network,
        trained.tasks,
        levels=_LEVELS[trained.cell["half"]],
        trials=256,
        seed=trained.seed,
    )
    mark.unlink()
    return {"worst": float(table["accuracy"].min()), "ambiguity": table}


study = Study(
    name="kills",
    grid={
        "variant": ["none", "e-add", "s-sym", "es-add-sym"],
        ("order", "seed"): [(0, 0), (1, 1), (2, 2)],
        "tasks": [2, 3],
        "half": ["lower", "upper"],
        "units": [24],
    },
    measure=measure,
    tables=lambda tables: {
        "variants": tables["cells"].groupby("variant", as_index=False)["worst"].mean()
    },
    base=NetworkSettings(
        tasks=("go", "anti", "dm1", "dms"),
        train=TrainConfig(
            steps=400, batch=32, learning_rate=3e-3, evaluate_every=20, evaluation_trials=64,
            target=None,
        ),
        test_trials=64,
    ),
)  # fmt: skip

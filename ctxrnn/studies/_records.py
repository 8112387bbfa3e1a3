"""The records of the main job as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ctxrnn.analysis import ambiguity_curve, lambda_50, robustness_area
from ctxrnn.studies._settings import TWINS, ReproduceSettings, tasks_of


def tables(
    settings: ReproduceSettings, records: Sequence[dict[str, Any]]
) -> dict[str, pd.DataFrame]:
    """Return the records as tables: networks, accuracy, learning, ambiguity."""
    tasks = tasks_of(settings)
    conflicting = [t for pair in TWINS if set(pair) <= set(settings.tasks) for t in pair]
    networks: list[dict[str, Any]] = []
    accuracy: list[dict[str, Any]] = []
    learning: list[dict[str, Any]] = []
    ambiguity: list[pd.DataFrame] = []
    for record in records:
        key = {"variant": record["variant"], "seed": record["number"]}
        relative = dict(tasks.relative(record["accuracy"]))
        normalised = dict(tasks.normalised(record["accuracy"]))
        sweep = pd.DataFrame(record["ambiguity"])
        curve = ambiguity_curve(sweep)
        area = robustness_area(curve["level"], curve["normalised"])
        clean = float(curve["normalised"].iloc[0])
        networks.append(
            {
                **key,
                "units": record["units"],
                "parameters": record["parameters"],
                "relative_mean": sum(relative.values()) / len(relative),
                "relative_min": min(relative.values()),
                "relative_conflicting": (
                    sum(relative[t] for t in conflicting) / len(conflicting)
                    if conflicting
                    else float("nan")
                ),
                "normalised_mean": sum(normalised.values()) / len(normalised),
                "area": area,
                "area_relative": area / clean if clean > 0 else float("nan"),
                "lambda_50": lambda_50(curve["level"], curve["normalised"]),
                "stopped": record["stopped"],
                "kept_step": record["kept_step"],
                "seconds": record["seconds"],
            }
        )
        accuracy.extend(
            {
                **key,
                "task": name,
                "accuracy": value,
                "accuracy_fixation": record["accuracy_fixation"][name],
                "chance": tasks.chance[name],
                "ceiling": tasks.ceiling[name],
                "relative": relative[name],
                "normalised": normalised[name],
            }
            for name, value in record["accuracy"].items()
        )
        learning.extend({**key, **row} for row in record["learning"])
        ambiguity.append(sweep.assign(**key))
    return {
        "networks": pd.DataFrame(networks),
        "accuracy": pd.DataFrame(accuracy),
        "learning": pd.DataFrame(learning),
        "ambiguity": pd.concat(ambiguity, ignore_index=True)[
            ["variant", "seed", "task", "other", "level", "accuracy", "normalised"]
        ],
    }

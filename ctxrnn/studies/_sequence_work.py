"""The work of the studies of inferred contexts: a cell is one trained network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from ctxrnn import derive_seed
from ctxrnn._checkpoint import as_json
from ctxrnn.studies._cells import Cell
from ctxrnn.studies._desk import Desk, OneByOne
from ctxrnn.studies._sequence_data import data_of
from ctxrnn.studies._sequence_measures import measure
from ctxrnn.studies._sequence_models import SequenceModel, count, save_model, sizes
from ctxrnn.studies._sequence_settings import GATES, SequenceSettings, parts_of
from ctxrnn.studies._sequence_training import fit

# Multiply-adds that one core does in a second, by torch's layers and by the compiled loop, and what
# a step costs besides.
_SPEED, _COMPILED = 3.5e10, 6e10
_OVERHEAD = {"rnn": 5e-5, "gru": 1.2e-4, "lstm": 5e-6, "": 1.5e-5, "state": 3e-4}
# Circuits that are no symbol's are laid out for all steps.
_LAID_OUT = 5e-5


def cells_of(settings: SequenceSettings) -> list[Cell]:
    """Return all cells."""
    return [
        {"seed": seed, "reading": reading, "budget": budget, "model": model}
        for seed in range(settings.seeds)
        for reading in settings.readings
        for budget in settings.budgets
        for model in settings.models
    ]


class SequenceWork(OneByOne):
    """The work of the studies.

    Args:
        settings: Of the study.
    """

    def __init__(self, settings: SequenceSettings) -> None:
        self.settings = settings

    def compute(self, cell: Cell, desk: Desk) -> Mapping[str, Any]:
        """Return the values and tables of one cell."""
        return compute(self.settings, cell, desk)

    def shared(self, cell: Cell) -> Hashable:
        """Cells of the same reading share their data."""
        return cell["reading"]

    def cost(self, cell: Cell) -> float:
        """Return the seconds of one core."""
        s = self.settings
        steps = {"text": s.length, "rows": 28, "columns": 28, "permuted-rows": 28}.get(
            str(cell["reading"]), 784
        )
        variant, ending = parts_of(str(cell["model"]))
        kind = variant if variant in GATES else ("state" if ending == "state" else "")
        products = 1.0
        if kind in ("", "state") and variant.startswith(("s", "es")):
            products = 2.0 if s.interpolation == "factor-linear" else 1.0 + s.contexts
        speed = _COMPILED if kind == "" else _SPEED
        update = steps * (3 * s.batch * products * cell["budget"] / speed + _OVERHEAD[kind])
        if not s.text and kind == "":
            update += steps * _LAID_OUT
        rates, final = len(s.rates), min(s.finalists, len(s.rates))
        updates = s.updates * (s.search * rates + (1 - s.search) * final)
        # A third more for evaluations; data and foreign contexts take some seconds.
        return float(update * updates * 1.3 + 5)


def compute(settings: SequenceSettings, cell: Cell, desk: Desk) -> dict[str, Any]:
    """Train and measure a network; the values and tables of one cell."""
    import pandas as pd

    data = data_of(settings, str(cell["reading"]))
    model, seed = str(cell["model"]), int(cell["seed"])
    size = sizes(settings, data.shape, int(cell["budget"]))[model]
    own = derive_seed(seed, "sequences")

    def make() -> SequenceModel:
        return SequenceModel(settings, model, data.shape, size, own)

    fitted = fit(settings, data, make, own, lambda share: desk.report(cell, 0.9 * share))
    values, tables = measure(settings, data, fitted.model, seed)
    name = f"networks/{cell['reading']}-{cell['budget']}-{model.replace(':', '-')}-{seed}"
    notes = {
        "cell": dict(cell), "data": data.facts["data_title"], "rate": fitted.rate,
        "test": values["test"], "labels": data.labels,
    }  # fmt: skip
    path = desk.path(f"{name}.safetensors")
    save_model(fitted.model, path, settings, size, as_json(notes))
    desk.keep(f"{name}.safetensors")
    return {
        "units": size.units,
        "embedding": size.embedding,
        "parameters": count(settings, model, data.shape, size),
        "rate": fitted.rate,
        "updates": fitted.updates,
        "diverged": fitted.updates < settings.updates,
        "validation": fitted.best,
        "metric": data.metric,
        "train_seconds": fitted.seconds,
        "update_seconds": fitted.seconds / fitted.updates,
        **values,
        **data.facts,
        "history": pd.DataFrame(fitted.history),
        **tables,
    }


def check_data(settings: SequenceSettings) -> None:
    """Raise an error that says what is missing, before anything is computed."""
    if settings.device != "cpu":
        from ctxrnn.studies._networks import device_of
        from ctxrnn.studies._plan import NetworkSettings

        device_of(NetworkSettings(device=settings.device))
    for reading in settings.readings:
        data = data_of(settings, reading)
        data.check()
        for budget in settings.budgets:
            sizes(settings, data.shape, budget)

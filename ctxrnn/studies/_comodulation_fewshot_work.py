"""The work of the few-shot study: what a cell is, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from ctxrnn.comodulation import hierarchy as net
from ctxrnn.studies._cells import Cell, cell_key
from ctxrnn.studies._comodulation_fewshot_networks import (
    TUNERS,
    bank_of_patches,
    pretrained,
    task_data,
)
from ctxrnn.studies._comodulation_fewshot_settings import TASKS, FewshotSettings
from ctxrnn.studies._desk import Desk, OneByOne

# Seconds of one core: a step of tuning for each network and mode, a pass over one image.
_STEP = {
    "weights": 3.5e-4,
    "decoder": 6e-5,
    "gain": 1.6e-4,
    "stoch-blank": 1.9e-4,
    "stoch-images": 3.8e-4,
    "stoch-exp": 3.0e-4,
    "stoch-permuted": 1.9e-4,
}
_PASS, _FIRST = 1.8e-5, 6e-5


class FewshotWork(OneByOne):
    """The work of the study; a cell is a pretrained network and a size of the tuning sets.

    Pretrained networks are kept in the folder, so that all sizes start from the same.
    """

    def __init__(self, settings: FewshotSettings) -> None:
        self.settings = settings

    def compute(self, cell: Cell, desk: Desk) -> Mapping[str, Any]:
        """Return the values and tables of one cell."""
        return measure(self.settings, cell, desk)

    def shared(self, cell: Cell) -> Hashable:
        """Cells are not worth computing together."""
        return cell_key(cell)

    def cost(self, cell: Cell) -> float:
        """Return the seconds of one core; pretraining counts for the largest size."""
        s = self.settings
        steps = math.ceil(s.fraction * (cell["samples"] // s.batch))
        held = cell["samples"] - steps * s.batch
        epoch = sum(_STEP[mode] * steps + _PASS * held * (mode != "decoder") for mode in s.modes)
        last = (s.test_images + s.task_images) * _PASS * len(s.modes)
        total = len(TASKS) * (s.epochs * epoch + last)
        if cell["samples"] == max(s.samples):
            trained = s.first_fraction * s.pretrain_images
            rest = s.pretrain_images - trained
            total += s.first_epochs * (_FIRST * trained + _PASS * rest)
        return total

    def memory(self, cell: Cell) -> float:
        """Return the bytes of a worker."""
        s = self.settings
        drives = 2560 * (s.pretrain_images + len(TASKS) * (s.task_images + s.test_images))
        activity = 7840 * (len(TASKS) * cell["samples"] + s.refit_images)
        return 6e8 + 4.0 * (2 * drives + 2 * activity + 3136 * s.pretrain_images)


def measure(settings: FewshotSettings, cell: Cell, desk: Desk) -> Mapping[str, Any]:
    """Tune a pretrained network in every mode and test it; the values and tables of one cell."""
    import pandas as pd

    seed, samples = int(cell["seed"]), int(cell["samples"])
    bank = bank_of_patches()
    flat, first = pretrained(settings, seed, bank, desk)
    data = task_data(settings, seed, samples, bank)
    rows: list[dict[str, Any]] = []
    share = 1 / max(1, len(settings.modes))
    done = 0.0
    for kind, modes in (
        ("weights", [m for m in settings.modes if m == "weights"]),
        ("decoder", [m for m in settings.modes if m == "decoder"]),
        ("couplings", [m for m in settings.modes if m not in ("weights", "decoder")]),
    ):
        if not modes:
            continue
        part = share * len(modes)

        def report(fraction: float, start: float = done, part: float = part) -> None:
            desk.report(cell, start + part * fraction)

        rows += TUNERS[kind](settings, seed, samples, flat, data, modes, report)
        done += part
    return {
        **first,
        "couplings_start": 1.0,
        "compiled": net.compiled(),
        "accuracy": pd.DataFrame(rows),
    }

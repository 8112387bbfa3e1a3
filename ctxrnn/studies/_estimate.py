"""How long a study will take, before it is run."""

from __future__ import annotations

import statistics
import time
from typing import Any

from ctxrnn._checks import check_count
from ctxrnn.studies._cells import Cell
from ctxrnn.studies._progress import duration
from ctxrnn.studies._study import Study, cores


def estimate(study: Study, workers: int | None = None) -> str:
    """Return in words how many cells and networks a study has, and what they cost.

    Args:
        study: The study.
        workers: Workers to reckon with besides this machine's cores; None for 64.

    Raises:
        ValueError: If `workers` is not a positive number.

    Example:
        >>> from ctxrnn.studies import estimate, study
        >>> print(estimate(study("packing", "quick")).splitlines()[0])
        packing: ... networks
    """
    if workers is not None:
        check_count("workers", workers)
    work = study.worker()
    cells = study.cells()
    later = [] if study.foreseen is None else [c for c in study.foreseen() if c not in cells]
    units: dict[Any, list[Cell]] = {}
    for cell in [*cells, *later]:
        units.setdefault(work.unit(cell), []).append(cell)
    speed = machine_speed()
    # Cells of one network cost about what the dearest does, unless the work says that they add up.
    total = sum if getattr(work, "additive", False) else max
    costs = [total(work.cost(cell) for cell in mine) / speed for mine in units.values()]
    seconds, longest = sum(costs), max(costs, default=0.0)
    here, there = cores(), workers or 64
    lines = [
        f"{study.name}: {len(cells)} cells"
        + (f" and about {len(later)} more that follow from their results" if later else "")
        + f", {len(units)} networks",
        f"about {duration(seconds)} of one core like these: "
        + ", ".join(
            f"{duration(max(seconds / number, longest))} on {what}"
            for number, what in ((here, f"the {here} here"), (there, str(there)))
        ),
    ]
    memory = getattr(work, "memory", None)
    if memory is not None and cells:
        most = max(memory(cell) for cell in cells)
        lines.append(f"about {most / 1e9:.1f} GB for each worker")
    return "\n".join(lines)


def machine_speed() -> float:
    """Return the speed of this machine's core relative to the one of the cost model, measured.

    Short trainings are timed by the processor time that they take, which other programs on the
    machine disturb less than the time on the clock; about two seconds.
    """
    from ctxrnn.studies._cost import probe

    ratios = []
    for _ in range(5):
        expected, taken = [], []
        for steps in (10, 110):
            started = time.process_time()
            expected.append(probe(steps))
            taken.append(time.process_time() - started)
        ratios.append((expected[1] - expected[0]) / (taken[1] - taken[0]))
    return statistics.median(ratios)

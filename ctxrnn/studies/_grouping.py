"""Which cells are computed together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ctxrnn.studies._cells import Cell
from ctxrnn.studies._desk import Work

TOGETHER = 24
"""Most units of work in a group."""
ROUNDS = 3
"""A group takes at most this fraction of what each worker has to do, so that none waits long."""


def grouped(work: Work, cells: Sequence[Cell], workers: int) -> list[list[Cell]]:
    """Put cells into groups, the dearest group first.

    Cells of one unit stay together, those that share something (their trials) as far as possible.
    A group holds at most `TOGETHER` units and costs at most a third of each worker's part. The
    result depends on the cells, their costs and the number of workers alone.

    Args:
        work: How cells are computed.
        cells: The cells, in the order in which they were planned.
        workers: Number of workers.
    """
    units: dict[Hashable, list[Cell]] = {}
    company: dict[Hashable, list[Hashable]] = {}
    for cell in cells:
        unit = work.unit(cell)
        if unit not in units:
            company.setdefault(work.shared(cell), []).append(unit)
        units.setdefault(unit, []).append(cell)
    # Cells of one unit share its main cost, so that the dearest of them stands for all.
    cost = {unit: max(work.cost(cell) for cell in mine) for unit, mine in units.items()}
    limit = sum(cost.values()) / (workers * ROUNDS)
    groups: list[tuple[float, list[Hashable]]] = []
    for members in company.values():
        groups.extend(_split(members, cost, limit))
    groups.sort(key=lambda group: -group[0])
    return [[cell for unit in members for cell in units[unit]] for _, members in groups]


def _split(
    members: Sequence[Hashable], cost: dict[Hashable, float], limit: float
) -> list[tuple[float, list[Hashable]]]:
    """Split units that share something into parts of about equal cost."""
    total = sum(cost[unit] for unit in members)
    count = max(1, -(-len(members) // TOGETHER), round(total / limit) if limit else 1)
    count = min(count, len(members))
    # The dearest first, each to the part that has least: every part is about as dear.
    parts: list[tuple[float, list[int]]] = [(0.0, []) for _ in range(count)]
    for index in sorted(range(len(members)), key=lambda i: -cost[members[i]]):
        free = [i for i, part in enumerate(parts) if len(part[1]) < TOGETHER]
        place = min(free, key=lambda i: parts[i][0])
        parts[place] = (parts[place][0] + cost[members[index]], [*parts[place][1], index])
    return [(total, [members[i] for i in sorted(chosen)]) for total, chosen in parts if chosen]

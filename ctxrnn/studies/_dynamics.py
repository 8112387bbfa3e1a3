"""What contexts do to the dynamics of one trained network: tables for its record."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn import CTRNN
from ctxrnn.analysis import (
    choice_shares,
    compare_subspaces,
    fit_pca,
    participation_ratio,
    state_dependence,
    vector_field,
)
from ctxrnn.studies._analyse_points import kinds_of
from ctxrnn.studies._analyse_view import View
from ctxrnn.studies._desk import stops

if TYPE_CHECKING:
    import pandas as pd

    from ctxrnn.studies._plan import Plan
    from ctxrnn.tasks import TaskSet

Tables = dict[str, "pd.DataFrame"]

FAILED = "dynamics_failed"
"""Value of a record where something could not be computed: what, and why."""


def measure_dynamics(
    network: CTRNN,
    tasks: TaskSet,
    *,
    trials: int,
    starts: int,
    levels: Sequence[float],
    choices: int,
    seed: int,
) -> dict[str, Any]:
    """Measure a network's dynamics in every context, and on the way from one to another.

    Fixed points are those with the fixation cue on and the stimulus off. A part that fails is told
    in the value `FAILED`, and the others are kept.

    Args:
        network: The network; it is not changed.
        tasks: Its tasks; task k has the context e_k.
        trials: Trials per task whose states are visited.
        starts: Starts of the search for fixed points in each context.
        levels: Weights lambda of the twin's context at which choices are measured.
        choices: Fresh trials per task and level.
        seed: Seed of trials and starts.

    Returns:
        Tables by name (`fixed_points`, `trajectories`, `dimensions`, `subspaces`; with contexts
        `state_dependence`, and with twins `branches`, `bifurcations`, `choices`).
    """
    measured: dict[str, Any] = {}
    failed = []
    try:
        view = View(
            network, tasks, trials=trials, starts=starts, pairs=tuple(tasks.twins), seed=seed
        )
    except Exception as error:
        if stops(error):
            raise
        return {FAILED: f"runs: {_told(error)}"}
    parts: list[tuple[str, Callable[[View], Tables]]] = [
        ("fixed points", _fixed_points), ("trajectories", _trajectories), ("spaces", _spaces),
    ]  # fmt: skip
    if view.modulated:
        parts.append(("vector field", _flow))
        if view.pairs:
            parts.append(("continuation", _paths))
            parts.append(("choices", lambda view: _choices(view, levels, choices)))
    for label, part in parts:
        try:
            measured |= part(view)
        except Exception as error:
            if stops(error):
                raise
            failed.append(f"{label}: {_told(error)}")
    return measured | ({FAILED: "; ".join(failed)} if failed else {})


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _fixed_points(view: View) -> Tables:
    points = view.points
    places = view.plane.project(points.x)[:, :2]
    table = points.table()
    tasks = dict(enumerate(view.conditions))
    columns = ["slow", "index", "speed", "count", "frequency", "outlier"]
    found = table[columns].assign(
        pc_1=places[:, 0],
        pc_2=places[:, 1],
        time_constant=table["time_constant"].where(np.isfinite(table["time_constant"])),
    )
    found.insert(0, "task", table["condition"].map(tasks))
    found.insert(1, "kind", kinds_of(points).astype(str))
    return {"fixed_points": found}


def _trajectories(view: View) -> Tables:
    """Return mean trajectories of the tasks of the first pair, of the first two without one."""
    import pandas as pd

    parts = []
    for task in view.pairs[0] if view.pairs else view.names[:2]:
        for number, path in enumerate(view.averages(view.names.index(task))):
            places = view.plane.project(path)[:, :2]
            parts.append(
                pd.DataFrame(
                    {
                        "task": task, "path": number, "step": range(len(path)),
                        "pc_1": places[:, 0], "pc_2": places[:, 1],
                    }
                )
            )  # fmt: skip
    shares = view.plane.ratios
    found = pd.concat(parts, ignore_index=True)
    return {"trajectories": found.assign(share_1=shares[0], share_2=shares[1])}


def _spaces(view: View) -> Tables:
    import pandas as pd

    states: dict[Hashable, Any] = {name: view.visited(k) for k, name in enumerate(view.names)}
    dimensions = pd.DataFrame(
        {
            "task": list(states),
            "participation_ratio": [participation_ratio(x) for x in states.values()],
            "dimensions_90": [len(fit_pca(x).leading(0.9)) for x in states.values()],
        }
    )
    return {"dimensions": dimensions, "subspaces": compare_subspaces(states)}


def _flow(view: View) -> Tables:
    field = vector_field(view.network, view.contexts, view.stimulus)
    states = view.few(np.concatenate([view.visited(k) for k in range(len(view.names))]))
    table = state_dependence(field, states)
    tasks = dict(enumerate(view.names))
    return {
        "state_dependence": table.assign(a=table["a"].map(tasks), b=table["b"].map(tasks)),
    }


def _paths(view: View) -> Tables:
    """Follow stable points, and what they are connected with, between the contexts of twins."""
    tables, events = [], []
    for a, b in view.pairs:
        branches = view.followed(a, b, stable=True)
        pair = {"from": a, "to": b}
        along = branches.table()
        if len(along):
            places = view.plane.project(np.concatenate([branch.x for branch in branches]))
            cut = [not set(branch.ends) <= {"range", "closed"} for branch in branches]
            along = along.assign(
                pc_1=places[:, 0],
                pc_2=places[:, 1],
                cut=along["branch"].map(dict(enumerate(cut))),
            )
        tables.append(along.assign(**pair))
        found = branches.bifurcations()
        if len(found):
            x = np.array([event.x for branch in branches for event in branch.bifurcations])
            places = view.plane.project(x)
            found = found.assign(pc_1=places[:, 0], pc_2=places[:, 1])
        events.append(found.assign(**pair))
    return {"branches": _joined(tables), "bifurcations": _joined(events)}


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join tables, of which those without rows would change the types of columns."""
    import pandas as pd

    full = [table for table in tables if len(table)]
    names = list(max(tables, key=lambda table: len(table.columns)).columns)
    return pd.concat(full, ignore_index=True) if full else pd.DataFrame(columns=names)


def _choices(view: View, levels: Sequence[float], trials: int) -> Tables:
    return {
        "choices": choice_shares(
            view.network, view.tasks, levels=levels, trials=trials, seed=view.seed
        )
    }


# Seconds on one core like that of the cost model: of a start in a context, of a path between two
# contexts, of comparing the spaces of two tasks; at 50 units.
_START, _PATH, _PAIR = 1.1e-3, 0.6, 4e-3


def dynamics_seconds(plan: Plan, *, starts: int, trials: int, levels: int, twins: int) -> float:
    """Return the seconds of `measure_dynamics`.

    Args:
        plan: The network.
        starts: Starts in each context.
        trials: Trials per task and level in which choices are measured.
        levels: Number of levels.
        twins: Pairs of twins among the tasks.
    """
    from ctxrnn.studies._cost import forward_seconds

    count, size = len(plan.tasks), (plan.units / 50) ** 2
    pairs = _PAIR * count * (count - 1)
    if plan.variant == "none":
        return size * (_START * starts + pairs)
    paths = (_PATH * size) * twins
    answered = forward_seconds(plan, 2 * levels * trials * twins)
    return size * (_START * starts * count + pairs) + paths + answered

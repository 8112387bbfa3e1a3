"""What tasks there are."""

from __future__ import annotations

import pandas as pd

from ._factory import task_set


def list_tasks(*, dt: float = 20.0, ring: int = 16, encoding: str = "ring") -> pd.DataFrame:
    """Tabulate the 20 yang19 tasks as `TaskSet.describe` does.

    Args:
        dt: Time step in ms.
        ring: Directions on the ring.
        encoding: "ring" or "vector".

    Returns:
        One row per task, with its sizes, durations in ms, chance and ceiling.

    Example:
        >>> from ctxrnn.tasks import list_tasks
        >>> table = list_tasks(dt=50, ring=8).set_index("name")
        >>> len(table)
        20
        >>> table.loc[["go", "dms"], "chance"].to_dict()  # 1 of 8 directions; match or not
        {'go': 0.125, 'dms': 0.5}
    """
    return task_set("yang19", dt=dt, ring=ring, encoding=encoding).describe()


def neurogym_ids(*, dt: float = 20.0, check: bool = False) -> list[str]:
    """List the other neurogym ids, those outside yang19.

    Args:
        dt: Time step in ms.
        check: Keep only the ids that `task_set` accepts at this time step, by building each.
            Takes about a second.

    Returns:
        Ids that `task_set` takes as names; without `check` it may refuse some.

    Example:
        >>> from ctxrnn.tasks import neurogym_ids, task_set
        >>> "PerceptualDecisionMaking-v0" in neurogym_ids()
        True
        >>> task_set("PerceptualDecisionMaking-v0", dt=50).outputs  # fixate, left, right
        3
    """
    from ._neurogym import known_ids

    ids = [name for name in known_ids() if not name.startswith("yang19.")]
    return [name for name in ids if _usable(name, dt)] if check else ids


def _usable(name: str, dt: float) -> bool:
    try:
        tasks = task_set(name, dt=dt)
        tasks.sample(1, generator=0)
    except Exception:
        # Whatever an environment stumbles over, it cannot be used.
        return False
    # Where fixating is always right, the criterion says nothing.
    return tasks.chance[tasks.names[0]] < 1

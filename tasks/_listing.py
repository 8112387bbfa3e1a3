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
    """
    return task_set("yang19", dt=dt, ring=ring, encoding=encoding).describe()


def neurogym_ids(*, dt: float = 20.0, check: bool = False) -> list[str]:
    """List the other neurogym ids, those outside yang19.

    Args:
        dt: Time step in ms.
        check: Keep only the ids that `task_set` accepts at this time step, by building each.
            Takes about a second.
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

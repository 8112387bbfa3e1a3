"""From the dynamics of single networks to one row per network, path and mechanism."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.analysis import compare_crossings, crossing

if TYPE_CHECKING:
    import pandas as pd

SUMMARIES: Mapping[str, str] = {
    "state_dependence": "state dependence",
    "angle": "angle between tasks (°)",
    "participation_ratio": "participation ratio",
    "stable_points": "stable points per context",
    "bifurcations": "bifurcations per path",
}
"""Columns of `network_summary` -> what they are called."""

_KEYS = ["variant", "seed"]
_PAIR = ["from", "to"]


def network_summary(mine: Mapping[str, pd.DataFrame], contexts: int) -> dict[str, float]:
    """Return one network's dynamics in numbers; NaN where they are not defined, or were not made.

    Args:
        mine: Its tables, from `measure_dynamics`, and its rows of `path_table`.
        contexts: In how many contexts points were sought.
    """
    found = dict.fromkeys([*SUMMARIES, "slow_points", "smooth_paths"], math.nan)

    def mean(table: str, column: str) -> float:
        there = table in mine and len(mine[table])
        return float(mine[table][column].mean()) if there else math.nan

    found["state_dependence"] = mean("state_dependence", "state_dependence")
    found["angle"] = math.degrees(mean("subspaces", "mean"))
    found["participation_ratio"] = mean("dimensions", "participation_ratio")
    if "fixed_points" in mine:
        for kind in ("stable", "slow"):
            count = int((mine["fixed_points"]["kind"] == kind).sum())
            found[f"{kind}_points"] = count / contexts
    if "paths" in mine and len(mine["paths"]):
        counts = mine["paths"]["bifurcations"]
        found["bifurcations"] = float(counts.mean())
        known = counts.dropna()
        found["smooth_paths"] = float((known == 0).mean()) if len(known) else math.nan
    return found


def path_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame | None:
    """Set the crossing of behaviour beside the bifurcations of each path between twins.

    Only bifurcations count at which a stable point is born, lost or turns unstable. Both tasks of
    a pair show the same stimuli: the crossing is the mean of that on trials of the one and of that
    on trials of the other, whose weight is turned round.

    Args:
        tables: `branches`, `bifurcations` and `choices` of all networks.

    Returns:
        One row per network and pair: variant, seed, from, to, crossing_from and crossing_to (on
        trials of either, as the weight of `to`), crossing, bifurcation (the nearest), kind,
        distance, bifurcations (how many; NaN where no stable point was found to begin from), cut
        (branches that ended within the path). None if a table is missing.
    """
    import pandas as pd

    if not {"branches", "bifurcations", "choices"} <= set(tables):
        return None
    rows = []
    for key, choices in tables["choices"].groupby(_KEYS, sort=False):
        network = dict(zip(_KEYS, key, strict=True))
        levels = crossing(choices).set_index(["task", "other"])["level"]
        branches, events = (_of(tables[name], network) for name in ("branches", "bifurcations"))
        for pair in branches[_PAIR].drop_duplicates().to_dict("records"):
            a, b = pair["from"], pair["to"]
            ends = [float(levels[(a, b)]), 1 - float(levels[(b, a)])]
            known = [end for end in ends if not math.isnan(end)]
            where = _of(events, pair)
            where = where[where["index"] == 0]
            star = float(np.mean(known)) if known else math.nan
            row = compare_crossings(where, star, permutations=1).table.iloc[0]
            cut = _of(branches, pair).groupby("branch")["cut"].first().sum()
            rows.append(
                {
                    **network, **pair, "crossing_from": ends[0], "crossing_to": ends[1],
                    **row[["crossing", "bifurcation", "kind", "distance", "bifurcations"]],
                    "cut": int(cut),
                }
            )  # fmt: skip
    return pd.DataFrame(rows) if rows else None


def _of(table: pd.DataFrame, values: Mapping[str, Any]) -> pd.DataFrame:
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def crossing_tests(paths: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Test for each mechanism whether behaviour crosses near bifurcations (`compare_crossings`).

    Crossings are exchanged between the paths of one network.

    Args:
        paths: From `path_table`.
        tables: With `bifurcations`.

    Returns:
        One row per variant: networks, paths, compared, mean_distance, p, exact.
    """
    import pandas as pd

    rows = []
    for variant, mine in paths.groupby("variant", sort=False):
        events = []
        for path in mine.to_dict("records"):
            where = _of(tables["bifurcations"], {k: path[k] for k in (*_KEYS, *_PAIR)})
            events.append(where[where["index"] == 0])
        found = compare_crossings(events, mine["crossing"].to_numpy(float), groups=list(mine.seed))
        rows.append(
            {
                "variant": variant, "networks": mine["seed"].nunique(), "paths": len(mine),
                "compared": found.compared, "mean_distance": found.mean_distance, "p": found.p,
                "exact": found.exact,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)

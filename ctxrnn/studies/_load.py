"""Is robustness to an ambiguous context related to how full a network is?"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn._checks import check_fraction, check_positive, check_rising
from ctxrnn.studies._common import (
    FEWEST,
    PAIR,
    PAPER,
    QUICK,
    SMOKE,
    adjusted_comparisons,
    capacity_sentence,
    capacity_synergies,
    check_arms,
    clusters,
    comparison_table,
    comparisons,
    mixture,
    mixture_seconds,
    network_interval,
    replicates,
    sentence,
)
from ctxrnn.studies._configured import to_dict
from ctxrnn.studies._networks import Trained
from ctxrnn.studies._plan import NetworkSettings, Plan
from ctxrnn.studies._recipes import Recipe
from ctxrnn.studies._results import Tables
from ctxrnn.studies._study import Study

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LoadSettings:
    """Settings of the study `load`.

    Attributes:
        variants: Pathway variants, at equal parameters (M2).
        sizes: N of the e-add network with the same parameters.
        tasks: K, at least 2; the first K of a random order of the pool.
        orders: Random task orders.
        seeds: Networks per order.
        theta: Criterion of the capacity K*(N) on the worst task.
        levels: Weights lambda of another task's context.
        trials: Fresh trials per task in a sweep.
        base: What the networks have in common.
    """

    variants: tuple[str, ...] = ("e-add", "s-sym", "es-add-sym")
    sizes: tuple[int, ...] = (12, 24, 48)
    tasks: tuple[int, ...] = (2, 4, 6, 8, 10)
    orders: int = 5
    seeds: int = 1
    theta: float = 0.9
    levels: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    trials: int = 64
    base: NetworkSettings = QUICK

    def __post_init__(self) -> None:
        check_arms(self.variants, orders=self.orders, seeds=self.seeds, trials=self.trials)
        check_positive("theta", self.theta)
        check_fraction("theta", self.theta)
        check_rising("levels", self.levels, reach=0.5, most=1)
        if not self.sizes or not self.tasks:
            raise ValueError("sizes and tasks must be given: got none")
        if min(self.tasks) < 2 or max(self.tasks) > len(self.base.tasks):
            raise ValueError(
                f"tasks must lie between 2 and {len(self.base.tasks)}, the size of the pool: got "
                f"{list(self.tasks)}"
            )


def load(settings: LoadSettings) -> Study:
    """Return the study."""
    return Study(
        name="load",
        question="Is robustness to an ambiguous context related to how full a network is?",
        grid={
            ("order", "seed"): replicates(settings.orders, settings.seeds),
            "tasks": settings.tasks,
            "variant": settings.variants,
            "size": settings.sizes,
            "matching": ["M2"],
        },
        measure=functools.partial(_measure, levels=settings.levels, trials=settings.trials),
        measure_seconds=functools.partial(_seconds, settings),
        base=settings.base,
        tables=functools.partial(_tables, settings),
        figure=functools.partial(_figure, settings),
        findings=functools.partial(_findings, settings),
        settings=to_dict(settings),
    )


def _seconds(settings: LoadSettings, plan: Plan) -> float:
    return mixture_seconds(plan, len(settings.levels), settings.trials)


def _measure(trained: Trained, levels: Sequence[float], trials: int) -> dict[str, Any]:
    curve, values = mixture(trained, levels, trials)
    return {**values, "ambiguity": curve}


def _tables(settings: LoadSettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Add the load K / K*(N) to every network; relate area to load, and to clean accuracy."""
    from ctxrnn.analysis import capacity

    cells = tables["cells"]
    how: dict[str, Any] = {"units": "size", "groups": clusters(cells), "continuous": True}
    found = capacity(cells, settings.theta, parameters="parameters", **how)
    networks = cells.merge(
        found[["variant", "size", "capacity", "flag"]], on=["variant", "size"], how="left"
    )
    # A capacity outside the range of K is not known, and neither is the load.
    known = networks["flag"] == ""
    networks["load"] = np.where(known, networks["tasks"] / networks["capacity"], np.nan)
    names = {"area": "area A", "area_relative": "A / clean"}
    made = {
        "networks": networks,
        "capacity": found,
        "relation": _relation(networks),
        "adjusted": adjusted_comparisons(networks, names, settings.variants, ["size", "tasks"]),
    }
    compared = comparisons(networks, names, settings.variants, over=["size", "tasks"])
    made |= {"comparisons": comparison_table(compared)}
    gains = capacity_synergies(cells, settings.variants, settings.theta, **how)
    return made | ({"capacity_synergy": gains} if len(gains) else {})


def _relation(networks: pd.DataFrame) -> pd.DataFrame:
    """Relate the area to K within sizes, and compare sizes at equal load.

    At one size K*(N) is a constant, so that a doubling of K is one of the load: alone it cannot
    tell load from K. If the load were all that mattered, sizes would not differ at equal load.
    """
    import pandas as pd

    rows = []
    for variant, part in networks.groupby("variant", sort=False):
        for measure in ("area", "area_relative"):
            sizes = sorted(part.loc[part["load"].notna(), "size"].unique())
            found = {"doubling of K": _slopes(part, measure)}
            found |= {
                f"N = {a} less N = {b}, equal load": _at_equal_load(part, measure, a, b)
                for b, a in itertools.pairwise(sizes)
            }
            for kind, values in found.items():
                interval = network_interval(list(values.values()), _orders(part, values))
                n = len({order for order, _ in values} if clusters(part) else values)
                rows.append(
                    {
                        "variant": variant, "measure": measure, "kind": kind,
                        "change": interval.mean, "low": interval.low, "high": interval.high,
                        "n": n, "claim": interval.excludes_zero and n >= FEWEST,
                    }
                )  # fmt: skip
    names = ["variant", "measure", "kind", "change", "low", "high", "n", "claim"]
    return pd.DataFrame(rows, columns=names)


def _orders(networks: pd.DataFrame, values: Mapping[tuple[int, int], float]) -> list[int] | None:
    return [order for order, _ in values] if clusters(networks) else None


def _slopes(networks: pd.DataFrame, measure: str) -> dict[tuple[int, int], float]:
    """Return the change of a measure with each doubling of K of every replicate, mean over N."""
    found: dict[tuple[int, int], list[float]] = {}
    for key, one in networks.dropna(subset=[measure]).groupby([*PAIR, "size"]):
        if one["tasks"].nunique() >= 3:
            slope = float(np.polyfit(np.log2(one["tasks"]), one[measure], 1)[0])
            found.setdefault(key[:2], []).append(slope)
    return {key: float(np.mean(slopes)) for key, slopes in found.items()}


def _at_equal_load(
    networks: pd.DataFrame, measure: str, a: int, b: int
) -> dict[tuple[int, int], float]:
    """Return the difference of two sizes at equal load of every replicate.

    Measures are interpolated in the logarithm of the load, at the loads of either size that lie
    within the range of both.
    """
    found = {}
    for key, one in networks.dropna(subset=["load", measure]).groupby(PAIR):
        curves = [
            (np.log2(mine["load"].to_numpy()), mine[measure].to_numpy())
            for size in (a, b)
            for mine in [one[one["size"] == size].sort_values("load")]
        ]
        if any(len(x) < 2 for x, _ in curves):
            continue
        low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
        both = np.unique(np.concatenate([x for x, _ in curves]))
        both = both[(both >= low) & (both <= high)]
        if len(both):
            first, second = (np.interp(both, x, y) for x, y in curves)
            found[key] = float(np.mean(first - second))
    return found


def _figure(settings: LoadSettings, tables: Tables) -> Mapping[str, Any]:
    from ctxrnn.studies._study_figures import load_figures

    return load_figures(tables, settings.theta)


def _findings(settings: LoadSettings, tables: Tables) -> Sequence[str]:
    lines = []
    for row in tables["relation"].to_dict("records"):
        end = "" if row["claim"] else "; no claim: the interval includes 0 or replicates are few"
        what = f"with each {row['kind']}" if row["kind"].startswith("doubling") else row["kind"]
        lines.append(
            f"{row['variant']}: {row['measure']}, {what}: {row['change']:+.3f} "
            f"[{row['low']:+.3f}, {row['high']:+.3f}] (n = {row['n']}){end}"
        )
    lines += [
        sentence(row, "at equal clean accuracy within N and K, ")
        for row in tables["adjusted"].to_dict("records")
    ]
    lines += [
        sentence(row, "mean over sizes and K, ") for row in tables["comparisons"].to_dict("records")
    ]
    if "capacity_synergy" in tables:
        lines += [capacity_sentence(row) for row in tables["capacity_synergy"].to_dict("records")]
    return lines


RECIPE = Recipe(
    build=load,
    summary="Robustness to an ambiguous context against load K / K*(N).",
    scales={
        "smoke": LoadSettings(
            sizes=(4, 8), tasks=(2, 3, 4), orders=2, levels=(0.0, 0.25, 0.5), trials=8, base=SMOKE
        ),
        "quick": LoadSettings(theta=0.8),
        "paper": LoadSettings(
            sizes=(16, 32, 64, 128, 256), tasks=(2, 4, 8, 12, 16, 20), orders=10, trials=256,
            base=PAPER,
        ),
    },
)  # fmt: skip

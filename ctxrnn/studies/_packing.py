"""How many tasks fit into N units? f(K, N), K*(N), N*(K) under three matchings."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctxrnn import derive_seed, parameter_count
from ctxrnn._checks import check_fraction, check_positive, unknown_name
from ctxrnn.studies._cells import Cell, cell_key, expand
from ctxrnn.studies._common import (
    PAIR,
    PAPER,
    QUICK,
    SMOKE,
    capacity_sentence,
    capacity_synergies,
    check_arms,
    clusters,
    comparison_table,
    comparisons,
    interval_row,
    network_interval,
    replicate_column,
    replicates,
    sentence,
    with_train,
)
from ctxrnn.studies._configured import to_dict
from ctxrnn.studies._networks import Trained
from ctxrnn.studies._plan import MATCHINGS, NetworkSettings
from ctxrnn.studies._recipes import Recipe
from ctxrnn.studies._results import Tables
from ctxrnn.studies._study import Study

if TYPE_CHECKING:
    import pandas as pd


_FINE = (
    8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256,
)  # fmt: skip


@dataclass(frozen=True)
class PackingSettings:
    """Settings of the study `packing`.

    Attributes:
        variants: Pathway variants.
        sizes: N of the map f(K, N); under M2 the N of the e-add network with the same parameters.
        tasks: K; the tasks are the first K of a random order of the pool.
        orders: Random task orders.
        seeds: Networks per order.
        rates: Learning rates; the better one by the evaluations in training is taken.
        matchings: M1 (same N), M2 (same parameters), M3 (same number of context parameters: each
            pathway of a combination acts on half of the units).
        theta: A task is solved at this fraction of its ceiling.
        thetas: Criteria at which the results are reported besides.
        grid: Sizes that the bisection for N*(K) may try; empty for none.
        bisected: Matchings in which it does.
        guard: Share of the cells that are trained again with twice the steps.
        base: What the networks have in common.
    """

    variants: tuple[str, ...] = ("e-add", "s-sym", "es-add-sym")
    sizes: tuple[int, ...] = (8, 20, 50)
    tasks: tuple[int, ...] = (2, 4, 7, 10)
    orders: int = 5
    seeds: int = 1
    rates: tuple[float, ...] = (3e-3, 1e-2)
    matchings: tuple[str, ...] = MATCHINGS
    theta: float = 0.9
    thetas: tuple[float, ...] = (0.8, 0.9, 0.95)
    grid: tuple[int, ...] = ()
    bisected: tuple[str, ...] = ("M1", "M2")
    guard: float = 0.1
    base: NetworkSettings = QUICK

    def __post_init__(self) -> None:
        check_arms(self.variants, orders=self.orders, seeds=self.seeds)
        check_fraction("guard", self.guard)
        for matching in (*self.matchings, *self.bisected):
            if matching not in MATCHINGS:
                raise unknown_name("matching", matching, MATCHINGS)
        for name in ("theta", *(["thetas"] if self.thetas else [])):
            for value in (self.theta,) if name == "theta" else self.thetas:
                check_positive(name, value)
                check_fraction(name, value)
        if list(self.grid) != sorted({int(size) for size in self.grid}):
            raise ValueError(f"grid must rise: got {list(self.grid)}")
        for name in ("sizes", "tasks", "rates", "matchings"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be given, each once: got {list(values)}")
        if max(self.tasks) > len(self.base.tasks):
            raise ValueError(
                f"tasks must be at most {len(self.base.tasks)}, the size of the pool: got "
                f"{max(self.tasks)}"
            )


def arms(settings: PackingSettings) -> list[tuple[str, str]]:
    """Return (variant, matching) of the networks to train.

    A variant whose context parameters are those of e-add is the same network in all matchings, and
    is trained in the first alone.
    """
    shape = {"units": 16, "inputs": 5, "outputs": 3, "contexts": 4}
    found = []
    for variant in settings.variants:
        alike = parameter_count(variant, **shape) == parameter_count("e-add", **shape)
        for matching in settings.matchings:
            if matching != settings.matchings[0] and alike:
                continue
            if matching == "M3" and not (alike or variant.startswith("es")):
                continue
            found.append((variant, matching))
    return found


def _initial(settings: PackingSettings) -> list[Cell]:
    return expand(
        {
            ("order", "seed"): replicates(settings.orders, settings.seeds),
            "tasks": settings.tasks,
            ("variant", "matching"): arms(settings),
            "size": settings.sizes,
            "learning_rate": settings.rates,
            "budget": [1],
        }
    )


def _cells(settings: PackingSettings, finished: pd.DataFrame) -> list[Cell]:
    """Return the map's cells, the guard's, and those of the bisections as far as they have got."""
    cells = _initial(settings)
    guard = [
        {**cell, "budget": 2}
        for cell in cells
        if derive_seed(settings.base.seed, "guard", cell_key(cell)) % 1000 < 1000 * settings.guard
    ]
    cells += guard
    return cells + _bisection(settings, finished) if settings.grid else cells


_CHAIN = ["order", "seed", "tasks", "variant", "matching"]


def _bisection(settings: PackingSettings, finished: pd.DataFrame) -> list[Cell]:
    """Return the cells of every chain's bisection that have been tried, and the next of each.

    A chain is one task order, seed, K, variant and matching. It goes on once all of its sizes so
    far are finished, so that a study that was interrupted asks for the same cells.
    """
    from ctxrnn.analysis import next_size

    known: dict[Any, dict[int, tuple[float, int]]] = {}
    if len(finished):
        for row in _best(finished[finished["budget"] == 1]).to_dict("records"):
            scores = known.setdefault(tuple(row[name] for name in _CHAIN), {})
            scores[row["size"]] = row["relative_min"], row["rates"]
    cells: list[Cell] = []
    chains = expand(
        {
            ("order", "seed"): replicates(settings.orders, settings.seeds),
            "tasks": settings.tasks,
            ("variant", "matching"): [a for a in arms(settings) if _bisects(settings, *a)],
        }
    )
    for chain in chains:
        tried = known.get(tuple(chain[name] for name in _CHAIN), {})
        extra = [size for size in tried if size not in settings.sizes]
        wanted = {*settings.sizes, *extra}
        if all(tried.get(size, (0.0, 0))[1] == len(settings.rates) for size in wanted):
            following = next_size(
                {n: m for n, (m, _) in tried.items()}, settings.grid, settings.theta
            )
            extra += [] if following is None else [following]
        cells += [
            {**chain, "size": size, "learning_rate": rate, "budget": 1}
            for size in extra
            for rate in settings.rates
        ]
    return cells


def _bisects(settings: PackingSettings, variant: str, matching: str) -> bool:
    """Tell whether an arm is bisected: those trained once stand for all matchings."""
    only = sum(name == variant for name, _ in arms(settings)) == 1
    return only or matching in settings.bisected


def _foreseen(settings: PackingSettings) -> list[Cell]:
    """Return about as many cells as the bisections will add: those of the middle of the grid."""
    between = max(len(settings.grid) // (len(settings.sizes) + 1), 1) if settings.grid else 0
    rounds = math.ceil(math.log2(between + 1)) if between else 0
    new = [size for size in settings.grid if size not in settings.sizes]
    middle = new[len(new) // 2 :][:rounds]
    return (
        expand(
            {
                ("order", "seed"): replicates(settings.orders, settings.seeds),
                "tasks": settings.tasks,
                ("variant", "matching"): [a for a in arms(settings) if _bisects(settings, *a)],
                "size": middle,
                "learning_rate": settings.rates,
                "budget": [1],
            }
        )
        if middle
        else []
    )


def _measure(trained: Trained, most: int) -> dict[str, Any]:
    """Measure how alike the tasks are, in networks with all of them."""
    few = trained.cell["tasks"] < most or trained.cell["tasks"] < 2
    if few or trained.network.variant == "none":
        return {}
    from ctxrnn.analysis import cross_context, effective_number

    similarity = cross_context(trained.network, trained.tasks, trials=64, seed=trained.seed)
    return {"effective_tasks": effective_number(similarity.to_numpy())}


def packing(settings: PackingSettings) -> Study:
    """Return the study."""
    return Study(
        name="packing",
        question="How many tasks fit into N units, with each pathway and with both?",
        grid=functools.partial(_cells, settings),
        measure=functools.partial(_measure, most=max(settings.tasks)),
        base=settings.base,
        tables=functools.partial(_tables, settings),
        figure=functools.partial(_figure, settings),
        findings=functools.partial(_findings, settings),
        foreseen=functools.partial(_foreseen, settings),
        settings=to_dict(settings),
    )


def _tables(settings: PackingSettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Make the tables of the best networks, the map, capacities, sizes, exponents, comparisons."""
    import pandas as pd

    from ctxrnn.analysis import capacity, packing_exponent, size_needed

    cells = tables["cells"].copy()
    thetas = sorted({settings.theta, *settings.thetas})
    for theta in thetas:
        solved = tables["accuracy"].assign(solved=lambda t: t["relative"] >= theta)  # noqa: B023
        axes = [*_CHAIN, "size", "learning_rate", "budget"]
        share = solved.groupby(axes)["solved"].mean().rename(f"solved_{theta:g}")
        cells = cells.merge(share.reset_index(), on=axes)
    plain = cells[cells["budget"] == 1]
    if not len(plain):
        return {}
    arms_table = _expanded(settings, _best(plain))
    made: dict[str, pd.DataFrame] = {"best": arms_table}
    on_map = arms_table[arms_table["size"].isin(settings.sizes)]
    columns = {f"solved_{theta:g}": "median" for theta in thetas}
    made["map"] = (
        on_map.groupby(["matching", "variant", "tasks", "size"], sort=False)
        .agg({"relative_min": "median", **columns, "parameters": "mean", "seed": "size"})
        .rename(columns={"seed": "networks", "relative_min": "m"})
        .reset_index()
    )
    kinds: dict[str, tuple[Any, pd.DataFrame, dict[str, Any]]] = {
        "capacity": (capacity, on_map, {"parameters": "parameters"}),
        "sizes": (size_needed, arms_table, {"continuous": True}),
        "exponents": (packing_exponent, arms_table, {}),
    }
    for name, (function, rows, more) in kinds.items():
        parts = [
            function(part, theta, units="size", groups=clusters(part), **more).assign(
                matching=matching, theta=theta
            )
            for matching, part in rows.groupby("matching", sort=False)
            for theta in thetas
        ]
        made[name] = pd.concat(parts, ignore_index=True)
    if "M2" in settings.matchings:
        same = on_map[on_map["matching"] == "M2"]
        gains = pd.concat(
            capacity_synergies(
                same, settings.variants, theta, units="size", groups=clusters(same)
            ).assign(theta=theta)
            for theta in thetas
        )
        made |= {"capacity_synergy": gains} if len(gains) else {}
    made["areas"] = _areas(settings, on_map)
    made["comparisons"] = _comparisons(settings, on_map)
    if (cells["budget"] == 2).any():
        made |= _guarded(settings, cells)
    return made


def _best(cells: pd.DataFrame) -> pd.DataFrame:
    """Return per network the better of its learning rates, by the evaluations in training."""
    from ctxrnn.analysis import best_rate

    chain = [*_CHAIN, "size"]
    return best_rate(cells, selection="evaluated_min", rate="learning_rate", on=chain)


def _expanded(settings: PackingSettings, best: pd.DataFrame) -> pd.DataFrame:
    """Let variants that were trained once stand in every matching."""
    import pandas as pd

    trained = arms(settings)
    parts = []
    for matching in settings.matchings:
        for variant in settings.variants:
            mine = [m for v, m in trained if v == variant]
            if matching not in mine and len(mine) > 1:
                continue
            source = matching if matching in mine else mine[0]
            rows = best[(best["variant"] == variant) & (best["matching"] == source)]
            parts.append(rows.assign(matching=matching))
    return pd.concat(parts, ignore_index=True)


def _areas(settings: PackingSettings, on_map: pd.DataFrame) -> pd.DataFrame:
    """Measure the packing area of each arm at each K: the mean of f over the sizes in log N."""
    import pandas as pd

    from ctxrnn.analysis import packing_area

    column = f"solved_{settings.theta:g}"
    rows = []
    for labels, part in on_map.groupby(["matching", "variant", "tasks"], sort=False):
        found = {
            key: packing_area(one["size"], one[column])
            for key, one in part.groupby(PAIR)
            if len(one) == len(settings.sizes) > 1
        }
        several = clusters(part) is not None
        orders = [order for order, _ in found] if several else None
        interval = network_interval(list(found.values()), orders)
        rows.append(
            dict(zip(("matching", "variant", "tasks"), labels, strict=True))
            | interval_row("area", interval)
        )
    return pd.DataFrame(rows)


def _comparisons(settings: PackingSettings, on_map: pd.DataFrame) -> pd.DataFrame:
    """Compare the arms: mean over the map of the solved fraction and of the worst task."""
    rows = []
    column = f"solved_{settings.theta:g}"
    names = {column: f"tasks solved at {settings.theta:g}", "relative_min": "worst task"}
    for matching, part in on_map.groupby("matching", sort=False):
        rows += comparisons(
            part, names, settings.variants, over=["size", "tasks"], matching=matching
        )
    return comparison_table(rows, "matching")


def _guarded(settings: PackingSettings, cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Compare cells trained with twice the steps with the same cells trained as all others."""
    import pandas as pd

    from ctxrnn.analysis import optimisation_guard

    axes = [*_CHAIN, "size", "learning_rate"]
    if not cells.duplicated(axes).any():
        return {}
    found = optimisation_guard(
        cells, trials=settings.base.test_trials, on=axes, groups=replicate_column(cells)
    )
    rise = found.rise
    summary = {
        "cells": found.cells,
        "independent": found.independent,
        "rise": rise.mean,
        "rise_low": rise.low,
        "rise_high": rise.high,
        "still_rising": len(found.rising),
        "falling": found.falling,
        "by_chance": found.expected,
    }
    return {"guard": pd.DataFrame([summary]), "still_rising": found.rising}


def _figure(settings: PackingSettings, tables: Tables) -> Mapping[str, Any]:
    from ctxrnn.studies._packing_figures import packing_figures

    return packing_figures(
        tables, settings.theta, settings.matchings, settings.variants, settings.sizes
    )


def _findings(settings: PackingSettings, tables: Tables) -> Sequence[str]:
    lines = [
        f"{settings.orders * settings.seeds} replicates (task orders x seeds), criterion "
        f"{settings.theta:g} of the ceiling on the worst task, better of {len(settings.rates)} "
        "learning rates."
    ]
    if "sizes" not in tables:
        return lines
    trained = set(arms(settings))
    for row in tables["sizes"].to_dict("records"):
        if row["theta"] == settings.theta and (row["variant"], row["matching"]) in trained:
            lines.append(
                f"{row['matching']}, {row['variant']}, K = {row['tasks']}: N* "
                + _size(row)
                + f" (n = {row['replicates']})"
            )
    for row in tables["exponents"].to_dict("records"):
        if (
            row["theta"] == settings.theta
            and (row["variant"], row["matching"]) in trained
            and row["points"] >= 3
        ):
            lines.append(
                f"{row['matching']}, {row['variant']}: N* grows as K^{row['gamma']:.2f} "
                f"[{row['low']:.2f}, {row['high']:.2f}], from {row['points']} K"
            )
    for row in tables["comparisons"].to_dict("records"):
        mine = {row["a"], *(row["b"].removeprefix("best of ").split(", "))}
        if any((variant, row["matching"]) in trained for variant in mine):
            lines.append(sentence(row, f"{row['matching']}, mean over the map, "))
    if "capacity_synergy" in tables:
        gains = tables["capacity_synergy"]
        mine = gains[gains["theta"] == settings.theta]
        lines += [capacity_sentence(row, "M2, ") for row in mine.to_dict("records")]
    if "guard" in tables:
        row = tables["guard"].iloc[0]
        lines.append(
            f"With twice the steps the worst task rises by {row['rise']:+.3f} "
            + (
                f"[{row['rise_low']:+.3f}, {row['rise_high']:+.3f}] "
                if row["rise_low"] == row["rise_low"]
                else "(too few independent networks for an interval) "
            )
            + f"on a sample of "
            f"{int(row['cells'])} networks (n = {int(row['independent'])} independent "
            f"{replicate_column(tables['cells'])}s); {int(row['still_rising'])} of them rise and "
            f"{int(row['falling'])} fall by more than one standard error of the test trials (about "
            f"{row['by_chance']:.0f} each by the chance of those alone). Where it rises, sizes and "
            "capacities here are limits of this training, not of the networks."
        )
    return lines


def _size(row: Mapping[str, Any]) -> str:
    if row["flag"] == "above":
        return f"above {row['size']:.0f}, the largest tried"
    if row["flag"] == "at most":
        return f"at most {row['size']:.0f}, the smallest tried"
    high = "beyond" if row["high"] == math.inf else f"{row['high']:.0f}"
    low = "below" if row["low"] == 0 else f"{row['low']:.0f}"
    return f"{row['size']:.0f} [{low}, {high}]"


RECIPE = Recipe(
    build=packing,
    summary="How many tasks fit: f(K, N), K*(N), N*(K) by bisection, under three matchings.",
    scales={
        "smoke": PackingSettings(
            sizes=(4, 8),
            tasks=(2, 3, 4),
            orders=2,
            rates=(1e-2,),
            grid=(4, 6, 8),
            guard=0.1,
            base=SMOKE,
        ),
        "quick": PackingSettings(
            tasks=(2, 3, 5, 8),
            theta=0.8,
            grid=(8, 12, 16, 20, 28, 36, 50),
            bisected=("M2",),
            base=dataclasses.replace(
                with_train(QUICK, steps=800, evaluation_trials=500), steps_per_task=300
            ),
        ),
        "paper": PackingSettings(
            sizes=(8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256),
            tasks=(2, 4, 6, 8, 10, 12, 16, 20),
            orders=10,
            rates=(1e-3, 3e-3),
            grid=_FINE,
            bisected=("M1", "M2", "M3"),
            base=PAPER,
        ),
    },
)

"""How robust is each pathway to an ambiguous context? Every corruption, on both or one."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn._checks import check_fraction, check_rising, unknown_name
from ctxrnn.studies._common import (
    PAPER,
    QUICK,
    SMOKE,
    adjusted_comparisons,
    check_arms,
    comparison_table,
    comparisons,
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
class _Arm:
    """One corruption as the study measures it: a row of `CORRUPTED`."""

    kind: str
    levels: tuple[float, ...]
    options: Mapping[str, Any] | None = None


_MIX = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_SIGMA = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
CORRUPTED: Mapping[str, _Arm] = {
    "mix2": _Arm("mix2", _MIX),
    "mixU": _Arm("mixU", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)),
    "noise-frozen": _Arm("noise-frozen", _SIGMA),
    "noise-ou": _Arm("noise-ou", _SIGMA),
    "atten": _Arm("atten", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    "window-early": _Arm("window", (0.0, 0.5, 1.0), {"window": "early"}),
    "window-delay": _Arm("window", (0.0, 0.5, 1.0), {"window": "delay"}),
    "window-late": _Arm("window", (0.0, 0.5, 1.0), {"window": "late"}),
    "swap": _Arm("swap", (0.0, 100.0, 200.0, 400.0)),
    "posterior": _Arm("posterior", (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)),
}
"""Corruptions by name; `atten` at level 1 is `drop`."""
MATCHED = "noise matched in effect"


@dataclass(frozen=True)
class AmbiguitySettings:
    """Settings of the study `ambiguity`.

    Attributes:
        variants: Pathway variants, at equal parameters (M2).
        sizes: N of the e-add network with the same parameters.
        orders: Always 1 here: the tasks are the whole pool.
        seeds: Networks per variant and size.
        corruptions: Which corruptions.
        single: Whether combinations are also corrupted in one pathway alone.
        effects: Relative changes of the vector field at which noise is matched in effect, from 0
            on; empty for none.
        criterion: Networks compared have a mean accuracy of at least this fraction of the ceiling.
        trials: Fresh trials per task in a sweep.
        base: What the networks have in common.
    """

    variants: tuple[str, ...] = ("e-add", "s-sym", "s-gate-1", "es-add-sym")
    sizes: tuple[int, ...] = (32, 48, 64)
    orders: int = 1
    seeds: int = 5
    corruptions: tuple[str, ...] = tuple(CORRUPTED)
    single: bool = True
    effects: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4, 0.8)
    criterion: float = 0.9
    trials: int = 48
    base: NetworkSettings = QUICK

    def __post_init__(self) -> None:
        if self.orders != 1:
            raise ValueError(
                f"orders must be 1, since the tasks are the whole pool: got {self.orders}"
            )
        check_arms(self.variants, orders=self.orders, seeds=self.seeds, trials=self.trials)
        check_fraction("criterion", self.criterion)
        if self.effects:
            check_rising("effects", self.effects)
        if not self.corruptions:
            raise ValueError("corruptions must be given: got none")
        for kind in self.corruptions:
            if kind not in CORRUPTED:
                raise unknown_name("corruption", kind, CORRUPTED)
        if len(self.base.tasks) < 2:
            raise ValueError(f"ambiguity needs at least two tasks: got {list(self.base.tasks)}")


def ambiguity(settings: AmbiguitySettings) -> Study:
    """Return the study."""
    return Study(
        name="ambiguity",
        question="How robust is each pathway, and are both together, to an ambiguous context?",
        grid={
            ("order", "seed"): replicates(settings.orders, settings.seeds),
            "size": settings.sizes,
            "variant": settings.variants,
            "matching": ["M2"],
        },
        measure=functools.partial(_measure, settings=settings),
        measure_seconds=functools.partial(_seconds, settings),
        base=settings.base,
        tables=functools.partial(_tables, settings),
        figure=functools.partial(_figure, settings),
        findings=functools.partial(_findings, settings),
        settings=to_dict(settings),
    )


def _pathways(settings: AmbiguitySettings, variant: str) -> list[Any]:
    both = variant.startswith("es") and settings.single
    return ["both", *(["excitability", "synaptic"] if both else [])]


def _seconds(settings: AmbiguitySettings, plan: Plan) -> float:
    from ctxrnn.analysis import CORRUPTIONS
    from ctxrnn.studies._cost import forward_seconds, varying_seconds

    plain = varying = 0
    for name in settings.corruptions:
        arm = CORRUPTED[name]
        what = CORRUPTIONS[arm.kind]
        runs = len(arm.levels) * (len(plan.tasks) - 1 if what.other else 1)
        if what.varies or what.random:
            varying += runs
        else:
            plain += runs
    varying += 2 * len(settings.effects)
    plain += len(_MIX) * 2
    trials = settings.trials * len(plan.tasks)
    sweep = forward_seconds(plan, plain * trials) + varying_seconds(plan, varying * trials)
    return sweep * len(_pathways(settings, plan.variant))


def _measure(trained: Trained, settings: AmbiguitySettings) -> dict[str, Any]:
    """Run every corruption; split the choices; measure noise matched in effect."""
    import pandas as pd

    from ctxrnn.analysis import ambiguity_sweep, choice_shares, crossing, effect_matched_levels

    network, tasks = trained.network, trained.tasks
    run: dict[str, Any] = {"trials": settings.trials, "seed": trained.seed}
    parts: list[pd.DataFrame] = []
    measured: dict[str, Any] = {}
    for pathway in _pathways(settings, trained.cell["variant"]):
        for name in settings.corruptions:
            arm = CORRUPTED[name]
            sweep = ambiguity_sweep(
                network, tasks, levels=arm.levels, pathway=pathway, corruption=arm.kind,
                options=arm.options, **run,
            )  # fmt: skip
            parts.append(_by_level(sweep, name, pathway))
        if settings.effects:
            levels = effect_matched_levels(
                network,
                tasks,
                settings.effects,
                pathway=pathway,
                **run,
            )
            there = np.isfinite(levels)
            reached = [effect for effect, ok in zip(settings.effects, there, strict=True) if ok]
            levels = levels[there]
            sweep = ambiguity_sweep(
                network,
                tasks,
                levels=levels,
                pathway=pathway,
                corruption="noise-frozen",
                **run,
            )
            effects = dict(zip(map(float, levels), reached, strict=True))
            sweep["level"] = sweep["level"].map(effects)
            parts.append(_by_level(sweep, MATCHED, pathway))
    if tasks.twins:
        shares = choice_shares(
            network, tasks, levels=_MIX, trials=4 * settings.trials, seed=trained.seed
        )
        measured["crossings"] = crossing(shares)
        measured["choices"] = shares
    return {**measured, "curves": pd.concat(parts, ignore_index=True)}


def _by_level(sweep: pd.DataFrame, name: str, pathway: str) -> pd.DataFrame:
    """Average a sweep over other tasks and tasks."""
    from ctxrnn.analysis import ambiguity_curve

    curve = ambiguity_curve(sweep)
    return curve.assign(corruption=name, pathway=pathway)


_MEASURES = {
    "mix2_area": "area A, mix2",
    "mix2_area_relative": "A / clean, mix2",
    "mix2_lambda_50": "lambda_50, mix2",
    "noise-frozen_sigma_80": "sigma_80, frozen noise",
    "noise-ou_sigma_80": "sigma_80, OU noise",
    f"{MATCHED}_area_relative": "A / clean, noise matched in effect",
    "atten_area_relative": "A / clean, attenuation",
    "posterior_area_relative": "A / clean, posterior",
    "crossing_slope": "slope of the choice between twins",
}


def _measures(curves: pd.DataFrame, settings: AmbiguitySettings) -> dict[str, float]:
    """Return area, relative area and crossings of one network's curves, corrupted in both."""
    from ctxrnn.analysis import critical_noise, lambda_50, robustness_area

    found: dict[str, float] = {}
    for name, curve in curves.groupby("corruption", sort=False):
        level, p = curve["level"].to_numpy(), curve["normalised"].to_numpy()
        if name == "posterior":
            level = 1 - level
        reach = min(0.5, float(level.max())) if name != "swap" else float(level.max())
        if name == MATCHED:
            # The same range for every network; one that does not reach it has no area.
            reach = max(settings.effects)
        clean = float(p[np.argmin(level)])
        there = len(level) > 1 and float(level.max()) >= reach > 0
        area = robustness_area(level, p, upto=reach) if there else float("nan")
        found[f"{name}_area"] = area
        found[f"{name}_area_relative"] = area / clean if clean > 0 else float("nan")
        if name in ("mix2", "mixU"):
            found[f"{name}_lambda_50"] = _crossed(lambda_50(level, p), level, clean)
        if str(name).startswith("noise-"):
            found[f"{name}_sigma_80"] = _crossed(critical_noise(level, p), level, clean)
        if str(name).startswith("window"):
            found[f"{name}_only"] = float(p[np.argmax(level)])
    return found


def _crossed(crossing: float, level: np.ndarray, clean: float) -> float:
    """Return a crossing, or the largest level where accuracy never fell so far within the levels.

    Leaving such networks out would leave out the most robust ones.
    """
    return float(level.max()) if np.isnan(crossing) and clean > 0 else crossing


_KEYS = ["order", "seed", "size", "variant"]


def _tables(settings: AmbiguitySettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Make one row per network, who passes, comparisons at each size and adjusted ones."""
    import pandas as pd

    cells, curves = tables["cells"], tables["curves"]
    both = curves[curves["pathway"] == "both"]
    rows = []
    for key, part in both.groupby(_KEYS, sort=False):
        rows.append(dict(zip(_KEYS, key, strict=True)) | _measures(part, settings))
    networks = cells.merge(pd.DataFrame(rows), on=_KEYS)
    networks["passes"] = networks["relative_mean"] >= settings.criterion
    made: dict[str, pd.DataFrame] = {}
    if "crossings" in tables:
        # Over a pair and its mirror the crossings average to 0.5 whatever the network does.
        crossings = tables["crossings"].assign(away=lambda t: (t["level"] - 0.5).abs())
        sharp = crossings.groupby(_KEYS, as_index=False)[["away", "slope", "neither"]].mean()
        names = {name: f"crossing_{name}" for name in ("away", "slope", "neither")}
        networks = networks.merge(sharp.rename(columns=names), on=_KEYS, how="left")
        made["twins"] = _twins(crossings, networks)
    passing = networks[networks["passes"]]
    names = {column: name for column, name in _MEASURES.items() if column in networks}
    compared = []
    for size, part in passing.groupby("size", sort=False):
        compared += comparisons(part, names, settings.variants, size=str(size))
    compared += comparisons(passing, names, settings.variants, over=["size"], size="all")
    return made | {
        "networks": networks,
        "passing": networks.groupby(["variant", "size"], sort=False)["passes"]
        .agg(["sum", "size"])
        .reset_index(names=["variant", "N"])
        .rename(columns={"sum": "passing", "size": "networks"}),
        "comparisons": comparison_table(compared, "size"),
        "adjusted": adjusted_comparisons(networks, names, settings.variants, ["size"]),
    }


def _twins(crossings: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """Tell how sharply networks that pass choose between each pair of twins, by variant."""
    import pandas as pd

    rows = []
    passing = networks.loc[networks["passes"], _KEYS]
    mine = crossings.merge(passing, on=_KEYS)
    pairs = mine.assign(
        pair=["-".join(sorted(pair)) for pair in zip(mine["task"], mine["other"], strict=True)]
    )
    for (variant, pair), part in pairs.groupby(["variant", "pair"], sort=False):
        row = {"variant": variant, "pair": pair, "crossings": len(part)}
        row["not_crossed"] = int(part["level"].isna().sum())
        row["flatter_than_blend"] = int((part["slope"] < 1).sum())
        for name in ("slope", "away", "neither"):
            single = part.groupby(["order", "seed"])[name].mean()
            interval = network_interval(single)
            row |= {name: interval.mean, f"{name}_low": interval.low}
            row |= {f"{name}_high": interval.high, "n": interval.count}
        rows.append(row)
    return pd.DataFrame(rows)


def _figure(settings: AmbiguitySettings, tables: Tables) -> Mapping[str, Any]:
    from ctxrnn.studies._ambiguity_figures import ambiguity_figures

    return ambiguity_figures(tables, settings.variants, settings.sizes, MATCHED)


def _findings(settings: AmbiguitySettings, tables: Tables) -> Sequence[str]:
    lines = [
        f"{row['variant']}, N = {row['N']}: {row['passing']} of {row['networks']} networks reach "
        f"{settings.criterion:g} of the ceiling with clean contexts"
        for row in tables["passing"].to_dict("records")
    ]
    for row in tables["comparisons"].to_dict("records"):
        if row["size"] == "all":
            lines.append(sentence(row, "networks that pass, mean over sizes, "))
    for row in tables["adjusted"].to_dict("records"):
        lines.append(sentence(row, "all networks, at equal clean accuracy within sizes, "))
    if "twins" in tables:
        for row in tables["twins"].to_dict("records"):
            lines.append(
                f"{row['variant']}, choice between {row['pair'].replace('-', ' and ')}: "
                + _choice(row)
            )
    return lines


def _choice(row: Mapping[str, Any]) -> str:
    crossed = row["crossings"] - row["not_crossed"]
    if not crossed:
        return f"none of {row['crossings']} curves crosses"
    interval = (
        f" [{row['slope_low']:.2f}, {row['slope_high']:.2f}]"
        if row["slope_low"] == row["slope_low"]
        else ""
    )
    return (
        f"slope {row['slope']:.2f}{interval} per unit of lambda (a blend has 1; "
        f"{row['flatter_than_blend']} of {crossed} crossings are flatter, {row['not_crossed']} "
        f"curves do not cross), {row['away']:.2f} away from 0.5 (n = {row['n']} seeds)"
    )


RECIPE = Recipe(
    build=ambiguity,
    summary="Robustness to an ambiguous context: all corruptions, on both pathways or one.",
    scales={
        "smoke": AmbiguitySettings(
            sizes=(8,), seeds=2, trials=4, criterion=0.0, effects=(0.0, 0.5), base=SMOKE
        ),
        "quick": AmbiguitySettings(),
        "paper": AmbiguitySettings(sizes=(64, 128, 256), seeds=10, trials=256, base=PAPER),
    },
)

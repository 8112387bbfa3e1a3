"""What the studies that come with the package share: their networks, and how they compare arms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn import TrainConfig
from ctxrnn._catalogue import check_variant
from ctxrnn._checks import check_count
from ctxrnn.studies._plan import NetworkSettings

if TYPE_CHECKING:
    import pandas as pd

    from ctxrnn.analysis import Interval
    from ctxrnn.studies._networks import Trained
    from ctxrnn.studies._plan import Plan

TWENTY_TASKS = (
    "go", "rtgo", "dlygo", "anti", "rtanti", "dlyanti", "dm1", "dm2", "ctxdm1", "ctxdm2",
    "multidm", "dlydm1", "dlydm2", "ctxdlydm1", "ctxdlydm2", "multidlydm", "dms", "dnms", "dmc",
    "dnmc",
)  # fmt: skip
PAIR = ["order", "seed"]
"""The columns of which networks of different arms share a value: they are paired."""

SMOKE = NetworkSettings(
    tasks=("go", "anti", "dms", "dnms"),
    train=TrainConfig(
        steps=40, batch=32, learning_rate=3e-3, evaluate_every=20, evaluation_trials=64, target=None
    ),
    test_trials=32,
)
"""Networks that train in a second and learn nothing."""

QUICK = NetworkSettings(
    train=TrainConfig(
        steps=2000, learning_rate=3e-3, evaluate_every=500, evaluation_trials=1000, target=None
    ),
    steps_per_task=600,
)
"""Ten tasks at dt 50 ms and a ring of 8; every arm has the same number of steps."""

PAPER = NetworkSettings(
    tasks=TWENTY_TASKS,
    dt=20.0,
    ring=16,
    train=TrainConfig(steps=2000, learning_rate=2e-3, evaluate_every=1000, evaluation_trials=2000),
    steps_per_task=1000,
)
"""Twenty tasks at dt 20 ms and a ring of 16; steps and criterion of the specification."""


def with_train(base: NetworkSettings, **changes: Any) -> NetworkSettings:
    """Return settings with other training."""
    return dataclasses.replace(base, train=dataclasses.replace(base.train, **changes))


def check_arms(variants: Sequence[str], **counts: int) -> None:
    """Raise ValueError unless variants are known, each once, and counts are positive."""
    for variant in variants:
        check_variant(variant)
    if len(set(variants)) != len(variants) or not variants:
        raise ValueError(f"variants must be given, each once: got {list(variants)}")
    for name, value in counts.items():
        check_count(name, value)


def replicates(orders: int, seeds: int) -> list[tuple[int, int]]:
    """Return (order, seed) of each replicate; every order has seeds of its own."""
    return [(order, seed) for order in range(orders) for seed in range(seeds)]


def parts_of(combined: str, variants: Sequence[str]) -> tuple[str, str] | None:
    """Return the single-pathway variants that a combination is made of, if both are there."""
    name = "es-add-sym" if combined == "es" else combined
    _, first, second = name.split("-", 2)
    parts = (f"e-{first}", f"s-{second}")
    return parts if set(parts) <= set(variants) else None


def mixture(
    trained: Trained, levels: Sequence[float], trials: int, pathway: Any = "both"
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Measure a network while its contexts are mixed with another task's (`mix2`).

    Returns:
        The curve (pathway, level, accuracy, normalised), averaged over other tasks and tasks; and
        area, area relative to the clean accuracy, lambda_50.
    """
    from ctxrnn.analysis import ambiguity_curve, ambiguity_sweep, lambda_50, robustness_area

    sweep = ambiguity_sweep(
        trained.network,
        trained.tasks,
        levels=levels,
        trials=trials,
        seed=trained.seed,
        pathway=pathway,
    )
    curve = ambiguity_curve(sweep)
    area = robustness_area(curve["level"], curve["normalised"])
    clean = float(curve["normalised"].iloc[0])
    curve.insert(0, "pathway", pathway)
    return curve, {
        "area": area,
        "area_relative": area / clean if clean > 0 else float("nan"),
        "lambda_50": lambda_50(curve["level"], curve["normalised"]),
    }


def mixture_seconds(plan: Plan, levels: int, trials: int, sweeps: int = 1) -> float:
    """Return the seconds that `mixture` takes, by the cost model."""
    from ctxrnn.studies._cost import forward_seconds

    pairs = len(plan.tasks) * (len(plan.tasks) - 1)
    return sweeps * forward_seconds(plan, levels * trials * pairs)


def interval_row(prefix: str, interval: Any) -> dict[str, Any]:
    """Return an interval as columns."""
    return {
        prefix: interval.mean,
        f"{prefix}_low": interval.low,
        f"{prefix}_high": interval.high,
        "n": interval.count,
    }


FEWEST = 5
"""Fewest independent pairs of which anything is claimed."""
_COLUMNS = (
    "measure", "kind", "a", "b", "difference", "difference_low", "difference_high", "n",
    "effect_size", "p", "left_out", "claim", "conditions_left_out",
)  # fmt: skip


def network_interval(values: Sequence[float] | np.ndarray, groups: Any = None) -> Interval:
    """Return Student's t interval of a mean over networks, as the figures draw it.

    Values that are NaN are left out.

    Args:
        values: One value per network.
        groups: Group of each value, e.g. its task order, where orders have several seeds.
    """
    from ctxrnn.analysis import Interval, mean_interval

    known = np.asarray(values, dtype=float)
    there = np.isfinite(known)
    if not there.any():
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0.95)
    return mean_interval(known[there], groups=None if groups is None else np.asarray(groups)[there])


def clusters(table: pd.DataFrame) -> str | None:
    """Return the column whose values are independent: the order, if some have several seeds."""
    pairs = table[PAIR].drop_duplicates()
    orders = pairs["order"].nunique()
    return "order" if 1 < orders < len(pairs) else None


def replicate_column(table: pd.DataFrame) -> str:
    """Return the column whose values are independent in a table of several rows per replicate."""
    return "order" if table["order"].nunique() > 1 else "seed"


def averaged(
    table: pd.DataFrame, value: str, over: Sequence[str], arms: Sequence[str]
) -> tuple[pd.DataFrame, int]:
    """Average each network's value over the conditions that all compared arms of its pair have.

    A value that is NaN in one of them makes the average NaN, so that the pair is left out.

    Args:
        table: One row per network and condition.
        value: Column to average.
        over: Columns that make a condition, e.g. size and tasks.
        arms: Variants that are compared.

    Returns:
        One row per network, and how many conditions of a pair some arms have and others lack.
    """
    mine = table[table["variant"].isin(arms)]
    counts = mine.groupby([*PAIR, *over])["variant"].transform("nunique")
    partial = mine.loc[counts < len(arms), [*PAIR, *over]].drop_duplicates()
    grouped = mine[counts == len(arms)].groupby([*PAIR, "variant"], sort=False)[[value]]
    return grouped.agg(lambda part: part.mean(skipna=False)).reset_index(), len(partial)


def comparison_row(found: Any, **labels: Any) -> dict[str, Any]:
    """Return a paired difference, an adjusted one or a synergy as a row of a table.

    Args:
        found: The result; None if no pair is complete.
        labels: Columns to add.
    """
    from ctxrnn.analysis import Interval, Paired

    if found is None:
        nothing = float("nan")
        found = Paired(Interval(nothing, nothing, nothing, 0, 0.95), nothing, nothing, 0, 0)
    interval = getattr(found, "difference", None) or found.synergy
    return {
        **labels,
        **interval_row("difference", interval),
        "n": found.independent,
        "effect_size": getattr(found, "effect_size", float("nan")),
        "p": getattr(found, "p", float("nan")),
        "left_out": len(found.left_out),
        "claim": bool(found.claim and found.independent >= FEWEST),
        "conditions_left_out": 0,
    }


def comparison_table(rows: Sequence[Mapping[str, Any]], *labels: str) -> pd.DataFrame:
    """Return rows of comparisons as a table that has its columns even without a row."""
    import pandas as pd

    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*labels, *_COLUMNS])


def comparisons(
    table: pd.DataFrame,
    values: Mapping[str, str],
    variants: Sequence[str],
    over: Sequence[str] = (),
    **labels: Any,
) -> list[dict[str, Any]]:
    """Compare all pairs of arms, and combinations with the better of their parts (synergy).

    Pairs of which one side is missing or NaN are left out and counted. Task orders that have
    several seeds are drawn as groups.

    Args:
        table: One row per network (and condition), with columns variant, order and seed.
        values: Column -> its name in words.
        variants: Arms in order; the first of a pair is the later one.
        over: Columns that make a condition, to average over; see `averaged`.
        labels: Columns to add.
    """
    from ctxrnn.analysis import paired, synergy

    if not len(table):
        return []
    arms = [variant for variant in variants if (table["variant"] == variant).any()]
    compared: list[tuple[str, ...]] = [
        (a, b) for place, b in enumerate(arms) for a in arms[place + 1 :]
    ]
    triples = [(a, parts_of(a, arms)) for a in arms if a.startswith("es")]
    compared += [(a, *parts) for a, parts in triples if parts is not None]
    rows: list[dict[str, Any]] = []
    for column, name in values.items():
        for a, *others in compared:
            mine, partial = table, 0
            if over:
                mine, partial = averaged(table, column, over, (a, *others))
            options: dict[str, Any] = {"on": PAIR, "groups": clusters(table)}
            kind, b = "paired", others[0]
            try:
                if len(others) == 1:
                    found: Any = paired(mine, column, a=a, b=b, **options)
                else:
                    kind, b = "synergy", f"best of {', '.join(others)}"
                    parts = (others[0], others[1])
                    found = synergy(mine, column, combined=a, single=parts, **options)
            except ValueError:  # no pair is complete, or none has a condition that both share
                found = None
            row = comparison_row(found, **labels, measure=name, kind=kind, a=a, b=b)
            rows.append(row | {"conditions_left_out": partial})
    return rows


def adjusted_comparisons(
    networks: pd.DataFrame,
    values: Mapping[str, str],
    variants: Sequence[str],
    conditions: Sequence[str],
    covariate: str = "normalised_mean",
) -> pd.DataFrame:
    """Compare all pairs of arms at equal clean accuracy, by regression within conditions.

    Args:
        networks: One row per network, with the covariate.
        values: Column -> its name in words.
        variants: Arms in order; the first of a pair is the later one.
        conditions: Columns that move values and covariate together, e.g. size and tasks: each
            combination has a constant of its own.
        covariate: Column of the clean accuracy.
    """
    from ctxrnn.analysis import adjusted_difference

    table = networks.assign(
        condition=list(zip(*(networks[name] for name in conditions), strict=True))
    )
    groups = replicate_column(table)
    rows = []
    for column, name in values.items():
        for place, b in enumerate(variants):
            for a in variants[place + 1 :]:
                usable = table[table["variant"].isin([a, b]) & table[column].notna()]
                try:
                    found = adjusted_difference(
                        usable, column, covariate, a=a, b=b, on=[*PAIR, "condition"],
                        groups=groups, strata="condition",
                    )  # fmt: skip
                except ValueError:  # too few complete pairs, or no spread
                    continue
                row = comparison_row(found, measure=name, kind="paired", a=a, b=b)
                row |= {"slope": found.slope.mean, "slope_low": found.slope.low}
                rows.append(row | {"slope_high": found.slope.high, "gap": found.covariate_gap})
    return comparison_table(rows, "slope", "slope_low", "slope_high", "gap")


def capacity_synergies(
    table: pd.DataFrame, variants: Sequence[str], theta: float, **how: Any
) -> pd.DataFrame:
    """Measure synergy in K* for every combination whose parts are there, at every size.

    Args:
        table: One row per network, at equal parameter count.
        variants: Arms in order.
        theta: Criterion.
        how: Options of `ctxrnn.analysis.capacity_synergy`.
    """
    import pandas as pd

    from ctxrnn.analysis import capacity_synergy

    parts = []
    for combined in variants:
        single = parts_of(combined, variants) if combined.startswith("es") else None
        if single is None:
            continue
        try:
            found = capacity_synergy(table, theta, combined=combined, single=single, **how)
        except ValueError:  # an arm is not there yet
            continue
        found.insert(0, "combined", combined)
        parts.append(found)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def capacity_sentence(row: Mapping[str, Any], where: str = "") -> str:
    """Return synergy in K* as a sentence that claims nothing where it is not known."""
    head = f"{where}{row['combined']}, N = {row['size']}, K*: S "
    if row["flag"] == "unknown":
        return f"{head}is not known: K* lies outside the range of K"
    bound = f"{row['flag']} " if row["flag"] else ""
    interval = f"{bound}{row['synergy']:+.2f}"
    if row["low"] == row["low"]:
        ends = ("unknown" if np.isinf(e) else f"{e:+.2f}" for e in (row["low"], row["high"]))
        interval += f" [{', '.join(ends)}]"
    end = "" if row["claim"] else "; no claim of synergy"
    return f"{head}{interval} tasks, K* interpolated (n = {row['independent']}){end}"


def sentence(row: Mapping[str, Any], where: str = "") -> str:
    """Return a comparison as a sentence that claims nothing where the interval includes 0."""
    interval = f"{row['difference']:+.3f}"
    end = "; no claim: too few pairs for an interval"
    if row["difference_low"] == row["difference_low"]:
        interval += f" [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
        end = "" if row["claim"] else "; no claim: the interval includes 0 or the pairs are too few"
    if row["kind"] == "synergy" and row["difference_high"] < 0 and row["n"] >= FEWEST:
        end = "; below 0 (S errs downwards: see the difference from the better part)"
    left_out = ""
    if row.get("conditions_left_out"):
        left_out = (
            f"; {row['conditions_left_out']} conditions that not all of them have are left out"
        )
    if not row["n"]:
        what = f"{row['measure']}: {row['a']} against {row['b']}"
        return f"{where}{what}: no pair is complete{left_out}"
    effect = f", d_z = {row['effect_size']:.2f}" if row["effect_size"] == row["effect_size"] else ""
    kind = "S" if row["kind"] == "synergy" else row["measure"]
    against = f"{row['a']} against {row['b']}"
    named = f"{row['measure']}: {against}" if row["kind"] == "synergy" else against
    return f"{where}{named}: {kind} {interval} (n = {row['n']}{effect}){end}{left_out}"

"""What the studies that come with the package share: their networks, and how they compare arms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctxrnn import TrainConfig
from ctxrnn._catalogue import check_variant
from ctxrnn._checks import check_count
from ctxrnn.studies._networks import NetworkSettings

if TYPE_CHECKING:
    import pandas as pd

    from ctxrnn.studies._networks import Plan, Trained

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


def comparison_row(found: Any, **labels: Any) -> dict[str, Any]:
    """Return a paired difference, an adjusted one or a synergy as a row of a table."""
    interval = getattr(found, "difference", None) or found.synergy
    return {
        **labels,
        **interval_row("difference", interval),
        "effect_size": getattr(found, "effect_size", float("nan")),
        "p": getattr(found, "p", float("nan")),
        "left_out": len(found.left_out),
        "claim": bool(found.claim),
    }


def comparisons(
    table: pd.DataFrame, values: Mapping[str, str], variants: Sequence[str], **labels: Any
) -> list[dict[str, Any]]:
    """Compare all pairs of arms, and combinations with the better of their parts (synergy).

    Args:
        table: One row per network, with columns variant, order and seed.
        values: Column -> its name in words.
        variants: Arms in order; the first of a pair is the later one.
        labels: Columns to add.
    """
    from ctxrnn.analysis import paired, synergy

    rows: list[dict[str, Any]] = []
    there = [variant for variant in variants if (table["variant"] == variant).any()]
    for column, name in values.items():
        usable = table[table[column].notna()]
        arms = [variant for variant in there if (usable["variant"] == variant).any()]
        for place, b in enumerate(arms):
            for a in arms[place + 1 :]:
                try:
                    found = paired(usable, column, a=a, b=b, on=PAIR)
                except ValueError:  # no pair is complete
                    continue
                rows.append(comparison_row(found, **labels, measure=name, kind="paired", a=a, b=b))
        for a in arms:
            parts = parts_of(a, arms) if a.startswith("es") else None
            if parts is None:
                continue
            try:
                gain = synergy(usable, column, combined=a, single=parts, on=PAIR)
            except ValueError:
                continue
            best = f"best of {parts[0]}, {parts[1]}"
            rows.append(comparison_row(gain, **labels, measure=name, kind="synergy", a=a, b=best))
    return rows


def sentence(row: Mapping[str, Any], where: str = "") -> str:
    """Return a comparison as a sentence that claims nothing where the interval includes 0."""
    interval = (
        f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
    )
    end = "" if row["claim"] else "; no claim: the interval includes 0 or the pairs are too few"
    if row["kind"] == "synergy" and row["difference_high"] < 0:
        end = "; below 0: the combination is worse than its better part"
    effect = f", d_z = {row['effect_size']:.2f}" if row["effect_size"] == row["effect_size"] else ""
    kind = "S" if row["kind"] == "synergy" else row["measure"]
    against = f"{row['a']} against {row['b']}"
    named = f"{row['measure']}: {against}" if row["kind"] == "synergy" else against
    return f"{where}{named}: {kind} {interval} (n = {row['n']}{effect}){end}"

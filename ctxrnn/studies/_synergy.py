"""Do the two pathways help each other? Synergy at equal parameters, and what each contributes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctxrnn._checks import check_rising, unknown_name
from ctxrnn.studies._cells import Cell
from ctxrnn.studies._common import (
    FEWEST,
    PAPER,
    QUICK,
    SMOKE,
    check_arms,
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

ARMS: Mapping[str, Mapping[str, Any]] = {
    "clean": {},
    "ambiguous": {"training": "ambiguous"},
    "weak-e": {"sd_e": 0.1},
    "weak-s": {"sd_s": 0.05},
}
"""How networks are trained: as usual; with mixed contexts; with one pathway that starts weak (in
combinations alone)."""


@dataclass(frozen=True)
class SynergySettings:
    """Settings of the study `synergy`.

    Attributes:
        variants: Pathway variants, at equal parameters (M2); combinations and their parts.
        sizes: N of the e-add network with the same parameters; the smaller, the higher the load.
        arms: "clean", "ambiguous", "weak-e", "weak-s".
        orders: Always 1 here: the tasks are the whole pool.
        seeds: Networks per variant, size and arm.
        levels: Weights lambda of another task's context.
        trials: Fresh trials per task in a sweep.
        base: What the networks have in common.
    """

    variants: tuple[str, ...] = ("e-add", "s-sym", "es-add-sym")
    sizes: tuple[int, ...] = (24, 48)
    arms: tuple[str, ...] = tuple(ARMS)
    orders: int = 1
    seeds: int = 5
    levels: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    trials: int = 64
    base: NetworkSettings = QUICK

    def __post_init__(self) -> None:
        if self.orders != 1:
            raise ValueError(
                f"orders must be 1, since the tasks are the whole pool: got {self.orders}"
            )
        check_arms(self.variants, orders=self.orders, seeds=self.seeds, trials=self.trials)
        check_rising("levels", self.levels, reach=0.5, most=1)
        for arm in self.arms:
            if arm not in ARMS:
                raise unknown_name("arm", arm, ARMS)
        if "clean" not in self.arms:
            raise ValueError(f"arms must include clean: got {list(self.arms)}")


def _cells(settings: SynergySettings) -> list[Cell]:
    keys = ("training", "sd_e", "sd_s")
    return [
        {
            "order": order, "seed": seed, "size": size, "arm": arm, "variant": variant,
            "matching": "M2", **{key: ARMS[arm].get(key) for key in keys},
        }
        for order, seed in replicates(settings.orders, settings.seeds)
        for arm in settings.arms
        for size in settings.sizes
        for variant in settings.variants
        if variant.startswith("es") or not arm.startswith("weak")
    ]  # fmt: skip


def synergy(settings: SynergySettings) -> Study:
    """Return the study."""
    return Study(
        name="synergy",
        question="Do excitability and synapses together do better than the better of them alone, "
        "at equal parameters?",
        grid=_cells(settings),
        measure=functools.partial(_measure, levels=settings.levels, trials=settings.trials),
        measure_seconds=functools.partial(_seconds, settings),
        base=settings.base,
        tables=functools.partial(_tables, settings),
        figure=functools.partial(_figure, settings),
        findings=functools.partial(_findings, settings),
        settings=to_dict(settings),
    )


def _seconds(settings: SynergySettings, plan: Plan) -> float:
    sweeps = 5 if plan.variant.startswith("es") else 1
    return mixture_seconds(plan, len(settings.levels), settings.trials, sweeps)


def _measure(trained: Trained, levels: Sequence[float], trials: int) -> dict[str, Any]:
    """Measure area; in combinations also with one pathway corrupted, frozen, or in conflict."""
    import pandas as pd

    from ctxrnn.analysis import conflicting_contexts, frozen_pathway

    curve, values = mixture(trained, levels, trials)
    measured: dict[str, Any] = {**values}
    curves = [curve]
    if trained.cell["variant"].startswith("es"):
        run = {"trials": trials, "seed": trained.seed}
        for pathway, letter in (("excitability", "e"), ("synaptic", "s")):
            one, mine = mixture(trained, levels, trials, pathway)
            curves.append(one)
            measured[f"area_{letter}"] = mine["area"]
            frozen = frozen_pathway(trained.network, trained.tasks, pathway=pathway, **run)  # type: ignore[arg-type]
            mean = frozen.groupby("context")["normalised"].mean()
            measured[f"frozen_{letter}"] = float(mean["mean"])
            measured[f"absent_{letter}"] = float(mean["none"])
        conflict = conflicting_contexts(trained.network, trained.tasks, **run)
        measured["preference"] = float(conflict["preference"].mean())
        measured["conflict"] = conflict
    return {**measured, "ambiguity": pd.concat(curves, ignore_index=True)}


def _tables(settings: SynergySettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Compare the arms: synergy of area and accuracy for every size and way of training."""
    cells = tables["cells"]
    names = {
        "area": "area A",
        "area_relative": "A / clean",
        "normalised_mean": "clean accuracy",
        "normalised_min": "worst task",
    }
    rows = []
    for arm in settings.arms:
        # Weak pathways are a matter of combinations: their parts are those of the clean arm.
        others = "clean" if arm.startswith("weak") else arm
        both = cells["variant"].str.startswith("es")
        part = cells[(both & (cells["arm"] == arm)) | (~both & (cells["arm"] == others))]
        for size, mine in part.groupby("size", sort=False):
            found = comparisons(mine, names, settings.variants, arm=arm, size=int(size))
            kept = [row for row in found if row["a"].startswith("es") or arm == others]
            rows += kept
    return {
        "comparisons": comparison_table(rows, "arm", "size"),
        "contributions": _contributions(cells),
    }


def _contributions(cells: pd.DataFrame) -> pd.DataFrame:
    """Return what each pathway of the combinations contributes, with intervals over networks."""
    import pandas as pd

    rows = []
    both = cells[cells["variant"].str.startswith("es")]
    columns = [
        c
        for c in (
            "area",
            "area_e",
            "area_s",
            "normalised_mean",
            "frozen_e",
            "frozen_s",
            "absent_e",
            "absent_s",
            "preference",
        )
        if c in both
    ]
    for (variant, arm, size), part in both.groupby(["variant", "arm", "size"], sort=False):
        for column in columns:
            interval = network_interval(part[column])
            rows.append(
                {
                    "variant": variant, "arm": arm, "size": size, "measure": column,
                    "mean": interval.mean, "low": interval.low, "high": interval.high,
                    "n": interval.count,
                }
            )  # fmt: skip
    names = ["variant", "arm", "size", "measure", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=names)


def _figure(settings: SynergySettings, tables: Tables) -> Mapping[str, Any]:
    from ctxrnn.studies._study_figures import synergy_figures

    return synergy_figures(tables, settings.arms, settings.sizes)


def _findings(settings: SynergySettings, tables: Tables) -> Sequence[str]:
    lines = []
    for row in tables["comparisons"].to_dict("records"):
        if row["kind"] == "synergy":
            lines.append(sentence(row, f"{row['arm']} training, N = {row['size']}, "))
    found = tables["comparisons"]
    gains = found[found["kind"] == "synergy"]
    if len(gains) and (gains["n"] < FEWEST).all():
        lines.append(
            f"Nothing is said of synergy: fewer than {FEWEST} triples of networks are complete."
        )
    elif len(gains) and not gains["claim"].astype(bool).any():
        lines.append(
            "No synergy was found in this run: no interval of S lies above 0. That is a failure to "
            "reproduce the claim under these definitions, not evidence against it elsewhere."
        )
    for row in tables["contributions"].to_dict("records"):
        if row["measure"] == "preference" and row["arm"] == "clean":
            lines.append(
                f"{row['variant']}, N = {row['size']}, conflicting contexts: preference "
                f"{row['mean']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] (+1: excitability "
                f"decides, -1: synapses; n = {row['n']})"
            )
    return lines


RECIPE = Recipe(
    build=synergy,
    summary="Do the pathways help each other: S with intervals, ablations, conflicts.",
    scales={
        "smoke": SynergySettings(
            sizes=(8,), seeds=2, levels=(0.0, 0.25, 0.5), trials=8, base=SMOKE
        ),
        "quick": SynergySettings(),
        "paper": SynergySettings(sizes=(32, 64, 128), seeds=10, trials=256, base=PAPER),
    },
)

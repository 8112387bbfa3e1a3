"""Does every variant learn the task set? Learning curves and the final accuracy per task."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ctxrnn import TrainConfig
from ctxrnn._catalogue import check_variant
from ctxrnn._checks import check_count, check_fraction
from ctxrnn.studies._common import PAPER, SMOKE, network_interval
from ctxrnn.studies._configured import to_dict
from ctxrnn.studies._plan import NetworkSettings
from ctxrnn.studies._recipes import Recipe
from ctxrnn.studies._results import Tables
from ctxrnn.studies._study import Study

if TYPE_CHECKING:
    import pandas as pd

CATALOGUE = (
    "none", "e-add", "e-thr", "e-gain", "e-rank2", "s-sym", "s-asym-1", "s-gate-1", "s-lowrankW",
    "s-mask", "s-add-1", "s-scalar", "s-full", "es-add-sym",
)  # fmt: skip


@dataclass(frozen=True)
class LearningSettings:
    """Settings of the study `learning`.

    Attributes:
        variants: Pathway variants.
        size: N of e-add, whose parameters are every variant's budget (M2).
        matching: "M2" (equal parameters) or "M1" (equal N).
        seeds: Networks per variant.
        theta: A task is solved at this fraction of its ceiling.
        base: What the networks have in common.
    """

    variants: tuple[str, ...] = CATALOGUE
    size: int = 64
    matching: str = "M2"
    seeds: int = 5
    theta: float = 0.9
    base: NetworkSettings = field(default_factory=NetworkSettings)

    def __post_init__(self) -> None:
        for name in ("size", "seeds"):
            check_count(name, getattr(self, name))
        check_fraction("theta", self.theta)
        for variant in self.variants:
            check_variant(variant)


def learning(settings: LearningSettings) -> Study:
    """Return the study."""
    return Study(
        name="learning",
        question="Does every variant of the catalogue learn the task set, and how fast?",
        grid={
            "seed": list(range(settings.seeds)),
            "variant": list(settings.variants),
            "size": [settings.size],
            "matching": [settings.matching],
        },
        base=settings.base,
        tables=functools.partial(_tables, settings),
        figure=functools.partial(_figure, settings),
        findings=functools.partial(_findings, settings),
        settings=to_dict(settings),
    )


def _tables(settings: LearningSettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Make one row per variant: accuracy, worst task, tasks solved, steps to criterion."""
    import pandas as pd

    solved = tables["accuracy"].assign(solved=tables["accuracy"]["relative"] >= settings.theta)
    curves = tables["learning"]
    rows = []
    for variant, cells in tables["cells"].groupby("variant", sort=False):
        row: dict[str, Any] = {
            "variant": variant,
            "units": int(cells["units"].iloc[0]),
            "parameters": int(cells["parameters"].iloc[0]),
            "networks": len(cells),
        }
        for name in ("relative_mean", "relative_min"):
            interval = network_interval(cells[name])
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        row["solved"] = float(solved.loc[solved["variant"] == variant, "solved"].mean())
        mine = curves[(curves["variant"] == variant) & (curves["relative_mean"] >= settings.theta)]
        first = mine.groupby("seed")["step"].min().reindex(cells["seed"])
        row["steps_to_theta"] = float(first.median()) if first.notna().all() else float("nan")
        row["reached_theta"] = int(first.notna().sum())
        rows.append(row)
    return {"variants": pd.DataFrame(rows)}


def _figure(settings: LearningSettings, tables: Tables) -> Mapping[str, Any]:
    from ctxrnn.studies._study_figures import learning_figures

    return learning_figures(tables, settings.base.tasks, settings.theta)


def _findings(settings: LearningSettings, tables: Tables) -> Sequence[str]:
    lines = []
    for row in tables["variants"].to_dict("records"):
        lines.append(
            f"{row['variant']} (N = {row['units']}, {row['networks']} networks): accuracy / "
            f"ceiling {row['relative_mean']:.3f} [{row['relative_mean_low']:.3f}, "
            f"{row['relative_mean_high']:.3f}], worst task {row['relative_min']:.3f}, "
            f"{100 * row['solved']:.0f} % of tasks solved at {settings.theta:g}"
        )
    return lines


RECIPE = Recipe(
    build=learning,
    summary="Every variant learns the task set: learning curves, final accuracy per task.",
    scales={
        "smoke": LearningSettings(
            variants=("none", "e-add", "s-sym", "es-add-sym"),
            size=12,
            seeds=2,
            base=SMOKE,
        ),
        "quick": LearningSettings(
            base=NetworkSettings(
                train=TrainConfig(
                    steps=6000, learning_rate=3e-3, evaluate_every=500, evaluation_trials=1000,
                    target=None,
                ),
            ),
        ),
        "paper": LearningSettings(
            size=256,
            seeds=10,
            base=PAPER,
        ),
    },
)  # fmt: skip

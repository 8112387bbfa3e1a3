"""Do separate time constants of the two pathways help: the cost of a switch against noise."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctxrnn._checks import check_count, check_not_negative, check_positive, check_rising
from ctxrnn.studies._common import (
    PAPER,
    QUICK,
    SMOKE,
    check_arms,
    comparison_row,
    comparison_table,
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
class TimescalesSettings:
    """Settings of the study `timescales`.

    Attributes:
        variants: Pathway variants with both pathways.
        size: N of the e-add network with the same parameters (M2).
        orders: Always 1 here: the tasks are the whole pool.
        seeds: Networks per variant.
        taus: Time constants of the context filters, in units of tau.
        delays: Times in ms from the switch of the context to the first step of the trial; negative
            where it switches inside the trial.
        delay: The one at which the switch cost is compared, in ms.
        tau_n: Correlation time of the noise in ms.
        sigmas: Standard deviations of the noise.
        sigma: The one at which filtering is compared.
        others: Other tasks from which the context switches, drawn at random for each task.
        trials: Fresh trials per task.
        base: What the networks have in common.
    """

    variants: tuple[str, ...] = ("es-add-sym",)
    size: int = 48
    orders: int = 1
    seeds: int = 5
    taus: tuple[float, ...] = (0.0, 1.0, 10.0, 100.0)
    delays: tuple[float, ...] = (-500.0, 0.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
    delay: float = 100.0
    tau_n: float = 100.0
    sigmas: tuple[float, ...] = (0.0, 0.2, 0.5, 1.0)
    sigma: float = 0.5
    others: int = 2
    trials: int = 32
    base: NetworkSettings = QUICK

    def __post_init__(self) -> None:
        if self.orders != 1:
            raise ValueError(
                f"orders must be 1, since the tasks are the whole pool: got {self.orders}"
            )
        check_arms(self.variants, orders=self.orders, seeds=self.seeds, trials=self.trials)
        for variant in self.variants:
            if not variant.startswith("es"):
                raise ValueError(f"variants must have both pathways (es-...): got {variant!r}")
        check_count("others", self.others)
        if len(set(self.taus)) < max(2, len(self.taus)):
            raise ValueError(
                "taus must be at least two time constants (fast and slow), each once: got "
                f"{list(self.taus)}"
            )
        for value in self.taus:
            check_not_negative("taus", value, "tau")
        check_rising("sigmas", self.sigmas)
        if len(set(self.delays)) < len(self.delays):
            raise ValueError(f"delays must be given each once: got {list(self.delays)}")
        check_positive("tau_n", self.tau_n, "ms")
        if self.delay not in self.delays or self.sigma not in self.sigmas:
            raise ValueError(
                "delay must be one of delays, sigma one of sigmas: got "
                f"{self.delay:g} ms and {self.sigma:g}"
            )


def timescales(settings: TimescalesSettings) -> Study:
    """Return the study."""
    return Study(
        name="timescales",
        question="Do separate time constants of the pathways buy both quick switches and filtered "
        "noise?",
        grid={
            ("order", "seed"): replicates(settings.orders, settings.seeds),
            "variant": settings.variants,
            "size": [settings.size],
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


def _seconds(settings: TimescalesSettings, plan: Plan) -> float:
    from ctxrnn.studies._cost import varying_seconds

    pairs = len(settings.taus) ** 2
    runs = pairs * (len(settings.delays) * settings.others + len(settings.sigmas) - 1)
    return varying_seconds(plan, runs * settings.trials * len(plan.tasks))


def _measure(trained: Trained, settings: TimescalesSettings) -> dict[str, Any]:
    """Scan (tau_e, tau_s) at test, in a network trained with static contexts."""
    from ctxrnn.analysis import filtered_noise_sweep, recovery_latency, switch_sweep

    taus = [factor * settings.base.tau for factor in settings.taus]
    common: dict[str, Any] = {
        "tau_e": taus, "tau_s": taus, "trials": settings.trials, "seed": trained.seed,
    }  # fmt: skip
    switched = switch_sweep(
        trained.network,
        trained.tasks,
        delays=list(settings.delays),
        others=min(settings.others, len(trained.tasks.names) - 1),
        **common,
    )
    noisy = filtered_noise_sweep(
        trained.network,
        trained.tasks,
        levels=list(settings.sigmas),
        tau_n=settings.tau_n,
        **common,
    )
    columns = ["accuracy", "normalised", "cost"]
    switch = switched.groupby(["delay", "tau_e", "tau_s"], as_index=False)[columns].mean()
    noise = noisy.groupby(["level", "tau_e", "tau_s"], as_index=False)[columns].mean()
    return {"switch": switch, "noise": noise, "latency": recovery_latency(switched)}


def _tables(settings: TimescalesSettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Make maps over (tau_e, tau_s), and compare fast e with slow s, and both fast, both slow."""
    import pandas as pd

    from ctxrnn.analysis import paired_difference

    taus = [factor * settings.base.tau for factor in settings.taus]
    switch, noise = tables["switch"], tables["noise"]
    parts = {
        "switch cost": switch[switch["delay"] == settings.delay],
        "noise cost": noise[noise["level"] == settings.sigma],
    }
    keys = ["variant", "order", "seed", "tau_e", "tau_s"]
    costs = pd.concat(
        [part[[*keys, "cost"]].assign(measure=name) for name, part in parts.items()],
        ignore_index=True,
    )
    total = costs.groupby(keys, as_index=False)["cost"].mean().assign(measure="mean of both costs")
    costs = pd.concat([costs, total], ignore_index=True)
    maps = []
    for labels, part in costs.groupby(["variant", "measure", "tau_e", "tau_s"], sort=False):
        interval = network_interval(part["cost"])
        maps.append(
            {
                **dict(zip(("variant", "measure", "tau_e", "tau_s"), labels, strict=True)),
                "cost": interval.mean, "low": interval.low, "high": interval.high,
                "n": interval.count,
            }
        )  # fmt: skip
    fast, slow = min(taus), max(taus)
    pairs = {
        ("fast e, slow s", "slow e, fast s"): ((fast, slow), (slow, fast)),
        ("fast e, slow s", "both fast"): ((fast, slow), (fast, fast)),
        ("fast e, slow s", "both slow"): ((fast, slow), (slow, slow)),
        ("slow e, fast s", "both fast"): ((slow, fast), (fast, fast)),
        ("slow e, fast s", "both slow"): ((slow, fast), (slow, slow)),
    }
    rows = []
    for (variant, measure), part in costs.groupby(["variant", "measure"], sort=False):
        wide = part.pivot_table(index=["order", "seed"], columns=["tau_e", "tau_s"], values="cost")
        for (a, b), (first, second) in pairs.items():
            found = paired_difference(wide[first].to_numpy(), wide[second].to_numpy())
            labels = {"variant": variant, "measure": str(measure), "kind": "paired", "a": a, "b": b}
            rows.append(comparison_row(found, **labels))
    return {"maps": pd.DataFrame(maps), "comparisons": comparison_table(rows, "variant")}


def _figure(settings: TimescalesSettings, tables: Tables) -> Mapping[str, Any]:
    from ctxrnn.studies._study_figures import timescales_figures

    return timescales_figures(tables, settings.delay, settings.sigma, settings.base.tau)


def _findings(settings: TimescalesSettings, tables: Tables) -> Sequence[str]:
    head = (
        f"Costs are normalised accuracy lost: {settings.delay:g} ms after a switch, and in noise "
        f"of sd {settings.sigma:g} and correlation time {settings.tau_n:g} ms. Networks were "
        "trained with static contexts and no filter."
    )
    rows = tables["comparisons"].to_dict("records")
    return [head, *(sentence(row, f"{row['variant']}, ") for row in rows)]


RECIPE = Recipe(
    build=timescales,
    summary="Time constants of the pathways: cost of a context switch against noise filtering.",
    scales={
        "smoke": TimescalesSettings(
            size=8, seeds=2, taus=(0.0, 10.0), delays=(0.0, 100.0), sigmas=(0.0, 0.5), others=1,
            trials=4, base=SMOKE,
        ),
        "quick": TimescalesSettings(),
        "paper": TimescalesSettings(size=128, seeds=10, others=4, trials=128, base=PAPER),
    },
)  # fmt: skip

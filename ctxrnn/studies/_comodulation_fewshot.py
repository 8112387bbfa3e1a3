"""Do few samples suffice for tuning by stochastic comodulation? Gabors among distractors."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctxrnn.comodulation.hierarchy import NoisePass
from ctxrnn.studies._common import comparison_row, comparison_table, network_interval, sentence
from ctxrnn.studies._comodulation_fewshot_networks import task_of
from ctxrnn.studies._comodulation_fewshot_settings import STOCHASTIC, FewshotSettings
from ctxrnn.studies._comodulation_fewshot_verdict import DIGITISED, cause, verdict
from ctxrnn.studies._comodulation_fewshot_work import FewshotWork
from ctxrnn.studies._configured import to_dict
from ctxrnn.studies._recipes import Recipe
from ctxrnn.studies._results import Tables
from ctxrnn.studies._study import Study
from ctxrnn.tasks import images as shown

if TYPE_CHECKING:
    import pandas as pd

DEVIATIONS = (
    "Deviations: digits from a pool of 4,000 (and 1,000 to test) of MNIST, canvases drawn with "
    "replacement, not from 60,000; arm (iii) applies the exponential nonlinearity in the noise "
    "pass alone, since exp(r) of the refit's images overflows single precision; Var(m) is given."
)


def fewshot(settings: FewshotSettings) -> Study:
    """Return the study."""
    return Study(
        name="comodulation-fewshot",
        question="How many samples does tuning by weights, gains or stochastic comodulation need?",
        grid={"seed": list(range(settings.seeds)), "samples": list(settings.samples)},
        work=FewshotWork(settings),
        tables=functools.partial(_tables, settings),
        figure=_figure,
        findings=functools.partial(_findings, settings),
        settings=to_dict(settings),
    )


def _tables(settings: FewshotSettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Make the curves, paired differences and verdicts from the accuracies."""
    import pandas as pd

    accuracy = tables["accuracy"]
    keys = ["mode", "samples", "seed"]
    means = accuracy.groupby(keys, sort=False)["accuracy"].mean().reset_index()
    rows = []
    for mode in settings.modes:
        for samples in settings.samples:
            mine = means[(means["mode"] == mode) & (means["samples"] == samples)]
            if not len(mine):
                continue
            found = network_interval(mine["accuracy"])
            name = "stoch" if mode in STOCHASTIC else mode
            published = DIGITISED.get(samples, {}).get(name, float("nan"))
            rows.append(
                {
                    "mode": mode, "samples": samples, "accuracy": found.mean,
                    "accuracy_low": found.low, "accuracy_high": found.high, "n": found.count,
                    "published": published, "difference": found.mean - published,
                }
            )  # fmt: skip
    curves = pd.DataFrame(rows)
    by_task = accuracy.groupby(["mode", "samples", "task"], sort=False)["accuracy"].mean()
    return {
        "curves": curves,
        "tasks": by_task.reset_index(),
        "displays": _displays(settings, accuracy),
        "comparisons": _comparisons(settings, means),
        "verdicts": _verdicts(settings, curves),
    }


def _displays(settings: FewshotSettings, accuracy: pd.DataFrame) -> pd.DataFrame:
    """Make one row for each display and mode: accuracy, and distractors next to the task's place.

    Patches one position apart overlap: their distance is 0.84, the width of either 0.7.
    """
    import pandas as pd

    bank = shown.GaborBank()
    rows = []
    for (seed, number), mine in accuracy.groupby(["seed", "task"], sort=True):
        task = task_of(settings, bank, int(seed), int(number))
        side = math.isqrt(bank.inner)
        home = divmod(task.location, side)
        steps = [
            max(abs(a - b) for a, b in zip(divmod(place, side), home, strict=True))
            for place in task.distractors
        ]
        for (mode, samples), found in mine.groupby(["mode", "samples"], sort=False):
            rows.append(
                {
                    "seed": seed, "task": number, "neighbours": steps.count(1), "mode": mode,
                    "samples": samples, "accuracy": float(found["accuracy"].mean()),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _comparisons(settings: FewshotSettings, means: pd.DataFrame) -> pd.DataFrame:
    """Compare modes pair by pair, paired by seed, at every size."""
    from ctxrnn.analysis import paired

    arms = [arm for arm in STOCHASTIC if arm in settings.modes]
    pairs = [(arm, "gain") for arm in arms]
    pairs += [("gain", other) for other in ("weights", "decoder")]
    pairs += [("stoch-images", arm) for arm in arms if arm != "stoch-images"]
    pairs = [pair for pair in pairs if set(pair) <= set(settings.modes)]
    rows = []
    for samples in settings.samples:
        table = means[means["samples"] == samples]
        for a, b in pairs:
            try:
                found: Any = paired(table, "accuracy", a=a, b=b, by="mode", on=["seed"])
            except ValueError:  # no pair is complete
                found = None
            measure = f"accuracy at {samples} samples, points"
            row = comparison_row(found, measure=measure, kind="paired", a=a, b=b)
            rows.append(row | {"samples": samples})
    return comparison_table(rows, "samples")


def means_of(curves: pd.DataFrame) -> dict[str, dict[int, float]]:
    """Return mode -> samples -> mean accuracy."""
    found: dict[str, dict[int, float]] = {}
    for row in curves.to_dict("records"):
        found.setdefault(row["mode"], {})[int(row["samples"])] = float(row["accuracy"])
    return found


def fewest(curves: pd.DataFrame) -> int:
    """Return the networks of the mean over the fewest, of the sizes that are judged."""
    judged = curves[curves["samples"].isin(DIGITISED)]
    return int(judged["n"].min()) if len(judged) else 0


def _verdicts(settings: FewshotSettings, curves: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    means = means_of(curves)
    rows = []
    for arm in STOCHASTIC:
        if arm not in settings.modes:
            continue
        judged = verdict(means, arm, fewest(curves))
        words = {True: "reproduced", False: "not reproduced", None: "not decided"}
        rows.append(
            {
                "arm": arm, "verdict": words[judged.reproduced],
                "matches_published_curve": {True: "yes", False: "no", None: "unknown"}[
                    judged.matches
                ],
                "reasons": "; ".join(judged.reasons),
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "verdict", "matches_published_curve", "reasons"])


def _figure(tables: Tables) -> Mapping[str, Any]:
    from ctxrnn.studies._comodulation_fewshot_figures import fewshot_figures

    return fewshot_figures(tables)


def _findings(settings: FewshotSettings, tables: Tables) -> Sequence[str]:
    lines = []
    for row in tables["verdicts"].to_dict("records"):
        why = f" ({row['reasons']})" if row["reasons"] else ""
        lines.append(f"{row['arm']}: {row['verdict']}{why}")
    means, networks = means_of(tables["curves"]), fewest(tables["curves"])
    lines.append(cause([verdict(means, arm, networks) for arm in STOCHASTIC]))
    for row in tables["curves"].to_dict("records"):
        known = row["published"] == row["published"]
        published = f", published {row['published']:g}" if known else ""
        lines.append(
            f"{row['mode']}, {row['samples']} samples: {row['accuracy']:.1f} % "
            f"[{row['accuracy_low']:.1f}, {row['accuracy_high']:.1f}], n = {row['n']}{published}"
        )
    lines += [sentence(row) for row in tables["comparisons"].to_dict("records")]
    return [*lines, DEVIATIONS]


RECIPE = Recipe(
    build=fewshot,
    summary="Few-shot tuning of Gabor discrimination by weights, gains, stochastic comodulation.",
    scales={
        "smoke": FewshotSettings(
            samples=(8, 12), seeds=2, epochs=2, first_epochs=2, pretrain_images=128,
            refit_images=128, task_images=24, test_images=24, noise=NoisePass(draws=50, nodes=3),
        ),
        "quick": FewshotSettings(first_patience=100),
        "paper": FewshotSettings(samples=tuple(range(10, 301, 10)), seeds=10),
    },
)  # fmt: skip

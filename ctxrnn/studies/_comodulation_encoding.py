"""Does the covariance of counts with a shared modulator tell which neurons matter?

The encoding model of Haimerl et al. (2019, NeurIPS) and its five decoders.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.comodulation import COUNT_DECODERS
from ctxrnn.studies._common import (
    comparison_row,
    comparison_table,
    interval_row,
    network_interval,
    sentence,
)
from ctxrnn.studies._comodulation_encoding_measure import (
    GUIDED,
    RIGHT_SIGNS,
    EncodingSettings,
    measure_population,
    seconds,
)
from ctxrnn.studies._configured import to_dict
from ctxrnn.studies._desk import EachCell
from ctxrnn.studies._recipes import Recipe
from ctxrnn.studies._results import Tables
from ctxrnn.studies._study import Study

if TYPE_CHECKING:
    import pandas as pd

MEASURES = {"accuracy": "accuracy", "auc": "area under the ROC curve"}
WHERE = ["neurons", "sigma", "trials"]


def encoding(settings: EncodingSettings) -> Study:
    """Return the study."""
    return Study(
        name="comodulation-encoding",
        question="Does the covariance with a shared modulator tell which neurons matter?",
        grid={
            "seed": list(range(settings.seeds)),
            "neurons": list(settings.neurons),
            "sigma": list(settings.sigmas),
        },
        work=EachCell(
            functools.partial(measure_population, settings), functools.partial(seconds, settings)
        ),
        tables=functools.partial(_tables, settings),
        figure=_figure,
        findings=functools.partial(_findings, settings),
        settings=to_dict(settings),
    )


def _tables(settings: EncodingSettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Make intervals over populations, and paired differences from the modulator-guided decoder."""
    import pandas as pd

    decoders = tables["decoders"]
    rows = []
    for (*where, name), mine in decoders.groupby([*WHERE, "decoder"], sort=False):
        row = {**dict(zip(WHERE, where, strict=True)), "decoder": name}
        for measure in MEASURES:
            row |= interval_row(measure, _interval(mine[measure]))
        rows.append(row)
    quality = [
        _quality(tables["estimates"], ["correlation"]),
        _quality(tables["variances"], ["ratio", "bias"]),
    ]
    return {
        "accuracies": pd.DataFrame(rows),
        "correlations": quality[0],
        "ratios": quality[1],
        "comparisons": comparison_table(_comparisons(decoders)),
    }


def _interval(values: pd.Series) -> Any:
    return network_interval(values.to_numpy(dtype=float))


def _quality(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return intervals over seeds of what is the same for all neurons of a population."""
    import pandas as pd

    single = table.drop_duplicates(["seed", *WHERE])
    rows = []
    for where, mine in single.groupby(WHERE, sort=False):
        row = dict(zip(WHERE, where, strict=True))
        for column in columns:
            row |= interval_row(column, _interval(mine[column]))
        rows.append(row)
    return pd.DataFrame(rows)


def _comparisons(decoders: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare the modulator-guided decoder with every other one, population by population."""
    from ctxrnn.analysis import paired_difference

    rows = []
    for where, mine in decoders.groupby(WHERE, sort=False):
        for measure, words in MEASURES.items():
            wide = mine.pivot_table(index="seed", columns="decoder", values=measure)
            for other in (*COUNT_DECODERS, RIGHT_SIGNS):
                if other == GUIDED:
                    continue
                pairs = wide[[GUIDED, other]].dropna()
                found = paired_difference(pairs[GUIDED], pairs[other]) if len(pairs) else None
                labels = dict(zip(WHERE, where, strict=True))
                names: dict[str, Any] = {"measure": words, "a": GUIDED, "b": other}
                rows.append(comparison_row(found, **labels, kind="paired", **names))
    return rows


def _figure(tables: Tables) -> Mapping[str, Any]:
    from ctxrnn.studies._comodulation_encoding_figures import figures

    return figures(tables)


def _findings(settings: EncodingSettings, tables: Tables) -> Sequence[str]:
    lines = [
        f"N = {row['neurons']}, sigma = {row['sigma']:g}, T = {row['trials']}: variance of w-hat / "
        f"theory {row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}], bias "
        f"{row['bias']:+.4f} [{row['bias_low']:+.4f}, {row['bias_high']:+.4f}] (n = {row['n']})"
        for row in tables["ratios"].to_dict("records")
    ]
    lines += [
        f"N = {row['neurons']}, sigma = {row['sigma']:g}, T = {row['trials']}: correlation of "
        f"w-hat with w {row['correlation']:.3f} [{row['correlation_low']:.3f}, "
        f"{row['correlation_high']:.3f}] (n = {row['n']})"
        for row in tables["correlations"].to_dict("records")
    ]
    cells = tables["cells"]
    wrong = _interval(cells.groupby("seed")["signs_wrong"].mean())
    lines.append(
        f"signs of informative neurons that {settings.labelled} labelled trials get wrong: {wrong}"
    )
    compared = tables["comparisons"]
    for (neurons, sigma, measure), mine in compared.groupby(
        ["neurons", "sigma", "measure"], sort=False
    ):
        for other in ("rate-guided", "sign-only"):
            when = _since(mine[mine["b"] == other].sort_values("trials"))
            lines.append(
                f"N = {neurons}, sigma = {sigma:g}, {measure}: {GUIDED} above {other} {when}"
            )
    most = compared[compared["trials"] == max(settings.trials)]
    for row in most.to_dict("records"):
        where = f"N = {row['neurons']}, sigma = {row['sigma']:g}, T = {row['trials']}: "
        lines.append(sentence(row, where))
    return lines


def _since(rows: pd.DataFrame) -> str:
    """Say from how many trials on a difference is above 0, there and at all larger numbers."""
    above = (rows["claim"].astype(bool) & (rows["difference_low"] > 0)).to_numpy()
    if not above[-1]:
        return "not shown at the most trials; no claim"
    first = len(above) - int(np.argmin(above[::-1])) if not above.all() else 0
    return f"from T = {rows['trials'].iloc[first]} on"


RECIPE = Recipe(
    build=encoding,
    summary="Poisson neurons with a shared modulator: couplings recovered, five decoders.",
    scales={
        "smoke": EncodingSettings(
            neurons=(12, 24), sigmas=(0.5,), trials=(10, 100), seeds=2, repeats=2,
            test_trials=200, variance_repeats=20, variance_trials=(10,), shown=12,
        ),
        "quick": EncodingSettings(),
        "paper": EncodingSettings(
            neurons=(20, 50, 100, 200, 500, 1000), sigmas=(0.25, 0.5, 1.0),
            trials=(10, 30, 100, 300, 1000, 3000, 10000), seeds=30, repeats=20, test_trials=20000,
            variance_repeats=1000, variance_trials=(10, 100, 1000),
        ),
    },
)  # fmt: skip

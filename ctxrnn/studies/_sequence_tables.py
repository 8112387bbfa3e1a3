"""What the records of a study of inferred contexts show: scores, comparisons, statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.studies._common import comparison_row, comparison_table, interval_row, network_interval
from ctxrnn.studies._results import Tables
from ctxrnn.studies._sequence_settings import GATES, SequenceSettings, parts_of

if TYPE_CHECKING:
    import pandas as pd

BASE = ["reading", "budget"]
_NAMES = {"other": "the context of another sequence", "mean": "the mean context"}


def study_tables(settings: SequenceSettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Return the tables that are made from the records."""
    cells, history = tables["cells"], tables["history"]
    timed = equal_time(cells, history)
    networks = cells.merge(timed, on=[*BASE, "model", "seed"], how="left")
    found = {
        "networks": networks,
        "models": models(settings, networks),
        "comparisons": comparisons(settings, networks, tables.get("corruption")),
    }
    found["statements"] = statements(settings, found["comparisons"], networks)
    return found


def metric_of(settings: SequenceSettings) -> tuple[str, int]:
    """Return the metric's name, and 1 if more is better, else -1."""
    return ("bits per character", -1) if settings.text else ("accuracy", 1)


def equal_time(cells: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Return the best validation metric that each network reached in the time of the fastest.

    That time is the shortest of all models' median processor times for all of their updates, at the
    rate that was chosen. Between two evaluations the best so far is interpolated in time, so that
    the distance of evaluations does not decide. A network that was not evaluated by then has NaN,
    as has one that diverged.
    """
    import pandas as pd

    whole = cells[~cells["diverged"].astype(bool)] if "diverged" in cells else cells
    medians = whole.groupby([*BASE, "model"])["train_seconds"].median()
    limits = medians.groupby(level=BASE).min()
    better = -1 if (cells["metric"] == "bits per character").all() else 1
    ended = {tuple(row) for row in whole[[*BASE, "model", "seed"]].itertuples(index=False)}
    rows = []
    chosen = history[history["chosen"].astype(bool)]
    for key, mine in chosen.groupby([*BASE, "model", "seed"], sort=False):
        limit = float(limits.get(key[:2], np.nan))
        known = mine.dropna(subset="validation").sort_values("seconds")
        value = np.nan
        if len(known) and key in ended and limit >= known["seconds"].iloc[0]:
            best = better * np.maximum.accumulate(better * known["validation"].to_numpy())
            value = float(np.interp(limit, known["seconds"], best))
        rows.append((*key, limit, value))
    return pd.DataFrame(rows, columns=[*BASE, "model", "seed", "time_limit", "at_equal_time"])


def models(settings: SequenceSettings, networks: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model: scores with t intervals, size, operations and time."""
    import pandas as pd

    rows = []
    for (reading, budget), mine in networks.groupby(BASE, sort=False):
        lstm = mine.loc[mine["model"] == "lstm", "update_seconds"].median()
        for model in (m for m in settings.models if m in set(mine["model"])):
            its = mine[mine["model"] == model]
            first = its.iloc[0]
            rows.append(
                {
                    "reading": reading, "budget": budget, "model": model,
                    "parameters": first["parameters"], "units": first["units"],
                    "multiply_adds": first["multiply_adds"],
                    "update_ms": 1000 * its["update_seconds"].median(),
                    "time_over_lstm": its["update_seconds"].median() / lstm,
                    "rates": ",".join(f"{rate:g}" for rate in sorted(set(its["rate"]))),
                    **interval_row("test", network_interval(its["test"])),
                    **interval_row("at_equal_time", network_interval(its["at_equal_time"])),
                    "sd": float(its["test"].std(ddof=1)) if len(its) > 1 else np.nan,
                    "n": len(its),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def pairs_of(settings: SequenceSettings) -> list[tuple[str, str]]:
    """Return what is compared: modulated with baselines, combinations with their parts."""
    pairs = [(m, b) for m in settings.modulated for b in GATES if b in settings.models]
    for model in settings.modulated:
        variant, ending = parts_of(model)
        if not variant.startswith("es-"):
            continue
        _, first, second = variant.split("-", 2)
        tail = f":{ending}" if ending else ""
        parts = (f"e-{first}{tail}", f"s-{second}{tail}")
        pairs += [(model, part) for part in parts if part in settings.models]
    return pairs


def comparisons(
    settings: SequenceSettings, networks: pd.DataFrame, corruption: pd.DataFrame | None
) -> pd.DataFrame:
    """Compare models pair by pair, and each with itself under a foreign context."""
    rows: list[dict[str, Any]] = []
    name, _ = metric_of(settings)
    labels = {"test": f"{name}, test", "at_equal_time": f"{name}, validation at equal time"}
    for (reading, budget), mine in networks.groupby(BASE, sort=False):
        where = {"reading": reading, "budget": budget}
        for column, told in labels.items():
            for a, b in pairs_of(settings):
                found = _paired(mine, column, "model", a, b)
                rows.append(comparison_row(found, measure=told, kind="paired", a=a, b=b) | where)
        if corruption is None:
            continue
        own = corruption[(corruption["reading"] == reading) & (corruption["budget"] == budget)]
        for model in settings.modulated:
            for kind, words in _NAMES.items():
                its = own[(own["model"] == model) & (own["kind"] == kind)]
                ends = its[its["level"].isin((0.0, 1.0))]
                arms = ends.assign(arm=np.where(ends["level"] == 0, "own", kind))
                found = _paired(arms, "value", "arm", kind, "own")
                row = comparison_row(
                    found, measure=f"{name}, test, {words}", kind="paired", a=f"{model}, {kind}",
                    b=f"{model}, own",
                )  # fmt: skip
                rows.append(row | where)
    return comparison_table(rows, *BASE)


def _paired(table: pd.DataFrame, value: str, by: str, a: str, b: str) -> Any:
    from ctxrnn.analysis import paired

    try:
        return paired(table, value, a=a, b=b, by=by, on=["seed"])
    except ValueError:  # no pair is complete
        return None


def statements(
    settings: SequenceSettings, compared: pd.DataFrame, networks: pd.DataFrame
) -> pd.DataFrame:
    """Judge for each reading: what is better than what, and whether contexts matter.

    "holds" and "opposite" need intervals that exclude 0 at every budget, with one sign.
    """
    import pandas as pd

    name, better = metric_of(settings)
    wanted: list[tuple[str, str, str, str, int]] = []
    for column in ("test", "validation at equal time"):
        at = (
            "at equal parameters" if column == "test"
            else "at equal training time of these implementations"
        )  # fmt: skip
        wanted += [
            (f"{a} is better than {b}, {at}", f"{name}, {column}", a, b, better)
            for a, b in pairs_of(settings)
        ]
    for model in settings.modulated:
        wanted += [
            (f"{words} makes {model} worse", f"{name}, test, {words}", f"{model}, {kind}",
             f"{model}, own", -better)
            for kind, words in _NAMES.items()
        ]  # fmt: skip
    rows = []
    for reading in dict.fromkeys(networks["reading"]):
        for text, measure, a, b, sign in wanted:
            mine = _rows(compared, reading=reading, measure=measure, a=a, b=b)
            verdict = _verdict(mine, sign, len(settings.budgets))
            told = "; ".join(_told(row) for row in mine.to_dict("records"))
            count = int(mine["n"].min()) if len(mine) else 0
            rows.append({"reading": reading, "statement": text, "verdict": verdict,
                         "evidence": told, "n": count})  # fmt: skip
    return pd.DataFrame(rows)


def _rows(table: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def _verdict(rows: pd.DataFrame, sign: int, budgets: int) -> str:
    if len(rows) < budgets or not (rows["n"] > 0).all():
        return "not tested"
    signs = sign * np.sign(rows["difference"])
    if rows["claim"].all() and (signs == signs.iloc[0]).all():
        return "holds" if signs.iloc[0] > 0 else "opposite"
    return "not shown"


def _told(row: Mapping[str, Any]) -> str:
    interval = f"[{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]"
    return f"{row['budget']} parameters {row['difference']:+.4f} {interval}"


def _over(row: Mapping[str, Any]) -> str:
    known = row["time_over_lstm"] == row["time_over_lstm"]
    return f", {row['time_over_lstm']:.1f} times the LSTM's" if known else ""


def study_findings(settings: SequenceSettings, tables: Tables) -> Sequence[str]:
    """Say in sentences what was measured and which statements hold."""
    networks = tables["networks"]
    first = networks.iloc[0]
    name, better = metric_of(settings)
    data = str(first["data_title"])
    if first["stand_in_for"]:
        data += f", not {first['stand_in_for']}"
    averaged = "" if settings.averaging is None else ", parameters averaged"
    lines = [
        f"Data: {data}; {networks['seed'].nunique()} networks of each model, sizes within 1 % in "
        f"parameters, {settings.updates} updates of the better of {settings.finalists} of "
        f"{len(settings.rates)} rates{averaged}. "
        f"{name.capitalize()}: {'less' if better < 0 else 'more'} is better; "
        f"{first['chance']:.3f} {'by single frequencies' if settings.text else 'by chance'}"
        + (f", {first['bigram']:.3f} by pairs" if settings.text else "")
        + (f", {first['bound']:.3f} at least" if first["bound"] == first["bound"] else "")
    ]
    for row in tables["models"].to_dict("records"):
        lines.append(
            f"{row['reading']}, {row['model']}, {row['parameters']} parameters ({row['units']} "
            f"units): {row['test']:.4f} [{row['test_low']:.4f}, {row['test_high']:.4f}] on test "
            f"(n = {row['n']}); {row['update_ms']:.1f} ms an update{_over(row)}; "
            f"{row['multiply_adds']} multiply-adds a "
            f"step; at equal time {row['at_equal_time']:.4f} on validation; rates {row['rates']}"
        )
    for row in tables["statements"].to_dict("records"):
        lines.append(
            f"{row['verdict'].upper()}: {row['statement']} ({row['reading']}; n = {row['n']}). "
            f"{row['evidence']}"
        )
    lines.append(
        "Intervals are 95 % bootstrap intervals over networks; with five of them such an interval "
        "misses 0 by chance in about 8 % of cases, and nothing is corrected for the number of "
        "statements. At equal time torch's layers stand against the compiled loop of the package."
    )
    if "diverged" in networks and networks["diverged"].any():
        count = networks.loc[networks["diverged"].astype(bool), "model"].value_counts()
        told = ", ".join(f"{model} {k}" for model, k in count.items())
        lines.append(f"Networks that diverged after the search and stopped before the end: {told}.")
    ends = {min(settings.rates), max(settings.rates)}
    at_end = networks[networks["rate"].isin(ends)].groupby("model").size()
    if len(at_end) and len(settings.rates) > 1:
        told = ", ".join(f"{model} {count}" for model, count in at_end.items())
        lines.append(f"Networks whose rate lies at an end of the grid: {told}.")
    return lines

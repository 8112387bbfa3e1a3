"""What the records of a study of comodulation show: rates chosen, comparisons, claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.studies._comodulation_settings import ComodulationSettings
from ctxrnn.studies._results import Tables

if TYPE_CHECKING:
    import pandas as pd

BASE = ["layer", "skips", "decoder", "length", "version", "head_epochs"]
"""Axes that conditions are compared within."""
ATTRIBUTES = (
    "f1", "precision", "recall", "accuracy", "balanced_accuracy", "mean_average_precision",
    "f1_tuned", "ece", "ece_scaled", "ece_positive", "nll", "brier",
)  # fmt: skip
CLASSES = ("accuracy", "ece", "ece_scaled", "nll", "brier")
SHARED = (
    "noise_ratio", "noise_label", "change", "cka", "epochs_to_95", "early_area", "lead_lost",
)  # fmt: skip
NAMES = {"f1": "F1"}
FEWER = ("ece", "ece_scaled", "ece_positive", "nll", "brier", "noise_ratio", "noise_label",
         "epochs_to_95")  # fmt: skip
"""Measures of which less is better."""


def measures_of(settings: ComodulationSettings) -> tuple[str, ...]:
    """Return the measures that are compared; the first is the score."""
    return (*(CLASSES if settings.classes else ATTRIBUTES), *SHARED)


def arm_of(cells: pd.DataFrame) -> pd.Series:
    """Return the name of each cell's arm: its condition, "+head" where the read-out is joint."""
    return cells["condition"].where(~cells["joint"].astype(bool), cells["condition"] + "+head")


def selected(settings: ComodulationSettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Choose a rate for every arm by its mean validation score; return the cells at it.

    The tables are "selected" (cells at the chosen rate, with the speed of learning), "rates" (the
    score of every rate) and "curves" (validation curves of selected cells).
    """
    cells = tables["cells"].assign(arm=arm_of(tables["cells"]))
    keys = [*BASE, "arm"]
    rates = cells.groupby([*keys, "rate"], as_index=False, sort=False).agg(
        validation_score=("validation_score", "mean"), networks=("seed", "size")
    )
    # A mean over the networks that a rate did not break is no mean of all of them.
    most = rates.groupby(keys)["networks"].transform("max")
    whole = rates[rates["networks"] == most]
    best = whole.loc[whole.groupby(keys, sort=False)["validation_score"].idxmax(), [*keys, "rate"]]
    chosen = cells.merge(best, on=[*keys, "rate"])
    axes = [*BASE, "condition", "joint", "rate", "seed"]
    curves = tables["history"].merge(chosen[[*axes, "arm", "steps_per_epoch"]], on=axes)
    curves["epochs"] = curves["step"] / curves["steps_per_epoch"]
    edge = best.merge(rates.groupby(keys, as_index=False)["rate"].agg(["min", "max"]), on=keys)
    at_end = (edge["rate"] == edge["min"]) | (edge["rate"] == edge["max"])
    rates = rates.merge(best.assign(chosen=True, at_end=at_end.to_numpy()), how="left",
                        on=[*keys, "rate"])  # fmt: skip
    rates["chosen"] = rates["chosen"].eq(True)
    return {"selected": _speeds(chosen, curves), "rates": rates, "curves": curves}


def _speeds(chosen: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Add the speed of learning, from the validation curves.

    "epochs_to_95" is when 95 % of attention's best score is reached; a network that never does has
    all of its epochs, which is too few, and is marked in "never_reached". "early_area" is the mean
    score of the first three epochs, "lead_lost" that less the score at the end.
    """
    from ctxrnn.analysis import early_area, first_reached

    rows = {}
    for key, mine in curves.groupby([*BASE, "seed"], sort=False):
        reference = mine.loc[mine["arm"] == "attention", "score"].max()
        for arm, curve in mine.groupby("arm", sort=False):
            x, y = curve["epochs"].to_numpy(), curve["score"].to_numpy()
            if len(x) < 2:
                rows[(*key, arm)] = (np.nan, False, np.nan, np.nan)
                continue
            reached = first_reached(x, y, reference) if reference > 0 else np.nan
            never = bool(reference > 0 and np.isnan(reached))
            until = min(3.0, x[-1])
            area = early_area(x, y, until) / until
            rows[(*key, arm)] = (x[-1] if never else reached, never, area, area - y[-1])
    found = [rows[tuple(row)] for row in chosen[[*BASE, "seed", "arm"]].itertuples(index=False)]
    names = ("epochs_to_95", "never_reached", "early_area", "lead_lost")
    return chosen.assign(**dict(zip(names, map(list, zip(*found, strict=True)), strict=True)))


def compared(settings: ComodulationSettings, cells: pd.DataFrame) -> pd.DataFrame:
    """Compare arms pair by pair within every base: comod with all others, attention with none."""
    import pandas as pd

    from ctxrnn.analysis import paired

    rows = []
    for key, mine in cells.groupby(BASE, sort=False):
        arms = list(mine["arm"].unique())
        pairs = [("comod", other) for other in arms if other != "comod" and "comod" in arms]
        pairs += [(a, "none") for a in arms if a not in ("none", "comod") and "none" in arms]
        pairs += [("comod+head", "attention+head")] if "comod+head" in arms else []
        for a, b in dict.fromkeys(pairs):
            for measure in measures_of(settings):
                if not mine.loc[mine["arm"].isin((a, b)), measure].notna().any():
                    continue
                try:
                    found = paired(mine, measure, a=a, b=b, by="arm", on=["seed"])
                except ValueError:
                    continue
                rows.append(
                    {
                        **dict(zip(BASE, key, strict=True)), "measure": measure, "a": a, "b": b,
                        "difference": found.difference.mean, "difference_low": found.difference.low,
                        "difference_high": found.difference.high, "n": found.count, "p": found.p,
                        "effect_size": found.effect_size, "claim": found.claim,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Claim:
    """A statement of section 1.3 of the specification, as an ordering of paired differences.

    Attributes:
        name: O1 to O9.
        text: What reviewers of the paper describe.
        parts: (measure, a, b, sign) each: the difference a - b should have this sign.
        where: Which lengths: "short", or "all".
    """

    name: str
    text: str
    parts: tuple[tuple[str, str, str, int], ...]
    where: str = "all"


CONTROLS = ("shuffled-label", "permuted-gain", "input-noise", "bias-only")
"""Conditions that an effect of the noise label must exceed, besides attention."""


def claims_of(settings: ComodulationSettings) -> tuple[Claim, ...]:
    """Return the claims that these data can bear on."""
    score = measures_of(settings)[0]
    label = Claim(
        "D9", f"the effect belongs to the label: {NAMES.get(score, score)} of comodulation is "
        f"above attention's and above that of {', '.join(CONTROLS)}",
        tuple((score, "comod", other, 1) for other in ("attention", *CONTROLS)),
    )  # fmt: skip
    shared = (
        Claim("O4", "comodulation needs fewer epochs than attention",
              (("epochs_to_95", "comod", "attention", -1),)),
        Claim("O4*", "attention catches up: comodulation's lead in the first epochs is larger "
              "than at the end",
              (("early_area", "comod", "attention", 1), ("lead_lost", "comod", "attention", 1))),
        Claim("O5", "comodulation changes the representation more than attention does",
              (("change", "comod", "attention", 1),)),
        Claim("O8", "decoder noise is lower with comodulation than with attention",
              (("noise_ratio", "comod", "attention", -1),
               ("noise_label", "comod", "attention", -1))),
        Claim("O8*", "decoder noise, the spread within classes, is lower after comodulation than "
              "before",
              (("noise_label", "comod", "none", -1),)),
        label,
    )  # fmt: skip
    if settings.classes:
        return (
            Claim("D5", "accuracy of comodulation is above attention's",
                  (("accuracy", "comod", "attention", 1),)),
            *shared,
            Claim("O6", "the calibration error of comodulation is below attention's",
                  (("ece", "comod", "attention", -1),)),
            Claim("O6*", "it is so after temperature scaling, too",
                  (("ece_scaled", "comod", "attention", -1),)),
            Claim("D8", "comodulation is better calibrated than attention and than no tuning",
                  (("ece", "comod", "attention", -1), ("ece", "comod", "none", -1))),
        )  # fmt: skip
    return (
        Claim("O1", "after short pretraining F1 of comodulation is above attention's, and that "
              "above no tuning's",
              (("f1", "comod", "attention", 1), ("f1", "attention", "none", 1)), "short"),
        Claim("O1*", "threshold-free, too: mean average precision and F1 at tuned thresholds are "
              "above attention's",
              (("mean_average_precision", "comod", "attention", 1),
               ("f1_tuned", "comod", "attention", 1)), "short"),
        Claim("O2", "comodulation has higher recall and lower precision than attention",
              (("recall", "comod", "attention", 1), ("precision", "comod", "attention", -1))),
        *shared,
    )  # fmt: skip


def judged(
    settings: ComodulationSettings, comparisons: pd.DataFrame, cells: pd.DataFrame
) -> pd.DataFrame:
    """Judge every claim in every base: holds, opposite, not shown or not tested.

    It holds if all its differences have the claimed sign with intervals that exclude 0; it is the
    opposite if one of them has the other sign so.
    """
    import pandas as pd

    lengths = sorted(settings.pretrain.lengths)
    rows = []
    for key, own in cells.groupby(BASE, sort=False):
        base = dict(zip(BASE, key, strict=True))
        mine = comparisons
        for name, value in base.items():
            mine = mine[mine[name] == value] if len(mine) else mine
        for claim in claims_of(settings):
            if claim.where == "short" and base["length"] != lengths[0]:
                continue
            parts = [_part(mine, *part) for part in claim.parts]
            found = _verdict(parts)
            if claim.name == "O4":
                found = _with_censored(found, own)
            rows.append({"claim": claim.name, **base, **found, "text": claim.text})
    table = pd.DataFrame(rows)
    more = [*_trend(settings, cells), *_skips(settings, cells), *_semantics(settings, cells)]
    return pd.concat([table, pd.DataFrame(more)], ignore_index=True) if more else table


def _part(
    comparisons: pd.DataFrame, measure: str, a: str, b: str, sign: int
) -> dict[str, Any] | None:
    """Return a difference in the direction that is claimed, or None if it was not measured."""
    if not len(comparisons):
        return None
    found = comparisons.query("measure == @measure and a == @a and b == @b")
    if found.empty and a == "attention":
        found = comparisons.query("measure == @measure and a == @b and b == @a")
        sign = -sign
    if found.empty:
        return None
    row = found.iloc[0]
    interval = f"[{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]"
    if row["difference_low"] != row["difference_low"]:
        interval = "without an interval"
    told = f"{measure}: {a} - {b} {row['difference']:+.4f} {interval}"
    if row["p"] == row["p"]:
        told += f", p = {row['p']:.2g}"
    return {"claim": bool(row["claim"]), "agrees": sign * row["difference"] > 0, "told": told,
            "n": int(row["n"])}  # fmt: skip


def _verdict(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        verdict = "not tested"
    elif all(part["claim"] and part["agrees"] for part in known):
        verdict = "holds"
    elif any(part["claim"] and not part["agrees"] for part in known):
        verdict = "opposite"
    else:
        verdict = "not shown"
    return {
        "verdict": verdict,
        "evidence": "; ".join(part["told"] for part in known),
        "n": min((part["n"] for part in known), default=0),
    }


def _with_censored(found: dict[str, Any], cells: pd.DataFrame) -> dict[str, Any]:
    """Say how many networks never reached the mark, for which all epochs are too few."""
    never = cells.loc[(cells["arm"] == "comod") & cells["never_reached"].astype(bool), "seed"]
    if not len(never):
        return found
    verdict = "not shown" if found["verdict"] == "holds" else found["verdict"]
    told = f"{found['evidence']}; {len(never)} networks of comod never reached it"
    return {**found, "verdict": verdict, "evidence": told}


def _difference(
    cells: pd.DataFrame, measure: str, a: str, b: str, along: Sequence[str]
) -> pd.Series | None:
    """Return a - b of every seed and value of some axes, or None where an arm is missing."""
    wide = cells.pivot_table(index=["seed", *along], columns="arm", values=measure)
    if a not in wide or b not in wide:
        return None
    found: pd.Series = (wide[a] - wide[b]).dropna()
    return found if len(found) else None


def _trend(settings: ComodulationSettings, cells: pd.DataFrame) -> list[dict[str, Any]]:
    """O3: the advantage over attention shrinks from the shortest to the longest first stage."""
    from ctxrnn.analysis import paired_difference

    lengths = sorted(settings.pretrain.lengths)
    score = measures_of(settings)[0]
    text = "the advantage of comodulation over attention shrinks as pretraining gets longer"
    base = {"claim": "O3", "text": text, "length": f"{lengths[0]} to {lengths[-1]}"}
    found = _difference(cells, score, "comod", "attention", ["length"])
    if len(lengths) < 2 or found is None:
        return [{**base, "verdict": "not tested", "evidence": "one length", "n": 0}]
    wide = found.unstack("length")[[lengths[0], lengths[-1]]].dropna()
    d = paired_difference(wide[lengths[0]].to_numpy(), wide[lengths[-1]].to_numpy())
    first = paired_difference(wide[lengths[0]].to_numpy(), np.zeros(len(wide)))
    verdict = "not shown"
    if d.claim and d.difference.mean < 0:
        verdict = "opposite"
    elif d.claim and first.claim and first.difference.mean > 0:
        verdict = "holds"
    told = (
        f"{score}, advantage at the shortest {first.difference}, less that at the longest "
        f"{d.difference}"
    )
    return [{**base, "verdict": verdict, "evidence": told, "n": d.count}]


def _skips(settings: ComodulationSettings, cells: pd.DataFrame) -> list[dict[str, Any]]:
    """O7: (comod - attention) with skips minus the same without, per modulated layer."""
    from ctxrnn.analysis import paired_difference

    if len(settings.skips) < 2:
        return []
    score, rows = measures_of(settings)[0], []
    # Other decoders are there with skips alone.
    cells = cells[cells["decoder"] == settings.decoders[0]]
    text = "residual connections enlarge the benefit of comodulation over attention"
    for (layer, version), mine in cells.groupby(["layer", "version"], sort=False):
        base = {"claim": "O7", "text": text, "layer": layer, "version": version}
        found = _difference(mine, score, "comod", "attention", ["skips"])
        wide = None if found is None else found.unstack("skips").dropna()
        if wide is None or wide.shape[1] < 2 or wide.empty:
            continue
        d = paired_difference(wide[True].to_numpy(), wide[False].to_numpy())
        verdict = "not shown"
        if d.claim:
            verdict = "holds" if d.difference.mean > 0 else "opposite"
        told = f"{score}, difference of differences {d.difference}"
        rows.append({**base, "verdict": verdict, "evidence": told, "n": d.count})
    return rows


def _semantics(settings: ComodulationSettings, cells: pd.DataFrame) -> list[dict[str, Any]]:
    """O9: couplings and gains of comodulation are alike within groups of contexts."""
    from ctxrnn.studies._common import FEWEST

    rows = []
    for key, own in cells.groupby(BASE, sort=False):
        for what in ("couplings", "gains"):
            name = f"{what}_silhouette_p"
            mine = own[own["arm"] == "comod"]
            p = mine[name].dropna() if name in mine else mine.iloc[:0]["seed"]
            base = {
                "claim": "O9", **dict(zip(BASE, key, strict=True)),
                "text": f"{what} are organised by the groups of contexts",
            }  # fmt: skip
            if not len(p):
                rows.append({**base, "verdict": "not tested", "evidence": "no groups", "n": 0})
                continue
            below = int((p < 0.05).sum())
            # Each test alone is below 0.05 by chance in 5 % of networks: of five, three or more
            # are so in one study of a thousand.
            holds = below > len(p) / 2 and len(p) >= FEWEST
            told = (
                f"silhouette above chance (p < 0.05) in {below} of {len(p)} networks, mean "
                f"{mine[name.removesuffix('_p')].mean():+.3f}"
            )
            verdict = "holds" if holds else "not shown"
            rows.append({**base, "verdict": verdict, "evidence": told, "n": len(p)})
    return rows


def study_tables(settings: ComodulationSettings, tables: Tables) -> dict[str, pd.DataFrame]:
    """Return the tables that are made from the records."""
    found = selected(settings, tables)
    found["comparisons"] = compared(settings, found["selected"])
    found["claims"] = judged(settings, found["comparisons"], found["selected"])
    return found


def study_findings(settings: ComodulationSettings, tables: Tables) -> list[str]:
    """Say for each claim whether it holds, on which data."""
    cells = tables["selected"]
    name, stand_in = cells["data_name"].iloc[0], cells["stand_in_for"].iloc[0]
    data = f"{name} (a stand-in for {stand_in}, not {stand_in})" if stand_in else str(name)
    lines = [
        f"Data: {data}, {cells['train_images'].iloc[0]} training images, "
        f"{cells['seed'].nunique()} networks, encoder weights {cells['weights'].iloc[0]}. "
        "Agreement is with the ordering that reviewers of Boeshertz, Haimerl & Savin (2023) "
        "describe; no number of the paper is known."
    ]
    several = [axis for axis in BASE if cells[axis].nunique() > 1 or axis in ("version", "length")]
    if settings.classes and "chance" in cells:
        told = ", ".join(
            f"{version} {mine['chance'].iloc[0]}" for version, mine in cells.groupby("version")
        )
        lines.append(f"Accuracy by chance: {told}.")
    claims = tables["claims"]
    tested = int((claims["verdict"] != "not tested").sum())
    lines.append(
        f"{tested} claims are judged by 95 % bootstrap intervals over networks. With five networks "
        "such an interval misses 0 by chance in about 8 % of cases, and no sign-flip p is below "
        "0.0625; nothing is corrected for the number of claims."
    )
    for row in claims.to_dict("records"):
        known = {k: v for k, v in row.items() if k in BASE and v == v and v is not None}
        where = ", ".join(f"{key} {value}" for key, value in known.items() if key in several)
        lines.append(
            f"{row['claim']} {row['verdict'].upper()}: {row['text']} ({where}; n = {row['n']}). "
            f"{row['evidence']}"
        )
    ends = tables["rates"].query("chosen and at_end == True and rate > 0")
    if len(ends):
        told = ", ".join(
            f"{row.arm} {row.rate:g}" for row in ends.drop_duplicates("arm").itertuples()
        )
        lines.append(f"Rates chosen at an end of their grid, which may be too narrow: {told}.")
    return lines

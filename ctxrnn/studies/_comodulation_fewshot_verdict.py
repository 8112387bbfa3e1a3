"""The rule by which the few-shot study is judged, fixed before it was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctxrnn.studies._common import FEWEST
from ctxrnn.studies._comodulation_fewshot_settings import STOCHASTIC

DIGITISED: Mapping[int, Mapping[str, float]] = {
    100: {"stoch": 75, "gain": 60, "weights": 54, "decoder": 54},
    150: {"stoch": 92, "gain": 81, "weights": 60, "decoder": 57},
    300: {"stoch": 97, "gain": 91, "weights": 79, "decoder": 70},
}
"""Accuracy in %, read off the published figure (Haimerl et al. 2022); samples -> mode -> value."""
READING_ERROR = 2.0
WITHIN = 10.0
"""Most points by which a mean may differ from the table."""

Means = Mapping[str, Mapping[int, float]]
"""Mode -> samples -> mean accuracy in %."""


@dataclass(frozen=True)
class Verdict:
    """What the rule says about one stochastic arm.

    Attributes:
        arm: The arm.
        reproduced: Whether its order and all means are those of the table; None if sizes or modes
            are missing.
        matches: Whether its own curve is within 10 points of the published one; None likewise.
        reasons: What fails, or what is missing.
    """

    arm: str
    reproduced: bool | None
    matches: bool | None
    reasons: tuple[str, ...]


def verdict(means: Means, arm: str, networks: int) -> Verdict:
    """Judge one arm: arm > gain > max(weights, decoder), and every mean within 10 points.

    Args:
        means: Means over tasks and seeds.
        arm: One of the stochastic arms.
        networks: Networks of the mean over the fewest; below five there is no verdict.
    """
    names = {"stoch": arm, "gain": "gain", "weights": "weights", "decoder": "decoder"}
    missing = [
        f"{mode} at {samples}"
        for samples in DIGITISED
        for mode in names.values()
        if samples not in means.get(mode, {})
    ]
    matches = curve_matches(means, arm)
    if missing:
        return Verdict(arm, None, matches, (f"not there: {', '.join(missing)}",))
    if networks < FEWEST:
        told = f"{networks} networks where {FEWEST} are needed"
        return Verdict(arm, None, None, (told,))
    reasons = []
    for samples, published in DIGITISED.items():
        found = {name: means[mode][samples] for name, mode in names.items()}
        better = max(found["weights"], found["decoder"])
        if not found["stoch"] > found["gain"]:
            reasons.append(f"{samples}: {arm} {found['stoch']:.1f} <= gain {found['gain']:.1f}")
        if not found["gain"] > better:
            reasons.append(
                f"{samples}: gain {found['gain']:.1f} <= max(weights, decoder) {better:.1f}"
            )
        reasons += [
            f"{samples}: {names[name]} {found[name]:.1f}, published {value:g}"
            for name, value in published.items()
            if not abs(found[name] - value) <= WITHIN
        ]
    return Verdict(arm, not reasons, matches, tuple(reasons))


def curve_matches(means: Means, arm: str) -> bool | None:
    """Tell whether an arm's means are within 10 points of the published stochastic curve."""
    mine = means.get(arm, {})
    if any(samples not in mine for samples in DIGITISED):
        return None
    return all(
        abs(mine[samples] - published["stoch"]) <= WITHIN
        for samples, published in DIGITISED.items()
    )


def cause(verdicts: Sequence[Verdict]) -> str:
    """Say what the four arms tell about the cause of the published curve."""
    found = {judged.arm: judged.matches for judged in verdicts}
    if any(found.get(arm) is None for arm in STOCHASTIC):
        return (
            "The arms do not tell a cause: not all four were run at 100, 150 and 300 samples, with "
            f"{FEWEST} networks."
        )
    blank, images, exponential, permuted = (bool(found[arm]) for arm in STOCHASTIC)
    if blank and permuted and not images:
        return (
            "THE NOISE LABEL IS NOT THE CAUSE: a gain from rounding errors (i) and the same gain "
            "with its units exchanged (iv) match the published curve, real images (ii) do not."
        )
    if blank and permuted:
        return (
            "The arms do not single out the noise label: gains without any label, (i) and (iv), "
            "match the published curve as real images (ii) do."
        )
    if images and not blank and not permuted:
        return (
            "The label may be the cause: real images (ii) match the published curve, gains "
            "without a label, (i) and (iv), do not."
        )
    if not (blank or images or exponential or permuted):
        return (
            "No arm matches the published curve: the arms say nothing about its cause, and it is "
            "not explained by the released procedure as rerun here."
        )
    matching = [arm for arm in STOCHASTIC if found[arm]]
    return f"The arms do not tell a cause: {', '.join(matching)} match the published curve."

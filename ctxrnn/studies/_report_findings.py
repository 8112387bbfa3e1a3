"""What the figures of the report say, in a sentence each, HTML."""

from __future__ import annotations

import html
from itertools import combinations
from typing import TYPE_CHECKING

from ctxrnn.analysis import paired

if TYPE_CHECKING:
    import pandas as pd

# Below this a network has not learnt the tasks well enough to ask how robust it is.
_LEARNT = 0.8


def learning_finding(networks: pd.DataFrame) -> str:
    """Say how well the tasks were learnt with and without a context."""
    means = networks.groupby("variant", sort=False)["relative_mean"].mean()
    with_context = means.drop("none", errors="ignore")
    if with_context.empty:
        return f"Without a context networks reach {means['none']:.2f} of what is possible."
    low, high = f"{with_context.min():.2f}", f"{with_context.max():.2f}"
    reached = low if low == high else f"{low} to {high}"
    text = f"With a context networks reach {reached} of what is possible"
    if "none" in means:
        text += f", without one {means['none']:.2f}"
    short = "" if with_context.min() >= _LEARNT else " Training was too short to learn the tasks."
    return f"{text}.{short}"


def ambiguity_finding(networks: pd.DataFrame) -> str:
    """Say which mechanisms differ in robustness, as far as that may be claimed."""
    arms = [str(name) for name in networks["variant"].unique() if name != "none"]
    means = networks.groupby("variant")["relative_mean"].mean()
    if len(arms) < 2:
        return ""
    if means[arms].min() < _LEARNT:
        return "Networks that have not learnt their tasks say nothing about robustness."
    claims, fewest = [], None
    for a, b in combinations(arms, 2):
        found = paired(networks, "area", a=a, b=b, on=("seed",))
        fewest = found.independent if fewest is None else min(fewest, found.independent)
        if found.claim:
            more, less = (a, b) if found.difference.mean > 0 else (b, a)
            claims.append(
                f"{html.escape(more)} is more robust than {html.escape(less)} (area "
                f"{abs(found.difference.mean):+.3f}, interval "
                f"[{found.difference.low:.3f}, {found.difference.high:.3f}] of "
                f"{html.escape(a)} &minus; {html.escape(b)})"
            )
    if claims:
        return "; ".join(claims) + "."
    return (
        f"With {fewest} networks per mechanism no difference in robustness can be claimed between "
        "the mechanisms that have a context."
    )


def tasks_finding(accuracy: pd.DataFrame) -> str:
    """Say which task is the hardest with a context."""
    able = accuracy[accuracy["variant"] != "none"]
    if able.empty:
        return ""
    share = (able["accuracy"] / able["ceiling"]).groupby(able["task"]).mean()
    hardest, easiest = html.escape(str(share.idxmin())), html.escape(str(share.idxmax()))
    return (
        f"The hardest task is {hardest}, with {share.min():.2f} of what is possible; the easiest "
        f"{easiest}, with {share.max():.2f} (means over the networks with a context)."
    )

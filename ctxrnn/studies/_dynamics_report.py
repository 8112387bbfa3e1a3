"""The dynamics in the report of the main job: figures, their captions, a table."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ctxrnn.studies._dynamics import FAILED
from ctxrnn.studies._dynamics_figures import dynamics_figures, shown_pair
from ctxrnn.studies._dynamics_tables import SUMMARIES
from ctxrnn.studies._page import figure_of, interval_cell, scrolling, table_of

if TYPE_CHECKING:
    import pandas as pd

    from ctxrnn.studies._reproduce import ReproduceSettings

Tables = Mapping[str, "pd.DataFrame"]


def dynamics_sections(figures: Path, tables: Tables, settings: ReproduceSettings) -> list[str]:
    """Return the part of the page on dynamics; nothing where they were not measured."""
    if not settings.dynamics_starts:
        return []
    parts = ["<h2>Dynamics</h2>", _method(settings), *_failures(tables["cells"])]
    parts.append(scrolling(_summary(tables)))
    captions = {"dynamics": ("Dynamics in each context", _dynamics_caption),
                "bifurcations": ("From one context to another", _bifurcations_caption)}  # fmt: skip
    for name in dynamics_figures(tables):
        title, caption = captions[name]
        if (figures / f"{name}.png").exists():
            parts.append(figure_of(figures / f"{name}.png", title, caption(tables, settings)))
    if "crossing_tests" in tables:
        parts.append(f"<p>{_verdict(tables)}</p>")
    return parts


def failures(cells: pd.DataFrame) -> list[str]:
    """Tell of which networks' dynamics something is missing, and why."""
    if FAILED not in cells:
        return []
    rows = cells[cells[FAILED].notna()]
    return [f"{row['variant']}, network {row['seed']}: {row[FAILED]}" for _, row in rows.iterrows()]


def _failures(cells: pd.DataFrame) -> list[str]:
    told = failures(cells)
    if not told:
        return []
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in told)
    return [
        f"<p>Of {len(told)} of {len(cells)} networks some of the dynamics could not be computed; "
        f"they are left out where it is missing.</p><ul>{lines}</ul>"
    ]


def _method(settings: ReproduceSettings) -> str:
    return (
        "<p>Each network was run without noise on "
        f"{settings.dynamics_trials} trials per task. In every context fixed points were sought "
        f"from {settings.dynamics_starts} visited states, with the fixation cue on and the "
        "stimulus off. State dependence is 1 &minus; |&lang;&Delta;F&rang;|&sup2; / "
        "&lang;|&Delta;F|&sup2;&rang; of the difference of the flow in two contexts at the same "
        "states, the mean over pairs of tasks: 0 where a context adds the same everywhere, above "
        "where it deforms the flow. The angle is the mean principal angle between the spaces that "
        "hold 90&nbsp;% of the variance of two tasks. Between the contexts of twins (same stimuli, "
        "other answers) stable points were followed, with all that they are connected with; a "
        "bifurcation counts if a stable point is born there, lost, or turned unstable.</p>"
    )


def _summary(tables: Tables) -> str:
    networks = tables["networks"]
    columns = {**SUMMARIES, "slow_points": "slow points per context"}
    head = ["mechanism", "networks", *map(html.escape, columns.values())]
    tests = tables.get("crossing_tests")
    if tests is not None:
        head += ["smooth paths", "mean distance from crossing", "p"]
    rows = []
    for variant, group in networks.groupby("variant", sort=False):
        cells = [html.escape(str(variant)), str(len(group))]
        for column in columns:
            known, digits = group[column].notna().any(), 3 if column == "state_dependence" else 2
            cells.append(
                interval_cell(group[column], missing="unknown", decimals=digits)
                if known
                else "&ndash;"
            )
        if tests is not None:
            cells += _path_cells(str(variant), tables)
        rows.append(cells)
    return table_of(head, rows)


def _path_cells(variant: str, tables: Tables) -> list[str]:
    tests = tables["crossing_tests"].set_index("variant")
    if variant not in tests.index:
        return ["&ndash;"] * 3
    counts = tables["paths"].loc[tables["paths"]["variant"] == variant, "bifurcations"].dropna()
    test = tests.loc[variant]
    distance = f"{test['mean_distance']:.3f} ({test['compared']} of {test['paths']} paths)"
    return [
        f"{int((counts == 0).sum())} of {len(counts)}",
        distance if test["compared"] else "&ndash;",
        f"{test['p']:.2g}" if test["p"] == test["p"] else "&ndash;",
    ]


def _means(networks: pd.DataFrame, column: str, decimals: int) -> str:
    means = networks.groupby("variant", sort=False)[column].mean().dropna()
    return ", ".join(f"{html.escape(str(v))} {value:.{decimals}f}" for v, value in means.items())


def _dynamics_caption(tables: Tables, settings: ReproduceSettings) -> str:
    networks = tables["networks"]
    tasks = list(dict.fromkeys(tables["trajectories"]["task"]))
    count = networks["variant"].nunique()
    letters = "abcdefghijklmnop"
    numbers = "; ".join(
        f"{SUMMARIES[name]}: {_means(networks, name, decimals)}"
        for name, decimals in (
            ("state_dependence", 3), ("angle", 1), ("participation_ratio", 1), ("stable_points", 1)
        )
    )  # fmt: skip
    return (
        f"a&ndash;{letters[count - 1]}, the first network of each mechanism: mean trajectories of "
        f"{html.escape(' and '.join(tasks))}, one line per correct answer, on the first two "
        "principal components of all tasks (share of the variance); black dots are where they "
        "begin. Fixed points with the stimulus off in the task's context (without context: grey). "
        f"From {letters[count]} on, over {networks['seed'].nunique()} networks per mechanism "
        "(dots: single networks, line: mean, bars: 95&nbsp;% t intervals, from three networks on, "
        f"cut at 0). {numbers}. e-add adds a constant to the flow by its equation, so that its "
        "state dependence is 0; a network without context has none."
    )


def _bifurcations_caption(tables: Tables, settings: ReproduceSettings) -> str:
    a, b = map(html.escape, shown_pair(tables))
    paths = tables["paths"]
    count = paths["variant"].nunique()
    letters = "abcdefghijklmnop"
    low = letters[count + 1], letters[2 * count]
    share = paths.dropna(subset=["bifurcation"])
    return (
        f"a&ndash;{letters[count - 1]}, the first network of each mechanism: fixed points along "
        f"(1 &minus; &lambda;) e<sub>{a}</sub> + &lambda; e<sub>{b}</sub>, on the first principal "
        "component (solid: stable, dotted: not; markers: bifurcations of stable points). The "
        "dotted line is where this network's choices cross, on average over trials of both tasks. "
        f"{low[0]}&ndash;{low[1]}, answers on conflicting trials of {a}, mean over networks and "
        f"95&nbsp;% t interval ({settings.ambiguity_trials} trials per level and network). "
        f"{letters[count]}, the nearest bifurcation against the crossing of {len(share)} paths of "
        f"{len(paths)} (the others have no bifurcation or no crossing); on the line both "
        f"agree. {letters[2 * count + 1]}, bifurcations per path, one dot per network: "
        f"{_means(tables['networks'], 'bifurcations', 1)}."
    )


def _verdict(tables: Tables) -> str:
    """Say what the tests of distances show, and what they do not."""
    tests = tables["crossing_tests"].dropna(subset=["p"])
    if not len(tests):
        return "Too few paths have both a crossing and a bifurcation to compare them."
    told = ", ".join(
        f"{html.escape(str(row.variant))} p = {row.p:.2g} ({row.compared} paths)"
        for row in tests.itertuples()
    )
    near = tests[tests["p"] < 0.05]
    text = (
        "Do choices change over where stable points bifurcate? With several bifurcations on a path "
        "one is near by chance, so crossings were exchanged between the paths of a network and the "
        f"nearest found anew: {told}. "
    )
    if not len(near):
        return text + (
            "The true crossings are no nearer to a bifurcation than exchanged ones: no relation "
            "was found between them, with the stimulus off."
        )
    names = ", ".join(html.escape(str(name)) for name in near["variant"])
    return text + (
        f"They are nearer than exchanged ones for {names} (p below 0.05, of {len(tests)} tests, "
        "not corrected for their number)."
    )

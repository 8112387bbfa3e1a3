"""The report of the main job: one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ctxrnn._checkpoint import write_atomically
from ctxrnn.studies._dynamics_report import dynamics_sections
from ctxrnn.studies._page import figure_of, interval_cell, page_of, scrolling, table_of
from ctxrnn.studies._report_findings import ambiguity_finding, learning_finding, tasks_finding

if TYPE_CHECKING:
    from ctxrnn.studies._reproduce import ReproduceSettings
    from ctxrnn.studies._results import ResultsFolder


def write_report(
    results: ResultsFolder,
    settings: ReproduceSettings,
    tables: Mapping[str, pd.DataFrame],
    provenance: Mapping[str, Any],
) -> Path:
    """Write `report.html`, which needs no other file; the figures have been drawn."""
    figures = {
        name: results.path / "figures" / f"{name}.png"
        for name in ("learning", "ambiguity", "tasks")
    }
    parts = [
        "<h1>How well do excitability, synaptic and combined modulation hold several tasks, and "
        "what happens when the context becomes ambiguous?</h1>",
        _method(settings, tables["networks"]),
        "<h2>Result</h2>",
        scrolling(_summary(tables["networks"])),
        f"<p>{_note(settings)}</p>",
        figure_of(
            figures["learning"], "Learning", _learning_caption(tables),
            learning_finding(tables["networks"]),
        ),
        figure_of(
            figures["ambiguity"], "Ambiguity", _ambiguity_caption(tables),
            ambiguity_finding(tables["networks"]),
        ),
        figure_of(
            figures["tasks"], "Accuracy per task", _tasks_caption(settings),
            tasks_finding(tables["accuracy"]),
        ),
        "<h2>Accuracy per task</h2>",
        scrolling(_per_task(tables["accuracy"], settings)),
        *dynamics_sections(results.path / "figures", tables, settings),
        "<h2>Provenance</h2>",
        _provenance(provenance),
        _files(tables),
    ]  # fmt: skip
    page = page_of("ctxrnn reproduce", parts)
    path = results.path / "report.html"
    write_atomically(path, page.encode())
    return path


def _method(settings: ReproduceSettings, networks: pd.DataFrame) -> str:
    base = settings.base
    tasks = ", ".join(base.tasks)
    sizes = "; ".join(
        f"{html.escape(row.variant)}: N = {row.units}, {row.parameters} parameters"
        for row in networks.drop_duplicates("variant").itertuples()
    )
    return (
        f"<p>Continuous-time tanh networks (tau {base.tau:g} ms, dt {base.dt:g} ms) were "
        f"trained on {len(base.tasks)} neurogym tasks at once ({html.escape(tasks)}; ring of "
        f"{base.ring}), {settings.seeds} networks per mechanism, at equal parameter counts "
        f"({sizes}). The task is told by a context vector alone, which acts on neurons "
        "(<code>e-</code>), on recurrent synapses (<code>s-</code>), on both (<code>es-</code>), "
        "or not at all (<code>none</code>). Accuracy is measured on fresh trials, relative to an "
        "ideal observer's ceiling. Then the context of each trial is mixed with that of every "
        "other task, (1 &minus; &lambda;) e<sub>k</sub> + &lambda; e<sub>j</sub>, without further "
        "training.</p>"
        "<p>This tests claims in the abstract of Vedovati &amp; Ching (2024, arXiv:2408.01316) "
        "under operational definitions of our own; the full text was not available, and no number "
        "here reproduces one of the paper.</p>"
    )


def _summary(networks: pd.DataFrame) -> str:
    columns = {
        "relative_mean": "accuracy / ceiling",
        "relative_conflicting": "on conflicting tasks",
        "relative_min": "worst task",
        "area": "area A",
        "area_relative": "A / clean",
        "lambda_50": "&lambda;<sub>50</sub>",
    }
    if networks["relative_conflicting"].isna().all():
        del columns["relative_conflicting"]
    rows = []
    for variant, group in networks.groupby("variant", sort=False):
        cells = [html.escape(str(variant)), str(group["units"].iloc[0]), str(len(group))]
        rows.append(cells + [interval_cell(group[column]) for column in columns])
    return table_of(["mechanism", "N", "networks", *columns.values()], rows)


def _note(settings: ReproduceSettings) -> str:
    text = (
        "Mean over networks, &plusmn; half-width of its 95&nbsp;% t interval (with two networks: "
        "the two values). "
        "A is the mean normalised accuracy, (p &minus; chance) / (ceiling &minus; chance), for "
        "&lambda; from 0 to 0.5; &lambda;<sub>50</sub> is where it falls to half of its clean "
        "value (never: not up to &lambda; = 1). A network without context cannot tell twins apart "
        "and does not see the mixture."
    )
    if settings.seeds < 5:
        text += (
            f" With {settings.seeds} networks per mechanism this is a first look, not evidence "
            "for an order of the mechanisms."
        )
    return text


def _per_task(accuracy: pd.DataFrame, settings: ReproduceSettings) -> str:
    mean = accuracy.pivot_table(index="task", columns="variant", values="accuracy", sort=False)
    limits = accuracy.drop_duplicates("task").set_index("task")
    rows = [
        [html.escape(task)]
        + [f"{mean.loc[task, variant]:.3f}" for variant in settings.variants]
        + [f"{limits.loc[task, 'chance']:.3f}", f"{limits.loc[task, 'ceiling']:.3f}"]
        for task in settings.base.tasks
    ]
    return table_of(["task", *map(html.escape, settings.variants), "chance", "ceiling"], rows)


def _means(networks: pd.DataFrame, column: str) -> str:
    means = networks.groupby("variant", sort=False)[column].mean()
    return ", ".join(f"{html.escape(str(variant))} {value:.2f}" for variant, value in means.items())


def _learning_caption(tables: Mapping[str, pd.DataFrame]) -> str:
    return (
        "a, accuracy relative to the ceiling during training (thick: mean, thin: single "
        "networks). b, the same on fresh trials with the weights that were kept: "
        f"{_means(tables['networks'], 'relative_mean')}."
    )


def _ambiguity_caption(tables: Mapping[str, pd.DataFrame]) -> str:
    networks = tables["networks"]
    return (
        "a, normalised accuracy on the dominant task while its context is mixed with another's "
        "(thick: mean, thin: single networks, marker: half-way point). b, area up to an even "
        f"mixture: {_means(networks, 'area')}. c, half-way point; an asterisk tells that some "
        "networks never fell to half. Bars are 95 % t intervals, from three networks on."
    )


def _tasks_caption(settings: ReproduceSettings) -> str:
    return (
        f"Fraction of correct trials on {settings.base.test_trials} fresh trials per task; bars "
        "are means over networks, dots single networks, lines each task's chance and ceiling."
    )


def _files(tables: Mapping[str, pd.DataFrame]) -> str:
    links = ", ".join(
        f"{html.escape(name)} (<a href='{name}.csv'>CSV</a>, <a href='{name}.parquet'>Parquet</a>)"
        for name in tables
    )
    return (
        f"<p>Records, beside this page: {links}. Trained networks in "
        "<a href='networks/'>networks</a>, figures as PDF and PNG in "
        "<a href='figures/'>figures</a>, all that made them in "
        "<a href='provenance.json'>provenance.json</a>.</p>"
    )


def _provenance(provenance: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in provenance["versions"].items())
    seeds = ", ".join(f"{number}: {seed}" for number, seed in provenance["seeds"].items())
    rows = [
        ["command", f"<code>{html.escape(str(provenance['command']))}</code>"],
        ["versions", html.escape(versions)],
        ["git commit", html.escape(str(provenance.get("commit") or "not a checkout"))],
        ["seeds (network: seed)", html.escape(seeds)],
        ["machine", html.escape(str(provenance["machine"]))],
        ["date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"],
        ["time, this run", f"{provenance['seconds of this run']:g} s"],
        ["time, all networks", f"{provenance['seconds of all networks']:g} s of one core"],
    ]
    lines = "".join(f"<dt><b>{name}</b></dt><dd>{value}</dd>" for name, value in rows)
    return f"<dl>{lines}</dl>"

"""Figures of the studies, drawn from their tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctxrnn.analysis import Interval, plots

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, "pd.DataFrame"]


@dataclass(frozen=True)
class _Told:
    """A difference as a table of comparisons tells it."""

    difference: Interval
    claim: bool


def letters(*axes: plots.Axes) -> None:
    """Put a letter above each of several Axes."""
    for letter, ax in zip("abcdefghijkl", axes, strict=False):
        ax.set_title(letter, loc="left", fontweight="bold", fontsize=9)


def points(
    ax: plots.Axes, rows: Iterable[Mapping[str, Any]], label: str, *, where: str = ""
) -> None:
    """Draw rows of a table of comparisons as differences with intervals."""
    entries = []
    for row in rows:
        interval = Interval(
            row["difference"], row["difference_low"], row["difference_high"], row["n"], 0.95
        )
        text = f"{row['a']} − {row['b']}" if row["kind"] == "paired" else f"S, {row['a']}"
        # S below 0 is a finding too, though none of synergy.
        below = row["kind"] == "synergy" and row["n"] >= 5 and row["difference_high"] < 0
        told = _Told(interval, bool(row["claim"] or below))
        entries.append((f"{where.format(**row)}{text}", told))
    if entries:
        plots.difference_points(ax, entries, label=label)  # type: ignore[arg-type]


def legend(figure: plots.Figure, ax: plots.Axes, columns: int = 4) -> None:
    """Put the legend of one of the Axes below the figure."""
    handles, labels = ax.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns)


def learning_figures(tables: Tables, tasks: Sequence[str], theta: float) -> dict[str, plots.Figure]:
    """Draw learning curves by kind of pathway, and the final accuracy of every variant."""
    curves, cells = tables["learning"], tables["cells"]
    kinds = {
        name: [
            v
            for v in dict.fromkeys(cells["variant"])
            if plots.mechanism(v).replace("gated", "synaptic") == name
        ]
        for name in ("excitability", "synaptic", "both")
    }
    figure = plots.new_figure(1, 3, size=(7.0, 2.8))
    for ax, (name, variants) in zip(figure.axes, kinds.items(), strict=True):
        shown = curves[curves["variant"].isin(["none", *variants])]
        plots.learning_curves(ax, shown, target=theta)
        ax.set_title({"both": "both pathways"}.get(name, name))
    letters(*figure.axes)
    figure.legend(*_merged(figure.axes), loc="outside lower center", ncols=4)
    final = plots.new_figure(1, 2, size=(7.0, 3.0))
    for ax, value, label in zip(
        final.axes,
        ("relative_mean", "relative_min"),
        ("accuracy / ceiling, mean over tasks", "accuracy / ceiling, worst task"),
        strict=True,
    ):
        plots.interval_points(ax, cells, value, label=label)
        ax.tick_params(axis="x", rotation=60)
        ax.set_ylim(0, 1.05)
        ax.axhline(theta, color="0.75", linewidth=0.8, zorder=0)
    letters(*final.axes)
    few = [v for v in ("none", "e-add", "s-sym", "es-add-sym") if v in set(cells["variant"])]
    by_task = plots.new_figure(size=(7.0, 2.8))
    accuracy = tables["accuracy"]
    plots.accuracy_by_task(by_task.axes[0], accuracy[accuracy["variant"].isin(few)], tasks=tasks)
    legend(by_task, by_task.axes[0], 3)
    return {"learning": figure, "final": final, "tasks": by_task}


def _merged(axes: Iterable[plots.Axes]) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def packing_figures(
    tables: Tables,
    theta: float,
    matchings: Sequence[str],
    variants: Sequence[str],
    sizes: Sequence[int],
) -> dict[str, plots.Figure]:
    """Draw the maps f(K, N), the sizes needed, and the comparisons."""
    best = tables["best"]
    column = f"solved_{theta:g}"
    drawn: dict[str, plots.Figure] = {}
    capacity, needed = tables["capacity"], tables["sizes"]
    for matching in matchings:
        rows = best[(best["matching"] == matching) & best["size"].isin(sizes)]
        there = [variant for variant in variants if (rows["variant"] == variant).any()]
        figure = plots.Figure(figsize=(0.6 + 2.15 * len(there), 2.6), layout="constrained")
        *maps, bar = figure.subplots(1, len(there) + 1, width_ratios=[*([1] * len(there)), 0.06])
        stairs = capacity[(capacity["matching"] == matching) & (capacity["theta"] == theta)]
        marks = needed[(needed["matching"] == matching) & (needed["theta"] == theta)]
        for ax, variant in zip(maps, there, strict=True):
            plots.capacity_map(
                ax,
                rows[rows["variant"] == variant],
                bar=bar if variant == there[-1] else None,
                value=column,
                units="size",
                capacity=stairs.rename(columns={"units": "size"}),
                sizes=marks,
                label=f"fraction of tasks at {theta:g} of ceiling, f",
            )
            title = ax.get_title().partition(", n = ")[2]
            ax.set_title(f"{variant}, n = {title}")
            if matching == "M2":
                ax.set_xlabel("N of e-add, equal parameters")
        letters(*maps)
        drawn[f"map-{matching}"] = figure
    drawn["sizes"] = _sizes(tables, theta, matchings)
    drawn["comparisons"] = _packing_comparisons(tables["comparisons"], matchings)
    return drawn


def _sizes(tables: Tables, theta: float, matchings: Sequence[str]) -> plots.Figure:
    figure = plots.new_figure(1, len(matchings), size=(0.6 + 2.2 * len(matchings), 3.0))
    for ax, matching in zip(figure.axes, matchings, strict=True):
        sizes, exponents = (
            table[(table["matching"] == matching) & (table["theta"] == theta)]
            for table in (tables["sizes"], tables["exponents"])
        )
        plots.sizes_needed(ax, sizes, exponents=exponents)
        ax.set_title(f"{matching}, n = {int(sizes['replicates'].max())}")
        handles, labels = ax.get_legend_handles_labels()
        short = [re.sub(r".*\((.*)\), n = \d+", r"\1", label) for label in labels]
        ax.legend(
            handles, short, loc="upper left", bbox_to_anchor=(-0.2, -0.22), fontsize=6,
            handletextpad=0.4,
        )  # fmt: skip
    letters(*figure.axes)
    return figure


def _packing_comparisons(rows: pd.DataFrame, matchings: Sequence[str]) -> plots.Figure:
    measures = list(dict.fromkeys(rows["measure"]))
    figure = plots.new_figure(1, len(measures), size=(7.4, 0.9 + 0.24 * len(rows) / len(measures)))
    first = matchings[0]
    single = ~rows["a"].str.startswith("es")
    shown = rows[~single | (rows["matching"] == first)]
    for ax, measure in zip(figure.axes, measures, strict=True):
        mine = shown[shown["measure"] == measure]
        points(ax, mine.to_dict("records"), f"difference in {measure}", where="{matching}: ")
    letters(*figure.axes)
    return figure


def load_figures(tables: Tables, theta: float) -> dict[str, plots.Figure]:
    """Draw robustness against load, and against clean accuracy."""
    networks = tables["networks"]
    figure = plots.new_figure(1, 2, size=(7.0, 3.0))
    left, right = figure.axes
    known = networks.dropna(subset=["load"])
    if len(known):
        plots.load_scatter(left, known)
        left.set_xlabel(rf"load $K / K^*(N)$, criterion {theta:g}")
        left.set_xscale("log", base=2)
    plots.relation(
        right, networks, "normalised_mean", "area", label=r"robustness area $\mathcal{A}$",
        covariate_label="normalised clean accuracy",
    )  # fmt: skip
    letters(left, right)
    legend(figure, right, 3)
    return {"load": figure}


def synergy_figures(
    tables: Tables, arms: Sequence[str], sizes: Sequence[int]
) -> dict[str, plots.Figure]:
    """Draw synergy by measure, way of training and size, and what each pathway contributes."""
    rows = tables["comparisons"]
    gains = rows[rows["kind"] == "synergy"]
    measures = list(dict.fromkeys(gains["measure"]))
    drawn: dict[str, plots.Figure] = {}
    if measures:
        columns = 2
        lines = -(-len(measures) // columns)
        count = len(gains) / len(measures)
        figure = plots.new_figure(lines, columns, size=(7.4, lines * (0.8 + 0.2 * count)))
        for ax, measure in zip(figure.axes, measures, strict=False):
            mine = gains[gains["measure"] == measure].to_dict("records")
            points(ax, mine, f"synergy S in {measure}", where="{arm}, N {size}: ")
        for ax in figure.axes[len(measures) :]:
            ax.set_visible(False)
        letters(*figure.axes[: len(measures)])
        drawn["synergy"] = figure
    drawn["contributions"] = _contributions(tables["contributions"], sizes)
    return drawn


_PARTS = {
    "area": "both corrupted",
    "area_e": "excitability\ncorrupted",
    "area_s": "synapses\ncorrupted",
    "frozen_e": "excitability\nat mean",
    "frozen_s": "synapses\nat mean",
    "absent_e": "excitability\nremoved",
    "absent_s": "synapses\nremoved",
}


def _contributions(rows: pd.DataFrame, sizes: Sequence[int]) -> plots.Figure:
    clean = rows[rows["arm"] == "clean"]
    figure = plots.new_figure(1, 2, size=(7.0, 2.8))
    groups = (("area", "area_e", "area_s"), ("frozen_e", "frozen_s", "absent_e", "absent_s"))
    labels = (r"robustness area $\mathcal{A}$", "normalised accuracy")
    marks = "osD^v"
    for ax, names, label in zip(figure.axes, groups, labels, strict=True):
        for number, size in enumerate(sizes):
            mine = clean[clean["size"] == size].set_index("measure")
            for place, name in enumerate(names):
                if name not in mine.index:
                    continue
                row = mine.loc[name]
                x = place + 0.18 * (number - (len(sizes) - 1) / 2)
                reach = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
                ax.errorbar(
                    x, row["mean"], yerr=reach, fmt=marks[number % len(marks)], capsize=2,
                    color=plots.MECHANISM_COLOURS["both"], markersize=4, linewidth=1,
                    markerfacecolor="white" if number else None,
                    label=f"N {size}, n = {int(row['n'])}" if place == 0 else None,
                )  # fmt: skip
        ax.set_xticks(range(len(names)), [_PARTS[name] for name in names])
        ax.set(ylabel=label)
        ax.set_ylim(min(0, ax.get_ylim()[0]), 1.02)
    letters(*figure.axes)
    legend(figure, figure.axes[0])
    return figure


def timescales_figures(
    tables: Tables, delay: float, sigma: float, tau: float
) -> dict[str, plots.Figure]:
    """Draw the costs over (tau_e, tau_s), recovery after a switch, and the comparisons."""
    switch, noise = tables["switch"], tables["noise"]
    drawn: dict[str, plots.Figure] = {}
    parts = (
        (switch[switch["delay"] == delay], f"accuracy lost {delay:g} ms after a switch"),
        (noise[noise["level"] == sigma], rf"accuracy lost in noise, $\sigma$ = {sigma:g}"),
    )
    figure = plots.Figure(figsize=(7.2, 2.9), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=[1, 0.06, 1, 0.06])
    for place, (table, label) in enumerate(parts):
        plots.timescale_map(axes[2 * place], table, "cost", label=label, bar=axes[2 * place + 1])
    letters(axes[0], axes[2])
    drawn["maps"] = figure
    recovery = plots.new_figure(size=(4.2, 2.8))
    (ax,) = recovery.axes
    fast, slow = float(switch["tau_e"].min()), float(switch["tau_e"].max())
    looks = (
        ((fast, fast), "both fast", "0.4", ":"),
        ((fast, slow), "fast excitability, slow synapses", "#0072B2", "-"),
        ((slow, fast), "slow excitability, fast synapses", "#D55E00", "--"),
        ((slow, slow), "both slow", "black", "-."),
    )
    after = switch[switch["delay"] >= 0]
    for (e, s), name, colour, dashes in looks:
        rows = after[(after["tau_e"] == e) & (after["tau_s"] == s)]
        wide = rows.pivot_table(index="delay", columns=["order", "seed"], values="normalised")
        mean = wide.mean(axis=1)
        ax.plot(mean.index, mean, color=colour, linestyle=dashes, label=name)
        if wide.shape[1] > 2:
            from ctxrnn.analysis import mean_interval

            found = [mean_interval(row) for row in wide.to_numpy()]
            low, high = [i.low for i in found], [i.high for i in found]
            ax.fill_between(mean.index, low, high, color=colour, alpha=0.12, linewidth=0)
    ax.set_xscale("symlog", linthresh=100)
    ax.set(xlabel="time since the switch at the trial's onset (ms)")
    ax.set(ylabel="normalised accuracy")
    ax.legend(fontsize=6, title=f"fast: {fast:g} ms, slow: {slow:g} ms", title_fontsize=6)
    drawn["recovery"] = recovery
    rows = tables["comparisons"]
    measures = list(dict.fromkeys(rows["measure"]))
    figure = plots.new_figure(len(measures), 1, size=(5.6, 1.5 * len(measures)))
    for ax, measure in zip(figure.axes, measures, strict=True):
        points(
            ax, rows[rows["measure"] == measure].to_dict("records"),
            f"difference in {measure} (negative: the first is better)",
        )  # fmt: skip
    letters(*figure.axes)
    drawn["comparisons"] = figure
    return drawn


_LEVELS = {
    "mix2": r"weight $\lambda$ of another task",
    "mixU": r"uniform part $\lambda$",
    "noise-frozen": r"frozen noise $\sigma$",
    "noise-ou": r"OU noise $\sigma$",
    "atten": r"missing part $\lambda$",
    "swap": "wrong context first (ms)",
    "posterior": r"error of the evidence, $1 - a$",
    "noise matched in effect": r"effect, $\Vert\Delta F\Vert / \Vert F\Vert$",
}


def ambiguity_figures(
    tables: Tables, variants: Sequence[str], sizes: Sequence[int], matched: str
) -> dict[str, plots.Figure]:
    """Draw the curves of all corruptions, choices, comparisons, and area against accuracy."""
    networks = tables["networks"]
    passing = networks[networks["passes"]]
    keys = ["order", "seed", "size", "variant"]
    curves = tables["curves"].merge(passing[keys], on=keys)
    curves.loc[curves["corruption"] == "posterior", "level"] = (
        1 - curves.loc[curves["corruption"] == "posterior", "level"]
    )
    drawn: dict[str, plots.Figure] = {}
    both = curves[curves["pathway"] == "both"]
    for size in sizes:
        mine = both[both["size"] == size]
        if len(mine):
            drawn[f"curves-N{size}"] = _curve_panels(mine, variants)
    single = curves[curves["variant"].str.startswith("es")]
    if (single["pathway"] != "both").any():
        drawn["pathways"] = _pathway_panels(single, sizes)
    if "choices" in tables:
        choices = tables["choices"].merge(passing[keys], on=keys)
        if len(choices):
            drawn["choices"] = _choice_panels(choices, variants)
    rows = tables["comparisons"]
    if len(rows):
        drawn["comparisons"] = _comparison_panels(rows[rows["size"] == "all"])
    relation = plots.new_figure(1, 2, size=(7.0, 3.0))
    for ax, value, label in zip(
        relation.axes,
        ("mix2_area", "noise-frozen_area"),
        (r"area $\mathcal{A}$, mix2", r"area up to $\sigma$ = 0.5, frozen noise"),
        strict=True,
    ):
        if value in networks:
            plots.relation(
                ax, networks, "normalised_mean", value, label=label,
                covariate_label="normalised clean accuracy",
            )  # fmt: skip
    letters(*relation.axes)
    legend(relation, relation.axes[0], 2)
    drawn["relation"] = relation
    return drawn


def _curve_panels(curves: pd.DataFrame, variants: Sequence[str]) -> plots.Figure:
    names = [name for name in _LEVELS if (curves["corruption"] == name).any()]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = plots.new_figure(lines, columns, size=(0.4 + 1.75 * columns, 0.4 + 2.1 * lines))
    for ax, name in zip(figure.axes, names, strict=False):
        rows = curves[curves["corruption"] == name]
        mark = 0.5 if name == "mix2" else None
        plots.ambiguity_curves(ax, rows, label=_LEVELS[name], mark=mark)
        ax.set_ylabel("normalised accuracy" if ax in figure.axes[::columns] else "")
    for ax in figure.axes[len(names) :]:
        ax.set_visible(False)
    letters(*figure.axes[: len(names)])
    counts = curves.groupby("variant", sort=False).apply(
        lambda part: len(part[["order", "seed"]].drop_duplicates()), include_groups=False
    )
    handles, labels = figure.axes[0].get_legend_handles_labels()
    told = [
        f"{label}, n = {counts.get(variant, 0)}"
        for label, variant in zip(labels, dict.fromkeys(curves["variant"]), strict=True)
    ]
    figure.legend(handles, told, loc="outside lower center", ncols=2)
    return figure


def _pathway_panels(curves: pd.DataFrame, sizes: Sequence[int]) -> plots.Figure:
    """Draw combinations corrupted in both pathways, or in one."""
    from ctxrnn.analysis import mean_interval

    names = [name for name in ("mix2", "noise-frozen") if (curves["corruption"] == name).any()]
    figure = plots.new_figure(len(names), len(sizes), size=(7.0, 2.3 * len(names)))
    looks = {
        "both": (plots.MECHANISM_COLOURS["both"], "-"),
        "excitability": (plots.MECHANISM_COLOURS["excitability"], "--"),
        "synaptic": (plots.MECHANISM_COLOURS["synaptic"], ":"),
    }
    axes = iter(figure.axes)
    for name in names:
        for size in sizes:
            ax = next(axes)
            part = curves[(curves["corruption"] == name) & (curves["size"] == size)]
            for pathway, (colour, dashes) in looks.items():
                mine = part[part["pathway"] == pathway]
                if not len(mine):
                    continue
                wide = mine.pivot_table(
                    index="level", columns=["variant", "order", "seed"], values="normalised"
                )
                mean = wide.mean(axis=1)
                ax.plot(mean.index, mean, color=colour, linestyle=dashes, label=f"in {pathway}")
                if wide.shape[1] > 2:
                    found = [mean_interval(row) for row in wide.to_numpy()]
                    low, high = [i.low for i in found], [i.high for i in found]
                    ax.fill_between(mean.index, low, high, color=colour, alpha=0.12, linewidth=0)
                ax.set_title(f"N {size}, n = {wide.shape[1]}")
            ax.set(xlabel=_LEVELS[name], ylim=(-0.1, 1.02))
            if size == sizes[0]:
                ax.set_ylabel("normalised accuracy")
    letters(*figure.axes)
    figure.legend(
        *_merged(figure.axes),
        loc="outside lower center",
        ncols=3,
        title="corrupted",
        title_fontsize=7,
    )
    return figure


def _choice_panels(choices: pd.DataFrame, variants: Sequence[str]) -> plots.Figure:
    there = [variant for variant in variants if (choices["variant"] == variant).any()]
    figure = plots.new_figure(1, len(there), size=(0.4 + 1.9 * len(there), 2.6))
    keys = ["variant", "order", "seed", "level"]
    shares = ["as_task", "as_other", "neither"]
    mean = choices.groupby(keys, as_index=False, sort=False)[shares].mean()
    for ax, variant in zip(figure.axes, there, strict=True):
        plots.choice_shares(ax, mean[mean["variant"] == variant], shares=shares)
        ax.set_title(f"{variant}, n = {ax.get_title().partition(', n = ')[2]}")
        if variant != there[0]:
            ax.set_ylabel("")
    letters(*figure.axes)
    legend(figure, figure.axes[0], 3)
    return figure


def _comparison_panels(rows: pd.DataFrame) -> plots.Figure:
    measures = list(dict.fromkeys(rows["measure"]))
    columns = 2
    lines = -(-len(measures) // columns)
    count = len(rows) / max(len(measures), 1)
    figure = plots.new_figure(lines, columns, size=(7.4, lines * (0.75 + 0.19 * count)))
    for ax, measure in zip(figure.axes, measures, strict=False):
        points(ax, rows[rows["measure"] == measure].to_dict("records"), measure)
    for ax in figure.axes[len(measures) :]:
        ax.set_visible(False)
    letters(*figure.axes[: len(measures)])
    return figure

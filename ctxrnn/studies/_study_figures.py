"""Figures of the studies, drawn from their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D

from ctxrnn.analysis import Interval, Paired, Synergy, plots

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, "pd.DataFrame"]


def points(
    ax: plots.Axes, rows: Iterable[Mapping[str, Any]], label: str, *, where: str = ""
) -> None:
    """Draw rows of a table of comparisons as differences with intervals."""
    entries: list[tuple[str, plots.Difference]] = []
    for row in rows:
        n = int(row["n"])
        if not n:
            continue
        interval = Interval(
            row["difference"], row["difference_low"], row["difference_high"], n, 0.95
        )
        text = f"{row['a']} − {row['b']}" if row["kind"] == "paired" else f"S, {row['a']}"
        found: plots.Difference = Paired(interval, row["effect_size"], row["p"], n, n)
        if row["kind"] == "synergy":
            found = Synergy(interval, {}, {}, n, n)
        entries.append((f"{where.format(**row)}{text}", found))
    if entries:
        plots.difference_points(ax, entries, label=label)


def difference_key(figure: plots.Figure, rows: pd.DataFrame) -> None:
    """Say below the figure what the markers of `points` mean."""
    handles, labels = plots.difference_key(gains=(rows["kind"] == "synergy").any())
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=6.5)


def legend(figure: plots.Figure, axes: Iterable[plots.Axes], columns: int = 4, **more: Any) -> None:
    """Put one legend of several Axes below the figure."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        list(found.values()), list(found), loc="outside lower center", ncols=columns, **more
    )


def learning_figures(tables: Tables, tasks: Sequence[str], theta: float) -> dict[str, plots.Figure]:
    """Draw learning curves of every variant, and the final accuracy, over all and by task."""
    curves, cells = tables["learning"], tables["cells"]
    final = plots.new_figure(1, 2, size=(7.0, 0.9 + 0.2 * cells["variant"].nunique()))
    for ax, value, label in zip(
        final.axes,
        ("relative_mean", "relative_min"),
        ("accuracy / ceiling, mean over tasks", "accuracy / ceiling, worst task"),
        strict=True,
    ):
        plots.interval_points(ax, cells, value, label=label, across=True)
        ax.axvline(theta, color="0.75", linewidth=0.8, zorder=0)
    plots.letters(*final.axes)
    few = [v for v in ("none", "e-add", "s-sym", "es-add-sym") if v in set(cells["variant"])]
    by_task = plots.new_figure(size=(7.0, 2.8))
    accuracy = tables["accuracy"]
    plots.accuracy_by_task(by_task.axes[0], accuracy[accuracy["variant"].isin(few)], tasks=tasks)
    legend(by_task, by_task.axes, 3)
    return {"learning": _learning_curves(curves, theta), "final": final, "tasks": by_task}


def _learning_curves(curves: pd.DataFrame, theta: float) -> plots.Figure:
    """Draw a panel per variant, with the networks without context in each."""
    variants = [v for v in dict.fromkeys(curves["variant"]) if v != "none"] or ["none"]
    columns = min(5, len(variants))
    rows = -(-len(variants) // columns)
    size = (1.0 + 1.25 * columns, max(2.6, 0.5 + 1.45 * rows))
    figure = plots.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, variant in zip(axes, variants, strict=False):
        plots.learning_curves(ax, curves[curves["variant"].isin(["none", variant])])
        ax.axhline(theta, color="0.75", linewidth=0.8, zorder=0)
        mine = curves[curves["variant"] == variant]
        ax.set_title(f"{variant}, n = {mine['seed'].nunique()}")
        ax.set(xlabel="", ylabel="")
    for ax in axes[len(variants) :]:
        ax.set_visible(False)
    figure.supxlabel("optimiser step", fontsize=8)
    figure.supylabel("accuracy / ceiling, mean over tasks", fontsize=8)
    return figure


def load_figures(tables: Tables, theta: float) -> dict[str, plots.Figure]:
    """Draw robustness against load within each size, and against clean accuracy."""
    networks = tables["networks"]
    variants = list(dict.fromkeys(networks["variant"]))
    figure = plots.Figure(figsize=(1.0 + 2.1 * len(variants), 3.3), layout="constrained")
    axes = figure.subplots(1, len(variants), sharex=True, sharey=True, squeeze=False).ravel()
    if networks["load"].notna().any():
        axes[0].set_xscale("log", base=2)
        axes[0].set_xlim(networks["load"].min() / 1.3, networks["load"].max() * 1.3)
    for ax, variant in zip(axes, variants, strict=True):
        known = networks[(networks["variant"] == variant) & networks["load"].notna()]
        ax.set_title(variant)
        if len(known):
            plots.load_scatter(ax, known, by="size")
            handles, labels = ax.get_legend_handles_labels()
            unknown = _unknown_loads(tables["capacity"], variant)
            handles += [Line2D([], [], linestyle="")] * len(unknown)
            place = {"loc": "upper left", "bbox_to_anchor": (-0.05, -0.24), "fontsize": 6.5}
            ax.legend(handles, [*labels, *unknown], **place)
        else:
            ax.text(
                0.5, 0.5, "no capacity within\nthe range of K", ha="center", va="center",
                transform=ax.transAxes, color="0.4",
            )  # fmt: skip
        ax.set(xlabel=rf"load $K / K^*(N)$, criterion {theta:g}")
        ax.label_outer()
    plots.letters(*axes)
    related = plots.new_figure(size=(3.7, 3.6))
    (ax,) = related.axes
    plots.relation(
        ax, networks, "normalised_mean", "area", label=r"robustness area $\mathcal{A}$",
        covariate_label="normalised clean accuracy", within=["size", "tasks"],
    )  # fmt: skip
    legend(related, [ax], 1)
    return {"load": figure, "accuracy": related}


def _unknown_loads(capacity: pd.DataFrame, variant: str) -> list[str]:
    """Say of which sizes the load is not known, and why."""
    rows = capacity[(capacity["variant"] == variant) & (capacity["flag"] != "")]
    signs = {"at least": "≥", "below": "<"}
    return [
        f"N = {row['size']}: load not known, $K^*$ {signs[row['flag']]} {row['capacity']:g}"
        for row in rows.to_dict("records")
    ]


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
        difference_key(figure, gains)
        for ax in figure.axes[len(measures) :]:
            ax.set_visible(False)
        plots.letters(*figure.axes[: len(measures)])
        drawn["synergy"] = figure
    if len(tables["contributions"]):
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
    plots.letters(*figure.axes)
    legend(figure, figure.axes[:1])
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
    plots.letters(axes[0], axes[2])
    drawn["maps"] = figure
    recovery = plots.new_figure(size=(4.2, 3.2))
    (ax,) = recovery.axes
    fast, slow = float(switch["tau_e"].min()), float(switch["tau_e"].max())
    looks = (
        ((fast, fast), "both fast", "0.4", ":"),
        ((fast, slow), "fast excitability, slow synapses", "#0072B2", "-"),
        ((slow, fast), "slow excitability, fast synapses", "#D55E00", "--"),
        ((slow, slow), "both slow", "black", "-."),
    )
    after = switch[switch["delay"] >= 0]
    counts: set[int] = set()
    for (e, s), name, colour, dashes in looks:
        rows = after[(after["tau_e"] == e) & (after["tau_s"] == s)]
        wide = rows.pivot_table(index="delay", columns=["order", "seed"], values="normalised")
        mean = wide.mean(axis=1)
        ax.plot(mean.index, mean, color=colour, linestyle=dashes, label=name)
        plots.band(ax, wide, color=colour, alpha=0.12)
        counts.add(wide.shape[1])
    ax.set_xscale("symlog", linthresh=100)
    ax.set_title(f"n = {'/'.join(map(str, sorted(counts)))}")
    ax.set(xlabel="time since the switch at the trial's onset (ms)")
    ax.set(ylabel="normalised accuracy")
    recovery.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=6.5,
        title=f"fast: {fast:g} ms, slow: {slow:g} ms", title_fontsize=6.5,
    )  # fmt: skip
    drawn["recovery"] = recovery
    rows = tables["comparisons"]
    measures = list(dict.fromkeys(rows["measure"]))
    figure = plots.new_figure(len(measures), 1, size=(5.6, 1.5 * len(measures)))
    for ax, measure in zip(figure.axes, measures, strict=True):
        points(
            ax, rows[rows["measure"] == measure].to_dict("records"),
            f"difference in {measure} (negative: the first is better)",
        )  # fmt: skip
    plots.letters(*figure.axes)
    difference_key(figure, rows)
    drawn["comparisons"] = figure
    return drawn

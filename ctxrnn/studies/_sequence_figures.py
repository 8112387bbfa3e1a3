"""Figures of the studies of inferred contexts, from their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.analysis import mean_interval, plots
from ctxrnn.studies._results import Tables
from ctxrnn.studies._sequence_settings import SequenceSettings
from ctxrnn.studies._sequence_tables import BASE, metric_of
from ctxrnn.studies._study_figures import legend

if TYPE_CHECKING:
    import pandas as pd

_BASELINES = {"rnn": ("#666666", "x"), "gru": ("#000000", "s"), "lstm": ("#000000", "o")}
_KINDS = {
    "e": (("#0072B2", "^"), ("#56B4E9", "v"), ("#0072B2", "<")),
    "s": (("#E69F00", "D"), ("#F0E442", "d")),
    "es": (("#009E73", "P"), ("#CC79A7", "X")),
}
_DASHES = {"rnn": ":", "gru": (0, (4, 2)), "lstm": (0, (5, 1, 1, 1))}


def looks(models: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Return colour (Okabe and Ito 2008) and marker of every model: pathways by colour."""
    found = dict(_BASELINES)
    used = dict.fromkeys(_KINDS, 0)
    for model in models:
        if model in found:
            continue
        kind = model.split("-", 1)[0]
        found[model] = _KINDS[kind][used[kind] % len(_KINDS[kind])]
        used[kind] += 1
    return found


def figures(settings: SequenceSettings, tables: Tables) -> dict[str, plots.Figure]:
    """Draw all figures that the tables have something for, by name."""
    networks = tables["networks"]
    found: dict[str, plots.Figure] = {"scores": scores(settings, networks)}
    for reading in dict.fromkeys(networks["reading"]):
        tail = "" if settings.text else f"-{reading}"
        mine = {
            name: table[table["reading"] == reading]
            for name, table in tables.items()
            if "reading" in table
        }
        found[f"curves{tail}"] = curves(settings, mine)
        if len(mine.get("corruption", ())):
            found[f"contexts{tail}"] = contexts(settings, mine)
        if len(mine.get("strip", ())):
            found[f"strip{tail}"] = strip(settings, mine)
        if len(mine.get("by_symbol", ())):
            found[f"symbols{tail}"] = by_symbol(settings, mine)
    return found


def _title(figure: plots.Figure, networks: pd.DataFrame, more: str = "") -> None:
    # Several readings of one set of images have titles of their own.
    column = "data_title" if networks["data_title"].nunique() == 1 else "data_name"
    figure.suptitle(f"{networks[column].iloc[0]}{more}", fontsize=8, x=0.01, ha="left")


def _metric(settings: SequenceSettings) -> str:
    name, better = metric_of(settings)
    return name + (r" $\downarrow$" if better < 0 else r" $\uparrow$")


def scores(settings: SequenceSettings, networks: pd.DataFrame) -> plots.Figure:
    """Compare all models on test data, and at equal training time on validation data."""
    bases = list(networks[BASE].drop_duplicates().itertuples(index=False))
    height = 0.2 * len(settings.models) + 0.75
    figure = plots.new_figure(len(bases), 2, size=(6.4, height * len(bases) + 0.3))
    known = looks(settings.models)
    for row, (reading, budget) in enumerate(bases):
        mine = networks[(networks["reading"] == reading) & (networks["budget"] == budget)]
        left, right = figure.axes[2 * row], figure.axes[2 * row + 1]
        for ax, column in ((left, "test"), (right, "at_equal_time")):
            _dots(ax, mine, column, settings, known)
        left.set_xlabel(f"{_metric(settings)} on test, equal parameters")
        right.set_xlabel(f"{_metric(settings)} on validation, equal time")
        right.tick_params(labelleft=False)
        what = "" if settings.text else f"{reading}, "
        left.set_title(f"{what}{mine['parameters'].median():,.0f} parameters", fontsize=8)
        right.set_title(f"after {mine['time_limit'].iloc[0]:.2g} s of one core", fontsize=8)
    _title(figure, networks, f"; {networks['seed'].nunique()} networks, bars: 95 % t intervals")
    return figure


def _dots(
    ax: plots.Axes, table: pd.DataFrame, column: str, settings: SequenceSettings,
    known: dict[str, tuple[str, str]],
) -> None:  # fmt: skip
    for place, model in enumerate(settings.models):
        values = table.loc[table["model"] == model, column].dropna().to_numpy(dtype=float)
        if not len(values):
            continue
        spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
        ax.plot(values, place + spread, ".", color="0.65", markersize=2.5, zorder=1)
        error = None
        if len(values) > 2:
            interval = mean_interval(values)
            error = [[values.mean() - interval.low], [interval.high - values.mean()]]
        colour, marker = known[model]
        ax.errorbar(
            values.mean(), place, xerr=error, fmt=marker, color=colour, markersize=4.5, capsize=2,
            elinewidth=1, zorder=2,
        )  # fmt: skip
    ax.locator_params(axis="x", nbins=5)
    ax.set_yticks(range(len(settings.models)), settings.models)
    ax.set_ylim(len(settings.models) - 0.5, -0.5)
    ax.grid(axis="y", color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)


def curves(settings: SequenceSettings, tables: dict[str, pd.DataFrame]) -> plots.Figure:
    """Draw validation scores over updates and over processor time, at the chosen rates."""
    history = tables["history"]
    chosen = history[history["chosen"].astype(bool)]
    budgets = [b for b in settings.budgets if b in set(chosen["budget"])]
    figure = plots.new_figure(len(budgets), 2, size=(6.6, 2.1 * len(budgets) + 0.6))
    known = looks(settings.models)
    for row, budget in enumerate(budgets):
        for model in settings.models:
            mine = chosen[(chosen["budget"] == budget) & (chosen["model"] == model)]
            if mine.empty:
                continue
            colour, marker = known[model]
            look: dict[str, Any] = {
                "color": colour, "marker": marker, "markersize": 3, "linewidth": 1,
                "linestyle": _DASHES.get(model, "-"), "label": model,
            }  # fmt: skip
            wide = mine.pivot_table(index="update", columns="seed", values="validation")
            seconds = mine.pivot_table(index="update", columns="seed", values="seconds")
            for ax, x in zip(
                figure.axes[2 * row : 2 * row + 2], (wide.index, seconds.median(axis=1)),
                strict=True,
            ):  # fmt: skip
                ax.plot(x, wide.mean(axis=1), **look)
        left, right = figure.axes[2 * row], figure.axes[2 * row + 1]
        networks = tables["networks"]
        own = networks[networks["budget"] == budget]
        left.set_title(f"{own['parameters'].median():,.0f} parameters", fontsize=8)
        left.set(ylabel=f"{_metric(settings)}, validation", xlabel="updates")
        right.set_xlabel("processor time of updates (s)")
        right.axvline(own["time_limit"].iloc[0], color="0.7", linewidth=0.8, zorder=0)
        for ax in (left, right):
            _frame(ax, chosen[chosen["budget"] == budget]["validation"], settings)
    legend(figure, figure.axes, columns=min(6, len(settings.models)))
    _title(figure, tables["networks"], "; means over networks")
    return figure


def _frame(ax: plots.Axes, values: pd.Series, settings: SequenceSettings) -> None:
    """Leave out how bad the first evaluations are."""
    low, high = float(values.min()), float(values.max())
    worst = float(values.quantile(0.95 if metric_of(settings)[1] < 0 else 0.05))
    if metric_of(settings)[1] < 0:
        ax.set_ylim(low - 0.03 * (worst - low), worst)
    else:
        ax.set_ylim(worst, high + 0.03 * (high - worst))


def contexts(settings: SequenceSettings, tables: dict[str, pd.DataFrame]) -> plots.Figure:
    """Draw the score against the share of a foreign context, and what contexts tell."""
    corruption, networks = tables["corruption"], tables["networks"]
    budgets = [b for b in settings.budgets if b in set(corruption["budget"])]
    known = looks(settings.models)
    figure = plots.new_figure(len(budgets), 3, size=(7.0, 2.2 * len(budgets) + 0.6))
    for row, budget in enumerate(budgets):
        axes = figure.axes[3 * row : 3 * row + 3]
        mine = corruption[corruption["budget"] == budget]
        for ax, kind in zip(axes, ("other", "noise"), strict=False):
            for model in settings.modulated:
                its = mine[(mine["model"] == model) & (mine["kind"] == kind)]
                _levels(ax, its, known[model], model)
                if kind == "other":
                    mean = mine[(mine["model"] == model) & (mine["kind"] == "mean")]
                    _levels(ax, mean, known[model], None)
            ax.set_ylabel(f"{_metric(settings)}, test" if kind == "other" else "")
        axes[0].set_xlabel("share of a foreign context")
        axes[1].set_xlabel("sd of noise in the context")
        own = networks[(networks["budget"] == budget) & networks["entropy"].notna()]
        _told(axes[2], own, settings)
        axes[0].set_title(
            f"{networks[networks['budget'] == budget]['parameters'].median():,.0f} parameters",
            fontsize=8,
        )
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    _title(
        figure, networks,
        "\nleft: contexts of another sequence (solid) or the mean context (dotted); bars: 95 % t",
    )  # fmt: skip
    return figure


def _levels(ax: plots.Axes, table: pd.DataFrame, look: tuple[str, str], label: str | None) -> None:
    x, y, below, above = [], [], [], []
    for level, mine in table.groupby("level"):
        values = mine["value"].dropna().to_numpy(dtype=float)
        if not len(values):
            continue
        interval = mean_interval(values) if len(values) > 2 else None
        x.append(level)
        y.append(values.mean())
        below.append(0.0 if interval is None else values.mean() - interval.low)
        above.append(0.0 if interval is None else interval.high - values.mean())
    ax.errorbar(
        x, y, yerr=[below, above], color=look[0], marker=look[1], markersize=3.5, linewidth=1,
        capsize=1.5, elinewidth=0.7, label=label, linestyle="-" if label else ":",
        markerfacecolor=look[0] if label else "white",
    )  # fmt: skip


def _told(ax: plots.Axes, networks: pd.DataFrame, settings: SequenceSettings) -> None:
    """Draw entropy and information of contexts, one row each."""
    words = {
        "entropy_mean": "H(mean c)", "entropy": "H(c)",
        "information_input": "I(c; symbol)" if settings.text else "I(c; step)",
        "information_target": "I(c; next)" if settings.text else "I(c; class)",
    }  # fmt: skip
    known = looks(settings.models)
    for place, column in enumerate(words):
        for shift, model in enumerate(settings.modulated):
            values = networks.loc[networks["model"] == model, column].dropna().to_numpy()
            if not len(values):
                continue
            y = place + 0.16 * (shift - (len(settings.modulated) - 1) / 2)
            ax.plot(values, np.full(len(values), y), ".", color="0.7", markersize=2)
            ax.plot(values.mean(), y, known[model][1], color=known[model][0], markersize=3.5)
    ax.set_yticks(range(len(words)), list(words.values()), fontsize=6.5)
    ax.set_ylim(len(words) - 0.5, -0.5)
    ax.axvline(np.log2(settings.contexts), color="0.7", linewidth=0.8, zorder=0)
    ax.set_xlabel("bits (line: log2 K)")


def strip(settings: SequenceSettings, tables: dict[str, pd.DataFrame]) -> plots.Figure:
    """Draw the context and the gains of one network along a sequence."""
    model, budget = _example(settings, tables["strip"])
    mine = _of(tables["strip"], model, budget)
    rows: list[tuple[str, pd.DataFrame, str]] = [("context", mine, "context")]
    if "strip_gains" in tables:
        gains = _of(tables["strip_gains"], model, budget)
        rows += [(str(what), part, "unit") for what, part in gains.groupby("what", sort=False)]
    figure = plots.new_figure(len(rows), 1, size=(7.0, 1.25 * len(rows) + 0.7))
    for ax, (what, part, column) in zip(figure.axes, rows, strict=True):
        wide = part.pivot_table(index=column, columns="step", values="value")
        values = wide.to_numpy()
        centre = {"context": None, "gain": 1.0, "synaptic factor": 0.0}[what]
        if centre is None:
            image = ax.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=values.max())
        else:
            reach = np.abs(values - centre).max()
            image = ax.imshow(
                values, aspect="auto", cmap="PuOr", vmin=centre - reach, vmax=centre + reach
            )
        figure.colorbar(image, ax=ax, label=what, pad=0.01)
        ax.set_ylabel("context" if column == "context" else "unit, by variance")
        ax.set_yticks([])
    last = figure.axes[len(rows) - 1]
    symbols = mine.drop_duplicates("step").sort_values("step")["symbol"].tolist()
    for ax in figure.axes[: len(rows)]:
        if settings.text:
            ax.set_xticks(range(len(symbols)), [_visible(s) for s in symbols], fontsize=6.5)
        ax.tick_params(axis="x", length=0 if settings.text else 3)
    last.set_xlabel("character" if settings.text else "row of the image")
    _title(figure, tables["networks"], f"; {model}, one network, a sequence of the test split")
    return figure


def _visible(symbol: str) -> str:
    return {" ": "␣", "\n": "↵"}.get(symbol, symbol).replace("$", r"\$")


def by_symbol(settings: SequenceSettings, tables: dict[str, pd.DataFrame]) -> plots.Figure:
    """Draw the context of every symbol, or of every class over the steps, of one network."""
    model, budget = _example(settings, tables["by_symbol"])
    mine = _of(tables["by_symbol"], model, budget)
    image: Any = None
    if settings.text:
        figure = plots.new_figure(size=(7.0, 2.1))
        order = mine.drop_duplicates("step").sort_values("count", ascending=False)["step"]
        wide = mine.pivot_table(index="context", columns="step", values="value")[order]
        (ax,) = figure.axes
        image = ax.imshow(wide, aspect="auto", cmap="viridis", vmin=0)
        names = mine.drop_duplicates("step").set_index("step")["symbol"].loc[order]
        ax.set_xticks(range(len(names)), [_visible(s) for s in names], fontsize=6.5)
        ax.set(xlabel="character, the most frequent first", ylabel="context")
        ax.set_yticks(range(len(wide)))
        figure.colorbar(image, ax=ax, label="share", pad=0.01)
    else:
        labels = list(dict.fromkeys(mine["label"]))
        columns = 5
        lines = -(-len(labels) // columns)
        figure = plots.new_figure(lines, columns, size=(7.0, 1.35 * lines + 0.4))
        top = float(mine["value"].max())
        for ax, label in zip(figure.axes, labels, strict=False):
            part = mine[mine["label"] == label]
            wide = part.pivot_table(index="context", columns="step", values="value")
            image = ax.imshow(wide, aspect="auto", cmap="viridis", vmin=0, vmax=top)
            ax.set_title(label, fontsize=7)
        for place, ax in enumerate(figure.axes[: lines * columns]):
            ax.set_axis_on() if place < len(labels) else ax.set_axis_off()
            if place % columns == 0:
                ax.set_ylabel("context")
            if place >= len(labels) - columns:
                ax.set_xlabel("step")
        figure.colorbar(image, ax=figure.axes[: lines * columns], label="mean share")
    _title(figure, tables["networks"], f"; {model}, one network")
    return figure


def _example(settings: SequenceSettings, table: pd.DataFrame) -> tuple[str, Any]:
    """Return the model that is shown: a combination if there is one, of the largest budget."""
    there = [m for m in settings.modulated if m in set(table["model"])]
    chosen = next((m for m in there if m.startswith("es-")), there[0])
    return chosen, table.loc[table["model"] == chosen, "budget"].max()


def _of(table: pd.DataFrame, model: str, budget: Any) -> pd.DataFrame:
    return table[(table["model"] == model) & (table["budget"] == budget)]

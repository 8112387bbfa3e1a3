"""Figures of the studies of comodulation, from their tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.analysis import mean_interval, plots
from ctxrnn.studies._comodulation_embedding import representations
from ctxrnn.studies._comodulation_settings import ComodulationSettings
from ctxrnn.studies._comodulation_tables import BASE, FEWER
from ctxrnn.studies._results import Tables

if TYPE_CHECKING:
    import pandas as pd

LOOKS = {
    "none": ("#666666", "x"),
    "attention": ("#0072B2", "o"),
    "comod": ("#D55E00", "s"),
    "comod-0": ("#CC79A7", "D"),
    "shuffled-label": ("#E69F00", "v"),
    "permuted-gain": ("#E69F00", "^"),
    "input-noise": ("#56B4E9", "o"),
    "learned-gain": ("#56B4E9", "P"),
    "bias-only": ("#666666", "+"),
    "last-layer": ("#009E73", "v"),
    "decoder": ("#009E73", "^"),
    "full": ("#009E73", "D"),
    "film": ("#009E73", "o"),
    "attention+head": ("#0072B2", "P"),
    "comod+head": ("#D55E00", "P"),
}
"""Colour (Okabe and Ito 2008) and marker of each arm."""
NAMES = {
    "f1": "F1", "precision": "precision", "recall": "recall",
    "mean_average_precision": "mean av. precision", "f1_tuned": "F1, tuned thresholds",
    "accuracy": "accuracy", "ece": "calibration error", "ece_scaled": "the same, scaled",
    "nll": "log loss (nats)", "noise_ratio": "decoder noise, share",
    "noise_label": r"decoder noise, $1 / d'^2$", "change": "change of activity",
    "cka": "CKA with before", "gain_effective": "effective units",
    "epochs_to_95": "epochs to 95 % of attention's best",
    "couplings_fidelity": "Spearman of c with |d'|",
    "gains_fidelity": "Spearman of g with |d'|", "couplings_silhouette": "silhouette of c",
    "gains_silhouette": "silhouette of g",
}  # fmt: skip
DASHES: dict[str, Any] = {
    "attention": "-", "comod": (0, (5, 1.5)), "input-noise": (0, (1, 1)),
    "learned-gain": (0, (3, 1, 1, 1)), "last-layer": (0, (1, 1)), "decoder": "-",
}  # fmt: skip
_MAIN = ("none", "attention", "comod", "input-noise", "learned-gain", "last-layer", "decoder")


def figures(settings: ComodulationSettings, tables: Tables) -> dict[str, plots.Figure]:
    """Draw all figures that the tables have something for, by name."""
    cells = tables["selected"]
    found: dict[str, plots.Figure] = {"model": schematic()}
    several = cells[BASE].drop_duplicates()
    for key, mine in cells.groupby(BASE, sort=False):
        name = _short(dict(zip(BASE, key, strict=True)), several)
        if mine["arm"].nunique() > 3:
            found[f"conditions{name}"] = conditions(settings, mine)
        curves = tables["curves"].merge(mine[[*BASE]].drop_duplicates(), on=BASE)
        if len(settings.skips) == 1:
            found[f"curves{name}"] = learning(settings, curves, mine)
            found[f"gains{name}"] = gains(settings, mine)
            alike = _alike(tables, mine)
            if alike is not None:
                found[f"likeness{name}"] = likeness(settings, mine, alike)
            shown = _shown(tables, mine)
            if shown is not None:
                found[f"representations{name}"] = figure = representations(shown, mine)
                _title(figure, mine, f"{_where(settings, mine)}; images of the first network")
            bins = tables["reliability"].merge(
                mine[[*BASE, "condition", "joint", "rate", "seed", "arm"]],
                on=[*BASE, "condition", "joint", "rate", "seed"],
            )
            found[f"reliability{name}"] = reliability(settings, bins, mine)
    if len(settings.pretrain.lengths) > 1:
        found["lengths"] = lengths(settings, cells)
    if len(settings.skips) > 1:
        found["architecture"] = architecture(settings, cells)
    return found


def _short(base: dict[str, Any], several: pd.DataFrame) -> str:
    """Name a base by the axes that differ within the study."""
    words = {"length": "E", "head_epochs": "Eh"}
    parts = [
        f"{words.get(axis, '')}{base[axis]}"
        for axis in ("version", "length", "head_epochs", "layer", "skips", "decoder")
        if several[axis].nunique() > 1
    ]
    return "-".join(["", *parts]).replace(".0", "")


def _title(figure: plots.Figure, cells: pd.DataFrame, more: str = "") -> None:
    name, stand_in = cells["data_name"].iloc[0], cells["stand_in_for"].iloc[0]
    text = f"{name}, a stand-in for {stand_in}" if stand_in else str(name)
    figure.suptitle(f"{text}{more}", fontsize=8, x=0.01, ha="left")


def _where(settings: ComodulationSettings, cells: pd.DataFrame) -> str:
    row = cells.iloc[0]
    text = ""
    if settings.classes:
        text = f"; {row['version']}"
        text += f" (chance: {row['chance']})" if row.get("chance") else ""
    epochs = "1 epoch" if row["length"] == 1 else f"{row['length']} epochs"
    text += f"; first stage of {epochs}, {cells['seed'].nunique()} networks"
    return text


def _dots(ax: plots.Axes, cells: pd.DataFrame, measure: str, arms: Sequence[str]) -> None:
    """Draw one row per arm: networks, mean and 95 % t interval."""
    for place, arm in enumerate(arms):
        colour, marker = LOOKS.get(arm, ("#000000", "."))
        values = cells.loc[cells["arm"] == arm, measure].to_numpy(dtype=float)
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0.0]
        ax.plot(values, place + np.asarray(spread), ".", color="0.6", markersize=2.5, zorder=1)
        mean, error = values.mean(), None
        if len(values) > 2:
            interval = mean_interval(values)
            error = [[mean - interval.low], [interval.high - mean]]
        ax.errorbar(
            mean, place, xerr=error, fmt=marker, color=colour, markersize=4, capsize=1.5,
            elinewidth=1, zorder=2,
        )  # fmt: skip
    ax.set_yticks(range(len(arms)), arms)
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ax.set_xlabel(NAMES.get(measure, measure) + (r" $\downarrow$" if measure in FEWER else ""))
    ax.grid(axis="y", color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)


def _panel(
    settings: ComodulationSettings, cells: pd.DataFrame, measures: Sequence[str], size: float
) -> plots.Figure:
    known = [m for m in measures if m in cells and cells[m].notna().any()]
    arms = [arm for arm in LOOKS if arm in set(cells["arm"])]
    figure = plots.new_figure(1, len(known), size=(size * len(known) + 0.9, 0.17 * len(arms) + 0.9))
    for ax, measure in zip(figure.axes, known, strict=True):
        _dots(ax, cells, measure, arms)
        if ax is not figure.axes[0]:
            ax.tick_params(labelleft=False)
    return figure


def conditions(settings: ComodulationSettings, cells: pd.DataFrame) -> plots.Figure:
    """Compare all arms in the scores on test images."""
    measures = (
        ("accuracy", "ece", "ece_scaled", "nll")
        if settings.classes
        else ("f1", "precision", "recall", "mean_average_precision", "f1_tuned")
    )
    figure = _panel(settings, cells, measures, 1.5)
    arrow = r"; $\downarrow$: less is better" if settings.classes else ""
    _title(figure, cells, f"{_where(settings, cells)}; bars: 95 % t intervals{arrow}")
    return figure


def _alike(tables: Tables, cells: pd.DataFrame) -> pd.DataFrame | None:
    """Return the similarities of comodulation's contexts at the chosen rate."""
    if "similarity" not in tables:
        return None
    keys = [*BASE, "condition", "joint", "rate", "seed"]
    found = tables["similarity"].merge(cells.loc[cells["arm"] == "comod", keys], on=keys)
    return found if set(found["what"]) == {"couplings", "gains"} else None


def _shown(tables: Tables, cells: pd.DataFrame) -> pd.DataFrame | None:
    """Return the images of `representations` at the chosen rates."""
    if "embedding" not in tables:
        return None
    keys = [*BASE, "condition", "joint", "rate", "seed"]
    found = tables["embedding"].merge(cells[[*keys, "arm"]], on=keys)
    return found if len(found) else None


def gains(settings: ComodulationSettings, cells: pd.DataFrame) -> plots.Figure:
    """Compare arms in noise, change of representation, and what gains and couplings follow."""
    measures = ["noise_ratio", "noise_label", "change", "gain_effective"]
    measures += ["couplings_fidelity", "gains_fidelity"]
    figure = _panel(settings, cells, measures, 1.5)
    _title(figure, cells, rf"{_where(settings, cells)}; $\downarrow$: less is better")
    return figure


def likeness(
    settings: ComodulationSettings, cells: pd.DataFrame, similarity: pd.DataFrame
) -> plots.Figure:
    """Draw how alike couplings and gains of contexts are with comodulation, by group."""
    figure = plots.new_figure(1, 2, size=(7.0, 3.4))
    for ax, what in zip(figure.axes, ("couplings", "gains"), strict=True):
        mine = similarity[similarity["what"] == what]
        names = list(dict.fromkeys(mine["a"]))
        wide = mine.groupby(["a", "b"])["cosine"].mean().unstack().loc[names, names]
        group = mine.drop_duplicates("a").set_index("a")["group"].loc[names]
        if group.nunique() > 1:
            plots.grouped_similarity(ax, wide, list(group))
        else:
            plots.similarity_map(ax, wide)
        ax.tick_params(labelsize=5.5)
        p = cells.loc[cells["arm"] == "comod", f"{what}_silhouette_p"].dropna()
        told = f", p < 0.05 in {int((p < 0.05).sum())} of {len(p)}" if len(p) else ""
        ax.set_title(f"{what}{told}")
    figure.colorbar(
        figure.axes[0].images[0], ax=figure.axes[:2], label="cosine, centred over contexts",
        shrink=0.7,
    )  # fmt: skip
    _title(figure, cells, f"{_where(settings, cells)}, mean over networks")
    return figure


def learning(
    settings: ComodulationSettings, curves: pd.DataFrame, cells: pd.DataFrame
) -> plots.Figure:
    """Draw validation scores over the epochs of tuning."""
    figure = plots.new_figure(size=(5.7, 2.9))
    (ax,) = figure.axes
    for arm in (a for a in _MAIN if a in set(curves["arm"])):
        colour, marker = LOOKS[arm]
        wide = curves[curves["arm"] == arm].pivot_table(
            index="epochs", columns="seed", values="score"
        )
        mean = wide.mean(axis=1)
        if arm == "none":
            ax.axhline(mean.iloc[0], color=colour, linewidth=0.9, linestyle=":", label=arm)
            continue
        every = max(1, len(mean) // 6)
        ax.plot(
            mean.index, mean, color=colour, marker=marker, markersize=3.5, markevery=every,
            label=arm, linewidth=1.2, linestyle=DASHES.get(arm, "-"),
        )  # fmt: skip
        plots.band(ax, wide, color=colour, alpha=0.15)
    score = "accuracy" if settings.classes else "F1"
    ax.set(xlabel="epochs of tuning", ylabel=f"{score} on validation")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    _title(figure, cells, f"{_where(settings, cells)}; bands: 95 % t")
    return figure


def lengths(settings: ComodulationSettings, cells: pd.DataFrame) -> plots.Figure:
    """Draw differences from attention, and from no tuning, against the length of stage one."""
    measures = ("accuracy", "ece") if settings.classes else (
        "f1", "recall", "precision", "mean_average_precision"
    )  # fmt: skip
    figure = plots.new_figure(1, len(measures), size=(1.75 * len(measures) + 0.3, 2.3))
    for ax, measure in zip(figure.axes, measures, strict=True):
        for offset, (a, b) in enumerate((("comod", "attention"), ("attention", "none"))):
            colour, marker = LOOKS[a]
            wide = cells.pivot_table(index=["seed", "length"], columns="arm", values=measure)
            if a not in wide or b not in wide:
                continue
            for place, length in enumerate(sorted(settings.pretrain.lengths)):
                d = (wide[a] - wide[b]).xs(length, level="length").dropna().to_numpy()
                error = None
                if len(d) > 2:
                    interval = mean_interval(d)
                    error = [[d.mean() - interval.low], [interval.high - d.mean()]]
                ax.errorbar(
                    place + 0.16 * offset, d.mean(), yerr=error, fmt=marker, color=colour,
                    markersize=4, capsize=2, label=f"{a} - {b}" if place == 0 else None,
                )  # fmt: skip
        ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        ax.set_xticks(
            range(len(settings.pretrain.lengths)),
            [str(e) for e in sorted(settings.pretrain.lengths)],
        )
        ax.set_xlabel("epochs of stage one")
        ax.set_title(NAMES[measure].split(",")[0], fontsize=8)
    figure.axes[0].set_ylabel("difference")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    _title(figure, cells, "; paired by network, bars: 95 % t intervals")
    return figure


def reliability(
    settings: ComodulationSettings, bins: pd.DataFrame, cells: pd.DataFrame
) -> plots.Figure:
    """Draw reliability diagrams of no tuning, attention and comodulation, before and after."""
    arms = [arm for arm in ("none", "attention", "comod") if arm in set(bins["arm"])]
    figure = plots.new_figure(1, 2, size=(6.2, 3.1))
    for ax, scaled in zip(figure.axes, (False, True), strict=True):
        parts = []
        for arm in arms:
            mine = bins[(bins["arm"] == arm) & (bins["scaled"].astype(bool) == scaled)]
            parts.append(_pooled(mine).assign(arm=arm))
        table = _joined(parts)
        looks = {arm: (*LOOKS[arm], DASHES.get(arm, (0, (1, 1)))) for arm in arms}
        plots.reliability_diagram(ax, table, by="arm", looks=looks)
        ax.set_title("after temperature scaling" if scaled else "as tuned", pad=34, fontsize=8)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    _title(figure, cells, f"{_where(settings, cells)}, forecasts pooled")
    return figure


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(parts, ignore_index=True)


def _pooled(bins: pd.DataFrame) -> pd.DataFrame:
    """Add up the bins of several networks."""
    weighted = bins.assign(
        hits=(bins["accuracy"] * bins["count"]).fillna(0),
        sure=(bins["confidence"] * bins["count"]).fillna(0),
    )
    total = weighted.groupby(["bin", "low", "high"], as_index=False)[
        ["count", "hits", "sure"]
    ].sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        total["accuracy"], total["confidence"] = (
            total["hits"] / total["count"], total["sure"] / total["count"]
        )  # fmt: skip
    return total


def architecture(settings: ComodulationSettings, cells: pd.DataFrame) -> plots.Figure:
    """Draw comod - attention with and without skips per layer, and per decoder."""
    score = "accuracy" if settings.classes else "f1"
    figure = plots.new_figure(1, 3, size=(7.0, 2.9))
    first = cells[cells["decoder"] == settings.decoders[0]]
    _by_layer(figure.axes[0], first, settings, score)
    for offset, skip in enumerate(settings.skips):
        mine = first[first["skips"].astype(bool) == skip]
        for place, layer in enumerate(settings.layers):
            values = mine[mine["layer"] == layer].drop_duplicates("seed")["first_score"]
            _point(figure.axes[1], place + 0.18 * offset, values.to_numpy(), _SKIPS[skip], place)
    figure.axes[1].set_xticks(range(len(settings.layers)), settings.layers)
    figure.axes[1].set(xlabel="modulated layer", ylabel=f"{score} after stage one")
    rest = cells[
        (cells["layer"] == settings.layers[0]) & (cells["skips"].astype(bool) == settings.skips[0])
    ]
    for place, decoder in enumerate(settings.decoders):
        d = _differences(rest[rest["decoder"] == decoder], score)
        _point(figure.axes[2], place, d, ("#D55E00", "s", "comod - attention"), place)
    figure.axes[2].set_xticks(
        range(len(settings.decoders)), settings.decoders, rotation=30, ha="right"
    )
    figure.axes[2].set(xlabel="decoder", ylabel=f"comod - attention, {score}")
    figure.axes[2].axhline(0, color="0.7", linewidth=0.8, zorder=0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    scope = settings.encoder.skip_scope
    _title(figure, cells, f"; skips of {scope} blocks; bars: 95 % t intervals")
    return figure


_SKIPS = {True: ("#0072B2", "o", "with skips"), False: ("#E69F00", "D", "without skips")}


def _by_layer(
    ax: plots.Axes, cells: pd.DataFrame, settings: ComodulationSettings, score: str
) -> None:
    for offset, skip in enumerate(settings.skips):
        mine = cells[cells["skips"].astype(bool) == skip]
        for place, layer in enumerate(settings.layers):
            d = _differences(mine[mine["layer"] == layer], score)
            _point(ax, place + 0.18 * offset, d, _SKIPS[skip], place)
    ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(settings.layers)), settings.layers)
    ax.set(xlabel="modulated layer", ylabel=f"comod - attention, {score}")


def _differences(cells: pd.DataFrame, score: str) -> np.ndarray:
    wide = cells.pivot_table(index=["seed", "version"], columns="arm", values=score)
    wide = wide.groupby(level="seed").mean()
    return np.asarray((wide["comod"] - wide["attention"]).dropna())


def _point(
    ax: plots.Axes, x: float, values: np.ndarray, look: tuple[str, str, str], place: int
) -> None:
    if not len(values):
        return
    colour, marker, label = look
    error = None
    if len(values) > 2:
        interval = mean_interval(values)
        error = [[values.mean() - interval.low], [interval.high - values.mean()]]
    ax.plot(np.full(len(values), x), values, ".", color="0.7", markersize=2.5, zorder=1)
    ax.errorbar(
        x, values.mean(), yerr=error, fmt=marker, color=colour, markersize=4, capsize=2,
        label=label if place == 0 else None, zorder=2,
    )  # fmt: skip


def schematic() -> plots.Figure:
    """Draw the parts of the model and what goes where."""
    figure = plots.new_figure(size=(6.8, 2.5))
    (ax,) = figure.axes
    ax.set_axis_off()
    ax.set(xlim=(0, 10.4), ylim=(0, 3.6))

    def box(x: float, y: float, width: float, text: str, colour: str) -> None:
        look = {"boxstyle": "round,pad=0.45", "facecolor": colour, "edgecolor": "0.3"}
        ax.annotate(text, (x + width / 2, y), ha="center", va="center", fontsize=7, bbox=look)

    def arrow(a: tuple[float, float], b: tuple[float, float], text: str = "") -> None:
        ax.annotate("", b, a, arrowprops={"arrowstyle": "->", "color": "0.3", "linewidth": 0.9})
        if text:
            ax.annotate(text, ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 + 0.2), ha="center", fontsize=7)

    y = 1.2
    box(0.0, y, 0.9, "image x", "white")
    box(1.6, y, 1.2, "encoder\nup to layer l", "#DCE9F5")
    box(3.7, y, 1.5, "modulated layer\n" + r"$h\,e^{m c_k - s^2 c_k^2/2}$", "#F9DFC9")
    box(6.1, y, 1.2, "rest of encoder,\ndecoder a", "#DCE9F5")
    box(8.0, y, 0.9, r"gain $g_k \odot a$", "#F9DFC9")
    box(9.5, y, 0.9, "read-out z", "#DCE9F5")
    for a, b in ((0.95, 1.6), (2.9, 3.55), (5.35, 6.0), (7.45, 7.95), (9.05, 9.45)):
        arrow((a, y), (b, y))
    box(1.6, 2.9, 1.6, "context k (one-hot)\n" + r"controller $c_k=\theta_k^2$", "#E3F1E7")
    arrow((3.35, 2.75), (4.2, 1.75))
    box(4.5, 2.9, 1.4, r"modulator $m \sim N(0, \sigma^2)$", "#F4E3EE")
    arrow((5.0, 2.6), (4.6, 1.75))
    box(7.5, 2.9, 1.9, "covariance of a with m,\nrectified, mean one", "#F4E3EE")
    arrow((6.15, 2.9), (7.2, 2.9))
    arrow((6.9, 1.65), (7.8, 2.5))
    arrow((8.45, 2.45), (8.45, 1.6))
    ax.annotate(
        r"decision: $m=\mu$, $s=0$;   noise pass: $m$ drawn, $s=\sigma$", (5.2, 0.25),
        ha="center", fontsize=7,
    )  # fmt: skip
    return figure

"""Heat maps over a grid of conditions, sizes needed, robustness against load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import Normal, Stroke

from ._plots_style import MARKERS, interval_of, line, mechanism, variant_label
from .statistics import mean_interval

if TYPE_CHECKING:
    import pandas as pd


# White on dark cells and on light ones.
_OUTLINE = (Stroke(linewidth=3, foreground="black"), Normal())


def capacity_map(
    ax: Axes,
    table: pd.DataFrame,
    *,
    bar: Axes | None = None,
    value: str = "solved",
    units: str = "units",
    tasks: str = "tasks",
    capacity: pd.DataFrame | None = None,
    sizes: pd.DataFrame | None = None,
    label: str = "fraction of tasks solved, f",
) -> Axes:
    """Draw the median fraction of solved tasks f(K, N) as a heat map, for one variant.

    With `capacity` the white stairs are K*(N), with `sizes` the white points N*(K), with bars to
    the ends of their intervals. Conditions without a network are grey. The title tells the
    variant and how many networks stand behind each cell.

    Args:
        ax: Axes to draw on.
        table: Columns variant, `units`, `tasks`, `value`; one row per network.
        bar: Axes for the colour bar; None leaves it out.
        value: Column of f, in [0, 1].
        units: Column of N.
        tasks: Column of K.
        capacity: From `ctxrnn.analysis.capacity.capacity`; other variants are left out.
        sizes: From `size_needed`; likewise.
        label: Text of the colour bar.
    """
    variant = _only_variant(table)
    wide = table.pivot_table(index=tasks, columns=units, values=value, aggfunc="median")
    _heat_map(ax, wide, bar, label, cmap="cividis", vmin=0.0, vmax=1.0)
    n, k = wide.columns.to_numpy(dtype=float), wide.index.to_numpy(dtype=float)
    if capacity is not None:
        rows = capacity[capacity["variant"] == variant].set_index(units).reindex(wide.columns)
        tops = np.interp(rows["capacity"], k, np.arange(len(k))) + 0.5
        tops = np.where(rows["flag"] == "below", -0.5, tops)
        edges = np.arange(len(n) + 1) - 0.5
        stairs = ax.stairs(tops, edges, baseline=None, color="white", linewidth=1.6)
        stairs.set_path_effects(list(_OUTLINE))
    if sizes is not None:
        rows = sizes[sizes["variant"] == variant]
        y = np.interp(rows[tasks], k, np.arange(len(k)))
        x, low, high = (
            np.interp(np.log(np.maximum(rows[c], n[0])), np.log(n), np.arange(len(n)))
            for c in ("size", "low", "high")
        )
        known = rows["flag"].to_numpy() == ""
        # Ends beyond the sizes tried run to the edge.
        low = np.where(rows["low"] < n[0], -0.5, low)
        high = np.where(rows["high"] > n[-1], len(n) - 0.5, high)
        errors = np.nan_to_num([np.maximum(x - low, 0), np.maximum(high - x, 0)])
        _, caps, bars = ax.errorbar(
            x[known], y[known], xerr=errors[:, known], fmt="o", color="white", ecolor="white",
            markeredgecolor="black", markersize=4, elinewidth=1, capsize=2,
        )  # fmt: skip
        for drawn in (*caps, *bars):
            drawn.set_path_effects([Stroke(linewidth=2.5, foreground="black"), Normal()])
    ax.set(xlabel="units, N", ylabel="tasks, K")
    ax.set_title(f"{variant_label(variant)}, n = {_per_cell(table, [units, tasks])}")
    return ax


def _only_variant(table: pd.DataFrame) -> str:
    variants = list(dict.fromkeys(table["variant"]))
    if len(variants) != 1:
        raise ValueError(f"a map is of one variant: got {', '.join(map(str, variants)) or 'none'}")
    return str(variants[0])


def _per_cell(table: pd.DataFrame, columns: list[str]) -> str:
    counts = table.groupby(columns).size()
    few, many = int(counts.min()), int(counts.max())
    return f"{few}" if few == many else f"{few} to {many}"


def _heat_map(ax: Axes, wide: pd.DataFrame, bar: Axes | None, label: str, **look: Any) -> Any:
    ax.set_facecolor("0.8")
    image = ax.imshow(wide.to_numpy(dtype=float), origin="lower", aspect="auto", **look)
    ax.set_xticks(range(wide.shape[1]), [f"{v:g}" for v in wide.columns])
    ax.set_yticks(range(wide.shape[0]), [f"{v:g}" for v in wide.index])
    ax.tick_params(length=0)
    if bar is not None:
        drawn = ax.figure.colorbar(image, cax=bar)
        drawn.set_label(label)
        drawn.outline.set_visible(False)  # type: ignore[operator]
    return image


def timescale_map(
    ax: Axes,
    table: pd.DataFrame,
    value: str,
    *,
    label: str,
    bar: Axes | None = None,
    x: str = "tau_s",
    y: str = "tau_e",
    centre: float | None = None,
    decimals: int = 2,
) -> Axes:
    """Draw the mean of a measure over the time constants of both context filters.

    Each cell tells its mean and, from three networks on, half the width of the 95 % t interval.

    Args:
        ax: Axes to draw on.
        table: Columns `x`, `y` (ms) and `value`; one row per network.
        value: Column to draw.
        label: Text of the colour bar, with its unit.
        bar: Axes for the colour bar; None leaves it out.
        x: Column of the synaptic filter's time constant.
        y: Column of the excitability filter's.
        centre: White here, with equal reach to both sides (for differences: 0).
        decimals: Digits of the numbers in the cells.
    """
    wide = table.pivot_table(index=y, columns=x, values=value)
    look: dict[str, Any] = {"cmap": "cividis"}
    if centre is not None:
        reach = float(np.nanmax(np.abs(wide.to_numpy() - centre))) or 1.0
        look = {"cmap": "PuOr", "vmin": centre - reach, "vmax": centre + reach}
    image = _heat_map(ax, wide, bar, label, **look)
    for (tau_y, tau_x), rows in table.groupby([y, x]):
        known = rows.dropna(subset=[value])
        if not len(known):
            continue
        found = interval_of(known, value)
        text = f"{found.mean:z.{decimals}f}".replace("-", "−")
        if len(known) > 2:
            text += f"\n±{(found.high - found.low) / 2:.{decimals}f}"
        red, green, blue, _ = image.cmap(image.norm(found.mean))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        place = (wide.columns.get_loc(tau_x), wide.index.get_loc(tau_y))
        ax.text(
            *place, text, ha="center", va="center", fontsize="small", color="w" if dark else "k"
        )
    ax.set(xlabel=r"synaptic time constant $\tau_s$ (ms)")
    ax.set_ylabel(r"excitability time constant $\tau_e$ (ms)")
    ax.set_title(f"n = {_per_cell(table, [x, y])}")
    return ax


def sizes_needed(
    ax: Axes,
    sizes: pd.DataFrame,
    *,
    exponents: pd.DataFrame | None = None,
    tasks: str = "tasks",
) -> Axes:
    """Draw the size needed N*(K) with its 95 % interval, both axes logarithmic, by variant.

    Sizes outside the grid are arrows: upwards where the largest N failed, downwards where the
    smallest passed. With `exponents` lines are the fits c K^gamma and the legend tells gamma.

    Args:
        ax: Axes to draw on.
        sizes: From `size_needed`.
        exponents: From `packing_exponent`.
        tasks: Column of K.
    """
    variants = list(dict.fromkeys(sizes["variant"]))
    finite = sizes["high"].where(np.isfinite(sizes["high"])).max()
    bottom = 0.8 * float(sizes["size"].min())
    top = 1.1 * float(np.nanmax([finite, 1.15 * sizes["size"].max()]))
    for number, variant in enumerate(variants):
        rows = sizes[sizes["variant"] == variant]
        known = rows[rows["flag"] == ""]
        look, kind = line(str(variant)), mechanism(str(variant))
        name = f"{variant_label(str(variant))}, n = {int(rows['replicates'].max())}"
        # Variants side by side, by 3 % of K.
        shift = 1.03 ** (number - (len(variants) - 1) / 2)
        if exponents is not None:
            name += _exponent(ax, exponents, str(variant), known[tasks], look)
        low, high = known["low"].clip(lower=bottom), known["high"].clip(upper=top)
        reach = [known["size"] - low, high - known["size"]]
        ax.errorbar(
            known[tasks] * shift, known["size"], yerr=np.nan_to_num(reach), color=look["color"],
            fmt=MARKERS[kind], markersize=4, capsize=2, linewidth=1, label=name,
        )  # fmt: skip
        for flag, mark, away in (("above", "^", 1.06), ("at most", "v", 1 / 1.06)):
            beyond = rows[rows["flag"] == flag]
            ax.plot(
                beyond[tasks] * shift, beyond["size"] * away, mark, color=look["color"],
                markerfacecolor="none", markersize=6,
            )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(bottom, top)
    counts = np.sort(sizes[tasks].unique())
    ax.set_xticks(counts, [f"{k:g}" for k in counts])
    ax.set_yticks(ticks := _size_ticks(bottom, top), [f"{n:g}" for n in ticks])
    ax.minorticks_off()
    ax.set(xlabel="tasks, K", ylabel="size needed, $N^*$ (units)")
    return ax


def _size_ticks(bottom: float, top: float) -> list[float]:
    powers = 2.0 ** np.arange(np.ceil(np.log2(bottom)), np.floor(np.log2(top)) + 1)
    return [float(n) for n in powers]


def _exponent(
    ax: Axes, exponents: pd.DataFrame, variant: str, tasks: pd.Series, look: dict[str, Any]
) -> str:
    rows = exponents[exponents["variant"] == variant]
    if not len(rows) or np.isnan(rows["gamma"].iloc[0]):
        return ""
    fit = rows.iloc[0]
    k = np.geomspace(tasks.min(), tasks.max(), 50)
    ax.plot(k, fit["factor"] * k ** fit["gamma"], linewidth=0.8, zorder=1, **look)
    text = rf", $\gamma$ = {fit['gamma']:.2f}"
    return text if np.isnan(fit["low"]) else text + f" [{fit['low']:.2f}, {fit['high']:.2f}]"


def load_scatter(
    ax: Axes,
    table: pd.DataFrame,
    *,
    value: str = "area",
    load: str = "load",
    label: str = r"robustness area $\mathcal{A}$",
    bins: int = 4,
    by: str | None = None,
) -> Axes:
    """Draw a measure of each network against its load K / K*(N), by variant.

    Large markers are means with 95 % t intervals: over bins of equally many networks or, with `by`,
    over the networks of each load of one size. Sizes differ in much else than load, so a line over
    bins of several sizes need not be the effect of load. The line at 1 is full load.

    Args:
        ax: Axes to draw on.
        table: Columns variant, `load` (K / K*) and `value`; one row per network.
        value: Column to draw; NaN is left out.
        load: Column of the load.
        label: Text of the y axis.
        bins: Number of bins per variant; each keeps at least three networks.
        by: Column of the size, to draw a line for each.
    """
    for variant, part in table.dropna(subset=[load, value]).groupby("variant", sort=False):
        if by is not None:
            _load_lines(ax, part, value, load, by)
            continue
        rows = part.sort_values(load)
        look, kind = line(str(variant)), mechanism(str(variant))
        name = f"{variant_label(str(variant))}, n = {len(rows)}"
        ax.plot(
            rows[load], rows[value], MARKERS[kind], color=look["color"], markersize=2.5, alpha=0.35
        )
        number = max(1, min(bins, len(rows) // 3))
        parts = [part for part in np.array_split(np.arange(len(rows)), number) if len(part)]
        found = [mean_interval(rows[value].to_numpy()[part]) for part in parts]
        mean = np.array([i.mean for i in found])
        reach = np.array([(i.high - i.low) / 2 for i in found])
        centres = np.array([rows[load].to_numpy()[part].mean() for part in parts])
        ax.errorbar(
            centres, mean, yerr=np.nan_to_num(reach), fmt=MARKERS[kind], markersize=5, capsize=2,
            linewidth=1.2, label=name, **look,
        )  # fmt: skip
    ax.axvline(1, color="0.75", linewidth=0.8, zorder=0)
    ax.set(xlabel=r"load $K / K^*(N)$", ylabel=label)
    return ax


_SIZE_MARKERS = "osD^vP"


def _load_lines(ax: Axes, rows: pd.DataFrame, value: str, load: str, by: str) -> None:
    """Draw one variant's lines against load, one per size, darker for larger sizes."""
    sizes = sorted(rows[by].unique())
    for place, size in enumerate(sizes):
        mine = rows[rows[by] == size]
        look = line(str(mine["variant"].iloc[0]))
        alpha = 0.45 + 0.55 * (place + 1) / len(sizes)
        marker = _SIZE_MARKERS[place % len(_SIZE_MARKERS)]
        ax.plot(mine[load], mine[value], marker, color=look["color"], markersize=2.5, alpha=0.35)
        found = [(x, interval_of(part, value)) for x, part in mine.groupby(load)]
        places = np.array([x for x, _ in found], dtype=float)
        mean = np.array([i.mean for _, i in found])
        reach = np.array([(i.high - i.low) / 2 for _, i in found])
        ax.errorbar(
            places, mean, yerr=np.nan_to_num(reach), fmt=marker, markersize=4.5,
            capsize=2, linewidth=1.2, color=look["color"], linestyle="-", alpha=alpha,
            label=f"N = {size}, n = {_per_cell(mine, [load])} each",
        )  # fmt: skip

"""Parts of `analyse`: trajectories and fixed points, with the stimulus off and in each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn.analysis import FixedPoints, find_fixed_points, plots, visited_states
from ctxrnn.studies._analyse_epochs import epochs_of, representative
from ctxrnn.studies._analyse_view import Part, View

if TYPE_CHECKING:
    import pandas as pd

# The order in which kinds are stacked; colours that are none of a mechanism, and markers.
KINDS = {
    "stable": ("#222222", "o"), "marginal": ("#999999", "D"), "saddle": ("#E69F00", "x"),
    "unstable": ("#F0E442", "D"), "slow": ("#56B4E9", "s"),
}  # fmt: skip


def kinds_of(points: FixedPoints) -> np.ndarray:
    """Return the kind of each point in one word, "slow" for slow points."""
    words = np.array([str(kind).split()[0] for kind in points.kind], dtype=object)
    words[points.slow] = "slow"
    return words


def trajectories(view: View) -> Part:
    """Mean trajectories of each task in the plane of the pooled principal components."""
    columns = min(5, len(view.names))
    rows = -(-len(view.names) // columns)
    figure = plots.new_figure(rows, columns, size=(1.4 * columns + 0.4, 1.55 * rows + 0.5))
    points, seen = view.points, set()
    for number, (name, ax) in enumerate(zip(view.names, figure.axes, strict=False)):
        mine = points.select(points.condition == (number if view.modulated else 0))
        for path in view.averages(number):
            coordinates = view.plane.project(path)[:, :2]
            ax.plot(*coordinates.T, color=view.colour, linewidth=0.8, alpha=0.7)
            ax.plot(*coordinates[0], ".", color="0.4", markersize=4)
        places = view.plane.project(mine.x)[:, :2]
        kinds = kinds_of(mine)
        for kind, (colour, mark) in KINDS.items():
            these = kinds == kind
            seen |= {kind} if these.any() else set()
            ax.plot(*places[these].T, mark, **_look(kind), color=colour, zorder=3)
        ax.set_title(name)
        ax.set(xlabel="PC 1" if number >= len(view.names) - columns else "",
               ylabel="PC 2" if number % columns == 0 else "")  # fmt: skip
    for ax in figure.axes[len(view.names) :]:
        ax.remove()
    _kind_key(figure, [kind for kind in KINDS if kind in seen])
    share = 100 * view.plane.ratios[:2]
    caption = (
        f"{view.state.capitalize()} on the first two principal components of all tasks "
        f"({share[0]:.0f} and {share[1]:.0f} % of the variance), averaged over trials with the "
        f"same answer ({view.trials} trials per task, no noise); a dot is where they begin. Fixed "
        f"points in the {'task’s context' if view.modulated else 'network'} with the stimulus off."
    )
    return Part("Trajectories and fixed points", caption, figure=figure)


def _look(kind: str) -> dict[str, Any]:
    full = kind == "stable"
    return {"markersize": 4, "fillstyle": "full" if full else "none", "markeredgewidth": 0.9}


def _kind_key(figure: plots.Figure, kinds: Sequence[str]) -> None:
    if kinds:
        looks = [(k, {"color": KINDS[k][0], "marker": KINDS[k][1], "linestyle": "", **_look(k)})
                 for k in kinds]  # fmt: skip
        figure.legend(*plots.key(looks), loc="outside lower center", ncols=len(kinds))


def fixed_points(view: View) -> Part:
    """Numbers of points by kind, and their spectra."""
    points = view.points
    table = points.table()
    names = dict(enumerate(view.conditions))
    table.insert(1, "task", table["condition"].map(names))
    starts = points.starts.assign(task=points.starts["condition"].map(names))
    counts = _counted(points, list(names.values()))
    figure = plots.new_figure(1, 2, size=(6.8, 0.17 * len(counts) + 1.5))
    left, right = figure.axes
    _stacked(left, counts)
    left.set_xlabel("fixed and slow points")
    figure.legend(loc="outside lower left", ncols=5)
    stable = np.flatnonzero(points.stable & ~points.slow)
    _spectrum(right, points, stable if len(stable) else np.arange(len(points)), view.colour)
    ends = starts["end"].value_counts()
    told = ", ".join(f"{n} {end}" for end, n in ends.items())
    caption = (
        f"Left, points found from {view.starts} visited states (noise of sd 0.05) in each context, "
        "stimulus off, by kind. Right, eigenvalues of the linearisation at the "
        f"{'stable ' if len(stable) else ''}points of all contexts, times the time constant. Ends "
        f"of all starts: {told} (slow: a minimum of the speed that is no root; cycle: the flow "
        "goes round; stalled: it comes to no point)."
    )
    return Part(
        "Fixed points, stimulus off", caption,
        {"fixed_points": table, "starts": starts, "kinds": counts.reset_index(names="task")},
        figure, "kinds",
    )  # fmt: skip


def _spectrum(ax: plots.Axes, points: FixedPoints, rows: np.ndarray, colour: str) -> None:
    if len(points):
        plots.spectrum(ax, points, rows=rows)
        for line in ax.lines:
            if line.get_marker() == "o":
                line.set_color(colour)
                line.set_alpha(0.6)
    else:
        ax.set_axis_off()


def _counted(points: FixedPoints, names: Sequence[str]) -> pd.DataFrame:
    """Return how many points of each kind there are in each condition, (condition, kind)."""
    import pandas as pd

    kinds = kinds_of(points)
    return pd.DataFrame(
        {
            kind: [
                int(((points.condition == c) & (kinds == kind)).sum()) for c in range(len(names))
            ]
            for kind in KINDS
        },
        index=list(names),
    )


def _stacked(ax: plots.Axes, counts: pd.DataFrame, *, label: bool = True) -> None:
    """Draw numbers by kind as bars across, the first condition on top."""
    before, places = np.zeros(len(counts)), np.arange(len(counts))
    for kind, (colour, _) in KINDS.items():
        if counts[kind].any():
            ax.barh(places, counts[kind], left=before, color=colour, height=0.75,
                    label=kind if label else None)  # fmt: skip
            before += counts[kind].to_numpy()
    ax.set_yticks(places, counts.index)
    ax.set_ylim(len(counts) - 0.4, -0.6)
    ax.locator_params(axis="x", integer=True)


def epoch_points(view: View) -> Part:
    """Fixed points in each context and epoch, with the stimulus of one trial held constant."""
    conditions = [(k, epoch) for epoch in epochs_of(view) for k in epochs_of(view)[epoch]]
    stimuli = np.stack([representative(view, k, epoch) for k, epoch in conditions])
    own = [
        visited_states(view.visited(k), view.starts, seed=view.seed) for k in range(len(view.names))
    ]
    most = min(len(states) for states in own)
    contexts = None if view.contexts is None else view.contexts[[k for k, _ in conditions]]
    points = find_fixed_points(
        view.network, contexts, stimuli, np.stack([own[k][:most] for k, _ in conditions])
    )
    table = points.table()
    table.insert(1, "task", [view.names[conditions[c][0]] for c in table["condition"]])
    table.insert(2, "epoch", [conditions[c][1] for c in table["condition"]])
    counts = _counted(points, [view.names[k] for k, _ in conditions]).reset_index(names="task")
    counts.insert(1, "epoch", [epoch for _, epoch in conditions])
    epochs = list(epochs_of(view))
    figure = plots.new_figure(
        2, len(epochs), size=(1.35 * len(epochs) + 0.9, 0.3 * len(view.names) + 1.6)
    )
    grid = np.array(figure.axes, dtype=object).reshape(2, len(epochs))
    for column, epoch in zip(grid.T, epochs, strict=True):
        _epoch(column, view, epoch, counts, table, first=epoch == epochs[0])
    widest = max(ax.get_xlim()[1] for ax in grid[0])
    for upper, lower in grid.T:
        upper.set_xlim(0, widest)
        _decades(lower, table.loc[table["kind"].str.startswith("stable"), "time_constant"])
    shown = [kind for kind in KINDS if counts[kind].any()]
    handles = [grid[0, 0].barh([0], [0], color=KINDS[kind][0]) for kind in shown]
    figure.legend(handles, shown, loc="outside lower center", ncols=len(shown))
    ends = points.starts["end"].value_counts()
    told = ", ".join(f"{n} {end}" for end, n in ends.items())
    caption = (
        "Fixed points in the context of each task with the input held at its mean over an epoch of "
        f"one trial (the first of {view.trials}), from {most} states visited in that task. Above, "
        "by kind (no bar: none found; dash: the task has no such epoch); below, the slowest time "
        f"constant at stable points. Ends of all starts: {told}."
    )
    tables = {"epoch_points": table, "epoch_kinds": counts}
    return Part("Fixed points in each epoch", caption, tables, figure)


def _decades(ax: plots.Axes, values: pd.Series) -> None:
    """Let a logarithmic axis reach over whole decades, named by their ends alone."""
    known = values[np.isfinite(values) & (values > 0)]
    if len(known):
        low, high = np.floor(np.log10(known.min())), np.ceil(np.log10(known.max()))
        ax.set_xlim(10**low, 10 ** max(high, low + 1))
    ax.tick_params(axis="x", which="minor", labelbottom=False)


def _epoch(
    column: np.ndarray,
    view: View,
    epoch: str,
    counts: pd.DataFrame,
    table: pd.DataFrame,
    *,
    first: bool,
) -> None:
    upper, lower = column
    there = counts[counts["epoch"] == epoch].set_index("task")[list(KINDS)]
    shown = there.reindex(list(view.names), fill_value=0)
    _stacked(upper, shown, label=False)
    stable = table[(table["epoch"] == epoch) & (table["kind"].str.startswith("stable"))]
    stable = stable[~stable["slow"]]
    rows = [view.names.index(name) for name in stable["task"]]
    lower.plot(stable["time_constant"], rows, "o", color=view.colour, markersize=3, alpha=0.7)
    for ax in (upper, lower):
        for place, name in enumerate(view.names):
            if name not in there.index:
                ax.annotate("–", (0.03, place), xycoords=("axes fraction", "data"), va="center",
                            color="0.5", fontsize=7)  # fmt: skip
        ax.set_yticks(range(len(view.names)), view.names if first else [""] * len(view.names))
        ax.set_ylim(len(view.names) - 0.4, -0.6)
    upper.set_title(epoch)
    upper.set_xlabel("points found")
    lower.set_xscale("log")
    lower.set_xlabel("time constant (ms)")

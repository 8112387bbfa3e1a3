"""Parts of `analyse`: trajectories, fixed points, and how these move between contexts."""

from __future__ import annotations

import numpy as np

from ctxrnn.analysis import FixedPoints, plots
from ctxrnn.studies._analyse_view import Part, View

# The order in which kinds are stacked, and their shades.
KINDS = {
    "stable": "#0072B2", "marginal": "#56B4E9", "saddle": "#D55E00", "unstable": "#CC79A7",
    "slow": "#999999",
}  # fmt: skip


def trajectories(view: View) -> Part:
    """Mean trajectories of each task in the plane of the pooled principal components."""
    columns = min(5, len(view.names))
    rows = -(-len(view.names) // columns)
    figure = plots.new_figure(rows, columns, size=(1.55 * columns + 0.3, 1.6 * rows + 0.3))
    points = view.points
    for number, (name, ax) in enumerate(zip(view.names, figure.axes, strict=False)):
        mine = points.select(points.condition == (number if view.modulated else 0))
        paths = view.averages(number)
        for path in paths:
            coordinates = view.plane.project(path)[:, :2]
            ax.plot(*coordinates.T, color="#0072B2", linewidth=0.8, alpha=0.8)
            ax.plot(*coordinates[0], ".", color="0.2", markersize=4)
        places = view.plane.project(mine.x)[:, :2]
        kinds = kinds_of(mine)
        for kind, colour in KINDS.items():
            these = kinds == kind
            mark = {"stable": "o", "saddle": "x", "slow": "s"}.get(kind, "D")
            ax.plot(
                *places[these].T, mark, color=colour, markersize=4, fillstyle="none",
                markeredgewidth=0.9,
            )  # fmt: skip
        ax.set_title(name)
        ax.set(xlabel="PC 1" if number >= len(view.names) - columns else "",
               ylabel="PC 2" if number % columns == 0 else "")  # fmt: skip
    for ax in figure.axes[len(view.names) :]:
        ax.remove()
    share = 100 * view.plane.ratios[:2]
    caption = (
        f"Potentials on the first two principal components of all tasks ({share[0]:.0f} and "
        f"{share[1]:.0f} % of the variance), averaged over trials with the same answer ("
        f"{view.trials} trials per task, no noise); a dot is where they begin. Fixed points in the "
        "task's context with the stimulus off: circles stable, crosses saddles, squares slow "
        "points, diamonds others."
    )
    return Part("Trajectories and fixed points", caption, figure=figure)


def kinds_of(points: FixedPoints) -> np.ndarray:
    words = np.array([str(kind).split()[0] for kind in points.kind], dtype=object)
    words[points.slow] = "slow"
    return words


def fixed_points(view: View) -> Part:
    """Numbers of points by kind, and their spectra."""
    import pandas as pd

    points = view.points
    table = points.table()
    names = dict(enumerate(view.conditions))
    table.insert(1, "task", table["condition"].map(names))
    starts = points.starts.assign(task=points.starts["condition"].map(names))
    kinds = kinds_of(points)
    counts = pd.DataFrame(
        {
            kind: [int(((points.condition == c) & (kinds == kind)).sum()) for c in names]
            for kind in KINDS
        },
        index=list(names.values()),
    )
    figure = plots.new_figure(1, 2, size=(6.8, 2.6))
    left, right = figure.axes
    below = np.zeros(len(counts))
    for kind, colour in KINDS.items():
        if counts[kind].any():
            left.bar(counts.index, counts[kind], bottom=below, color=colour, label=kind)
            below += counts[kind].to_numpy()
    left.set(ylabel="fixed and slow points")
    left.tick_params(axis="x", rotation=60)
    left.legend(fontsize=6, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))
    stable = np.flatnonzero(points.stable & ~points.slow)
    plots.spectrum(right, points, rows=stable if len(stable) else None)
    ends = starts["end"].value_counts()
    told = ", ".join(f"{n} {end}" for end, n in ends.items())
    caption = (
        f"Left, points found from {view.starts} visited states (noise of sd 0.05) in each context, "
        "stimulus off, by kind. Right, eigenvalues of the linearisation at the "
        f"{'stable' if len(stable) else ''} points. Ends of all starts: {told} (slow: a minimum of "
        "the speed that is no root; stalled: the flow comes to no point)."
    )
    return Part(
        "Fixed points", caption,
        {"fixed_points": table, "starts": starts, "kinds": counts.reset_index(names="task")},
        figure, "kinds",
    )  # fmt: skip


def continuation(view: View) -> Part:
    """Fixed points followed from one task's context to another's."""
    import pandas as pd

    figure = plots.new_figure(1, len(view.pairs), size=(1.9 * len(view.pairs) + 0.4, 2.3))
    tables, events, told = [], [], []
    for (a, b), ax in zip(view.pairs, figure.axes, strict=True):
        branches = view.followed(a, b)
        plots.bifurcation_diagram(
            ax, branches, view.plane.components[0], label="PC 1" if a == view.pairs[0][0] else ""
        )
        ax.set_title(f"{a} to {b}")
        ax.set_xlabel(r"weight $\lambda$ of the second")
        pair = {"from": a, "to": b}
        tables.append(branches.table().assign(**pair))
        events.append(branches.bifurcations().assign(**pair))
        cut = sum("steps" in branch.ends for branch in branches)
        lost = sum("lost" in branch.ends for branch in branches)
        if cut or lost:
            told.append(f"{a} to {b}: {lost} branches ended where no step converged, {cut} cut")
    caption = (
        "Fixed points along c = (1 - λ) a + λ b, stimulus off, projected on the first "
        "component; followed from the points found in both contexts. Solid: stable; dotted: not. "
        "Circles: folds, diamonds: pitchforks, squares: other crossings, triangles: Hopf points, "
        "stars: several modes at once. "
        + ("; ".join(told) + "." if told else "No branch was cut short.")
    )
    return Part(
        "From one context to another", caption,
        {
            "branches": pd.concat(tables, ignore_index=True),
            "bifurcations": pd.concat(events, ignore_index=True),
        },
        figure,
    )  # fmt: skip

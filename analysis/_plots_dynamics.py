"""Figures of dynamics: trajectories with fixed points, spectra, branches, angles of subspaces."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from .continuation import Bifurcation, Branch, Branches
from .fixed_points import FixedPoints
from .subspaces import PCA, Samples

if TYPE_CHECKING:
    import pandas as pd

# Okabe and Ito (2008), without yellow; first those that stand for no mechanism.
CONTEXT_COLOURS = ("#56B4E9", "#E69F00", "#000000", "#CC79A7", "#009E73", "#0072B2", "#D55E00")
_POINTS: Mapping[str, tuple[str, Literal["full", "none"]]] = {
    "stable": ("o", "full"),
    "saddle": ("X", "full"),
    "unstable": ("o", "none"),
    "marginal": ("D", "none"),
    "slow": ("s", "none"),
}
_EVENTS = {
    "fold": "o", "pitchfork": "D", "branch point": "s", "Hopf": "^", "Neimark-Sacker": "v",
    "period doubling": "P", "multiple": "*",
}  # fmt: skip


def colours_of(names: Sequence[Hashable]) -> dict[Hashable, Any]:
    """Return a colour for each name: distinct ones for up to seven, else of a map."""
    if len(names) <= len(CONTEXT_COLOURS):
        return dict(zip(names, CONTEXT_COLOURS, strict=False))
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(names)))
    return dict(zip(names, map(tuple, shades), strict=True))


def trajectories(
    ax: Axes,
    plane: PCA,
    by_context: Mapping[Hashable, Samples],
    *,
    points: FixedPoints | None = None,
    reach: float = 0.15,
    label: str = "PC",
) -> Axes:
    """Draw trajectories on the first two principal components, with fixed points.

    A line is a trajectory, a small dot its beginning. Fixed points are filled circles where stable,
    crosses where saddles (with a line along each of up to two unstable directions, of a complex
    pair along its real and imaginary parts), open circles where unstable, diamonds where marginal;
    slow points are open squares.

    Args:
        ax: Axes to draw on.
        plane: Principal components.
        by_context: Context -> trajectories, (trajectory, time, unit) or (time, unit).
        points: Fixed points, whose conditions are the contexts in the same order, or all of one.
        reach: Half the length of the lines along unstable directions, in widths of the plot.
        label: Text of the axes, before the number of the component and its share of the variance.
    """
    names = list(by_context)
    colours = colours_of(names)
    for name, states in by_context.items():
        paths = plane.project(states)[..., :2]
        paths = paths[None] if paths.ndim == 2 else paths
        for number, path in enumerate(paths):
            ax.plot(
                *path.T, color=colours[name], linewidth=0.7, alpha=0.8,
                label=str(name) if number == 0 else None,
            )  # fmt: skip
            ax.plot(*path[0], ".", color=colours[name], markersize=3)
    if points is not None and len(points):
        _points(ax, plane, points, [colours[name] for name in names], reach)
    for axis, number in ((ax.xaxis, 0), (ax.yaxis, 1)):
        share = f" ({100 * plane.ratios[number]:.0f} %)" if len(plane.ratios) > number else ""
        axis.set_label_text(f"{label} {number + 1}{share}")
    return ax


def _points(ax: Axes, plane: PCA, points: FixedPoints, colours: list[Any], reach: float) -> None:
    places = plane.project(points.x)[:, :2]
    width = reach * max(np.ptp(ax.dataLim.get_points(), axis=0))
    kinds = np.where(points.slow, "slow", [str(kind).split()[0] for kind in points.kind])
    for place, x, kind, condition in zip(places, points.x, kinds, points.condition, strict=True):
        colour = colours[condition] if condition < len(colours) else "0.2"
        mark, fill = _POINTS[kind]
        if kind == "saddle":
            for direction in _unstable(points, x, int(condition)):
                ends = np.outer([-width, width], (direction @ plane.components[:2].T)) + place
                ax.plot(*ends.T, color=colour, linewidth=1.4, zorder=4)
        ax.plot(
            *place, mark, color=colour, markersize=5, zorder=5, fillstyle=fill,
            markeredgecolor="white" if fill == "full" else colour, markeredgewidth=0.6,
        )  # fmt: skip


def _unstable(points: FixedPoints, x: np.ndarray, condition: int) -> np.ndarray:
    """Return up to two unstable directions at a point, real, of norm 1, those that grow fastest.

    Of a complex pair they are the real and the imaginary part, at right angles.
    """
    field = points.field
    matrix = field.linearisation(x, condition)[0].cpu().numpy()
    values, vectors = np.linalg.eig(matrix)
    if field.discrete:
        with np.errstate(divide="ignore"):
            values = np.log((1 + field.step * values).astype(complex)) / field.step
    limit = points.marginal * float(field.rates.mean())
    found: list[np.ndarray] = []
    for mode in np.argsort(-values.real, kind="stable"):
        # One of a pair tells of both.
        if values[mode].real <= limit or len(found) >= 2:
            break
        vector = vectors[:, mode]
        turned = np.iscomplexobj(vectors) and bool(np.abs(vector.imag).max() > 1e-12)
        if turned and values[mode].imag < 0:
            continue
        # The phase at which both parts are at right angles.
        vector = vector * np.exp(-0.5j * np.angle(np.sum(vector**2))) if turned else vector
        parts = (vector.real, vector.imag) if turned else (vector.real,)
        found += [part / np.linalg.norm(part) for part in parts]
    return np.array(found[:2]).reshape(-1, len(x))


def point_key(kinds: Sequence[str] | None = None) -> tuple[list[Any], list[str]]:
    """Return handles and texts of a legend for the points of `trajectories`.

    Args:
        kinds: Which of "stable", "saddle", "unstable", "marginal" and "slow"; None for all.
    """
    from matplotlib.lines import Line2D

    names = {
        "stable": "stable point", "saddle": "saddle", "unstable": "unstable point",
        "marginal": "marginal point", "slow": "slow point",
    }  # fmt: skip
    names = {kind: text for kind, text in names.items() if kinds is None or kind in kinds}
    handles = [
        Line2D([], [], marker=_POINTS[kind][0], linestyle="", color="0.3", markersize=5,
               fillstyle=_POINTS[kind][1], markeredgewidth=0.8)
        for kind in names
    ]  # fmt: skip
    return handles, list(names.values())


def event_key(kinds: Sequence[str]) -> tuple[list[Any], list[str]]:
    """Return handles and texts of a legend for the bifurcations of `bifurcation_diagram`.

    Args:
        kinds: Which of them, e.g. those that occur.
    """
    from matplotlib.lines import Line2D

    shown = [kind for kind in _EVENTS if kind in kinds]
    handles = [
        Line2D([], [], marker=_EVENTS[kind], linestyle="", color="black", markersize=4,
               markerfacecolor="white", markeredgewidth=0.8)
        for kind in shown
    ]  # fmt: skip
    return handles, shown


def spectrum(
    ax: Axes, points: FixedPoints, *, rows: Sequence[int] | np.ndarray | None = None
) -> Axes:
    """Draw the eigenvalues of fixed points, times the time constant, in the complex plane.

    Those of a map, log mu / step, stand times the step: log mu. Left of the line at 0
    modes decay. Stable points are filled, others open, by condition.

    Args:
        ax: Axes to draw on.
        points: The points.
        rows: Which of them; None for all.
    """
    chosen = points if rows is None else points.select(np.asarray(rows))
    scale = 1.0 / float(points.field.rates.mean())
    conditions = list(dict.fromkeys(points.condition.tolist()))
    colours = colours_of(conditions)
    for values, condition, stable in zip(
        chosen.eigenvalues, chosen.condition, chosen.stable, strict=True
    ):
        ax.plot(
            values.real * scale, values.imag * scale, "o", markersize=3,
            color=colours[int(condition)], fillstyle="full" if stable else "none",
            markeredgewidth=0.6, alpha=0.8,
        )  # fmt: skip
    ax.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    unit, of = ("", r"\log\mu") if points.field.discrete else (r"\tau\,", r"\lambda")
    ax.set(xlabel=rf"${unit}\mathrm{{Re}}\,{of}$", ylabel=rf"${unit}\mathrm{{Im}}\,{of}$")
    return ax


def bifurcation_diagram(
    ax: Axes,
    branches: Branches,
    direction: np.ndarray | int = 0,
    *,
    label: str = "state",
    parameter: str = r"weight $\lambda$ of the other context",
    colour: Any = "0.15",
) -> Axes:
    """Draw fixed points against the parameter: lines are solid where stable, dotted elsewhere.

    Markers are bifurcations: circles folds, diamonds pitchforks, squares other crossings of
    branches, triangles Hopf points (of maps, pointing down, Neimark-Sacker points), crosses period
    doublings, stars several modes that change at once.

    Args:
        ax: Axes to draw on.
        branches: From `follow_fixed_points`.
        direction: What stands on the y axis: a unit, or a direction onto which states are
            projected, (unit,), e.g. a row of the read-out.
        label: Its text.
        parameter: Text of the x axis.
        colour: Of the lines.
    """

    def height(x: np.ndarray) -> np.ndarray:
        return np.asarray(x[..., direction] if np.ndim(direction) == 0 else x @ direction)

    for branch in branches:
        for stable, dashes, width in ((True, "-", 1.6), (False, ":", 0.9)):
            for along, x in _pieces(branch, stable):
                ax.plot(along, height(x), linestyle=dashes, linewidth=width, color=colour)
        for event in branch.bifurcations:
            ax.plot(
                event.parameter, height(event.x), _EVENTS[event.kind], color="black",
                markersize=3.5, zorder=4, markerfacecolor="white", markeredgewidth=0.8,
            )  # fmt: skip
    ax.set(xlabel=parameter, ylabel=label)
    return ax


def _pieces(branch: Branch, stable: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the parts of a branch that are stable, or not, from bifurcation to bifurcation."""
    places = np.append(
        np.arange(len(branch), dtype=float), [_place(branch, e) for e in branch.bifurcations]
    )
    events = np.arange(len(places)) >= len(branch)
    order = np.argsort(places, kind="stable")
    p = np.append(branch.parameter, [e.parameter for e in branch.bifurcations])[order]
    x = np.concatenate([branch.x, *[np.atleast_2d(e.x) for e in branch.bifurcations]])[order]
    events = events[order]
    mask = np.append(branch.stable, np.zeros(len(branch.bifurcations), dtype=bool))[order] == stable
    # A bifurcation belongs to the pieces on both of its sides.
    mask[events] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    found = []
    for first, last in edges.reshape(-1, 2):
        first -= int(first > 0 and events[first - 1])
        # Where no bifurcation was located the line goes on to the next point, so that lines meet.
        last += int(last < len(p))
        found.append((p[first:last], x[first:last]))
    return found


def _place(branch: Branch, event: Bifurcation) -> float:
    """Return between which points of a branch a bifurcation lies, as a number of points."""
    points = np.column_stack([branch.parameter, branch.x])
    away = np.linalg.norm(points - np.append(event.parameter, event.x), axis=1)
    if len(points) < 2:
        return 0.0
    detour = away[:-1] + away[1:] - np.linalg.norm(np.diff(points, axis=0), axis=1)
    first = int(detour.argmin())
    return first + away[first] / max(away[first] + away[first + 1], 1e-300)


def subspace_matrix(
    ax: Axes, table: pd.DataFrame, value: str = "mean", *, bar: Axes | None = None
) -> Axes:
    """Draw a measure of all pairs of contexts' spaces as a matrix.

    Args:
        ax: Axes to draw on.
        table: From `compare_subspaces`.
        value: Column: an angle ("mean", "smallest", "largest"), drawn in degrees, or "captured",
            "alignment".
        bar: Axes for the colour bar; None leaves it out.
    """
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    wide = table.pivot_table(index="a", columns="b", values=value, sort=False)
    wide = wide.reindex(index=names, columns=names).to_numpy(dtype=float)
    angle = value in ("mean", "smallest", "largest")
    texts = {"mean": "mean principal angle (°)", "smallest": "smallest principal angle (°)",
             "largest": "largest principal angle (°)", "captured": "variance captured",
             "alignment": "alignment index"}  # fmt: skip
    ax.set_facecolor("0.85")
    image = ax.imshow(
        np.degrees(wide) if angle else wide, cmap="cividis", vmin=0, vmax=90 if angle else 1
    )
    ax.set_xticks(range(len(names)), [str(name) for name in names], rotation=90)
    ax.set_yticks(range(len(names)), [str(name) for name in names])
    ax.tick_params(length=0)
    if not angle:
        ax.set(xlabel="space of", ylabel="states of")
    if bar is not None:
        drawn = ax.figure.colorbar(image, cax=bar)
        drawn.set_label(texts.get(value, value))
        drawn.outline.set_visible(False)  # type: ignore[operator]
    return ax


def flow(ax: Axes, grid: np.ndarray, velocity: np.ndarray, *, label: str = "PC") -> Axes:
    """Draw the flow on a plane as streamlines, darker where it is faster.

    Args:
        ax: Axes to draw on.
        grid: Coordinates, (point, point, 2), from `flow_on_plane`.
        velocity: Projected velocities, (point, point, 2).
        label: Text of the axes before the number of the component.
    """
    x, y = grid[0, :, 0], grid[:, 0, 1]
    speed = np.linalg.norm(velocity, axis=-1)
    ax.streamplot(
        x, y, velocity[..., 0], velocity[..., 1], color=speed, cmap="Greys", linewidth=0.7,
        arrowsize=0.6, density=0.9, norm=mpl.colors.PowerNorm(0.5, -0.5 * speed.max(), speed.max()),
    )  # fmt: skip
    ax.set(xlabel=f"{label} 1", ylabel=f"{label} 2", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    return ax

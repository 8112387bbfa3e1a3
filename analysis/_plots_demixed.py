"""Figures of demixed principal components: their courses in time, their variance by group."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from ctxrnn._checks import unknown_name

from ._plots_dynamics import colours_of
from .demixed import DemixedPCA
from .marginalisation import TIME
from .subspaces import Samples

_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
# The light scheme of Tol (2021): fills that tell apart for the colour-blind, and that are not taken
# for the colours of conditions.
_FILLS = ("#77AADD", "#EE8866", "#44BB99", "#EEDD88", "#FFAABB", "#99DDFF", "#BBCC33", "#AAAA00")


def demixed_component(
    ax: Axes,
    model: DemixedPCA,
    states: Samples,
    group: str,
    number: int = 0,
    *,
    levels: Mapping[str, Sequence[Hashable] | np.ndarray] | None = None,
    times: Sequence[float] | np.ndarray | None = None,
    colour: str | None = None,
    label: str = "time (ms)",
) -> Axes:
    """Draw a demixed component over time, one line per combination of conditions.

    One condition gives the colour, another of at most four levels the dashes of the lines; the
    labels for a legend are their levels.

    Args:
        ax: Axes to draw on.
        model: From `fit_dpca`, with an axis "time".
        states: Averages as in the fit, (condition axes..., time, unit).
        group: Whose component.
        number: Which one, from 0.
        levels: Axis -> its levels (`ConditionAverages.levels`); None numbers them from 0.
        times: Of the steps; None draws over the number of the step.
        colour: The condition that gives the colour; None takes the first one of the group, or the
            first of all for "time".
        label: Text of the x axis, with its unit.

    Raises:
        ValueError: If the model knows no such group, component, axis or time.
    """
    scores = model.project(states, group)
    if TIME not in model.axes or scores.ndim != len(model.axes) + 1:
        raise ValueError(
            f"states must have the axes {', '.join((*model.axes, 'unit'))} with time among them: "
            f"got shape {np.shape(states)}"
        )
    if not 0 <= number < scores.shape[-1]:
        raise ValueError(
            f"number must be below {scores.shape[-1]}, the components of {group!r}: got {number}"
        )
    names = [axis for axis in model.axes if axis != TIME]
    courses = np.moveaxis(scores[..., number], model.axes.index(TIME), -1)
    own = [axis for subset in model.groups[group] for axis in subset if axis != TIME]
    colour = colour or next(iter(own + names), None)
    if colour is not None and colour not in names:
        raise unknown_name("condition", colour, names)
    known = {
        name: [str(level) for level in (levels or {}).get(name, range(size))]
        for name, size in zip(names, courses.shape[:-1], strict=True)
    }
    shades = list(colours_of(range(len(known[colour]))).values()) if colour else ["0.2"]
    few = (name for name in names if name != colour and len(known[name]) <= len(_DASHES))
    dashed = next(few, None)
    x = np.arange(courses.shape[-1]) if times is None else np.asarray(times, dtype=float)
    ax.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    for place in np.ndindex(courses.shape[:-1]):
        at = dict(zip(names, place, strict=True))
        look: Any = _DASHES[at[dashed]] if dashed else "-"
        # Named where the other conditions are at their first level.
        named = colour is not None and not any(k for name, k in at.items() if name != colour)
        text = known[colour][at[colour]] if named and colour else None
        ax.plot(
            x, courses[place], color=shades[at[colour] if colour else 0], linestyle=look,
            linewidth=0.9, label=text,
        )  # fmt: skip
    for level, look in zip(known[dashed] if dashed else (), _DASHES, strict=False):
        ax.plot([], [], color="0.3", linestyle=look, linewidth=0.9, label=level)
    share = 100 * model.variances[group][number]
    ax.set(xlabel="time step" if times is None else label, xlim=(x[0], x[-1]))
    ax.set_ylabel(f"{group}, component {number + 1}\n({share:.1f} % of the variance)")
    return ax


def demixed_variance(ax: Axes, model: DemixedPCA, *, most: int = 15) -> Axes:
    """Draw the variance that each demixed component explains, split by group.

    Bars are components by falling variance; the parts are the groups' shares in the variance along
    the decoder, so that a demixed component has one colour. Labels for a legend tell each group's
    share of the total variance.

    Args:
        ax: Axes to draw on.
        model: From `fit_dpca`.
        most: Most bars.
    """
    table = model.table().head(most)
    places = np.arange(1, len(table) + 1)
    fills: Mapping[Hashable, Any] = dict(zip(model.groups, _FILLS, strict=False))
    if len(model.groups) > len(_FILLS):
        fills = colours_of(list(model.groups))
    below = np.zeros(len(table))
    for name in model.groups:
        height = 100 * (table["variance"] * table[f"share_{name}"]).to_numpy()
        ax.bar(
            places, height, 0.8, bottom=below, color=to_rgb(fills[name]), edgecolor="0.2",
            linewidth=0.4, label=f"{name} ({100 * model.marginal[name]:.0f} %)",
        )  # fmt: skip
        below += height
    ax.set_xticks(places[:: 1 if len(table) < 10 else 2])
    ax.set(xlabel="demixed component, by variance", ylabel="share of the variance (%)")
    ax.set_xlim(0.4, len(table) + 0.6)
    return ax

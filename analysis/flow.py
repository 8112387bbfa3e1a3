"""How contexts change the vector field: by a translation, or by a deformation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .fields import Values, VectorField
from .subspaces import PCA

if TYPE_CHECKING:
    import pandas as pd


def state_dependence(field: VectorField, states: Values) -> pd.DataFrame:
    """Measure how far the effect of the context depends on the state, for all pairs of conditions.

        1 - |<dF>|^2 / <|dF|^2> = <|dF - <dF>|^2> / <|dF|^2>,  dF = F(x, c) - F(x, c')

    with the means over states. 0 where the context adds the same to dx/dt everywhere, as `e-add`
    does by its equation; towards 1 where the effects at different states cancel.

    Args:
        field: The system; its conditions are the contexts, with one stimulus.
        states: x, (state, unit), the same for all conditions, e.g. visited ones of all contexts.

    Returns:
        One row per pair: a, b (numbers of conditions), state_dependence (NaN where both fields are
        the same), effect (root of the mean of |dF|^2 over that of |F|^2 of both).

    Raises:
        ValueError: If the field has one condition, or states do not fit it.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import state_dependence, vector_field
        >>> states = [[1.0, 2.0], [-1.0, -2.0]]
        >>> for variant in ("e-add", "s-sym"):  # a drive translates the flow, synapses deform it
        ...     field = vector_field(CTRNN(1, 2, 1, variant, contexts=2, seed=0), torch.eye(2))
        ...     table = state_dependence(field, states)
        ...     print(variant, table["state_dependence"].round(3).tolist())
        e-add [0.0]
        s-sym [1.0]
    """
    import pandas as pd

    x, _ = field.checked(states, 0)
    if field.conditions < 2:
        raise ValueError("the field must have at least two conditions to compare")
    flows = [field.velocity(x, number).cpu().numpy() for number in range(field.conditions)]
    rows = []
    for a in range(field.conditions):
        for b in range(a + 1, field.conditions):
            change = flows[a] - flows[b]
            square = float((change**2).sum(axis=1).mean())
            varying = float(((change - change.mean(axis=0)) ** 2).sum(axis=1).mean())
            size = float(np.mean([(flows[n] ** 2).sum(axis=1).mean() for n in (a, b)]))
            # Differences of two fields are known to the rounding of these.
            rounding = (64 * np.finfo(float).eps) ** 2 * size
            index = varying / square if varying > rounding else 0.0
            if square <= rounding:
                index = float("nan")
            rows.append(
                {
                    "a": a, "b": b, "state_dependence": index,
                    "effect": float(np.sqrt(square / size)) if size else float("nan"),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def flow_on_plane(
    field: VectorField,
    plane: PCA,
    *,
    condition: int = 0,
    around: Values | None = None,
    reach: tuple[tuple[float, float], tuple[float, float]] = ((-1.0, 1.0), (-1.0, 1.0)),
    points: int = 20,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the vector field on a plane, projected onto it.

    Args:
        field: The system.
        plane: Its first two components span the plane.
        condition: Number of the condition.
        around: A state through which the plane goes; None for the mean of the components.
        reach: Ranges of both coordinates, relative to `around`.
        points: Points along each axis.

    Returns:
        Coordinates (point, point, 2) and projected velocities (point, point, 2), per ms.

    Raises:
        ValueError: If the plane has fewer than two components, or states do not fit the field.

    Example:
        >>> import torch
        >>> from ctxrnn.analysis import FunctionField, fit_pca, flow_on_plane
        >>> turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)  # a growing spiral
        >>> field = FunctionField(lambda x: x @ turn.mT, units=2)
        >>> plane = fit_pca([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> places, flow = flow_on_plane(field, plane, points=3)  # from -1 to 1 along both axes
        >>> places[1, 2].round(3).tolist()[0], flow[1, 2].round(3).tolist()
        (1.0, [1.0, 1.0])
    """
    axes = np.asarray(plane.components[:2])
    if len(axes) < 2:
        raise ValueError("plane must have two components")
    origin = plane.mean if around is None else np.asarray(around, dtype=float)
    grid = np.stack(np.meshgrid(*(np.linspace(low, high, points) for low, high in reach)), axis=-1)
    states = grid.reshape(-1, 2) @ axes + origin
    flow = field.velocity(torch.as_tensor(states), condition).cpu().numpy() @ axes.T
    return grid + (origin - plane.mean) @ axes.T, flow.reshape(grid.shape)

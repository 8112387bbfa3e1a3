"""A network in one context as an equation without pathways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrnn._checks import check_finite
from ctxrnn._context import Contexts
from ctxrnn._network import CTRNN

Context = Tensor | np.ndarray | list[float] | Contexts


@dataclass(frozen=True)
class Folded:
    """What a network computes in one context, with gain and threshold folded into the rest.

    In the current form z = G (x - Theta c) follows

        z <- (1 - alpha) z + alpha (G W(c) phi(z) + G B u + G (b + E c - Theta c)),

    in the rate form r <- (1 - alpha) r + alpha phi(the same bracket of r).

    Attributes:
        weight: G W(c), (unit, unit), `[post, pre]`.
        input_weight: G B, (unit, input).
        bias: G (b + E c - Theta c), (unit,).
        start: z or r before the first step, (unit,).
        gain: G, (unit,).
        alpha: dt / tau, () or (unit,).
    """

    weight: Tensor
    input_weight: Tensor
    bias: Tensor
    start: Tensor
    gain: Tensor
    alpha: Tensor


@torch.no_grad()
def fold(network: CTRNN, context: Context | None) -> Folded:
    """Fold one context into the weights.

    Args:
        network: The network.
        context: c, (context,), or one for each pathway; None for a network without pathways.
    """
    if not isinstance(network, CTRNN):
        raise TypeError(f"network must be a CTRNN: got {type(network).__name__}")
    circuit = network.circuit(None if context is None else _one(context, network))
    bias = circuit.current.reshape(network.units)
    gain = torch.ones_like(bias) if circuit.gain is None else circuit.gain.reshape(-1)
    threshold = None if circuit.threshold is None else circuit.threshold.reshape(-1)
    start = torch.zeros_like(bias) if network.x0 is None else network.x0
    if threshold is not None:
        bias = bias - threshold
    if network.form == "current":
        start = gain * (start if threshold is None else start - threshold)
    weight = circuit.dense_weight().reshape(network.units, network.units)
    alpha = torch.as_tensor(network.alpha, dtype=torch.float64)
    return Folded(
        gain[:, None] * weight, gain[:, None] * circuit.input_weight, gain * bias,
        start.clone(), gain, alpha,
    )  # fmt: skip


def _one(context: Context, network: CTRNN) -> Contexts:
    """Return one context for each pathway, (1, context)."""
    given = context if isinstance(context, Contexts) else Contexts.of(torch.as_tensor(context))
    rows = []
    for value in (given.excitability, given.synaptic):
        row = torch.as_tensor(value).to(device=network.device, dtype=network.dtype)
        if tuple(row.shape) not in ((network.contexts,), (1, network.contexts)):
            raise ValueError(
                f"context must be one context, of shape ({network.contexts},): got "
                f"{tuple(row.shape)}; call once for each context"
            )
        check_finite("context", row, "Give the numbers of one context.")
        rows.append(row.reshape(1, -1))
    return Contexts(*rows)


@torch.no_grad()
def copy_all(pairs: Iterable[tuple[Any, Tensor]]) -> None:
    """Write values into parameters: pairs of a parameter and its value."""
    for parameter, value in pairs:
        parameter.copy_(value)

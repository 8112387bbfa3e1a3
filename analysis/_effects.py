"""Effective parameters of a network in each of a few contexts."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ctxrnn import CTRNN, Contexts
from ctxrnn._checks import check_finite, unknown_name

from .fields import Values

Effect = Literal["drive", "threshold", "gain", "weight"]
Reference = Literal["base", "mean"]

_EFFECTS: tuple[Effect, ...] = ("drive", "threshold", "gain", "weight")


@dataclass(frozen=True)
class ContextEffects:
    """Effective parameters of a network in each of a few contexts, float64.

    Attributes:
        drive: E c, (context, unit): what the context adds to the current.
        threshold: Theta c, (context, unit).
        gain: G(c), (context, unit); 1 where no pathway sets it.
        weight: W_c, (context, unit, unit), `[post, pre]`.
        base: W, (unit, unit); None where a pathway brings its own matrix (`s-lowrankW`, `s-full`).
        acting: Which of "drive", "threshold", "gain" and "weight" a pathway sets; the others are
            the same in all contexts.

    Example: that of `context_effects`.
    """

    drive: np.ndarray
    threshold: np.ndarray
    gain: np.ndarray
    weight: np.ndarray
    base: np.ndarray | None
    acting: tuple[Effect, ...]

    def change(self, effect: Effect, *, reference: Reference | None = None) -> np.ndarray:
        """Return how far a parameter lies from its value without context.

        E c, Theta c, G(c) - 1, and W_c - W.

        Args:
            effect: Which parameter.
            reference: W: the network's own matrix ("base"), or the mean of W_c over these contexts
                ("mean"), which alone is defined where there is no own matrix, and which compares
                variants alike; None takes "base" where there is one. For the weights only.

        Returns:
            (context, unit), or (context, unit, unit) of the weights.

        Raises:
            ValueError: If no pathway sets that parameter, or there is no such reference.
        """
        if effect not in _EFFECTS:
            raise unknown_name("effect", effect, _EFFECTS)
        if effect not in self.acting:
            raise ValueError(
                f"a pathway must set the {effect}: this network's set {', '.join(self.acting)}, "
                f"and its {effect} is the same in all contexts"
            )
        if reference not in (None, "base", "mean"):
            raise unknown_name("reference", reference, ("base", "mean"))
        if effect == "gain":
            return self.gain - 1
        if effect != "weight":
            return np.asarray(getattr(self, effect))
        if reference == "base" and self.base is None:
            raise ValueError(
                "a network whose pathway brings its own matrix has no W without context: use "
                "reference='mean'"
            )
        if self.base is None or reference == "mean":
            found = self.weight - self.weight.mean(axis=0)
        else:
            found = self.weight - self.base
        # What is left of equal matrices is the rounding of their mean.
        size, whole = (np.linalg.norm(a, axis=(1, 2)) for a in (found, self.weight))
        found[size <= 64 * np.finfo(float).eps * whole] = 0
        return np.asarray(found)


def context_effects(network: CTRNN, contexts: Values | Contexts | None = None) -> ContextEffects:
    """Return the effective parameters of a network in contexts that are constant in time.

    Forms W_c for each context: for a handful of contexts. The network is left as it is.

    Args:
        network: A network with at least one pathway, e.g. a member of `ensemble.unstack()`.
        contexts: c, (context, K), or one for each pathway; None takes each context by itself.

    Returns:
        The parameters in each context, and which of them the pathways set.

    Raises:
        TypeError: If it is no single network.
        ValueError: If it has no pathway, or contexts do not fit it.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import context_effects
        >>> network = CTRNN(1, 2, 1, "e-gain", contexts=2, seed=0)
        >>> network.modulation.pathways[0].Gamma.data[:] = torch.tensor([[0.0, 1.0], [0.5, 0.0]])
        >>> effects = context_effects(network)
        >>> effects.acting, effects.gain.tolist()  # (context, unit)
        (('gain',), [[1.0, 1.5], [2.0, 1.0]])
        >>> effects.change("gain").tolist()
        [[0.0, 0.5], [1.0, 0.0]]
    """
    if not isinstance(network, CTRNN):
        raise TypeError(
            f"network must be a CTRNN: got {type(network).__name__}; take the members of an "
            "Ensemble one by one, from ensemble.unstack()"
        )
    if not len(network.modulation):
        raise ValueError(
            f"network must have a context pathway: got the variant {network.variant!r}, whose "
            "parameters are the same in all contexts"
        )
    own = copy.deepcopy(network).to(torch.float64)
    given = _checked(own, contexts)
    with torch.no_grad():
        base = own.base_circuit()
        circuit = own.modulation(base, given)
        shape = (len(given.excitability), own.units)
        drive = (circuit.current - base.current).expand(shape)
        threshold, gain = (
            torch.full(shape, neutral) if value is None else value.expand(shape)
            for value, neutral in ((circuit.threshold, 0.0), (circuit.gain, 1.0))
        )
        weight = circuit.dense_weight().expand(len(given.excitability), own.units, own.units)
    sets = (
        circuit.current is not base.current,
        circuit.threshold is not None,
        circuit.gain is not None,
        circuit.recurrent is not base.recurrent,
    )
    replaced = own.weight is None or own.modulation.replaces_weight
    return ContextEffects(
        _array(drive),
        _array(threshold),
        _array(gain),
        _array(weight),
        base=None if replaced else _array(own.weight),
        acting=tuple(name for name, acts in zip(_EFFECTS, sets, strict=True) if acts),
    )


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy().copy()


def _checked(network: CTRNN, contexts: Values | Contexts | None) -> Contexts:
    """Return contexts as (context, K) in float64, the same number for both pathways."""
    count = network.contexts
    if contexts is None:
        return Contexts.of(torch.eye(count or 0, dtype=torch.float64, device=network.device))
    pair = contexts if isinstance(contexts, Contexts) else Contexts.of(torch.as_tensor(contexts))
    parts: list[Tensor] = []
    for part in (pair.excitability, pair.synaptic):
        c = part.detach().to(device=network.device, dtype=torch.float64)
        c = c[None] if c.ndim == 1 else c
        if c.ndim != 2 or c.shape[1] != count or not len(c):
            raise ValueError(
                f"contexts must have shape (context, {count}) and be constant in time: got "
                f"{tuple(part.shape)}"
            )
        check_finite("contexts", c, "Give finite numbers.")
        parts.append(c)
    if len(parts[0]) != len(parts[1]):
        raise ValueError(
            "both pathways must be given equally many contexts: got "
            f"{len(parts[0])} and {len(parts[1])}"
        )
    return Contexts(*parts)


def labels_of(names: Sequence[Hashable] | None, count: int) -> list[Hashable]:
    labels: list[Hashable] = list(range(count)) if names is None else list(names)
    if len(labels) != count or len(set(labels)) != count:
        raise ValueError(f"names must be different, one for each of {count} contexts: got {labels}")
    return labels

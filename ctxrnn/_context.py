"""Context signals: one for each pathway, and their low-pass filters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrnn._checks import check_finite, check_not_negative


@dataclass(frozen=True)
class Contexts:
    """The context that each pathway sees; they may differ, e.g. when one is corrupted.

    Attributes:
        excitability: c^e, (trial, context), or (trial, time, context) where it varies in time.
        synaptic: c^s, likewise.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, Contexts
        >>> network = CTRNN(inputs=3, units=8, outputs=2, modulation="es-add-sym", contexts=2)
        >>> go, anti = torch.eye(2).split(1)  # (1, context) each
        >>> circuit = network.circuit(Contexts(excitability=go, synaptic=anti))
        >>> torch.equal(circuit.current, network.circuit(go).current)
        True
        >>> torch.equal(circuit.dense_weight(), network.circuit(anti).dense_weight())
        True
    """

    excitability: Tensor
    synaptic: Tensor

    @classmethod
    def of(cls, context: Tensor | Contexts) -> Contexts:
        """Give the same context to both pathways, unless they already have their own."""
        return context if isinstance(context, Contexts) else cls(context, context)

    @property
    def varies(self) -> bool:
        """Whether a context has a time axis."""
        return self.excitability.ndim == 3 or self.synaptic.ndim == 3

    def flat(self, steps: int) -> Contexts:
        """Return the contexts of all trials at the first step, then at the second, ...

        Args:
            steps: Number of time steps.

        Returns:
            Contexts of shape (time * trial, context).
        """
        if self.excitability is self.synaptic:
            return Contexts.of(_flat(self.excitability, steps))
        return Contexts(_flat(self.excitability, steps), _flat(self.synaptic, steps))


def _flat(context: Tensor, steps: int) -> Tensor:
    if context.ndim == 2:
        return context.expand(steps, *context.shape).flatten(0, 1)
    return context.transpose(0, 1).flatten(0, 1)


def check_context(name: str, context: Tensor, trials: int, steps: int, contexts: int) -> None:
    """Raise ValueError unless a context is (trial, context) or (trial, time, context)."""
    shape = tuple(context.shape)
    if shape not in ((trials, contexts), (trials, steps, contexts)):
        raise ValueError(
            f"{name} must have shape (trial, context) = ({trials}, {contexts}) or "
            f"(trial, time, context) = ({trials}, {steps}, {contexts}): got {shape}"
        )
    check_finite(name, context, "Remove those trials or mend the corruption that made them.")


def filter_context(
    context: Tensor,
    tau: float,
    dt: float,
    *,
    steps: int | None = None,
    initial: Tensor | None = None,
) -> Tensor:
    """Low-pass a context signal.

    c^v_t = c^v_{t-1} + (1 - exp(-dt / tau)) (c_t - c^v_{t-1}), with c^v_0 = c_0, or
    c^v_0 = `initial` in studies where the context has just switched.

    Args:
        context: c, (trial, time, context), or (trial, context) if constant in time.
        tau: Time constant in ms; 0 returns the context as it is.
        dt: Time step in ms.
        steps: Number of steps; needed with `initial` where the context is constant.
        initial: c^v_0, (trial, context) or (context,).

    Returns:
        The filtered context; (trial, context) where it does not vary.

    Raises:
        ValueError: If tau is negative, `initial` is of another shape, or `steps` is missing.

    Example:
        >>> import torch
        >>> from ctxrnn import filter_context
        >>> context = torch.ones(1, 101, 1)
        >>> context[:, 0] = 0  # off at first, then on for 100 steps of 1 ms
        >>> seen = filter_context(context, tau=100.0, dt=1.0)
        >>> round(seen[0, -1, 0].item(), 3)  # 1 - 1 / e after one time constant
        0.632
    """
    check_not_negative("tau of a context filter", tau, "ms")
    if tau == 0 or (context.ndim == 2 and initial is None):
        return context
    if context.ndim == 2:
        if steps is None:
            raise ValueError("steps must be given to filter a constant context from `initial`")
        context = context.unsqueeze(1).expand(-1, steps, -1)
    trials, _, contexts = context.shape
    if initial is not None and tuple(initial.shape) not in ((trials, contexts), (contexts,)):
        raise ValueError(
            f"initial context must have shape ({trials}, {contexts}) or ({contexts},): "
            f"got {tuple(initial.shape)}"
        )
    rate = -math.expm1(-dt / tau)
    state = context[:, 0] if initial is None else initial.to(context).expand(trials, contexts)
    filtered = [state]
    for wanted in context.unbind(1)[1:]:
        state = torch.lerp(state, wanted, rate)
        filtered.append(state)
    return torch.stack(filtered, dim=1)

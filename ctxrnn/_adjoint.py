"""The time loop in torch with a gradient of its own, for every pathway and on every device.

Forward steps through time without an autograd graph. Backward runs the adjoint recursion

    lambda_t = dL/dz_t + (dF_{t+1} / dz_t)^T lambda_{t+1},   z_{t+1} = F_{t+1}(z_t, parameters),

with the transposed step written out, and then differentiates the steps of all times at once, side
by side, with respect to the parameters: the weights' gradient is one product. The states are the
only thing that is kept; what the second part needs is bounded by `CHUNK`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctxrnn import _graphs
from ctxrnn._circuit import (
    Circuit,
    Recurrence,
    of_trials,
    structure,
    tensors_of,
    with_tensors,
)

CHUNK = 2**22
"""Numbers (time x trial x unit) of the part of a run that is differentiated side by side."""


@dataclass(frozen=True)
class Step:
    """One step of a network, for any number of leading axes.

    Attributes:
        form: "current" or "rate".
        phi: The nonlinearity, applied to each number by itself.
    """

    form: str
    phi: Any

    def rates(self, circuit: Circuit, state: Tensor) -> Tensor:
        """Return r of a state."""
        return state if self.form == "rate" else self.phi(circuit.excite(state))

    def target(self, circuit: Circuit, state: Tensor, external: Tensor) -> Tensor:
        """Return what the state relaxes to; `external` is all current that is not the circuit's."""
        total = circuit.propagate(self.rates(circuit, state), external + circuit.current)
        return self.phi(circuit.excite(total)) if self.form == "rate" else total

    def slope(self, circuit: Circuit, value: Tensor) -> Tensor:
        """Return d phi(G (value - Theta)) / d value."""
        with torch.enable_grad():
            seen = value.detach().requires_grad_()
            result = self.phi(circuit.excite(seen))
        return torch.autograd.grad(result, seen, torch.ones_like(result))[0]


def covers(circuit: Circuit) -> bool:
    """Tell whether the transposed step of this circuit is known."""
    recurrent: Any = circuit.recurrent
    while recurrent is not None:
        if type(recurrent).pullback is Recurrence.pullback:
            return False
        recurrent = getattr(recurrent, "base", None)
    return True


def run(
    step: Step,
    circuit: Circuit,
    inputs: Tensor,
    start: Tensor,
    alpha: Tensor | float,
    noise: Tensor | None,
) -> Tensor:
    """Step through time.

    Args:
        step: The equation.
        circuit: One that `covers` accepts. Its trials are those of the batch or, where the context
            varies in time, those of every step, one step after another.
        inputs: u, (time, trial, input). There may be more axes than the trial's, e.g. (network,
            group, trial), if the circuit's tensors have them too.
        start: z_0, (trial, unit).
        alpha: dt / tau, one or (unit,).
        noise: Noise current, (time, trial, unit), or None.

    Returns:
        The states after each step, (time, trial, unit).
    """
    leak = alpha if isinstance(alpha, Tensor) else inputs.new_tensor(alpha)
    states: Tensor = _Loop.apply(step, circuit, inputs, start, leak, noise, *tensors_of(circuit))
    return states


def _varies(circuit: Circuit, inputs: Tensor) -> bool:
    """Tell whether the circuit has trials of its own for every step."""
    if inputs.ndim > 3:
        return False
    trials = inputs.shape[1]
    everything = inputs.shape[0] * trials
    return everything > trials and rows_of(circuit) == everything


def rows_of(circuit: Circuit) -> int:
    """Return the number of trials that a circuit has parameters of its own for, at least 1."""
    return max(_rows(circuit), default=1)


def _rows(part: Circuit | Recurrence) -> Iterator[int]:
    for name in part.by_trial:
        value = getattr(part, name)
        if isinstance(value, Tensor) and value.ndim > 1:
            yield value.shape[-2]
    inner = part.recurrent if isinstance(part, Circuit) else getattr(part, "base", None)
    if inner is not None:
        yield from _rows(inner)


def _at(circuit: Circuit, start: int, stop: int, trials: int) -> Circuit:
    """Return the circuit of some steps, where it has trials of its own for every step."""
    return of_trials(circuit, slice(start * trials, stop * trials))


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        step: Step,
        circuit: Circuit,
        inputs: Tensor,
        start: Tensor,
        alpha: Tensor,
        noise: Tensor | None,
        *tensors: Tensor,
    ) -> Tensor:
        circuit = with_tensors(circuit, iter(tensors))
        times, trials = inputs.shape[:2]
        varies = _varies(circuit, inputs)
        external = inputs @ circuit.input_weight.mT
        if noise is not None:
            external += noise

        def loop(external: Tensor, state: Tensor, alpha: Tensor, *given: Tensor) -> tuple[Tensor]:
            everywhere = with_tensors(circuit, iter(given))
            states = torch.empty_like(external)
            for time in range(times):
                now = _at(everywhere, time, time + 1, trials) if varies else everywhere
                target = step.target(now, state, external[time])
                state = torch.lerp(state, target, alpha, out=states[time])
            return (states,)

        key = ("forward", step, varies, structure(circuit))
        (states,) = _graphs.run(loop, (external, start, alpha, *tensors), key)
        ctx.save_for_backward(inputs, start, alpha, noise, states, *tensors)
        ctx.step, ctx.circuit, ctx.varies = step, circuit, varies
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direct: Tensor) -> Any:
        inputs, start, alpha, noise, states, *tensors = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:]
        times = len(states)
        size = max(1, CHUNK // states[0].numel())
        sums: list[Tensor | None] = [None] * len(needs)
        grad_inputs = torch.empty_like(inputs) if needs[0] else None
        grad_noise = torch.empty_like(states) if needs[3] else None
        carry = torch.zeros_like(start)
        for end in range(times, 0, -size):
            part = slice(max(0, end - size), end)
            earlier = states[max(0, part.start - 1) : part.stop - 1]
            before = earlier if part.start else torch.cat([start.unsqueeze(0), earlier])
            drawn = None if noise is None else noise[part]
            given = [inputs[part], start, alpha, drawn, *tensors]
            carry, found = _retreat(ctx, given, before, direct[part], carry, part, needs)
            for index, gradient in enumerate(found):
                if gradient is None:
                    continue
                if index == 0 and grad_inputs is not None:
                    grad_inputs[part] = gradient
                elif index == 3 and grad_noise is not None:
                    grad_noise[part] = gradient
                else:
                    total = sums[index]
                    sums[index] = gradient if total is None else total + gradient
        whole = {0: grad_inputs, 1: carry if needs[1] else None, 3: grad_noise}
        return None, None, *(whole.get(index, total) for index, total in enumerate(sums))


def _retreat(
    ctx: Any,
    given: list[Tensor | None],
    before: Tensor,
    direct: Tensor,
    carry: Tensor,
    part: slice,
    needs: tuple[bool, ...],
) -> tuple[Tensor, list[Tensor | None]]:
    """Go back over one part of the run.

    Returns:
        The gradient of the state before the part, and those of all that was given: None where not
        needed or, for the start, not due.
    """
    step, varies = ctx.step, ctx.varies
    times, trials, units = len(before), before.shape[1], before.shape[-1]
    leaves = [
        None if tensor is None else tensor.detach().requires_grad_(need and index != 1)
        for index, (tensor, need) in enumerate(zip(given, needs, strict=True))
    ]
    inputs, _, alpha, noise, *rest = leaves
    assert inputs is not None
    assert alpha is not None
    with torch.enable_grad():
        circuit = with_tensors(ctx.circuit, iter(rest))  # type: ignore[arg-type]
        external = inputs @ circuit.input_weight.mT
        if noise is not None:
            external = external + noise
        shape = (times * trials, units) if varies else before.shape
        seen = _at(circuit, part.start, part.stop, trials) if varies else circuit
        state = before.reshape(shape)
        total = seen.propagate(step.rates(seen, state), external.reshape(shape) + seen.current)
        target = step.phi(seen.excite(total)) if step.form == "rate" else total
        result = torch.lerp(state, target, alpha)
    with torch.no_grad():
        # In the current form phi acts on the state, in the rate form on the current.
        slopes = step.slope(seen, state if step.form == "current" else total)
        slopes = slopes.reshape(before.shape)
        rest = [tensor.detach() for tensor in tensors_of(circuit)]

        def loop(
            slopes: Tensor, direct: Tensor, carry: Tensor, alpha: Tensor, *given: Tensor
        ) -> tuple[Tensor, Tensor]:
            everywhere = with_tensors(circuit, iter(given))
            multipliers = torch.empty_like(slopes)
            for time in range(times - 1, -1, -1):
                at = part.start + time
                now = _at(everywhere, at, at + 1, trials) if varies else everywhere
                multiplier = torch.add(carry, direct[time], out=multipliers[time])
                pulled = alpha * multiplier
                carry = multiplier - pulled
                if step.form == "current":
                    carry = carry + slopes[time] * now.pull_back(pulled)
                else:
                    carry = carry + now.pull_back(slopes[time] * pulled)
            return multipliers, carry

        key = ("backward", step, varies, part.start if varies else 0, structure(circuit))
        given_tensors = (slopes, direct, carry, alpha.detach(), *rest)
        multipliers, carry = _graphs.run(loop, given_tensors, key)
    wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    found: Iterator[Tensor | None] = iter(())
    if wanted:
        found = iter(
            torch.autograd.grad(result, wanted, multipliers.reshape(shape), allow_unused=True)
        )
    gradients = [
        next(found) if leaf is not None and leaf.requires_grad else None for leaf in leaves
    ]
    return carry, gradients

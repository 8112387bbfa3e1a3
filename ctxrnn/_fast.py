"""The time loop with a gradient of its own, for the current form and contexts constant in time.

No autograd graph is built per step. Backward runs the loop once more, from the end; the gradient
of W is one product over all steps. `integrate` falls back to the plain loop for all else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctxrnn._circuit import Circuit, Dense, Scaled

# phi' as a function of phi, so that only the rates need to be kept.
_SLOPES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda r: 1 - r * r,
    "relu": lambda r: (r > 0).to(r.dtype),
    "sigmoid": lambda r: r * (1 - r),
    "softplus": lambda r: -torch.expm1(-r),
}


def covers(circuit: Circuit, form: str, nonlinearity: str | None, alpha: Tensor | float) -> bool:
    """Tell whether the fast loop computes this circuit."""
    recurrent = circuit.recurrent
    dense = isinstance(recurrent, Dense) or (
        isinstance(recurrent, Scaled)
        and isinstance(recurrent.base, Dense)
        and recurrent.post.shape[0] > 0
    )
    return (
        dense
        and form == "current"
        and nonlinearity in _SLOPES
        and circuit.gain is None
        and circuit.threshold is None
        and not (isinstance(alpha, Tensor) and alpha.requires_grad)
    )


def run(
    circuit: Circuit,
    external: Tensor,
    start: Tensor,
    alpha: Tensor | float,
    nonlinearity: str,
    phi: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Step through time.

    x_{t+1} = x_t + alpha (W(c) r_t + external_t - x_t), r = phi(x).

    Args:
        circuit: One that `covers` accepts.
        external: All of the current but the recurrent, (time, trial, unit).
        start: x_0, (trial, unit).
        alpha: dt / tau, one or (unit,).
        nonlinearity: Name of phi.
        phi: The function itself.

    Returns:
        Potentials and rates after each step, (time, trial, unit) each.
    """
    recurrent = circuit.recurrent
    if isinstance(recurrent, Scaled) and isinstance(recurrent.base, Dense):
        weight, post, pre = recurrent.base.weight, recurrent.post, recurrent.pre
        keep = recurrent.keep_base
    elif isinstance(recurrent, Dense):
        weight, post, pre, keep = recurrent.weight, None, None, True
    else:
        raise TypeError(f"the fast loop does not cover {type(recurrent).__name__}")
    potentials, rates = _Loop.apply(
        external, weight, start, post, pre, keep, alpha, nonlinearity, phi
    )
    return potentials, rates


class _Loop(torch.autograd.Function):
    """Rows of the recurrent product: first r itself (if the base is kept), then pre_f * r."""

    @staticmethod
    def forward(
        ctx: Any,
        external: Tensor,
        weight: Tensor,
        start: Tensor,
        post: Tensor | None,
        pre: Tensor | None,
        keep: bool,
        alpha: Tensor | float,
        nonlinearity: str,
        phi: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        steps, trials, units = external.shape
        factors = 0 if post is None else post.shape[0]
        rows = factors + keep
        # Without a gradient to come, every step reuses the same buffers.
        kept = steps if any(ctx.needs_input_grad[:5]) else 1
        seen = external.new_empty(kept, rows, trials, units)
        answer = external.new_empty(kept, rows, trials, units) if factors else None
        potentials, rates = torch.empty_like(external), torch.empty_like(external)
        transposed = weight.mT
        state, rate = start, phi(start)
        for step in range(steps):
            slot = step % kept
            now = seen[slot]
            if keep:
                now[0] = rate
            if answer is None or post is None or pre is None:
                total = torch.addmm(external[step], rate, transposed)
            else:
                torch.mul(pre, rate, out=now[keep:])
                torch.mm(now.view(-1, units), transposed, out=answer[slot].view(-1, units))
                total = external[step] + answer[slot, 0] if keep else external[step].clone()
                for factor in range(factors):
                    total.addcmul_(post[factor], answer[slot, keep + factor])
            state = torch.lerp(state, total, alpha, out=potentials[step])
            rate = rates[step]
            rate.copy_(phi(state))
        ctx.save_for_backward(weight, start, post, pre, seen, answer, rates)
        ctx.settings = keep, alpha, nonlinearity, phi
        return potentials, rates

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_potentials: Tensor, grad_rates: Tensor) -> Any:
        weight, start, post, pre, seen, answer, rates = ctx.saved_tensors
        keep, alpha, nonlinearity, phi = ctx.settings
        steps, trials, units = rates.shape
        slope = _SLOPES[nonlinearity]
        slopes = slope(rates)
        # What reaches the potentials directly, at all steps at once.
        direct = torch.addcmul(grad_potentials, grad_rates, slopes)
        sent = torch.empty_like(seen)
        back = None if post is None else torch.empty_like(seen)
        carry = torch.zeros_like(start)
        recurrent = torch.zeros_like(start)
        for step in range(steps - 1, -1, -1):
            total = direct[step].addcmul_(recurrent, slopes[step]).add_(carry)
            rows = sent[step]
            current = torch.mul(total, alpha, out=rows[0]) if keep else total * alpha
            carry = total - current
            if back is None:
                recurrent = current @ weight
                continue
            torch.mul(post, current, out=rows[keep:])
            returned = torch.mm(rows.view(-1, units), weight, out=back[step].view(-1, units))
            returned = returned.view(-1, trials, units)
            recurrent = returned[0] if keep else torch.zeros_like(current)
            for factor in range(len(pre)):
                recurrent = torch.addcmul(recurrent, pre[factor], returned[keep + factor])
        grad_start = torch.addcmul(carry, recurrent, slope(phi(start)))
        grad_weight = sent.view(-1, units).mT @ seen.view(-1, units)
        grad_post = grad_pre = None
        # `direct` was turned into the gradient of the potentials, step by step.
        currents = sent[:, 0] if keep else direct * alpha
        if back is not None:
            grad_post = (currents.unsqueeze(1) * answer[:, keep:]).sum(0)
            before = torch.cat([phi(start).unsqueeze(0), rates[:-1]])
            grad_pre = (before.unsqueeze(1) * back[:, keep:]).sum(0)
        return currents, grad_weight, grad_start, grad_post, grad_pre, None, None, None, None

"""From a network, its contexts and its noise to what the compiled loop takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ctxrnn import _kernel
from ctxrnn._circuit import Dense, Recurrence
from ctxrnn._context import Contexts
from ctxrnn._noise import RecurrentNoise
from ctxrnn._trajectory import Trajectory

if TYPE_CHECKING:
    from ctxrnn._network import CTRNN


@dataclass(frozen=True)
class Plan:
    """One run of the compiled loop, but for its stimulus.

    Attributes:
        setting: See `_kernel.Setting`.
        tensors: See `_kernel.run`; autograd knows where they come from.
        order: Which trial takes each place, (trial,), where trials that share their context do
            not lie next to each other; else None.
        spread: Tensors by the names of those that are nothing but one of them, repeated along a
            first axis.
    """

    setting: _kernel.Setting
    tensors: _kernel.Tensors
    order: Tensor | None
    spread: dict[str, Tensor]


def covers(network: CTRNN, contexts: Contexts | None) -> bool:
    """Tell whether the compiled loop may run this network in these contexts."""
    alpha = network.alpha
    return (
        network.nonlinearity_name is not None
        and network.device.type == "cpu"
        and not (isinstance(alpha, Tensor) and alpha.requires_grad)
        and not (contexts is not None and contexts.varies)
        and _kernel.available()
    )


def plan(
    network: CTRNN,
    contexts: Contexts | None,
    start: Tensor,
    noise: RecurrentNoise | None,
    *,
    steps: int,
    keep: bool = True,
    groups: Groups | Literal["find"] | None = "find",
) -> Plan | None:
    """Prepare a run; None if the compiled loop does not cover it.

    Trials that share their context share one matrix W(c), which is formed once: so every synaptic
    variant costs about what `none` does. Contexts that differ from trial to trial are covered
    only where the pathways leave the weights alone.

    Args:
        network: The network.
        contexts: c, (trial, context) each, or None.
        start: z_0, (trial, unit).
        noise: Noise current, or None.
        steps: Number of time steps.
        keep: Whether the potentials are wanted.
        groups: From `find_groups`, where they are known already.
    """
    if not covers(network, contexts):
        return None
    trials, units = start.shape
    if groups == "find":
        groups = find_groups(contexts, trials)
    circuit = network.circuit(contexts if groups is None else groups.contexts)
    recurrent = circuit.recurrent
    if recurrent is None or circuit.input_weight.ndim != 2:
        return None
    if groups is None and not isinstance(recurrent, Dense):
        return None
    weights = _checked(recurrent, units, 1 if groups is None else len(groups.first) - 1, start)
    first, order = torch.tensor([0, trials]), None
    group = torch.zeros(1, dtype=torch.int64)
    spread = {"drive": circuit.current} if circuit.current.ndim == 1 else {}
    if weights.ndim == 2:
        spread["weights"] = weights
        weights = weights.unsqueeze(0)
    elif groups is not None:
        first, order = groups.first, groups.order
        group = torch.arange(len(first) - 1)
    rows = None if groups is None else groups.row
    tensors: _kernel.Tensors = {
        "input_weight": circuit.input_weight,
        "drive": _by_trial(circuit.current, rows, start),
        "weights": weights,
        "start": start,
        "output_weight": network.output_weight,
        "output_bias": network.output_bias,
        "gain": _by_trial(circuit.gain, rows, start),
        "threshold": _by_trial(circuit.threshold, rows, start),
    }
    if noise is not None and noise.key is None:
        tensors["extra"] = noise.current(steps, start)
    if order is not None:
        tensors |= {name: _picked(tensors.get(name), order, -2) for name in _BY_TRIAL}
    setting = _kernel.Setting(
        network.form,
        network.nonlinearity_name or "",
        network.readout,
        first,
        group,
        None,
        _per_unit(network.alpha, units, start),
        _noise(noise, units, start, order),
        keep,
    )
    return Plan(setting, tensors, order, spread)


_BY_TRIAL = ("drive", "start", "gain", "threshold", "extra")


def run(plan: Plan, inputs: Tensor) -> Trajectory:
    """Run a plan on a stimulus, (trial, time, input)."""
    seen = inputs.transpose(0, 1)
    if plan.order is not None:
        seen = seen[:, plan.order]
    answer = _kernel.run(plan.setting, {**plan.tensors, "u": seen})
    potentials = answer.rates if answer.potentials is None else answer.potentials
    parts = (potentials, answer.rates, answer.outputs)
    if plan.order is not None:
        back = plan.order.argsort()
        return Trajectory(*(part.transpose(0, 1)[back] for part in parts))
    return Trajectory(*(part.transpose(0, 1) for part in parts))


def _checked(recurrent: Recurrence, units: int, rows: int, like: Tensor) -> Tensor:
    """Return W(c) as a matrix; the loop in C trusts its shape."""
    weights = recurrent.dense()
    if weights.shape[-2:] != (units, units) or weights.shape[:-2] not in ((), (rows,)):
        raise ValueError(
            f"dense() of {type(recurrent).__name__} must have shape (unit, unit) or (trial, unit, "
            f"unit) = {(rows, units, units)}: got {tuple(weights.shape)}"
        )
    return weights.to(like.dtype)


def _picked(value: Tensor | None, order: Tensor, axis: int) -> Tensor | None:
    return None if value is None else value.index_select(axis, order)


def _by_trial(value: Tensor | None, rows: Tensor | None, like: Tensor) -> Tensor | None:
    """Spread what belongs to a group, or to all, over the trials."""
    if value is None:
        return None
    if rows is None or value.ndim == 1 or value.shape[-2] == 1:
        return value.expand_as(like)
    return value.index_select(-2, rows)


def _per_unit(value: Tensor | float, units: int, like: Tensor) -> Tensor:
    tensor = value if isinstance(value, Tensor) else like.new_tensor(value)
    return tensor.detach().to(like.dtype).expand(units).contiguous()


def _noise(
    noise: RecurrentNoise | None, units: int, like: Tensor, order: Tensor | None
) -> _kernel.Noise | None:
    if noise is None or noise.key is None:
        return None
    return _kernel.Noise(noise.key, _per_unit(noise.scale, units, like), noise.first, order)


@dataclass(frozen=True)
class Groups:
    """Trials that share their contexts.

    Attributes:
        contexts: Those of each group.
        row: Group of each trial, (trial,).
        first: First trial of each group and the number of trials, in the order of `order`.
        order: Which trial takes each place; None where groups lie together already.
    """

    contexts: Contexts
    row: Tensor
    first: Tensor
    order: Tensor | None


def find_groups(contexts: Contexts | None, trials: int) -> Groups | None:
    """Find the groups; None where there are none, or too many of them to pay."""
    if contexts is None:
        return None
    seen = [contexts.excitability]
    if contexts.synaptic is not contexts.excitability:
        seen.append(contexts.synaptic)
    if any(context.requires_grad for context in seen):
        return None
    joint = seen[0] if len(seen) == 1 else torch.cat(seen, dim=-1)
    starts = torch.ones(trials, dtype=torch.bool)
    starts[1:] = (joint[1:] != joint[:-1]).any(-1)
    row, order = starts.cumsum(0) - 1, None
    if 2 * int(row[-1] + 1) > max(trials, 2):
        _, row = torch.unique(joint, dim=0, return_inverse=True)
        if 2 * int(row.max() + 1) > max(trials, 2):
            return None
        order = row.argsort(stable=True)
        starts[1:] = row[order][1:] != row[order][:-1]
    first = starts.nonzero().squeeze(-1)
    members = first if order is None else order[first]
    chosen = [context[members] for context in seen]
    bounds = torch.cat([first, first.new_full((1,), trials)])
    shared = len(chosen) == 1
    rows = Contexts.of(chosen[0]) if shared else Contexts(*chosen)
    return Groups(rows, row, bounds, order)

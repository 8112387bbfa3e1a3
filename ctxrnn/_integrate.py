"""The time loop: a plain reference path that autograd differentiates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctxrnn._circuit import Circuit
from ctxrnn._context import Contexts

if TYPE_CHECKING:
    from ctxrnn._network import CTRNN


def integrate(
    network: CTRNN,
    inputs: Tensor,
    contexts: Contexts | None,
    start: Tensor,
    noise: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Step a network through time.

    z_{t+1} = (1 - alpha) z_t + alpha target(z_t, u_t, c_t), with the network's state z (potentials
    in the current form, rates in the rate form).

    Args:
        network: The network.
        inputs: u, (trial, time, input).
        contexts: c, or None.
        start: z_0, (trial, unit).
        noise: What is added to the current at each step, (time, trial, unit), or None.

    Returns:
        States and rates after each step, (trial, time, unit) each. The rates at index t are those
        of the state after step t in the context of step t.
    """
    if contexts is not None and contexts.varies:
        return _integrate_varying(network, inputs, contexts, start, noise)
    circuit = network.circuit(contexts)
    external = _project(inputs, circuit) + circuit.current
    if noise is not None:
        external = external + noise
    alpha = network.alpha
    state, rates = start, network.rates(circuit, start)
    states: list[Tensor] = []
    rate_list: list[Tensor] = []
    # unbind once: indexing a tensor step by step makes the backward pass several times slower.
    for current in external.unbind(0):
        state = torch.lerp(state, network.target(circuit, rates, current), alpha)
        rates = network.rates(circuit, state)
        states.append(state)
        rate_list.append(rates)
    stacked = torch.stack(states, dim=1)
    if network.form == "rate":
        return stacked, stacked
    return stacked, torch.stack(rate_list, dim=1)


def _integrate_varying(
    network: CTRNN,
    inputs: Tensor,
    contexts: Contexts,
    start: Tensor,
    noise: Tensor | None,
) -> tuple[Tensor, Tensor]:
    base = network.base_circuit()
    projected = _project(inputs, base).unbind(0)
    alpha = network.alpha
    state = start
    states: list[Tensor] = []
    rate_list: list[Tensor] = []
    for step, current in enumerate(projected):
        circuit = network.modulation(base, contexts.at(step))
        if circuit.input_weight is not base.input_weight:
            current = inputs[:, step] @ circuit.input_weight.mT
        current = current + circuit.current
        if noise is not None:
            current = current + noise[step]
        target = network.target(circuit, network.rates(circuit, state), current)
        state = torch.lerp(state, target, alpha)
        states.append(state)
        rate_list.append(network.rates(circuit, state))
    return torch.stack(states, dim=1), torch.stack(rate_list, dim=1)


def _project(inputs: Tensor, circuit: Circuit) -> Tensor:
    """Project the inputs of all steps in one product, (time, trial, unit)."""
    trials, steps, width = inputs.shape
    flat = inputs.transpose(0, 1).reshape(steps * trials, width)
    return (flat @ circuit.input_weight.mT).view(steps, trials, -1)

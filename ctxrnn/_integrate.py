"""The time loop: the plain one, which autograd differentiates, and the way to the fast one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctxrnn import _fast
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
    external = _project(inputs, circuit, noise)
    alpha = network.alpha
    name = network.nonlinearity_name
    if network.fast and name and _fast.covers(circuit, network.form, name, alpha):
        potentials, rates = _fast.run(circuit, external, start, alpha, name, network.phi)
        return potentials.transpose(0, 1), rates.transpose(0, 1)
    state, rates = start, network.rates(circuit, start)
    states: list[Tensor] = []
    rate_list: list[Tensor] = []
    # unbind once: indexing a tensor step by step makes the backward pass several times slower.
    for current in external.unbind(0):
        state = torch.lerp(state, network.target(circuit, rates, current), alpha)
        rates = network.rates(circuit, state)
        states.append(state)
        rate_list.append(rates)
    # Stacked time first, which copies whole blocks, and handed out trial first.
    stacked = torch.stack(states).transpose(0, 1)
    if network.form == "rate":
        return stacked, stacked
    return stacked, torch.stack(rate_list).transpose(0, 1)


def _integrate_varying(
    network: CTRNN,
    inputs: Tensor,
    contexts: Contexts,
    start: Tensor,
    noise: Tensor | None,
) -> tuple[Tensor, Tensor]:
    base = network.base_circuit()
    projected = _project(inputs, replace(base, current=torch.zeros_like(base.current)), None)
    alpha = network.alpha
    state = start
    states: list[Tensor] = []
    rate_list: list[Tensor] = []
    for step, current in enumerate(projected.unbind(0)):
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
    return torch.stack(states).transpose(0, 1), torch.stack(rate_list).transpose(0, 1)


def _project(inputs: Tensor, circuit: Circuit, noise: Tensor | None) -> Tensor:
    """Return B u + current [+ noise] of all steps by one product, (time, trial, unit)."""
    trials, steps, width = inputs.shape
    flat = inputs.transpose(0, 1).reshape(steps * trials, width)
    shape = (steps, trials, circuit.input_weight.shape[0])
    current = circuit.current.expand(shape) if noise is None else noise + circuit.current
    flat_current = current.reshape(steps * trials, shape[-1])
    return torch.addmm(flat_current, flat, circuit.input_weight.mT).view(shape)

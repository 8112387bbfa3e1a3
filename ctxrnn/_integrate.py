"""The time loop: which of the three is taken, and the plain one, which autograd differentiates.

- `_kernel`: compiled, on the CPU; contexts constant in time, or none.
- `_adjoint`: in torch, with a gradient of its own; all pathways, varying contexts, any device.
- the plain loop below: the reference; any callable as nonlinearity, higher derivatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctxrnn import _adjoint, _compiled
from ctxrnn._circuit import Circuit, of_trials
from ctxrnn._context import Contexts
from ctxrnn._noise import RecurrentNoise
from ctxrnn._trajectory import Trajectory

if TYPE_CHECKING:
    from ctxrnn._network import CTRNN

LOOPS = ("auto", "compiled", "adjoint", "plain")


def integrate(
    network: CTRNN,
    inputs: Tensor,
    contexts: Contexts | None,
    start: Tensor,
    noise: RecurrentNoise | None,
) -> Trajectory:
    """Step a network through time.

    z_{t+1} = (1 - alpha) z_t + alpha target(z_t, u_t, c_t), with the network's state z (potentials
    in the current form, rates in the rate form).

    Args:
        network: The network; its `loop` says which loop to take.
        inputs: u, (trial, time, input).
        contexts: c, or None.
        start: z_0, (trial, unit).
        noise: Noise current, or None.

    Returns:
        What the network did. The rates at index t are those of the state after step t in the
        context of step t.

    Raises:
        RuntimeError: If the loop that the network asks for does not cover the case.
    """
    loop = network.loop
    if loop not in LOOPS:
        raise ValueError(f"loop of a network must be one of {', '.join(LOOPS)}: got {loop!r}")
    if loop in ("auto", "compiled"):
        plan = _compiled.plan(network, contexts, start, noise, steps=inputs.shape[1])
        if plan is not None:
            return _compiled.run(plan, inputs)
        if loop == "compiled":
            raise RuntimeError(
                "the compiled loop is not installed, or does not cover this run: it needs the CPU, "
                "a named nonlinearity, fixed tau, and contexts that are constant in time, need no "
                "gradient and are shared by trials next to each other; choose loop='auto'"
            )
    seen = inputs.transpose(0, 1).contiguous()
    current = None if noise is None else noise.current(len(seen), start)
    varies = contexts is not None and contexts.varies
    flat = contexts.flat(len(seen)) if contexts is not None and varies else contexts
    circuit = network.circuit(flat)
    if loop != "plain" and network.nonlinearity_name and _adjoint.covers(circuit):
        step = _adjoint.Step(network.form, network.phi)
        states = _adjoint.run(step, circuit, seen, start, network.alpha, current)
    else:
        if loop == "adjoint":
            raise RuntimeError(
                "the adjoint loop does not cover this run: it needs a named nonlinearity, and "
                "pathways whose recurrence has a pullback; choose loop='auto'"
            )
        states = _plain(network, circuit, seen, start, current, varies)
    shape = (-1, states.shape[-1]) if varies else states.shape
    rates = network.rates(circuit, states.reshape(shape)).reshape(states.shape)
    outputs = network.read_out(states, rates)
    return Trajectory(*(part.transpose(0, 1) for part in (states, rates, outputs)))


def _plain(
    network: CTRNN,
    circuit: Circuit,
    inputs: Tensor,
    start: Tensor,
    noise: Tensor | None,
    varies: bool,
) -> Tensor:
    external = inputs @ circuit.input_weight.mT
    if noise is not None:
        external = external + noise
    state, alpha, trials = start, network.alpha, inputs.shape[1]
    states: list[Tensor] = []
    # unbind once: indexing a tensor step by step makes the backward pass several times slower.
    for step, current in enumerate(external.unbind(0)):
        rows = slice(step * trials, (step + 1) * trials)
        now = of_trials(circuit, rows) if varies else circuit
        target = network.target(now, network.rates(now, state), current + now.current)
        state = torch.lerp(state, target, alpha)
        states.append(state)
    return torch.stack(states)

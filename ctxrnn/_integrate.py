"""The time loop: which of the three is taken, and the plain one, which autograd differentiates.

- `_kernel`: compiled, on the CPU; contexts constant in time, or none.
- `_adjoint`: in torch, with a gradient of its own; all pathways, varying contexts, any device.
- the plain loop below: the reference; any callable as nonlinearity, higher derivatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctxrnn import _adjoint, _kernel
from ctxrnn._circuit import Circuit, Dense, of_trials
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
        found = _compiled(network, inputs, contexts, start, noise)
        if found is not None:
            return found
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


def _compiled(
    network: CTRNN,
    inputs: Tensor,
    contexts: Contexts | None,
    start: Tensor,
    noise: RecurrentNoise | None,
) -> Trajectory | None:
    """Run the compiled loop; None if it does not cover the case."""
    alpha = network.alpha
    covered = (
        network.nonlinearity_name is not None
        and inputs.device.type == "cpu"
        and not (isinstance(alpha, Tensor) and alpha.requires_grad)
        and not (contexts is not None and contexts.varies)
        and _kernel.available()
    )
    if not covered:
        return None
    trials, units = start.shape
    first, circuit = _grouped(network, contexts, trials)
    if circuit is None or circuit.recurrent is None or circuit.input_weight.ndim != 2:
        return None
    recurrent = circuit.recurrent
    if first is None and not isinstance(recurrent, Dense):
        return None
    weights = recurrent.dense()
    sizes = None if first is None else first.diff()
    if weights.ndim == 2:
        weights, bounds = weights.unsqueeze(0), torch.tensor([0, trials])
    else:
        assert first is not None
        bounds = first

    def by_trial(value: Tensor | None) -> Tensor | None:
        if value is None or value.ndim == 1 or value.shape[-2] == 1 or sizes is None:
            return None if value is None else value.expand(trials, units)
        return value.repeat_interleave(sizes, dim=0, output_size=trials)

    drive = by_trial(circuit.current)
    assert drive is not None
    setting = _kernel.Setting(
        network.form,
        network.nonlinearity_name or "",
        network.readout,
        bounds,
        _per_unit(alpha, units, start),
        _kernel_noise(noise, units, start),
    )
    extra = (
        noise.current(inputs.shape[1], start) if noise is not None and noise.key is None else None
    )
    answer = _kernel.run(
        setting,
        inputs.transpose(0, 1),
        input_weight=circuit.input_weight,
        drive=drive,
        weights=weights,
        start=start,
        output_weight=network.output_weight,
        output_bias=network.output_bias,
        gain=by_trial(circuit.gain),
        threshold=by_trial(circuit.threshold),
        extra=extra,
    )
    potentials = answer.rates if answer.potentials is None else answer.potentials
    parts = (potentials, answer.rates, answer.outputs)
    return Trajectory(*(part.transpose(0, 1) for part in parts))


def _per_unit(value: Tensor | float, units: int, like: Tensor) -> Tensor:
    tensor = value if isinstance(value, Tensor) else like.new_tensor(value)
    return tensor.detach().to(like.dtype).expand(units).contiguous()


def _kernel_noise(noise: RecurrentNoise | None, units: int, like: Tensor) -> _kernel.Noise | None:
    if noise is None or noise.key is None:
        return None
    return _kernel.Noise(noise.key, _per_unit(noise.scale, units, like), noise.first)


def _grouped(
    network: CTRNN, contexts: Contexts | None, trials: int
) -> tuple[Tensor | None, Circuit | None]:
    """Find trials next to each other that share their context, and the circuit of each group.

    Returns:
        The first trial of each group and the number of trials, with one row of the circuit per
        group; None with the circuit of all trials, where groups are too small to pay.
    """
    if contexts is None:
        return None, network.circuit(None)
    seen = (contexts.excitability, contexts.synaptic)
    if any(context.requires_grad for context in seen):
        return None, None
    changes = torch.zeros(max(trials - 1, 0), dtype=torch.bool)
    for context in seen[: 1 if seen[0] is seen[1] else 2]:
        changes |= (context[1:] != context[:-1]).any(-1)
    later = changes.nonzero().squeeze(-1) + 1
    if 2 * (len(later) + 1) > max(trials, 2):
        return None, network.circuit(contexts)
    first = torch.cat([later.new_zeros(1), later, later.new_full((1,), trials)])
    rows = first[:-1]
    if seen[0] is seen[1]:
        return first, network.circuit(Contexts.of(seen[0][rows]))
    return first, network.circuit(Contexts(seen[0][rows], seen[1][rows]))

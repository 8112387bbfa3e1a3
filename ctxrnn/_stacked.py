"""Gradients of many networks by one loop in torch: what a GPU, or a CPU without compiler, needs.

Members are padded to the largest N with zeros by operations that autograd knows, which gives
padding no gradient; no weight leads from or to it. Trials that share their context lie side by
side, one slot each, so that every member does one batched product per step, whatever its pathways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ctxrnn import _adjoint
from ctxrnn._circuit import Circuit, Dense
from ctxrnn._network import CTRNN
from ctxrnn._noise import RecurrentNoise
from ctxrnn._run import Run
from ctxrnn._step import Prepared, add_gradient


@dataclass
class _Member:
    """One network in one batch.

    Attributes:
        number: Its place among those that were asked for.
        circuit: One row per group, or per trial where there is one group.
        slots: Trial of each slot, (group, slot); the first trial of all fills the empty ones.
        filled: Whether a slot holds a trial of its own, (group, slot).
        start: z_0, (trial, unit).
        noise: Noise current, or None.
    """

    number: int
    network: CTRNN
    prepared: Prepared
    circuit: Circuit
    slots: Tensor
    filled: Tensor
    start: Tensor
    noise: RecurrentNoise | None

    @property
    def kind(self) -> tuple[object, ...]:
        """What members must have in common to be stacked."""
        network, prepared = self.network, self.prepared
        return (
            network.form, network.nonlinearity_name, network.readout, network.inputs,
            network.outputs, prepared.targets.dtype, len(prepared.batch), len(self.slots) > 1,
            self.noise is None,
        )  # fmt: skip


def add_gradients(
    networks: Sequence[CTRNN],
    prepared: Sequence[Prepared],
    generators: Sequence[torch.Generator],
) -> list[float | None]:
    """Add the gradient of each network's loss to that of its parameters.

    Args:
        networks: The networks.
        prepared: The trials of each.
        generators: Source of the recurrent noise of each.

    Returns:
        The losses; None where a network must be trained by itself: contexts that vary in time or
        differ from trial to trial, or a nonlinearity of the user's own.
    """
    losses: list[float | None] = [None] * len(networks)
    stacks: dict[tuple[object, ...], list[_Member]] = {}
    for number, given in enumerate(zip(networks, prepared, generators, strict=True)):
        member = _member(number, *given)
        if member is not None:
            stacks.setdefault(member.kind, []).append(member)
    for members in stacks.values():
        found = _losses(members)
        found.sum().backward()
        for member, loss in zip(members, found.detach().tolist(), strict=True):
            losses[member.number] = loss
    return losses


def _member(
    number: int, network: CTRNN, prepared: Prepared, generator: torch.Generator
) -> _Member | None:
    steps, trials, _ = prepared.inputs.shape
    contexts, start, noise = network.prepare_run(
        prepared.contexts_for(network), trials, steps, generator=generator, checked=True
    )
    if network.nonlinearity_name is None or (contexts is not None and contexts.varies):
        return None
    if network.loop not in ("auto", "adjoint"):
        return None
    prepared.check_targets(network.outputs)
    groups = prepared.groups(contexts)
    circuit = network.circuit(contexts if groups is None else groups.contexts)
    recurrent = circuit.recurrent
    if recurrent is None or (groups is None and not isinstance(recurrent, Dense)):
        return None
    device = start.device
    if groups is None or isinstance(recurrent, Dense):
        slots = torch.arange(trials, device=device).unsqueeze(0)
        filled = torch.ones_like(slots, dtype=torch.bool)
        if groups is not None:
            circuit = _of_rows(circuit, groups.row.to(device))
    else:
        slots, filled = _slots(groups.row.to(device), len(groups.first) - 1)
    return _Member(number, network, prepared, circuit, slots, filled, start, noise)


def _of_rows(circuit: Circuit, rows: Tensor) -> Circuit:
    """Spread what belongs to a group over its trials."""

    def spread(value: Tensor | None) -> Tensor | None:
        many = value is not None and value.ndim > 1 and value.shape[0] > 1
        return value[rows] if value is not None and many else value

    current = spread(circuit.current)
    assert current is not None
    return Circuit(
        circuit.recurrent,
        circuit.input_weight,
        current,
        spread(circuit.gain),
        spread(circuit.threshold),
    )


def _slots(row: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return the trial of each slot, (group, slot), and whether it is filled."""
    sizes = torch.bincount(row, minlength=groups)
    order = row.argsort(stable=True)
    filled = torch.arange(int(sizes.max()), device=row.device) < sizes.unsqueeze(-1)
    slots = torch.zeros(filled.shape, dtype=torch.int64, device=row.device)
    slots[filled] = order
    return slots, filled


def _losses(members: Sequence[_Member]) -> Tensor:
    """Return the loss of each member, (member,)."""
    first = members[0].network
    sizes = _Sizes.of(members)
    step = _adjoint.Step(first.form, first.phi)
    circuit = Circuit(
        Dense(torch.stack([_padded(m.circuit.dense_weight(), sizes) for m in members])),
        torch.stack([_fill(m.circuit.input_weight, -2, sizes.units) for m in members]).unsqueeze(1),
        torch.stack([_by_slot(m.circuit.current, m, sizes) for m in members]),
        _optional([m.circuit.gain for m in members], members, sizes, neutral=1.0),
        _optional([m.circuit.threshold for m in members], members, sizes, neutral=0.0),
    )
    start = torch.stack([_fill(m.start[sizes.slots(m)], -1, sizes.units) for m in members])
    states = _adjoint.run(
        step,
        circuit,
        _inputs(members, sizes),
        start,
        _alpha(members, sizes),
        _noise(members, sizes),
    )
    seen = states if first.readout == "potentials" else step.rates(circuit, states)
    output = torch.stack([_fill(m.network.output_weight, -1, sizes.units) for m in members])
    bias = torch.stack([m.network.output_bias for m in members])
    outputs = seen @ output.mT.unsqueeze(1) + bias[:, None, None]
    weights = _stacked([_slotted(m.prepared.weights, m, sizes) for m in members])
    empty = torch.stack([~sizes.filled(m) for m in members])
    weights = weights.masked_fill(empty, 0.0)
    targets = _stacked([_slotted(m.prepared.targets, m, sizes) for m in members])
    if targets.is_floating_point():
        errors = (outputs - targets).square().mean(-1)
    else:
        classes = targets.expand(outputs.shape[:-1])
        errors = functional.cross_entropy(
            outputs.flatten(0, -2), classes.flatten(), reduction="none"
        ).view(classes.shape)
    return (errors * weights).sum((0, 2, 3))


@dataclass(frozen=True)
class _Sizes:
    """Sizes of a stack: N, steps, groups, slots of a group."""

    units: int
    steps: int
    groups: int
    width: int

    @classmethod
    def of(cls, members: Sequence[_Member]) -> _Sizes:
        return cls(
            max(m.network.units for m in members),
            max(len(m.prepared.inputs) for m in members),
            max(len(m.slots) for m in members),
            max(m.slots.shape[1] for m in members),
        )

    def slots(self, member: _Member) -> Tensor:
        """Return the trial of each slot of the stack, (group, slot)."""
        missing = (0, self.width - member.slots.shape[1], 0, self.groups - len(member.slots))
        return functional.pad(member.slots, missing)

    def filled(self, member: _Member) -> Tensor:
        """Tell which slots of the stack hold a trial of the member."""
        missing = (0, self.width - member.slots.shape[1], 0, self.groups - len(member.slots))
        return functional.pad(member.filled, missing)


def _fill(value: Tensor, axis: int, size: int) -> Tensor:
    """Pad one of the last two axes with zeros at its end."""
    missing = size - value.shape[axis]
    if missing == 0:
        return value
    return functional.pad(value, (0, missing) if axis == -1 else (0, 0, 0, missing))


def _padded(weight: Tensor, sizes: _Sizes) -> Tensor:
    """Return W of each group, padded, (group, unit, unit)."""
    weight = weight if weight.ndim == 3 else weight.unsqueeze(0)
    weight = _fill(_fill(weight, -1, sizes.units), -2, sizes.units)
    missing = sizes.groups - len(weight)
    return functional.pad(weight, (0, 0, 0, 0, 0, missing)) if missing else weight


def _by_slot(value: Tensor, member: _Member, sizes: _Sizes) -> Tensor:
    """Return what belongs to all, to groups or to trials, (group, slot, unit)."""
    value = _fill(value, -1, sizes.units)
    if value.ndim == 1 or value.shape[0] == 1:
        return value.view(1, 1, -1).expand(sizes.groups, sizes.width, -1)
    if len(member.slots) == 1:
        return value[sizes.slots(member)]
    missing = sizes.groups - len(value)
    if missing:
        value = functional.pad(value, (0, 0, 0, missing))
    return value.unsqueeze(1).expand(-1, sizes.width, -1)


def _optional(
    values: Sequence[Tensor | None],
    members: Sequence[_Member],
    sizes: _Sizes,
    neutral: float,
) -> Tensor | None:
    """Stack gains or thresholds; members without take the neutral one."""
    if all(value is None for value in values):
        return None
    filled = [
        member.start.new_full((sizes.units,), neutral) if value is None else value
        for value, member in zip(values, members, strict=True)
    ]
    return torch.stack(
        [_by_slot(value, member, sizes) for value, member in zip(filled, members, strict=True)]
    )


def _slotted(value: Tensor, member: _Member, sizes: _Sizes) -> Tensor:
    """Return what has a value at each step of each trial, (time, group, slot, ...)."""
    missing = sizes.steps - len(value)
    if missing:
        value = torch.cat([value, value.new_zeros(missing, *value.shape[1:])])
    return value[:, sizes.slots(member)]


def _stacked(values: Sequence[Tensor]) -> Tensor:
    """Stack over members, (time, member, group, slot, ...)."""
    return torch.stack(list(values), dim=1)


def _inputs(members: Sequence[_Member], sizes: _Sizes) -> Tensor:
    first = members[0]
    shared = all(
        m.prepared is first.prepared and torch.equal(m.slots, first.slots) for m in members
    )
    if shared:
        return _slotted(first.prepared.inputs, first, sizes).unsqueeze(1)
    return _stacked([_slotted(m.prepared.inputs, m, sizes) for m in members])


def _alpha(members: Sequence[_Member], sizes: _Sizes) -> Tensor:
    """Return dt / tau, (member, 1, 1, unit)."""
    values = []
    for member in members:
        given, units = member.network.alpha, member.network.units
        tensor = given if isinstance(given, Tensor) else member.start.new_tensor(given)
        values.append(_fill(tensor.to(member.start.dtype).expand(units), -1, sizes.units))
    return torch.stack(values)[:, None, None]


def _noise(members: Sequence[_Member], sizes: _Sizes) -> Tensor | None:
    currents = []
    for member in members:
        if member.noise is None:
            return None
        current = member.noise.current(len(member.prepared.inputs), member.start)
        currents.append(_slotted(_fill(current, -1, sizes.units), member, sizes))
    return _stacked(currents)


def take_step(runs: Sequence[Run], prepared: Sequence[Prepared]) -> None:
    """Take one step of each run; those that cannot be stacked take theirs alone."""
    generators = [run.begin_step(batch) for run, batch in zip(runs, prepared, strict=True)]
    plain = [run.config.rate_penalty == run.config.weight_penalty == 0 for run in runs]
    chosen = [index for index, fits in enumerate(plain) if fits]
    found = add_gradients(
        [runs[index].network for index in chosen],
        [prepared[index] for index in chosen],
        [generators[index] for index in chosen],
    )
    losses = dict(zip(chosen, found, strict=True))
    for index, run in enumerate(runs):
        loss = losses.get(index)
        if loss is None:
            # The noise must be that of a run alone: the generator may have been used already.
            again = run.begin_step(prepared[index])
            loss = add_gradient(run.network, prepared[index], again, run.config)
        run.end_step(loss)

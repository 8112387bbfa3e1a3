"""One training step: the loss of a batch and its gradient."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrnn import _compiled, _kernel
from ctxrnn._checks import check_finite
from ctxrnn._compiled import Groups
from ctxrnn._config import TrainConfig
from ctxrnn._context import Contexts
from ctxrnn._integrate import integrate
from ctxrnn._losses import step_weights, task_loss
from ctxrnn._network import CTRNN
from ctxrnn._noise import RecurrentNoise
from ctxrnn._trajectory import Trajectory
from ctxrnn._trials import TrialBatch

MEMORY = 256 * 2**20
"""Bytes for the rates of one run of the compiled loop in training; see `_loss_and_gradients`."""


class Prepared:
    """A batch as networks take it, made ready once for all that see it.

    Attributes:
        batch: The trials, sorted by task, on the networks' device and of their type.
        inputs: u, (time, trial, input), one step after another in memory.
        targets: Likewise, (time, trial) or (time, trial, output).
        weights: What each step counts in the loss, (time, trial).
        last: One more than the last step of each trial that counts, (trial,).
    """

    def __init__(self, batch: TrialBatch, *, device: torch.device, dtype: torch.dtype) -> None:
        if bool((batch.task[1:] < batch.task[:-1]).any()):
            # Trials that share their context are computed together where they lie together.
            batch = batch.select(batch.task.argsort(stable=True))
        self.batch = batch.to(device=device, dtype=dtype)
        check_finite("inputs", self.batch.inputs, "Mend or leave out the trials that hold them.")
        self.inputs = self.batch.inputs.transpose(0, 1).contiguous()
        self.targets = self.batch.targets.transpose(0, 1).contiguous()
        self.weights = step_weights(self.batch).to(dtype).transpose(0, 1).contiguous()
        classes = not self.targets.is_floating_point()
        counts = (self.weights != 0).cpu().numpy()
        self.last = (len(counts) - counts[::-1].argmax(0)) * counts.any(0)
        self._checked: dict[tuple[Any, ...], Contexts | None] = {}
        self._parts: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self._groups: dict[tuple[int, int], tuple[Contexts, Groups | None]] = {}
        self.lowest, self.highest = (0, 0)
        if classes:
            self.lowest, self.highest = (int(end) for end in self.targets.aminmax())

    def check_targets(self, outputs: int) -> None:
        """Raise ValueError unless the targets fit a network with so many outputs."""
        if not self.targets.is_floating_point():
            if self.lowest < 0 or self.highest >= outputs:
                raise ValueError(
                    f"targets must be classes 0 to {outputs - 1}, as the network has {outputs} "
                    f"outputs: got {self.lowest} to {self.highest}"
                )
        elif self.targets.shape[-1] != outputs:
            raise ValueError(
                f"targets must have the {outputs} outputs of the network: got "
                f"{self.targets.shape[-1]}"
            )

    def parted(self, setting: _kernel.Setting) -> _kernel.Setting:
        """Split the parts of a run by task, and run each only as long as its loss has weight.

        Tasks last for different times: half of a batch may be padding.
        """
        key = (len(setting.group), id(setting.first) if len(setting.group) > 1 else 0)
        if key not in self._parts:
            first, group, until = self._split(setting)
            self._parts[key] = (setting.first, first, group, until)
        _, first, group, until = self._parts[key]
        return dataclasses.replace(setting, first=first, group=group, until=until)

    def _split(self, setting: _kernel.Setting) -> tuple[Tensor, Tensor, Tensor]:
        # NumPy, since these are a hundred numbers and torch takes microseconds for each call.
        group = np.repeat(setting.group.numpy(), np.diff(setting.first.numpy()))
        task = self.batch.task.numpy()
        changes = (np.diff(group) != 0) | (np.diff(task) != 0)
        begin = np.concatenate([[0], np.flatnonzero(changes) + 1])
        until = np.maximum.reduceat(self.last, begin)
        first = np.append(begin, len(task))
        return torch.from_numpy(first), torch.from_numpy(group[begin]), torch.from_numpy(until)

    def contexts_for(self, network: CTRNN) -> Contexts | None:
        """Return the context as the network's pathways see it, checked and filtered once."""
        key = (network.contexts, network.tau_e, network.tau_s, network.dt)
        if key not in self._checked:
            found = network.prepare_run(self.batch.context, *self.batch.inputs.shape[:2], noise=0)
            self._checked[key] = found[0]
        return self._checked[key]

    def groups(self, contexts: Contexts | None) -> Groups | None:
        """Find the trials that share their contexts, once for all networks that see these."""
        if contexts is None:
            return None
        key = (id(contexts.excitability), id(contexts.synaptic))
        if key not in self._groups:
            # Keeping the contexts keeps their ids from being given to others.
            self._groups[key] = (contexts, _compiled.find_groups(contexts, len(self.batch)))
        return self._groups[key][1]


class _Workspace(threading.local):
    """Arrays that one run after another writes into: fresh memory costs more than the sums."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        count = math.prod(shape)
        array = self._arrays.get((name, dtype))
        if array is None or array.numel() < count:
            # Some more than asked for, since the length of trials varies from batch to batch.
            array = torch.empty(count + count // 8, dtype=dtype)
            self._arrays[name, dtype] = array
        return array[:count].view(shape)


_workspace = _Workspace()


def add_gradient(
    network: CTRNN, prepared: Prepared, generator: torch.Generator, config: TrainConfig
) -> float:
    """Add the gradient of the loss to that of the parameters; return the loss.

    Args:
        network: The network.
        prepared: The trials.
        generator: Source of the recurrent noise.
        config: Its penalties are part of the loss.
    """
    if prepared.inputs.shape[-1] != network.inputs:
        raise ValueError(
            f"inputs must have {network.inputs} channels for this network: "
            f"got {prepared.inputs.shape[-1]}"
        )
    prepared.check_targets(network.outputs)
    steps, trials, _ = prepared.inputs.shape
    run = network.prepare_run(
        prepared.contexts_for(network), trials, steps, generator=generator, checked=True
    )
    loss = None
    if config.rate_penalty == 0 and network.loop in ("auto", "compiled"):
        loss = _compiled_gradient(network, prepared, *run)
    if loss is None:
        total = _loss(prepared.batch, integrate(network, prepared.batch.inputs, *run), config)
        total.backward()
        loss = float(total.detach())
    if config.weight_penalty > 0:
        penalty = config.weight_penalty * network.weight.square().sum()
        penalty.backward()
        loss += float(penalty.detach())
    return loss


def _loss(batch: TrialBatch, trajectory: Trajectory, config: TrainConfig) -> Tensor:
    loss = task_loss(trajectory.outputs, batch)
    if config.rate_penalty > 0:
        squared = trajectory.rates.square().mean(-1)[batch.valid].mean()
        loss = loss + config.rate_penalty * squared
    return loss


def _compiled_gradient(
    network: CTRNN,
    prepared: Prepared,
    contexts: Contexts | None,
    start: Tensor,
    noise: RecurrentNoise | None,
) -> float | None:
    """As `add_gradient`, with the compiled loop and loss; None if they do not cover the case.

    Autograd is left with what leads from the parameters to W(c), E c and the like.
    """
    if not _compiled.covers(network, contexts):
        return None
    steps = len(prepared.inputs)
    groups = prepared.groups(contexts) if len(network.modulation) else None
    plan = _compiled.plan(network, contexts, start, noise, steps=steps, keep=False, groups=groups)
    if plan is None or plan.order is not None:
        return None
    names = [name for name, value in plan.tensors.items() if value is not None]
    laid_out = _kernel.contiguous(plan.tensors[name] for name in names)
    tensors: _kernel.Tensors = dict(zip(names, laid_out, strict=True))
    tensors["u"] = prepared.inputs
    loss, found = _loss_and_gradients(prepared.parted(plan.setting), tensors, prepared)
    roots, gradients = [], []
    for name in names:
        root, gradient = plan.tensors[name], found.get(name)
        if root is None or gradient is None or not root.requires_grad:
            continue
        if name in plan.spread:
            root, gradient = plan.spread[name], gradient.sum(0)
        if root.is_leaf and root.grad is not None:
            # Most of autograd's time would go into finding out that there is nothing to do.
            root.grad += gradient
        else:
            roots.append(root)
            gradients.append(gradient)
    if roots:
        _HandOver.apply(gradients, *roots).backward()
    return loss


class _HandOver(torch.autograd.Function):
    """Gives gradients that are known to autograd, with less ado than `torch.autograd.backward`."""

    @staticmethod
    def forward(ctx: Any, gradients: Sequence[Tensor], *roots: Tensor) -> Tensor:
        ctx.gradients = gradients
        return roots[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        return None, *ctx.gradients


def _loss_and_gradients(
    setting: _kernel.Setting, tensors: _kernel.Tensors, prepared: Prepared
) -> tuple[float, _kernel.Tensors]:
    """Return the loss and the gradients of the tensors, in bounded memory.

    A trial that is too long for `MEMORY` is run twice: first for the state at the start of each
    segment, then segment by segment from the end, for the gradients.
    """
    steps, trials, _ = prepared.inputs.shape
    width = _kernel.stride(_present(tensors, "output_weight").shape[1])
    arrays = 2 if _kernel.keeps(setting, tensors, training=True) else 1
    size = prepared.inputs.element_size() * trials * width * arrays
    length = min(steps, max(1, MEMORY // size))
    starts = list(range(0, steps, length))
    states = [_present(tensors, "start")]
    for start in starts[:-1]:
        part = _segment(setting, tensors, states[-1], slice(start, start + length))
        memory, _ = _memory(*part)
        memory.end = torch.empty_like(states[0])
        _kernel.forward(*part, memory)
        states.append(memory.end)
    loss, grad_end = 0.0, None
    totals: _kernel.Tensors = {}
    for start, state in zip(reversed(starts), reversed(states), strict=True):
        rows = slice(start, start + length)
        part = _segment(setting, tensors, state, rows)
        memory, grad = _memory(*part)
        targets, weights = prepared.targets[rows], prepared.weights[rows]
        share, found = _kernel.loss_and_gradients(*part, memory, grad, targets, weights, grad_end)
        loss += share
        grad_end = found["start"]
        for name, gradient in found.items():
            if gradient is not None and name != "start":
                before = totals.get(name)
                totals[name] = gradient if before is None else before + gradient
    return loss, {**totals, "start": grad_end}


def _segment(
    setting: _kernel.Setting, tensors: _kernel.Tensors, start: Tensor, rows: slice
) -> tuple[_kernel.Setting, _kernel.Tensors]:
    """Return what some steps of a run take."""
    part: _kernel.Tensors = {**tensors, "start": start, "u": _present(tensors, "u")[rows]}
    if part.get("extra") is not None:
        part["extra"] = _present(part, "extra")[rows]
    if setting.noise is not None:
        noise = setting.noise._replace(first=setting.noise.first + rows.start)
        setting = dataclasses.replace(setting, noise=noise)
    if setting.until is not None and rows.start:
        setting = dataclasses.replace(setting, until=(setting.until - rows.start).clamp_min(0))
    return setting, part


def _present(tensors: _kernel.Tensors, name: str) -> Tensor:
    value = tensors[name]
    if value is None:
        raise TypeError(f"the loop needs {name}")
    return value


def _memory(setting: _kernel.Setting, tensors: _kernel.Tensors) -> tuple[_kernel.Memory, Tensor]:
    """Return arrays for a run and for the gradient of its outputs, (time, trial, output)."""
    u, output_weight = _present(tensors, "u"), _present(tensors, "output_weight")
    shape = (*u.shape[:2], _kernel.stride(output_weight.shape[1]))
    outputs = (*u.shape[:2], len(output_weight))
    kept = None
    if _kernel.keeps(setting, tensors, training=True):
        kept = _workspace.take("kept", shape, u.dtype)
    rates = _workspace.take("rates", shape, u.dtype)
    memory = _kernel.Memory(rates, kept, _workspace.take("outputs", outputs, u.dtype))
    return memory, _workspace.take("gradient", outputs, u.dtype)

"""The compiled loop of networks in rate form whose circuit is another one at every step.

`_native/varying.h` runs it. Circuits are rows of tables, and `index` says which row each sequence
sees at each step: with symbols there is one row for each symbol, and nothing is laid out for all
steps.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctxrnn import _kernel
from ctxrnn._circuit import Circuit, Dense, Scaled

PHI = ("tanh", "relu", "sigmoid", "softplus")
_COUNTS = ("steps", "trials", "units", "rows", "factors", "keep_base", "phi")
_ARRAYS = (
    "index", "weight", "alpha", "start", "current", "gain", "post", "pre", "states", "kept",
    "grad", "d_weight", "d_start", "d_current", "d_gain", "d_post", "d_pre",
)  # fmt: skip


class _Struct(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in _COUNTS] + [
        (name, ctypes.c_void_p) for name in _ARRAYS
    ]


class Tables(NamedTuple):
    """A circuit as the loop reads it.

    Attributes:
        weight: W, (unit, unit), `[post, pre]`.
        current: All current that is not recurrent, (row, unit).
        gain: (row, unit), or None for 1.
        post: (factor, row, unit), or None.
        pre: Likewise.
        keep_base: Whether W r is added to the factors' part.
    """

    weight: Tensor
    current: Tensor
    gain: Tensor | None
    post: Tensor | None
    pre: Tensor | None
    keep_base: bool


def tables_of(circuit: Circuit, current: Tensor) -> Tables | None:
    """Return a circuit as tables, or None where the loop does not cover it.

    It covers W alone or scaled by factors, currents and gains, on the CPU.

    Args:
        circuit: Of all rows.
        current: What is added to its current, (row, unit).
    """
    recurrent, post, pre, keep_base = circuit.recurrent, None, None, True
    if isinstance(recurrent, Scaled):
        post, pre, keep_base = recurrent.post, recurrent.pre, recurrent.keep_base
        recurrent = recurrent.base
    if not isinstance(recurrent, Dense) or circuit.threshold is not None:
        return None
    weight = recurrent.weight
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        return None
    if not _kernel.available():
        return None
    rows = current + circuit.current

    def same(part: Tensor | None) -> Tensor | None:
        # Under autocast products come in another precision than the parameters.
        return None if part is None else part.to(weight.dtype)

    return Tables(
        weight, rows.to(weight.dtype), same(circuit.gain), same(post), same(pre), keep_base
    )


def run(
    tables: Tables,
    start: Tensor,
    alpha: float,
    nonlinearity: str,
    steps: int,
    index: Tensor | None = None,
) -> Tensor:
    """Step through time; autograd knows the gradient.

    Args:
        tables: The circuits. Without `index` their rows are those of every sequence at the first
            step, then at the second, ...
        start: r before the first step, (sequence, unit).
        alpha: Share of the state that a step replaces.
        nonlinearity: Name of phi.
        steps: Number of steps.
        index: Row that every sequence sees at every step, (time, sequence).

    Returns:
        r after every step, (time, sequence, unit).
    """
    weight, current, gain, post, pre, keep_base = tables
    start = start.to(weight.dtype)
    setting = (steps, PHI.index(nonlinearity), keep_base, alpha)
    states: Tensor = _Loop.apply(setting, index, start, weight, current, gain, post, pre)
    return states


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        setting: tuple[int, int, bool, float],
        index: Tensor | None,
        *given: Tensor | None,
    ) -> Tensor:
        index = None if index is None else index.contiguous()
        arrays = [None if array is None else array.contiguous() for array in given]
        start, weight, current, gain, post, _ = arrays
        assert start is not None
        assert weight is not None
        steps, phi, keep_base, alpha = setting
        factors = 0 if post is None else len(post)
        trials, units = start.shape
        states = start.new_empty(steps, trials, units)
        kept = None
        if any(ctx.needs_input_grad[2:]):
            planes = 2 + (gain is not None) + factors
            kept = start.new_empty(steps, planes, trials, _kernel.stride(units))
        named = dict(
            zip(("start", "weight", "current", "gain", "post", "pre"), arrays, strict=True)
        )
        named |= {"index": index, "alpha": start.new_full((units,), alpha)}
        counts = (steps, trials, units, len(current), factors, int(keep_base), phi)  # type: ignore[arg-type]
        ctx.counts, ctx.names = counts, tuple(named)
        ctx.save_for_backward(kept, *named.values())
        _call("varying_forward", counts, {**named, "states": states, "kept": kept})
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        kept, *saved = ctx.saved_tensors
        named = dict(zip(ctx.names, saved, strict=True))
        wanted = ("start", "weight", "current", "gain", "post", "pre")
        found = {
            name: None if named[name] is None else torch.zeros_like(named[name]) for name in wanted
        }
        arrays = {**named, "kept": kept, "grad": grad.contiguous()}
        arrays |= {f"d_{name}": value for name, value in found.items()}
        _call("varying_backward", ctx.counts, arrays)
        return None, None, *(found[name] for name in wanted)


def _call(name: str, counts: tuple[int, ...], arrays: dict[str, Tensor | None]) -> None:
    library = _kernel.library()
    if library is None:
        raise RuntimeError("the compiled loop is not installed: choose loop='auto'")
    start = arrays["start"]
    assert start is not None
    kind = "float" if start.dtype == torch.float32 else "double"
    struct = _Struct(*counts)
    for key, array in arrays.items():
        if array is not None:
            wanted = torch.int64 if key == "index" else start.dtype
            if array.dtype != wanted or not array.is_contiguous():
                raise TypeError(f"the loop needs {key} contiguous, {wanted}: got {array.dtype}")
            setattr(struct, key, array.data_ptr())
    if getattr(library, f"{name}_{kind}")(ctypes.byref(struct)):
        raise MemoryError(f"no memory for {counts[0]} steps of {counts[1]} sequences")

"""The compiled time loop: loading it, and its autograd function.

`_native/kernel.c` is compiled at installation, once per instruction set; where that failed, or
`CTXRNN_KERNEL=off` is set, `available()` is False and the loops in torch take its place.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

logger = logging.getLogger("ctxrnn")

_VERSION = 1
_FORMS = ("current", "rate")
_PHI = ("tanh", "relu", "sigmoid", "softplus")
_COUNTS = (
    "steps", "trials", "units", "inputs", "outputs", "groups", "form", "phi", "potentials_out",
    "first_step",
)  # fmt: skip
_ARRAYS = (
    "u", "input_weight", "drive", "weights", "first", "gain", "threshold", "start", "alpha", "key",
    "noise", "extra", "output_weight", "output_bias", "rates", "kept", "out",
    "grad_out", "grad_rates", "grad_states",
    "d_input_weight", "d_drive", "d_weights", "d_gain", "d_threshold", "d_start",
    "d_output_weight", "d_output_bias", "d_current",
)  # fmt: skip


class _Struct(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in _COUNTS] + [
        (name, ctypes.c_void_p) for name in _ARRAYS
    ]


def _files() -> list[Path]:
    """List the compiled files that suit this processor, the best first."""
    capability = torch.backends.cpu.get_cpu_capability().upper()
    kinds = {"AVX512": ["avx512", "avx2", "plain"], "AVX2": ["avx2", "plain"]}
    folder = Path(__file__).parent
    return [
        folder / f"_kernel_{kind}{suffix}"
        for kind in kinds.get(capability, ["plain"])
        for suffix in (*EXTENSION_SUFFIXES, ".so")
    ]


@functools.cache
def library() -> ctypes.CDLL | None:
    """Load the compiled loop, or return None where there is none."""
    if os.environ.get("CTXRNN_KERNEL", "").lower() in ("off", "0", "none"):
        return None
    for path in _files():
        if not path.exists():
            continue
        try:
            found = ctypes.CDLL(str(path))
            version = found.kernel_version()
        except (OSError, AttributeError) as error:
            logger.warning("%s cannot be loaded: %s", path, error)
            continue
        if version != _VERSION:
            logger.warning("%s is of another version: install ctxrnn again", path)
            continue
        for name in ("forward", "backward"):
            for kind in ("float", "double"):
                getattr(found, f"{name}_{kind}").argtypes = [ctypes.POINTER(_Struct)]
        found.normals.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        return found
    return None


def available() -> bool:
    """Tell whether the compiled loop is there."""
    return library() is not None


class Noise(NamedTuple):
    """Key (see `_noise`), standard deviation per unit, number of the first step."""

    key: Tensor
    scale: Tensor
    first: int = 0


@dataclass(frozen=True)
class Setting:
    """What the loop needs beyond tensors that are differentiated.

    Attributes:
        form: "current" or "rate".
        nonlinearity: Name of phi.
        readout: "rates" or "potentials".
        first: First trial of each group of trials that share weights, and the number of trials.
        alpha: dt / tau, (unit,).
        noise: Noise, or None.
        keep: Whether the potentials are wanted.
    """

    form: str
    nonlinearity: str
    readout: str
    first: Tensor
    alpha: Tensor
    noise: Noise | None
    keep: bool = True


def stride(units: int) -> int:
    """Return the row length of rates in memory; 1 or 2 kB would fall on few sets of the cache."""
    padded = -(-units // 16) * 16
    return padded if padded < 128 else padded + 16


class Answer(NamedTuple):
    """Of every step: potentials or None, rates, outputs; (time, trial, ...)."""

    potentials: Tensor | None
    rates: Tensor
    outputs: Tensor


def run(
    setting: Setting,
    u: Tensor,
    *,
    input_weight: Tensor,
    drive: Tensor,
    weights: Tensor,
    start: Tensor,
    output_weight: Tensor,
    output_bias: Tensor,
    gain: Tensor | None = None,
    threshold: Tensor | None = None,
    extra: Tensor | None = None,
) -> Answer:
    """Run the network through time.

    Args:
        setting: See `Setting`.
        u: Stimulus, (time, trial, input).
        input_weight: B, (unit, input).
        drive: All current that is constant in time, (trial, unit).
        weights: W of each group, (group, unit, unit), `[post, pre]`.
        start: State before the first step, (trial, unit).
        output_weight: C, (output, unit).
        output_bias: d, (output,).
        gain: G, (trial, unit), or None.
        threshold: Theta c, (trial, unit), or None.
        extra: Current added at each step, (time, trial, unit), or None.
    """
    potentials, rates, outputs = _Loop.apply(
        setting, u, input_weight, drive, weights, start, output_weight, output_bias,
        gain, threshold, extra,
    )  # fmt: skip
    return Answer(potentials, rates, outputs)


def _call(name: str, counts: dict[str, int], arrays: dict[str, Tensor | None]) -> None:
    """Call the library; the arrays must be contiguous and outlive the call."""
    found = library()
    if found is None:
        raise RuntimeError("the compiled loop is not there: install ctxrnn again with a C compiler")
    dtype = arrays["u"].dtype  # type: ignore[union-attr]
    struct = _Struct(**counts)
    for key, value in arrays.items():
        if value is not None:
            setattr(struct, key, value.data_ptr())
    kind = "double" if dtype == torch.float64 else "float"
    if getattr(found, f"{name}_{kind}")(ctypes.byref(struct)):
        raise MemoryError("no memory for the time loop: use smaller batches")


def _counts(setting: Setting, u: Tensor, units: int, outputs: int, groups: int) -> dict[str, int]:
    steps, trials, inputs = u.shape
    return {
        "steps": steps, "trials": trials, "units": units, "inputs": inputs, "outputs": outputs,
        "groups": groups, "form": _FORMS.index(setting.form),
        "phi": _PHI.index(setting.nonlinearity),
        "potentials_out": int(setting.readout == "potentials" and setting.form == "current"),
    }  # fmt: skip


def _contiguous(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]


_INPUTS = (
    "u", "input_weight", "drive", "weights", "start", "output_weight", "output_bias", "gain",
    "threshold", "extra",
)  # fmt: skip


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, setting: Setting, *given: Tensor | None) -> Any:
        tensors = dict(zip(_INPUTS, _contiguous(given), strict=True))
        u, weights, out_weight = tensors["u"], tensors["weights"], tensors["output_weight"]
        if u is None or weights is None or out_weight is None:
            raise TypeError("the loop needs u, weights and output_weight")
        steps, trials, _ = u.shape
        groups, units, _ = weights.shape
        counts = _counts(setting, u, units, len(out_weight), groups)
        rates = u.new_empty(steps, trials, stride(units))
        training = any(ctx.needs_input_grad)
        potentials_read = setting.readout == "potentials" and setting.form == "current"
        needed = setting.form == "rate" or tensors["gain"] is not None or potentials_read
        wanted = setting.keep and setting.form == "current"
        kept = torch.empty_like(rates) if wanted or (training and needed) else None
        outputs = u.new_empty(steps, trials, len(out_weight))
        fixed = {"first": setting.first, "alpha": setting.alpha}
        arrays = {**tensors, **fixed, "rates": rates, "kept": kept, "out": outputs}
        if setting.noise is not None:
            arrays |= {"key": setting.noise.key, "noise": setting.noise.scale}
            counts["first_step"] = setting.noise.first
        _call("forward", counts, arrays)
        ctx.setting, ctx.counts = setting, counts
        ctx.save_for_backward(*tensors.values(), rates, kept)
        ctx.set_materialize_grads(False)
        potentials = kept[..., :units] if wanted and kept is not None else None
        return potentials, rates[..., :units], outputs

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_states: Tensor | None, grad_rates: Tensor | None, grad_out: Tensor | None
    ) -> Any:
        setting, counts = ctx.setting, ctx.counts
        *saved, rates, kept = ctx.saved_tensors
        tensors = dict(zip(_INPUTS, saved, strict=True))
        grads = _contiguous((grad_out, grad_rates, grad_states))
        arrays = {
            **tensors, "first": setting.first, "alpha": setting.alpha, "rates": rates,
            "kept": kept, "grad_out": grads[0], "grad_rates": grads[1], "grad_states": grads[2],
        }  # fmt: skip
        names = ["input_weight", "drive", "weights", "start", "gain", "threshold"]
        names += ["output_weight", "output_bias"] if grad_out is not None else []
        found = {
            name: torch.empty_like(tensors[name]) for name in names if tensors[name] is not None
        }
        needs = dict(zip(_INPUTS, ctx.needs_input_grad[1:], strict=True))
        current = None
        if needs["u"] or needs["extra"]:
            current = rates.new_empty(*rates.shape[:2], counts["units"])
        arrays |= {f"d_{name}": value for name, value in found.items()}
        _call("backward", counts, {**arrays, "d_current": current})
        if needs["u"]:
            found["u"] = current @ tensors["input_weight"]
        if needs["extra"]:
            found["extra"] = current  # type: ignore[assignment]
        return None, *(found.get(name) if needs[name] else None for name in _INPUTS)

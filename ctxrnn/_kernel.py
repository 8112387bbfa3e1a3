"""The compiled time loop: loading it, and its autograd function.

`_native/kernel.c` is compiled at installation, once per instruction set; where that failed, or
`CTXRNN_KERNEL=off` is set, `available()` is False and the loops in torch take its place.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

logger = logging.getLogger("ctxrnn")

FORMS = ("current", "rate")
_PHI = ("tanh", "relu", "sigmoid", "softplus")
_COUNTS = (
    "steps", "trials", "units", "inputs", "outputs", "groups", "parts", "form", "phi",
    "potentials_out", "first_step",
)  # fmt: skip
_ARRAYS = (
    "u", "input_weight", "drive", "weights", "first", "group", "until", "gain", "threshold",
    "start", "alpha", "key", "noise", "place", "extra", "output_weight", "output_bias",
    "rates", "kept", "out", "end",
    "grad_out", "grad_rates", "grad_states", "grad_end",
    "d_input_weight", "d_drive", "d_weights", "d_gain", "d_threshold", "d_start",
    "d_output_weight", "d_output_bias", "d_current", "classes", "wanted", "weight", "loss",
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
            fits = found.kernel_size() == ctypes.sizeof(_Struct) and _of_these_sources(found)
            if fits:
                _declare(found)
        except (OSError, AttributeError) as error:
            logger.warning("%s cannot be loaded: %s", path, error)
            continue
        if not fits:
            logger.warning(
                "%s was compiled from other sources and is left out: run `pip install` again", path
            )
            continue
        return found
    return None


def _of_these_sources(found: ctypes.CDLL) -> bool:
    """Tell whether a library was compiled from the sources beside it, where there are any."""
    folder = Path(__file__).parent / "_native"
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".c", ".h"))
    if not paths:
        return True
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).digest()
    found.kernel_sources.restype = ctypes.c_longlong
    return bool(found.kernel_sources() == int.from_bytes(digest[:7], "big"))


def _declare(found: ctypes.CDLL) -> None:
    """Declare the arguments of all functions."""
    found.normals.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    found.newton_steps.argtypes = [ctypes.c_void_p] * 6 + [ctypes.c_int64] * 4
    for kind in ("float", "double"):
        for name in ("forward", "backward", "gradient"):
            getattr(found, f"{name}_{kind}").argtypes = [ctypes.POINTER(_Struct)]
        for name in ("varying_forward", "varying_backward"):
            getattr(found, f"{name}_{kind}").argtypes = [ctypes.c_void_p]
        for name in ("cross_entropy", "squared_error"):
            loss = getattr(found, f"{name}_{kind}")
            loss.restype = ctypes.c_double
            loss.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 2 + [ctypes.c_void_p]


def available() -> bool:
    """Tell whether the compiled loop is there."""
    return library() is not None


class Noise(NamedTuple):
    """Noise of the loop.

    Attributes:
        key: See `_noise`.
        scale: Standard deviation of the noise current, (unit,).
        first: Number of the first step.
        place: Number of each trial in the noise, (trial,), or None for their order.
    """

    key: Tensor
    scale: Tensor
    first: int = 0
    place: Tensor | None = None


@dataclass(frozen=True)
class Setting:
    """What the loop needs beyond tensors that are differentiated.

    Attributes:
        form: "current" or "rate".
        nonlinearity: Name of phi.
        readout: "rates" or "potentials".
        first: First trial of each part, and the number of trials, (part + 1,). The trials of a
            part share weights and are run for equally long.
        group: Whose weights each part has, (part,).
        until: How many steps each part is run, (part,); None for all.
        alpha: dt / tau, (unit,).
        noise: Noise, or None.
        keep: Whether the potentials are wanted.
    """

    form: str
    nonlinearity: str
    readout: str
    first: Tensor
    group: Tensor
    until: Tensor | None
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


Tensors = dict[str, Tensor | None]
_INPUTS = (
    "u", "input_weight", "drive", "weights", "start", "output_weight", "output_bias", "gain",
    "threshold", "extra",
)  # fmt: skip
"""What the loop can be differentiated with respect to.

- u: stimulus, (time, trial, input);
- input_weight: B, (unit, input);
- drive: all current that is constant in time, (trial, unit);
- weights: W of each group, (group, unit, unit), `[post, pre]`;
- start: state before the first step, (trial, unit);
- output_weight, output_bias: C, (output, unit), and d, (output,);
- gain, threshold: G and Theta c, (trial, unit), or None;
- extra: current added at each step, (time, trial, unit), or None.
"""


def run(setting: Setting, tensors: Tensors) -> Answer:
    """Run the network through time; autograd knows its gradient.

    Args:
        setting: See `Setting`.
        tensors: By the names of `_INPUTS`.
    """
    given = (tensors.get(name) for name in _INPUTS)
    return Answer(*_Loop.apply(setting, *given))


@dataclass
class Memory:
    """What one run writes: rates, and potentials or currents, of `stride` numbers per trial.

    Attributes:
        rates: (time, trial, stride).
        kept: Likewise, or None: potentials; in the rate form, currents.
        outputs: (time, trial, output).
        end: The state after the last step, (trial, unit), or None where it is not wanted.
    """

    rates: Tensor
    kept: Tensor | None
    outputs: Tensor
    end: Tensor | None = None

    @classmethod
    def for_run(cls, setting: Setting, tensors: Tensors, training: bool) -> Memory:
        """Allocate what a run needs."""
        u, output_weight = tensors["u"], tensors["output_weight"]
        if u is None or output_weight is None:
            raise TypeError("the loop needs u and output_weight")
        steps, trials, _ = u.shape
        rates = u.new_empty(steps, trials, stride(output_weight.shape[1]))
        kept = torch.empty_like(rates) if keeps(setting, tensors, training) else None
        return cls(rates, kept, u.new_empty(steps, trials, len(output_weight)))


def keeps(setting: Setting, tensors: Tensors, training: bool) -> bool:
    """Tell whether potentials (in the rate form, currents) of all steps must be kept."""
    current = setting.form == "current"
    needed = not current or tensors.get("gain") is not None or setting.readout == "potentials"
    return (setting.keep and current) or (training and needed)


def forward(setting: Setting, tensors: Tensors, memory: Memory) -> None:
    """Run through time; all tensors contiguous."""
    noise = setting.noise
    arrays = {
        **tensors, **_parts(setting, tensors), "alpha": setting.alpha, "rates": memory.rates,
        "kept": memory.kept, "out": memory.outputs, "end": memory.end,
    }  # fmt: skip
    counts = _counts(setting, tensors)
    if noise is not None:
        arrays |= {"key": noise.key, "noise": noise.scale, "place": noise.place}
        counts["first_step"] = noise.first
    _call("forward", counts, arrays)


def backward(
    setting: Setting,
    tensors: Tensors,
    memory: Memory,
    grad_out: Tensor | None,
    grad_rates: Tensor | None = None,
    grad_states: Tensor | None = None,
    *,
    grad_end: Tensor | None = None,
    current: bool = False,
) -> Tensors:
    """Return the gradients by the names of `_INPUTS`; that of u and extra only with `current`.

    Args:
        setting: As for `forward`, likewise the following.
        tensors: See `forward`.
        memory: What `forward` wrote.
        grad_out: Gradient of the outputs, (time, trial, output), or None.
        grad_rates: Gradient of the rates, (time, trial, unit), or None.
        grad_states: Gradient of the potentials, likewise.
        grad_end: Gradient of the last state that comes from later steps, (trial, unit), or None.
        current: Whether the gradient of the current at each step is wanted.
    """
    arrays = {
        **tensors, **_parts(setting, tensors), "alpha": setting.alpha, "rates": memory.rates,
        "kept": memory.kept, "grad_out": grad_out, "grad_rates": grad_rates,
        "grad_states": grad_states, "grad_end": grad_end,
    }  # fmt: skip
    names = ["input_weight", "drive", "weights", "start", "gain", "threshold"]
    names += ["output_weight", "output_bias"] if grad_out is not None else []
    found: Tensors = {}
    for name in names:
        value = tensors.get(name)
        if value is not None:
            found[name] = torch.empty_like(value)
    arrays |= {f"d_{name}": value for name, value in found.items()}
    counts = _counts(setting, tensors)
    if current:
        arrays["d_current"] = memory.rates.new_empty(*memory.rates.shape[:2], counts["units"])
    _call("backward", counts, arrays)
    if current and arrays["d_current"] is not None:
        found["extra"] = arrays["d_current"]
        found["u"] = arrays["d_current"] @ tensors["input_weight"]  # type: ignore[operator]
    return found


def loss_and_gradients(
    setting: Setting,
    tensors: Tensors,
    memory: Memory,
    grad_out: Tensor,
    targets: Tensor,
    weight: Tensor,
    grad_end: Tensor | None = None,
) -> tuple[float, Tensors]:
    """Run through time and back in one call.

    Args:
        setting: As for `forward`, likewise the following.
        tensors: See `forward`.
        memory: See `forward`.
        grad_out: Written: gradient of the outputs, (time, trial, output).
        targets: See `loss`.
        weight: See `loss`.
        grad_end: See `backward`.

    Returns:
        The loss, and the gradients by the names of `_INPUTS`.
    """
    _check_loss(memory.outputs, targets, weight)
    total = torch.empty(1, dtype=torch.float64)
    classes = None if targets.is_floating_point() else targets
    wanted = targets if classes is None else None
    arrays: Tensors = {
        **tensors, **_parts(setting, tensors), "alpha": setting.alpha, "rates": memory.rates,
        "kept": memory.kept, "out": memory.outputs, "end": memory.end, "grad_out": grad_out,
        "grad_end": grad_end, "classes": classes, "wanted": wanted, "weight": weight,
        "loss": total,
    }  # fmt: skip
    counts = _counts(setting, tensors)
    noise = setting.noise
    if noise is not None:
        arrays |= {"key": noise.key, "noise": noise.scale, "place": noise.place}
        counts["first_step"] = noise.first
    found: Tensors = {}
    for name in _LEARNT:
        value = tensors.get(name)
        if value is not None:
            found[name] = arrays[f"d_{name}"] = torch.empty_like(value)
    _call("gradient", counts, arrays)
    return float(total), found


_LEARNT = (
    "input_weight", "drive", "weights", "start", "gain", "threshold", "output_weight",
    "output_bias",
)  # fmt: skip


def _parts(setting: Setting, tensors: Tensors) -> Tensors:
    """Return the arrays that tell which trials are run when, with whose weights."""
    until, u = setting.until, tensors["u"]
    if until is None:
        until = torch.full_like(setting.group, len(u) if u is not None else 0)
    return {"first": setting.first, "group": setting.group, "until": until}


def loss(outputs: Tensor, targets: Tensor, weight: Tensor, grad: Tensor) -> float:
    """Return sum(weight * error) and write its gradient with respect to the outputs.

    The loss alone, to be tested; training takes `loss_and_gradients`.

    Args:
        outputs: (time, trial, output).
        targets: Classes, (time, trial) int64, for the cross-entropy; wanted outputs,
            (time, trial, output), for the mean squared error.
        weight: (time, trial).
        grad: Where the gradient goes, like `outputs`.
    """
    found = library()
    if found is None:
        raise RuntimeError("the compiled loop is not there: install ctxrnn again with a C compiler")
    _check_loss(outputs, targets, weight)
    name = "squared_error" if targets.is_floating_point() else "cross_entropy"
    kind = "double" if outputs.dtype == torch.float64 else "float"
    pointers = (outputs.data_ptr(), targets.data_ptr(), weight.data_ptr())
    width = outputs.shape[-1]
    total: float = getattr(found, f"{name}_{kind}")(
        *pointers, weight.numel(), width, grad.data_ptr()
    )
    return total


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


def _counts(setting: Setting, tensors: Tensors) -> dict[str, int]:
    u, weights, output_weight = (tensors[name] for name in ("u", "weights", "output_weight"))
    if u is None or weights is None or output_weight is None:
        raise TypeError("the loop needs u, weights and output_weight")
    steps, trials, inputs = u.shape
    return {
        "steps": steps, "trials": trials, "units": weights.shape[-1], "inputs": inputs,
        "outputs": len(output_weight), "groups": len(weights), "parts": len(setting.group),
        "form": FORMS.index(setting.form), "phi": _PHI.index(setting.nonlinearity),
        "potentials_out": int(setting.readout == "potentials" and setting.form == "current"),
    }  # fmt: skip


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, setting: Setting, *given: Tensor | None) -> Any:
        tensors = dict(zip(_INPUTS, contiguous(given), strict=True))
        memory = Memory.for_run(setting, tensors, any(ctx.needs_input_grad))
        forward(setting, tensors, memory)
        ctx.setting = setting
        ctx.save_for_backward(*tensors.values(), memory.rates, memory.kept)
        ctx.set_materialize_grads(False)
        rates, kept = memory.rates, memory.kept
        units = tensors["weights"].shape[-1]  # type: ignore[union-attr]
        wanted = setting.keep and setting.form == "current" and kept is not None
        potentials = kept[..., :units] if wanted and kept is not None else None
        return potentials, rates[..., :units], memory.outputs

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_states: Tensor | None, grad_rates: Tensor | None, grad_out: Tensor | None
    ) -> Any:
        *saved, rates, kept = ctx.saved_tensors
        tensors = dict(zip(_INPUTS, saved, strict=True))
        needs = dict(zip(_INPUTS, ctx.needs_input_grad[1:], strict=True))
        found = backward(
            ctx.setting,
            tensors,
            Memory(rates, kept, rates),
            *contiguous((grad_out, grad_rates, grad_states)),
            current=needs["u"] or needs["extra"],
        )
        return None, *(found.get(name) if needs[name] else None for name in _INPUTS)


def contiguous(tensors: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Detach the tensors and lay them out as the loop reads them."""
    return [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]


def _check_loss(outputs: Tensor, targets: Tensor, weight: Tensor) -> None:
    """Raise TypeError for arrays that the loss would misread."""
    classes = targets.dtype == torch.int64
    shape = outputs.shape[:2] if classes else outputs.shape
    fits = (classes or targets.dtype == outputs.dtype) and targets.shape == shape
    if not (fits and weight.dtype == outputs.dtype and weight.shape == outputs.shape[:2]):
        raise TypeError(
            f"targets {tuple(targets.shape)} {targets.dtype} and weights {tuple(weight.shape)} "
            f"{weight.dtype} do not fit outputs {tuple(outputs.shape)} {outputs.dtype}"
        )

"""Local layers: windows of 2 x 2 positions at one orientation, with their gradients; and Adam.

Compiled from `_native/hierarchy.c` at installation, for single precision and four units;
elsewhere, or with `CTXRNN_KERNEL=off`, the same in torch. Axes: network, image, unit of the
position, row, column, orientation. Weights that networks share have a first axis of length 1.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger("ctxrnn")

WINDOW = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Row and column of each place of a window, relative to its first."""
_UNITS = 4
_FIELDS = ("networks", "images", "below", "rows", "line", "step", "rectify")


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in _FIELDS]


@functools.cache
def library() -> ctypes.CDLL | None:
    """Load the compiled layers, or return None where there are none."""
    if os.environ.get("CTXRNN_KERNEL", "").lower() in ("off", "0", "none"):
        return None
    capability = torch.backends.cpu.get_cpu_capability().upper()
    kinds = {"AVX512": ["avx512", "avx2", "plain"], "AVX2": ["avx2", "plain"]}
    for kind in kinds.get(capability, ["plain"]):
        for suffix in (*EXTENSION_SUFFIXES, ".so"):
            path = Path(__file__).parent / f"_local_{kind}{suffix}"
            if not path.exists():
                continue
            try:
                found = ctypes.CDLL(str(path))
                fits = _of_this_source(found)
            except (OSError, AttributeError) as error:
                logger.warning("%s cannot be loaded: %s", path, error)
                continue
            if fits:
                return found
            logger.warning(
                "%s was compiled from another source and is left out: run `pip install` again", path
            )
    return None


def compiled() -> bool:
    """Tell whether the compiled layers are there."""
    return library() is not None


def _of_this_source(found: ctypes.CDLL) -> bool:
    folder = Path(__file__).parent / "_native"
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".c", ".h"))
    if not paths:
        return True
    found.local_source.restype = ctypes.c_int64
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).digest()
    return bool(found.local_source() == int.from_bytes(digest[:7], "big"))


def compiled_for(units: int, below: int, *tensors: Tensor) -> ctypes.CDLL | None:
    """Return the compiled layers if they cover these tensors."""
    if units != _UNITS or below not in (1, _UNITS):
        return None
    for tensor in tensors:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            return None
    return library()


def _shape(count: tuple[int, int], weights: int, below: int, size: tuple[int, ...]) -> _Shape:
    """Describe a layer; networks that share weights are as many images of one network."""
    networks, images = count
    rows, columns, orientations = size
    if weights == 1:
        networks, images = 1, networks * images
    elif weights != networks:
        raise ValueError(f"weights must be of one network or of {networks}: got {weights}")
    line = columns * orientations
    return _Shape(networks, images, below, rows, line, orientations, 0)


def _contiguous(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors, each network's part contiguous, as the compiled layers want them."""
    return [tensor.contiguous() for tensor in tensors]


def _at(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def local(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Return relu(W h + b).

    Args:
        h: (network, image, unit below, row, column, orientation).
        w: (network or 1, unit, place, unit below, row, column, orientation).
        b: (network or 1, unit, row, column, orientation).
    """
    rows, columns = w.shape[-3:-1]
    out = h.new_empty(*h.shape[:2], *b.shape[1:])
    compiled = compiled_for(w.shape[1], h.shape[2], h, w, b)
    if compiled is not None:
        h, w, b = _contiguous(h, w, b)
        shape = _shape((h.shape[0], h.shape[1]), len(w), h.shape[2], w.shape[-3:])
        shape.rectify = 1
        compiled.local_forward(ctypes.byref(shape), *_at(h, w, b, out))
        return out
    out.copy_(b[:, None])
    for place, (dy, dx) in enumerate(WINDOW):
        seen = h[..., dy : dy + rows, dx : dx + columns, :]
        for unit in range(h.shape[2]):
            out.addcmul_(w[:, None, :, place, unit], seen[:, :, None, unit])
    return out.clamp_min_(0)


def local_gradient(g: Tensor, w: Tensor) -> Tensor:
    """Return the gradient with respect to h, given that with respect to W h + b."""
    rows, columns = w.shape[-3:-1]
    shape = (w.shape[3], rows + 1, columns + 1, w.shape[-1])
    found = g.new_zeros(*g.shape[:2], *shape)
    compiled = compiled_for(w.shape[1], w.shape[3], g, w)
    if compiled is not None:
        g, w = _contiguous(g, w)
        layer = _shape((g.shape[0], g.shape[1]), len(w), w.shape[3], w.shape[-3:])
        compiled.local_backward(ctypes.byref(layer), *_at(g, w, found))
        return found
    for place, (dy, dx) in enumerate(WINDOW):
        seen = found[..., dy : dy + rows, dx : dx + columns, :]
        for unit in range(g.shape[2]):
            seen.addcmul_(w[:, None, unit, place], g[:, :, None, unit])
    return found


def local_weight_gradient(g: Tensor, h: Tensor) -> Tensor:
    """Return the gradient with respect to W, summed over images, each network's own.

    Args:
        g: Gradient with respect to W h + b, (network, image, unit, row, column, orientation).
        h: (network, image, unit below, row + 1, column + 1, orientation).
    """
    rows, columns = g.shape[-3:-1]
    into = g.new_empty(len(g), g.shape[2], len(WINDOW), h.shape[2], *g.shape[-3:])
    compiled = compiled_for(g.shape[2], h.shape[2], g, h)
    if compiled is not None:
        g, h = _contiguous(g, h)
        shape = _shape((g.shape[0], g.shape[1]), len(g), h.shape[2], g.shape[-3:])
        compiled.local_weights(ctypes.byref(shape), *_at(g, h, into))
        return into
    for place, (dy, dx) in enumerate(WINDOW):
        seen = h[..., dy : dy + rows, dx : dx + columns, :]
        for unit in range(h.shape[2]):
            torch.sum(g * seen[:, :, None, unit], dim=1, out=into[:, :, place, unit])
    return into


def adam_step(
    values: Tensor, mean: Tensor, square: Tensor, gradient: Tensor, count: int, rate: float
) -> None:
    """Take step number `count` of Adam (Kingma and Ba 2015) in place; all tensors contiguous."""
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    rate, root = rate / (1 - beta1**count), (1 - beta2**count) ** -0.5
    compiled = compiled_for(_UNITS, 1, values, gradient)
    if compiled is not None:
        how = (ctypes.c_float * 5)(beta1, beta2, eps, rate, root)
        places = _at(values, mean, square, gradient)
        compiled.adam_step(*places, ctypes.c_int64(values.numel()), how)
        return
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    values.addcdiv_(mean, square.sqrt().mul_(root).add_(eps), value=-rate)

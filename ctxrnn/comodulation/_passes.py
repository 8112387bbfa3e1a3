"""Whole passes of the hierarchical network in compiled code, for networks that share weights.

Each function returns None where the compiled code does not cover the tensors; `_hierarchy`,
`_hierarchy_noise` and `_hierarchy_couplings` then compute the same in torch.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._local import compiled_for

if TYPE_CHECKING:
    from ._hierarchy import Weights

_MOST_CLASSES = 64


class _Net(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("positions", "orientations", "classes")] + [
        (name, ctypes.c_void_p) for name in ("w1", "b1", "w2", "b2", "out", "bias")
    ]


def _net(weights: Weights, *tensors: Tensor) -> tuple[ctypes.CDLL, _Net] | None:
    """Return the library and the network, if the weights are one network's and all is covered."""
    units, below = weights.w2.shape[1], weights.w2.shape[3]
    if len(weights.out) != 1 or units != below or weights.out.shape[1] > _MOST_CLASSES:
        return None
    found = compiled_for(units, below, *weights, *tensors)
    if found is None or not all(part.is_contiguous() for part in weights):
        return None
    positions, orientations = weights.b1.shape[-2] + 1, weights.b1.shape[-1]
    places = [part.data_ptr() for part in weights]
    return found, _Net(positions, orientations, weights.out.shape[1], *places)


def _at(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _counts(*numbers: int) -> list[ctypes.c_int64]:
    return [ctypes.c_int64(number) for number in numbers]


def _run(function: ctypes._NamedFuncPointer, *arguments: object) -> None:
    if function(*arguments):
        raise MemoryError("no memory for the activity of four images")


def read(
    weights: Weights, drive: Tensor, factor: Tensor | None, gain: Tensor | None
) -> Tensor | None:
    """Return log probabilities of one network, (image, class).

    Args:
        weights: Of one network.
        drive: (image, row, column, orientation).
        factor: What every drive is multiplied by, (row, column, orientation).
        gain: g, (unit,).
    """
    given = [part for part in (factor, gain) if part is not None]
    net = _net(weights, drive, *given)
    if net is None:
        return None
    drive = drive.contiguous()
    factor, gain = (None if part is None else part.contiguous() for part in (factor, gain))
    found = drive.new_empty(len(drive), weights.out.shape[1])
    pointers = _at(drive), _at(factor), _at(gain), _at(found)
    _run(net[0].hierarchy_read, ctypes.byref(net[1]), *_counts(len(drive)), *pointers)
    return found


def descend(
    weights: Weights, drive: Tensor, labels: Tensor, factor: Tensor, gain: Tensor
) -> Tensor | None:
    """Return the gradient of each network's mean loss with respect to c, where factor = exp(c).

    Args:
        weights: Shared by the networks.
        drive: (network, image, row, column, orientation).
        labels: (network, image).
        factor: (network, row, column, orientation).
        gain: g, (network, unit).
    """
    net = _net(weights, drive, factor, gain)
    if net is None or labels.dtype != torch.int64:
        return None
    drive, labels, factor, gain = (part.contiguous() for part in (drive, labels, factor, gain))
    found = torch.empty_like(factor)
    pointers = (_at(part) for part in (drive, labels, factor, gain, found))
    numbers = _counts(drive.shape[0], drive.shape[1])
    _run(net[0].hierarchy_descend, ctypes.byref(net[1]), *numbers, *pointers)
    return found


def covariance(weights: Weights, drive: Tensor, shared: Tensor, share: Tensor) -> Tensor | None:
    """Return the sum of share x h over images and nodes, (network, unit).

    Args:
        weights: Shared by the networks.
        drive: (network, image, row, column, orientation).
        shared: What a drive is multiplied by, (network, node, row, column, orientation).
        share: (network, node).
    """
    net = _net(weights, drive, shared, share)
    if net is None:
        return None
    drive, shared, share = (part.contiguous() for part in (drive, shared, share))
    found = drive.new_empty(len(drive), weights.out.shape[2])
    numbers = _counts(drive.shape[0], drive.shape[1], shared.shape[1])
    pointers = (_at(part) for part in (drive, shared, share, found))
    _run(net[0].hierarchy_covariance, ctypes.byref(net[1]), *numbers, *pointers)
    return found

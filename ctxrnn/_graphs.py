"""CUDA graphs: a loop of small operations is recorded once and then started as a whole.

Off by default; `CTXRNN_CUDA_GRAPHS=1` switches them on. On other devices they do nothing.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

VARIABLE = "CTXRNN_CUDA_GRAPHS"
KEPT = 16
"""Most recordings that are kept; each holds the memory of its loop."""

Loop = Callable[..., tuple[Tensor, ...]]


@dataclass
class _Recording:
    graph: Any
    inputs: list[Tensor]
    outputs: tuple[Tensor, ...]


_recordings: OrderedDict[Hashable, _Recording] = OrderedDict()


def wanted(device: torch.device) -> bool:
    """Tell whether loops on a device are to be recorded."""
    return device.type == "cuda" and os.environ.get(VARIABLE, "0").lower() in ("1", "on", "true")


def run(loop: Loop, tensors: Sequence[Tensor], key: Hashable) -> tuple[Tensor, ...]:
    """Return `loop(*tensors)`, from a recording where that is wanted.

    Args:
        loop: Does the same operations at every call with the same key and shapes, draws no random
            numbers, and does not wait for the device.
        tensors: What it works on.
        key: What it depends on beside the tensors' shapes and types.
    """
    if not wanted(tensors[0].device):
        return loop(*tensors)
    whole = (key, tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors))
    recording = _recordings.get(whole)
    if recording is None:
        recording = _recordings[whole] = _record(loop, tensors)
        while len(_recordings) > KEPT:
            _recordings.popitem(last=False)
    _recordings.move_to_end(whole)
    for mine, given in zip(recording.inputs, tensors, strict=True):
        mine.copy_(given)
    recording.graph.replay()
    # The next replay writes over the recording's own memory.
    return tuple(output.clone() for output in recording.outputs)


def _record(loop: Loop, tensors: Sequence[Tensor]) -> _Recording:
    inputs = [tensor.detach().clone() for tensor in tensors]
    # Libraries set themselves up at their first calls, which must not be recorded.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            loop(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = loop(*inputs)
    return _Recording(graph, inputs, outputs)

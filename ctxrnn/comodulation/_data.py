"""Images or features with labels, read a batch at a time, in an order that a seed gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ctxrnn._checks import make_generator


class Source(Protocol):
    """Where images come from, e.g. an `ImageSet`."""

    def read(self, rows: Any) -> Tensor:
        """Return images, (row, channel, height, width), bytes or numbers in [0, 1]."""


@dataclass(frozen=True)
class Examples:
    """Inputs with labels, and a context for each where the head needs one.

    Attributes:
        inputs: Images, or features of the modulated layer: an array (example, channel, height,
            width), or a `Source` of which `rows` are used.
        labels: Attributes, (example, output), 0 or 1; or classes, (example,).
        context: (example,), or None.
        rows: Which rows of a source the examples are, (example,); None for arrays.
    """

    inputs: Any
    labels: Tensor
    context: Tensor | None = None
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, which: Tensor) -> Tensor:
        """Return inputs of some examples."""
        if self.rows is not None:
            return torch.as_tensor(self.inputs.read(self.rows[which.numpy()]))
        if isinstance(self.inputs, Tensor):
            return self.inputs[which.to(self.inputs.device)]
        return torch.from_numpy(np.ascontiguousarray(self.inputs[which.numpy()]))

    def take(self, which: Sequence[int] | Tensor) -> Examples:
        """Return some of the examples."""
        chosen = torch.as_tensor(which)
        context = None if self.context is None else self.context[chosen]
        if self.rows is not None:
            return Examples(self.inputs, self.labels[chosen], context, self.rows[chosen.numpy()])
        return Examples(self.read(chosen), self.labels[chosen], context)


@dataclass(frozen=True)
class Batch:
    """A batch on its device; `inputs` are float unless they are bytes of images."""

    inputs: Tensor
    labels: Tensor
    context: Tensor | None


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order of examples in an epoch: the same for everything trained with this seed."""
    return torch.randperm(count, generator=make_generator(seed, "order", epoch))


class _Batches(torch.utils.data.Dataset[Tensor]):
    """Inputs of whole batches, for the workers of a loader."""

    def __init__(self, examples: Examples, batches: Sequence[Tensor]) -> None:
        self.examples, self.batches = examples, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Tensor:
        return self.examples.read(self.batches[number])


def batches(
    examples: Examples,
    order: Tensor,
    size: int,
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
    first: int = 0,
) -> Iterator[tuple[int, Batch]]:
    """Yield numbered batches of some order of examples.

    Args:
        examples: The examples.
        order: Their numbers, in order.
        size: Examples per batch; the last one may be smaller.
        device: Where batches are put.
        workers: Processes that read ahead; for images that are decoded from files.
        first: Number of the first batch that is wanted.
    """
    parts = list(order.split(size))[first:]
    cuda = torch.device(device).type == "cuda"
    inputs: Iterator[Tensor]
    if workers:
        loader = torch.utils.data.DataLoader(
            _Batches(examples, parts), batch_size=None, num_workers=workers, pin_memory=cuda
        )
        inputs = iter(loader)
    else:
        inputs = (examples.read(part) for part in parts)
    for number, (part, x) in enumerate(zip(parts, inputs, strict=True), first):
        x = x.to(device, non_blocking=True)
        context = None if examples.context is None else examples.context[part].to(device)
        yield (
            number,
            Batch(
                x if x.dtype == torch.uint8 else x.float(),
                examples.labels[part].to(device),
                context,
            ),
        )

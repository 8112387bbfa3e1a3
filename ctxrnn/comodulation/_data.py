"""Images or features with labels, read a batch at a time, in an order that a seed gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ctxrnn._checks import make_generator


class Source(Protocol):
    """Where images come from, e.g. an `ImageSet`; what it reads are images, never features.

    One may have a `fingerprint`, a text that tells its data from others.
    """

    def read(self, rows: Any) -> Tensor:
        """Return images, (row, channel, height, width), bytes or numbers in [0, 1]."""


@dataclass(frozen=True)
class Examples:
    """Inputs with labels, and a context for each where the head needs one.

    Attributes:
        inputs: Images (bytes, or numbers in [0, 1]), or features of the modulated layer
            (`Encoder.below`): an array (example, channel, height, width), or a `Source` of images
            of which `rows` are used.
        labels: Attributes, (example, output), 0 or 1; or classes, (example,).
        context: (example,), or None.
        rows: Which rows of a source the examples are, (example,); None for arrays.
        images: Whether inputs are images. None tells by the inputs: those of a source, bytes, and
            numbers with as many channels as the encoder takes are images; numbers with as many as
            the modulated layer has are features.

    Raises:
        ValueError: If there are not as many labels, contexts or rows as inputs.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import Examples
        >>> from ctxrnn.tasks import image_set
        >>> digits = image_set("digits")
        >>> rows = digits.rows("train")
        >>> train = Examples(digits, torch.tensor(digits.labels[rows]), rows=rows)
        >>> len(train), train.read(torch.arange(16)).shape
        (1077, torch.Size([16, 1, 8, 8]))
    """

    inputs: Any
    labels: Tensor
    context: Tensor | None = None
    rows: np.ndarray | None = None
    images: bool | None = None

    def __post_init__(self) -> None:
        if self.rows is None and not hasattr(self.inputs, "__len__"):
            raise ValueError(
                f"rows must say which rows of a {type(self.inputs).__name__} the examples are: got "
                "None"
            )
        if self.rows is not None and self.images is None:
            object.__setattr__(self, "images", True)
        count = len(self.inputs if self.rows is None else self.rows)
        for name, values in (("labels", self.labels), ("context", self.context)):
            if values is not None and len(values) != count:
                raise ValueError(
                    f"{name} must be one for each of {count} inputs: got {len(values)}"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, which: Tensor) -> Tensor:
        """Return inputs of some examples, (example, channel, height, width), in their order.

        Args:
            which: Numbers of the examples, (example,) int64.
        """
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
            rows = self.rows[chosen.numpy()]
            return replace(self, labels=self.labels[chosen], context=context, rows=rows)
        return replace(self, inputs=self.read(chosen), labels=self.labels[chosen], context=context)


@dataclass(frozen=True)
class Batch:
    """A batch on its device; `inputs` are float unless they are bytes, `images` is as given."""

    inputs: Tensor
    labels: Tensor
    context: Tensor | None
    images: bool | None = None


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
                examples.images,
            ),
        )

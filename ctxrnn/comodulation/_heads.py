"""How outputs and contexts of a network belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrnn._checks import check_count


@dataclass(frozen=True)
class Head:
    """How outputs and contexts belong together.

    Attributes:
        outputs: O.
        contexts: K.
        row: Context whose activity each output reads, (output,), for outputs that are attributes;
            empty where an image has one context and all outputs read it.
        allowed: Outputs that are possible in each context, a tuple for each; empty for all.

    Raises:
        ValueError: If `row` or `allowed` do not fit the numbers of outputs and contexts.

    Example:
        >>> from ctxrnn.comodulation import Head
        >>> head = Head.attributes(5, groups=[(0, 1), (2, 3, 4)])
        >>> head.contexts, head.row  # the context that each attribute is read in
        (2, (0, 0, 1, 1, 1))
        >>> Head.classes(5, groups=[(0, 1), (2, 3, 4)]).allowed  # classes of each superclass
        ((0, 1), (2, 3, 4))
    """

    outputs: int
    contexts: int = 1
    row: tuple[int, ...] = ()
    allowed: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        check_count("outputs", self.outputs)
        check_count("contexts", self.contexts)
        if self.row and (
            len(self.row) != self.outputs or not set(self.row) <= set(range(self.contexts))
        ):
            raise ValueError(
                f"row must name one of {self.contexts} contexts for every output, of "
                f"{self.outputs}: got {self.row}"
            )
        if self.allowed and len(self.allowed) != self.contexts:
            raise ValueError(
                f"allowed must list the outputs of each of {self.contexts} contexts: got "
                f"{len(self.allowed)}"
            )

    @classmethod
    def attributes(cls, count: int, groups: Sequence[Sequence[int]] = ()) -> Head:
        """Attributes, each with a context of its own, or one context for each group of them."""
        if not groups:
            return cls(count, count, tuple(range(count)))
        row = {attribute: k for k, members in enumerate(groups) for attribute in members}
        if sorted(a for members in groups for a in members) != list(range(count)):
            raise ValueError(f"groups must hold each of {count} attributes once: got {groups}")
        return cls(count, len(groups), tuple(row[a] for a in range(count)))

    @classmethod
    def classes(cls, count: int, groups: Sequence[Sequence[int]] = ()) -> Head:
        """Classes without a context, or with the superclass as context and its classes allowed."""
        if not groups:
            return cls(count)
        if sorted(c for group in groups for c in group) != list(range(count)):
            raise ValueError(f"groups must hold each of {count} classes once: got {groups}")
        return cls(count, len(groups), (), tuple(tuple(group) for group in groups))

    def check(self, name: str, labels: Tensor, context: Tensor | None) -> None:
        """Raise ValueError unless labels and contexts of some examples fit."""
        if self.row:
            wanted = f"{self.outputs} attributes for each example, 0 or 1"
            fits = labels.ndim == 2 and labels.shape[1] == self.outputs
            top = 1
        else:
            wanted = f"one class for each example, below {self.outputs}"
            fits = labels.ndim == 1 and not labels.is_floating_point()
            top = self.outputs - 1
        if not fits:
            raise ValueError(
                f"labels of {name} must be {wanted}: got shape {tuple(labels.shape)} of "
                f"{str(labels.dtype).removeprefix('torch.')}"
            )
        if len(labels) and not bool(((labels >= 0) & (labels <= top)).all()):
            raise ValueError(
                f"labels of {name} must be {wanted}: got {float(labels.min()):g} to "
                f"{float(labels.max()):g}"
            )
        if self.per_image:
            self._check_contexts(name, labels, context)

    def _check_contexts(self, name: str, labels: Tensor, context: Tensor | None) -> None:
        if context is None:
            raise ValueError(f"this head needs the context of each image of {name}: got None")
        if not bool(((context >= 0) & (context < self.contexts)).all()):
            raise ValueError(
                f"contexts of {name} must lie in 0 to {self.contexts - 1}: got "
                f"{int(context.min())} to {int(context.max())}"
            )
        for k, members in enumerate(self.allowed):
            mine = labels[context == k]
            wrong = mine[~torch.isin(mine, torch.tensor(members, device=mine.device))]
            if len(wrong):
                raise ValueError(
                    f"labels of {name} must be possible in their context: {len(wrong)} examples of "
                    f"context {k} have another class, such as {int(wrong[0])}; allowed are "
                    f"{', '.join(map(str, members))}"
                )

    @property
    def per_image(self) -> bool:
        """Whether an image has one context, which must be given."""
        return not self.row and self.contexts > 1

"""What turns the current input into a context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxrnn._checks import check_count, unknown_name
from ctxrnn._modulation import Seed, normal, resolve_seed

Squash = Literal["softmax", "sigmoid", "tanh", "linear"]

SQUASHES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda values: functional.softmax(values, dim=-1),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "linear": lambda values: values,
}
"""psi by name. All but "linear" are bounded."""


class ContextEncoder(nn.Module):
    """A context that is inferred from the current input and, if wanted, the state.

        c_t = psi(A_c u_t + a_c [+ A_h r_{t-1}])

    With a hidden layer u_t is first replaced by tanh(A_1 u_t + a_1).

    Args:
        inputs: I, size of the input.
        contexts: K.
        squash: psi: "softmax" (contexts compete), "sigmoid", "tanh" or "linear". With "linear"
            the context is unbounded and W(c) may explode.
        hidden: Units of the hidden layer, None for none.
        units: N, size of the state that the context sees besides; None for none.
        seed: Seed or generator of the initial values.

    Attributes:
        A_c: (context, input) or, with a hidden layer, (context, hidden).
        a_c: (context,), 0 at first.
        A_h: (context, unit), or None.

    Example:
        >>> import torch
        >>> from ctxrnn import ContextEncoder
        >>> encoder = ContextEncoder(inputs=10, contexts=4)
        >>> context = encoder(torch.randn(100, 5, 10))  # 100 steps of 5 sequences
        >>> context.shape
        torch.Size([100, 5, 4])
        >>> torch.allclose(context.sum(-1), torch.ones(100, 5))  # softmax: contexts compete
        True
    """

    A_h: Tensor | None

    def __init__(
        self,
        inputs: int,
        contexts: int,
        *,
        squash: Squash = "softmax",
        hidden: int | None = None,
        units: int | None = None,
        seed: Seed | None = None,
    ) -> None:
        super().__init__()
        check_count("inputs", inputs)
        check_count("contexts", contexts)
        if squash not in SQUASHES:
            raise unknown_name("squash", squash, SQUASHES)
        self.inputs, self.contexts, self.squash = inputs, contexts, squash
        self.hidden, self.units = hidden, units
        base = resolve_seed(seed)
        seen = inputs
        if hidden is not None:
            check_count("hidden", hidden)
            self.A_1 = normal((hidden, inputs), inputs**-0.5, base, "A_1")
            self.a_1 = nn.Parameter(torch.zeros(hidden))
            seen = hidden
        self.A_c = normal((contexts, seen), seen**-0.5, base, "A_c")
        self.a_c = nn.Parameter(torch.zeros(contexts))
        if units is None:
            self.register_parameter("A_h", None)
        else:
            check_count("units", units)
            self.A_h = normal((contexts, units), units**-0.5, base, "A_h")

    @property
    def bounded(self) -> bool:
        """Whether the context is bounded."""
        return self.squash != "linear"

    def drive(self, inputs: Tensor) -> Tensor:
        """Return A_c u + a_c, (..., context): what psi is applied to, without the state."""
        if self.hidden is not None:
            inputs = torch.tanh(functional.linear(inputs, self.A_1, self.a_1))
        return functional.linear(inputs, self.A_c, self.a_c)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """Return the context, (..., context).

        Args:
            inputs: u_t, (..., input).
            state: r_{t-1}, (..., unit), where the encoder sees it.
        """
        return self.squashed(self.drive(inputs), state)

    def squashed(self, drive: Tensor, state: Tensor | None = None) -> Tensor:
        """Return psi(drive [+ A_h r]), (..., context)."""
        if self.A_h is not None:
            if state is None:
                raise ValueError("state must be given: this encoder sees the state, too")
            drive = drive + functional.linear(state, self.A_h)
        return SQUASHES[self.squash](drive)

    def extra_repr(self) -> str:
        """Say the sizes."""
        more = f", hidden={self.hidden}" if self.hidden else ""
        more += f", units={self.units}" if self.units else ""
        return f"{self.inputs}, {self.contexts}, squash={self.squash!r}{more}"

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments (without the seed)."""
        names = ("inputs", "contexts", "squash", "hidden", "units")
        return {name: getattr(self, name) for name in names}

"""What a context pathway is: it takes a circuit and a context and returns the modulated circuit."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ctxrnn._checks import check_count, check_integer, make_generator
from ctxrnn._circuit import Circuit, Recurrence
from ctxrnn._context import Contexts

Seed = int | torch.Generator


class AbstractModulation(nn.Module, ABC):
    """A context pathway.

    A new one states its options in `config`, holds its parameters, and implements `modulate`.

    Attributes:
        pathway: Which of the two context signals it sees, "excitability" or "synaptic".
        replaces_weight: Whether it brings a recurrent matrix of its own in place of the network's.
        units: N.
        contexts: K.

    Example:
        >>> from dataclasses import replace
        >>> import torch
        >>> from ctxrnn import CTRNN, AbstractModulation
        >>> class Silence(AbstractModulation):
        ...     pathway = "excitability"
        ...     def modulate(self, circuit, context):
        ...         gain = 1 - context.sum(-1, keepdim=True)
        ...         return replace(circuit, gain=gain.expand(-1, self.units))
        ...     def config(self):
        ...         return {"units": self.units, "contexts": self.contexts}
        >>> network = CTRNN(inputs=3, units=8, outputs=1, modulation=Silence(8, contexts=1))
        >>> run = network(torch.ones(2, 50, 3), torch.tensor([[0.0], [1.0]]))
        >>> run.rates.abs().amax((1, 2)) > 0  # trials: out of this context, in it
        tensor([ True, False])
    """

    pathway: ClassVar[Literal["excitability", "synaptic"]]
    replaces_weight: bool = False

    def __init__(self, units: int, contexts: int) -> None:
        super().__init__()
        check_count("units", units)
        check_count("contexts", contexts)
        if getattr(self, "pathway", None) not in ("excitability", "synaptic"):
            raise TypeError(
                f"{type(self).__name__} must say which context it sees, as a class attribute: "
                'pathway = "excitability" or "synaptic"'
            )
        self.units = units
        self.contexts = contexts

    def forward(self, circuit: Circuit, context: Tensor | Contexts) -> Circuit:
        """Modulate a circuit.

        Args:
            circuit: Effective parameters so far.
            context: c, (trial, context), or one for each pathway.

        Raises:
            ValueError: If the context is of another shape.
        """
        seen = getattr(Contexts.of(context), self.pathway)
        if seen.ndim != 2:
            raise ValueError(
                f"context must have shape (trial, context={self.contexts}): got {tuple(seen.shape)}"
            )
        if seen.shape[-1] != self.contexts:
            raise ValueError(
                f"context must have {self.contexts} entries in its last axis: "
                f"got shape {tuple(seen.shape)}"
            )
        found = self.modulate(circuit, seen)
        return _checked(found, len(seen), self.units, type(self).__name__, circuit)

    @abstractmethod
    def modulate(self, circuit: Circuit, context: Tensor) -> Circuit:
        """Return the circuit in this context, (trial, context).

        Trials of one context may be computed together: then each row is a context that some of
        them share, so that what is returned must follow from the row alone, without random
        numbers of its own.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments (without the seed) as JSON-able values."""


def _checked(found: Any, rows: int, units: int, name: str, before: Circuit) -> Circuit:
    """Return what a pathway made, after checking it: loops trust shapes and types from here on.

    One value for all units of a trial is spread over them.
    """
    if not isinstance(found, Circuit):
        raise TypeError(f"modulate of {name} must return a Circuit: got {type(found).__name__}")
    if not isinstance(found.recurrent, Recurrence) and not (
        found.recurrent is None and before.recurrent is None
    ):
        raise TypeError(
            f"modulate of {name} must return a circuit whose recurrent is a ctxrnn.Recurrence: got "
            f"{type(found.recurrent).__name__}"
        )
    if found.input_weight.shape != before.input_weight.shape:
        raise ValueError(
            f"input_weight of {name} must keep its shape (unit, input) = "
            f"{tuple(before.input_weight.shape)}, one for all trials: got "
            f"{tuple(found.input_weight.shape)}"
        )
    dtype = before.input_weight.dtype
    changes: dict[str, Any] = {}
    for part in found.by_trial:
        value = getattr(found, part)
        if value is None or value is getattr(before, part):
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{part} of {name} must be a tensor: got {type(value).__name__}")
        shape = tuple(value.shape)
        if len(shape) > 2 or (shape[-1:] not in ((), (1,), (units,))) or (
            len(shape) == 2 and shape[0] not in (1, rows)
        ):  # fmt: skip
            raise ValueError(
                f"{part} of {name} must have shape (trial, unit) = ({rows}, {units}), or 1 in "
                f"place of either: got {shape}"
            )
        if shape[-1:] != (units,):
            value = value.expand(*(shape[:-1] or (1,)), units)
        if value.dtype != dtype:
            value = value.to(dtype)
        if value is not getattr(found, part):
            changes[part] = value
    return dataclasses.replace(found, **changes) if changes else found


def normal(shape: tuple[int, ...], sd: float, seed: Seed, name: str) -> nn.Parameter:
    """Draw an initial parameter from N(0, sd^2), by its name."""
    # Drawn in float64, so that networks of either precision start from the same numbers.
    drawn = torch.randn(shape, generator=make_generator(seed, name), dtype=torch.float64)
    return nn.Parameter(drawn.mul_(sd).to(torch.get_default_dtype()))


def resolve_seed(seed: Seed | None) -> int:
    """Turn a seed or a generator into one integer, so that each parameter draws by its name."""
    if seed is None or isinstance(seed, torch.Generator):
        device = None if seed is None else seed.device
        return int(torch.randint(2**62, (), generator=seed, device=device))
    check_integer("seed", seed)
    return int(seed)


class Chain(nn.Module):
    """Pathways one after another, left to right; an empty chain leaves the circuit as it is.

    Args:
        pathways: Any number of pathways of equal `units` and `contexts`.

    Raises:
        TypeError: If one is not a pathway.
        ValueError: If they differ in `units` or `contexts`, or one that brings its own recurrent
            matrix comes after another synaptic one.

    Example:
        >>> from ctxrnn import CTRNN, Chain, Gain, Hadamard
        >>> gain, scaling = Gain(32, contexts=4), Hadamard(32, contexts=4, symmetric=True)
        >>> network = CTRNN(inputs=3, units=32, outputs=2, modulation=Chain(gain, scaling))
        >>> plain = CTRNN(inputs=3, units=32, outputs=2)
        >>> network.parameter_count() - plain.parameter_count()  # N K for each pathway
        256
    """

    def __init__(self, *pathways: AbstractModulation) -> None:
        super().__init__()
        for pathway in pathways:
            if not isinstance(pathway, AbstractModulation):
                raise TypeError(
                    f"pathways of a Chain must be pathways: got {type(pathway).__name__}; "
                    "pass those of another Chain as *chain"
                )
        for name in ("units", "contexts"):
            sizes = {getattr(pathway, name) for pathway in pathways}
            if len(sizes) > 1:
                raise ValueError(f"pathways of a Chain must agree in {name}: got {sorted(sizes)}")
        for pathway in pathways[1:]:
            if pathway.replaces_weight and any(
                earlier.pathway == "synaptic" for earlier in pathways[: pathways.index(pathway)]
            ):
                raise ValueError(
                    f"{type(pathway).__name__} brings its own recurrent matrix and must be the "
                    "first synaptic pathway of a Chain"
                )
        self.pathways = nn.ModuleList(pathways)

    def __iter__(self) -> Iterator[AbstractModulation]:
        return (pathway for pathway in self.pathways if isinstance(pathway, AbstractModulation))

    def __len__(self) -> int:
        return len(self.pathways)

    @property
    def units(self) -> int | None:
        """N, or None for an empty chain."""
        return next((pathway.units for pathway in self), None)

    @property
    def contexts(self) -> int | None:
        """K, or None for an empty chain."""
        return next((pathway.contexts for pathway in self), None)

    @property
    def replaces_weight(self) -> bool:
        """Whether a pathway brings its own recurrent matrix."""
        return any(pathway.replaces_weight for pathway in self.pathways)

    def forward(self, circuit: Circuit, context: Tensor | Contexts) -> Circuit:
        """Modulate a circuit by each pathway in turn."""
        for pathway in self.pathways:
            circuit = pathway(circuit, context)
        return circuit

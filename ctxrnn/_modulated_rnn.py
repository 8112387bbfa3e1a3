"""A drop-in recurrent layer: the context pathways, driven by what is being read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ctxrnn._catalogue import trainable_parameters
from ctxrnn._checks import check_count, check_fraction, derive_seed, unknown_name
from ctxrnn._context import Contexts
from ctxrnn._encoder import ContextEncoder, Squash
from ctxrnn._modulated_layer import LOOPS, LayerRun, LayerState, ModulatedLayer
from ctxrnn._modulation import AbstractModulation, Chain, Seed, resolve_seed
from ctxrnn._network import NONLINEARITIES


class ModulatedState(NamedTuple):
    """State of a `ModulatedRNN` whose contexts are filtered.

    Attributes:
        hidden: r of every layer, (layer, sequence, unit).
        excitability: Filtered c^e, (layer, sequence, context); None where it is not filtered.
        synaptic: Filtered c^s, likewise.

    Example:
        >>> import torch
        >>> from ctxrnn import ModulatedRNN
        >>> layer = ModulatedRNN(10, 32, modulation="e-gain", contexts=4, tau_e=20.0)
        >>> sequences = torch.randn(100, 5, 10)  # (time, sequence, input)
        >>> _, state = layer(sequences[:60])
        >>> state.hidden.shape, state.excitability.shape
        (torch.Size([1, 5, 32]), torch.Size([1, 5, 4]))
        >>> torch.allclose(layer(sequences[60:], state)[0], layer(sequences)[0][60:], atol=1e-5)
        True
    """

    hidden: Tensor
    excitability: Tensor | None = None
    synaptic: Tensor | None = None


State = Tensor | ModulatedState
Input = TypeVar("Input", Tensor, PackedSequence)


class ModulatedTrace(NamedTuple):
    """What every layer of a `ModulatedRNN` did, in the layout of the input.

    Attributes:
        rates: r of every layer, (time, sequence, unit) each.
        inferred: What each encoder made of the input, (time, sequence, context) each; None for a
            layer without pathways.
        contexts: The same as the pathways saw it, filtered.
        state: The state after the last step.

    Example:
        >>> import torch
        >>> from ctxrnn import ModulatedRNN
        >>> layer = ModulatedRNN(10, 32, modulation="e-gain", contexts=4, tau_e=20.0)
        >>> trace = layer.trace(torch.randn(100, 5, 10))
        >>> inferred, seen = trace.inferred[0], trace.contexts[0].excitability
        >>> inferred.shape
        torch.Size([100, 5, 4])
        >>> bool(seen.std(0).mean() < inferred.std(0).mean())  # the filter smooths it
        True
    """

    rates: tuple[Tensor, ...]
    inferred: tuple[Tensor | None, ...]
    contexts: tuple[Contexts | None, ...]
    state: State


class ModulatedRNN(nn.Module):
    r"""A recurrent layer whose pathways follow a context that it infers from its input.

        c_t = psi(A_c u_t + a_c [+ A_h r_{t-1}])
        r_t = (1 - alpha) r_{t-1} + alpha phi(G(c_t) (W(c_t) r_{t-1} + B u_t + b + E c_t))

    With the interface of `torch.nn.RNN`: `output, state = layer(input, state)`. Neutral pathways
    and alpha = 1 make it that layer, with one bias for its two. The context of u_t acts in the same
    step; with `tau_e`, `tau_s` each pathway sees it low-passed.

    `e-add` may add nothing: with one-hot input and an encoder that sees the input alone, B u + E c
    is B' u. Use `e-gain`, `state_term=True` or `tau_e` to test excitability there.

    Args:
        input_size: I.
        hidden_size: N.
        num_layers: Layers, each with an encoder of its own that reads the layer below.
        modulation: Pathways: an id of the catalogue ("e-gain", "s-sym", "es-add-sym", ...), "none",
            or, for one layer, a pathway or Chain.
        contexts: K.
        nonlinearity: phi: "tanh", "relu", "softplus" or "sigmoid".
        bias: Whether there is b.
        batch_first: Whether input and output are (sequence, time, ...).
        dropout: Share of the outputs of all layers but the last that is dropped in training.
        squash: psi: "softmax", "sigmoid", "tanh", or "linear", which is unbounded.
        encoder_hidden: Units of a hidden layer of the encoder; None for none.
        state_term: Whether the encoder sees r_{t-1}, too.
        encoder: An encoder in place of these, for one layer.
        alpha: Share of the state that a step replaces, in (0, 1].
        tau_e: Time constant of the filter of the excitability context, in steps; 0 for none.
        tau_s: Likewise of the synaptic context.
        seed: Seed of the initial values, or a generator; None draws one from torch's global
            generator. W, B and b depend on it alone, not on the pathways.
        device: Where the parameters live.
        dtype: torch.float32 or torch.float64.
        options: Options of the pathways, such as `interpolation="factor-linear"`, which costs
            1 + R products of W in a step in place of 1 + K R. E, Gamma, Theta and the factors of W
            start near neutral, with standard deviation 0.1.

    Attributes:
        config: The arguments as JSON-able values, for checkpoints; pathways and an encoder that
            were given as modules apart.
        loop: How time is stepped through; all give the same numbers up to rounding. "auto" takes
            the fastest that covers the case: "compiled" (CPU; drives, gains and scaled weights),
            "adjoint" (the engine's own gradient, in torch), "plain" (autograd; contexts that
            depend on the state; can be differentiated twice).

    Raises:
        ValueError: For arguments out of range; unknown names list the known ones.

    Example:
        >>> import torch
        >>> from ctxrnn import ModulatedRNN
        >>> layer = ModulatedRNN(10, 32, modulation="e-gain", contexts=4)
        >>> sequences = torch.randn(100, 5, 10)  # (time, sequence, input)
        >>> layer(sequences)[0].shape
        torch.Size([100, 5, 32])
        >>> rnn = torch.nn.RNN(10, 32)
        >>> neutral = ModulatedRNN.from_rnn(rnn, "e-gain", sd=0.0)
        >>> torch.allclose(neutral(sequences)[0], rnn(sequences)[0], atol=1e-5)
        True
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        modulation: str | AbstractModulation | Chain = "es-add-sym",
        *,
        contexts: int = 8,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        squash: Squash = "softmax",
        encoder_hidden: int | None = None,
        state_term: bool = False,
        encoder: ContextEncoder | None = None,
        alpha: float = 1.0,
        tau_e: float = 0.0,
        tau_s: float = 0.0,
        seed: Seed | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_count("num_layers", num_layers)
        check_fraction("dropout", dropout)
        if nonlinearity not in NONLINEARITIES:
            raise unknown_name("nonlinearity", nonlinearity, NONLINEARITIES)
        if dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64: got {dtype!r}")
        if num_layers > 1 and (encoder is not None or not isinstance(modulation, str)):
            raise ValueError(
                "encoder and modulation must be given by name for several layers, each of which "
                "has its own"
            )
        if encoder is not None and (squash != "softmax" or encoder_hidden or state_term):
            raise ValueError("squash, encoder_hidden and state_term are the encoder's own: set one")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.contexts, self.batch_first, self.dropout = contexts, batch_first, float(dropout)
        self.nonlinearity, self.seed = nonlinearity, resolve_seed(seed)
        self.variant = modulation if isinstance(modulation, str) else "custom"
        self.encoder_given = encoder is not None
        wanted = encoder or {"squash": squash, "hidden": encoder_hidden}
        self.layers = nn.ModuleList(
            ModulatedLayer(
                input_size if layer == 0 else hidden_size, hidden_size, modulation, contexts,
                wanted, state_term, nonlinearity, bias, alpha, tau_e, tau_s,
                derive_seed(self.seed, "layer", layer), options,
            )
            for layer in range(num_layers)
        )  # fmt: skip
        self.config: dict[str, Any] = {
            "input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers,
            "contexts": contexts, "nonlinearity": nonlinearity, "bias": bias,
            "batch_first": batch_first, "dropout": self.dropout, "squash": squash,
            "encoder_hidden": encoder_hidden, "state_term": state_term, "alpha": alpha,
            "tau_e": tau_e, "tau_s": tau_s, "seed": self.seed, **options,
        }  # fmt: skip
        self.to(device=device, dtype=dtype)

    @classmethod
    def from_rnn(cls, rnn: nn.RNN, modulation: str = "es-add-sym", **options: Any) -> ModulatedRNN:
        """Return a layer with the weights of `torch.nn.RNN`, and pathways.

        Args:
            rnn: The layer; its two biases are summed.
            modulation: Pathways of the new one; neutral ones (`sd=0`) leave it what it was.
            options: Further arguments.
        """
        if not isinstance(rnn, nn.RNN):
            raise TypeError(f"rnn must be a torch.nn.RNN: got {type(rnn).__name__}")
        if rnn.bidirectional:
            raise ValueError("rnn must run forward in time only: got a bidirectional one")
        made = cls(
            rnn.input_size, rnn.hidden_size, rnn.num_layers, modulation,
            nonlinearity=rnn.nonlinearity, bias=rnn.bias, batch_first=rnn.batch_first,
            dropout=rnn.dropout, **options,
        )  # fmt: skip
        first = next(rnn.parameters())
        made.to(device=first.device, dtype=first.dtype)
        with torch.no_grad():
            for number, layer in enumerate(made._layers()):
                if layer.weight is None:
                    raise ValueError(f"{modulation!r} has a matrix of its own in place of W")
                layer.weight.copy_(getattr(rnn, f"weight_hh_l{number}"))
                layer.input_weight.copy_(getattr(rnn, f"weight_ih_l{number}"))
                if layer.bias is not None:
                    biases = (getattr(rnn, f"bias_{kind}_l{number}") for kind in ("ih", "hh"))
                    layer.bias.copy_(sum(biases))
        return made

    def _layers(self) -> list[ModulatedLayer]:
        return [layer for layer in self.layers if isinstance(layer, ModulatedLayer)]

    @property
    def loop(self) -> str:
        """How time is stepped through."""
        return self._layers()[0].loop

    @loop.setter
    def loop(self, name: str) -> None:
        if name not in LOOPS:
            raise ValueError(f"loop must be one of {', '.join(LOOPS)}: got {name!r}")
        for layer in self._layers():
            layer.loop = name

    @property
    def filtered(self) -> bool:
        """Whether the state holds filtered contexts."""
        first = self._layers()[0]
        return bool(len(first.modulation) and (first.tau_e or first.tau_s))

    def parameter_count(self) -> int:
        """Return the number of trainable parameters, encoders included."""
        return trainable_parameters(self)

    def forward(
        self,
        input: Input,
        state: State | None = None,
        *,
        contexts: Sequence[Tensor | None] | Tensor | None = None,
    ) -> tuple[Input, State]:
        """Run sequences.

        Args:
            input: u, (time, sequence, input), or (sequence, time, input) with `batch_first`, or
                (time, input) of one sequence, or a packed sequence.
            state: (layer, sequence, unit), or (layer, unit) of one sequence; or what an earlier
                call returned. None for zeros, and filters that start at the first context.
            contexts: c of every layer in the layout of the input, in place of what the encoders
                infer (None for a layer that infers); one tensor for one layer.

        Returns:
            r of the last layer, like the input; and the state after the last step: a tensor or,
            with filters, a `ModulatedState`.

        Raises:
            ValueError: For shapes that do not fit and sequences without a step.
            FloatingPointError: If the state left the numbers, which takes an unbounded encoder or
                nonlinearity.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, state, contexts)
        seen, single = self._time_first(input)
        runs, end = self._run(seen, self._start(state, seen.shape[1], single), given=contexts)
        return self._like(runs[-1].rates, single), self._state(end, single)

    def trace(
        self,
        input: Tensor,
        state: State | None = None,
        *,
        contexts: Sequence[Tensor | None] | Tensor | None = None,
    ) -> ModulatedTrace:
        """Run sequences and return what every layer did. Arguments as for a call."""
        seen, single = self._time_first(input)
        runs, end = self._run(seen, self._start(state, seen.shape[1], single), given=contexts)
        return self._traced(runs, end, single)

    def embedded(
        self, symbols: Tensor, table: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Run sequences of symbols: `layer(table[symbols], state)`, but faster.

        What depends on the symbol alone is computed once for each symbol: the input's current and,
        where the first encoder sees the input alone and is not filtered, its context and pathways.

        Args:
            symbols: (time, sequence), or (sequence, time) with `batch_first`, or (time,).
            table: Embedding of every symbol, (symbol, input).
            state: As for a call.
        """
        seen, single, start = self._symbols(symbols, table, state)
        runs, end = self._run(table, start, symbols=seen)
        return self._like(runs[-1].rates, single), self._state(end, single)

    def trace_embedded(
        self, symbols: Tensor, table: Tensor, state: State | None = None
    ) -> ModulatedTrace:
        """Run sequences of symbols and return what every layer did; see `embedded`."""
        seen, single, start = self._symbols(symbols, table, state)
        runs, end = self._run(table, start, symbols=seen)
        return self._traced(runs, end, single)

    def multiply_adds(self, *, embedded: bool = False) -> int:
        """Return the multiply-adds of matrix products in one step of one sequence.

        Args:
            embedded: Count `embedded`, whose first layer computes input and context per symbol.
        """
        from torch.utils.flop_counter import FlopCounterMode

        total = 0
        for number, layer in enumerate(self._layers()):
            u, r = self._zeros(1, layer.inputs), self._zeros(1, layer.units)
            with torch.no_grad():
                known = embedded and number == 0 and layer.by_symbol
                circuit = layer.circuit_of(u, r)
                with FlopCounterMode(display=False) as counter:
                    current = self._zeros(1, layer.units)
                    if not known:
                        circuit, current = layer.circuit_of(u, r), u @ layer.input_weight.mT
                    layer.step(circuit, current, r)
            total += int(counter.get_total_flops()) // 2
        return total

    def _zeros(self, *shape: int) -> Tensor:
        return self._layers()[0].input_weight.new_zeros(shape)

    def _time_first(self, input: Tensor) -> tuple[Tensor, bool]:
        weight = self._layers()[0].input_weight
        if not isinstance(input, Tensor):
            raise TypeError(f"input must be a tensor or a packed sequence: got {type(input)}")
        single = input.ndim == 2
        layout = "(sequence, time" if self.batch_first else "(time, sequence"
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            raise ValueError(
                f"input must have shape {layout}, input={self.input_size}) or (time, "
                f"input={self.input_size}): got {tuple(input.shape)}"
            )
        if input.dtype != weight.dtype:
            raise ValueError(f"input must be {weight.dtype}, as the layer is: got {input.dtype}")
        if 0 in input.shape:
            raise ValueError(
                "input must have one sequence and one step at least: got shape "
                f"{tuple(input.shape)}"
            )
        return self._turned(input, single), single

    def _turned(self, values: Tensor, single: bool) -> Tensor:
        """Bring an input's layout to time first."""
        if single:
            return values.unsqueeze(1)
        return values.transpose(0, 1) if self.batch_first else values

    def _like(self, values: Tensor, single: bool) -> Tensor:
        """Bring time first to the layout of the input."""
        if single:
            return values.squeeze(1)
        return values.transpose(0, 1) if self.batch_first else values

    def _symbols(
        self, symbols: Tensor, table: Tensor, state: State | None
    ) -> tuple[Tensor, bool, list[LayerState]]:
        if symbols.is_floating_point() or symbols.ndim not in (1, 2) or 0 in symbols.shape:
            raise ValueError(
                "symbols must be integers, (time, sequence) or (time,), none of them 0: got "
                f"{symbols.dtype} of shape {tuple(symbols.shape)}"
            )
        if table.ndim != 2 or table.shape[1] != self.input_size:
            raise ValueError(
                f"table must have shape (symbol, input={self.input_size}): got {tuple(table.shape)}"
            )
        low, high = (int(end) for end in symbols.aminmax())
        if low < 0 or high >= len(table):
            raise ValueError(f"symbols must be 0 to {len(table) - 1}: got {low} to {high}")
        single = symbols.ndim == 1
        seen = self._turned(symbols.long(), single)
        return seen, single, self._start(state, seen.shape[1], single)

    def _start(self, state: State | None, sequences: int, single: bool) -> list[LayerState]:
        if state is None:
            nothing = self._zeros(sequences, self.hidden_size)
            return [LayerState(nothing) for _ in range(self.num_layers)]
        if isinstance(state, Tensor):
            state = ModulatedState(state)
        elif not isinstance(state, tuple | list) or not 1 <= len(state) <= 3:
            raise TypeError(
                f"state must be a tensor or a ModulatedState: got {type(state).__name__}"
            )
        given = ModulatedState(*state)
        sizes = (self.hidden_size, self.contexts, self.contexts)
        parts = []
        for name, part, size in zip(given._fields, given, sizes, strict=True):
            if part is None:
                parts.append([None] * self.num_layers)
                continue
            wanted = (self.num_layers, size) if single else (self.num_layers, sequences, size)
            if tuple(part.shape) != wanted:
                axes = "(layer, size)" if single else "(layer, sequence, size)"
                raise ValueError(
                    f"state ({name}) must have shape {axes} = {wanted}: got {tuple(part.shape)}"
                )
            part = part.to(self._zeros(0))
            parts.append(list(part.unsqueeze(1) if single else part))
        return [LayerState(*layer) for layer in zip(*parts, strict=True)]

    def _state(self, ends: list[LayerState], single: bool) -> State:
        def together(parts: list[Tensor | None]) -> Tensor | None:
            known = [part for part in parts if part is not None]
            if not known:
                return None
            stacked = torch.stack(known)
            return stacked.squeeze(1) if single else stacked

        hidden = together([end.rates for end in ends])
        assert hidden is not None
        if not self.filtered:
            return hidden
        return ModulatedState(
            hidden,
            together([end.excitability for end in ends]),
            together([end.synaptic for end in ends]),
        )

    def _given(
        self, contexts: Sequence[Tensor | None] | Tensor | None, steps: int, sequences: int
    ) -> list[Tensor | None]:
        if contexts is None:
            return [None] * self.num_layers
        several = [contexts] if isinstance(contexts, Tensor) else list(contexts)
        if len(several) != self.num_layers:
            raise ValueError(
                f"contexts must be {self.num_layers}, one per layer: got {len(several)}"
            )
        found: list[Tensor | None] = []
        for one in several:
            seen = None if one is None else self._turned(one, one.ndim == 2)
            if seen is not None and tuple(seen.shape) != (steps, sequences, self.contexts):
                raise ValueError(
                    f"contexts must have {steps} steps, {sequences} sequences and "
                    f"{self.contexts} contexts, in the layout of the input: got "
                    f"{tuple(one.shape) if one is not None else None}"
                )
            found.append(None if seen is None else seen.to(self._zeros(0)))
        return found

    def _run(
        self,
        inputs: Tensor,
        start: list[LayerState],
        *,
        given: Sequence[Tensor | None] | Tensor | None = None,
        symbols: Tensor | None = None,
        last: Tensor | None = None,
    ) -> tuple[list[LayerRun], list[LayerState]]:
        steps, sequences = inputs.shape[:2] if symbols is None else symbols.shape
        contexts = self._given(given, steps, sequences)
        runs: list[LayerRun] = []
        ends: list[LayerState] = []
        for number, layer in enumerate(self._layers()):
            if number and self.dropout and self.training:
                inputs = nn.functional.dropout(inputs, self.dropout)
            run = layer.run(
                inputs, start[number], contexts[number], symbols if number == 0 else None
            )
            if not layer.stays_finite:
                _check_finite(run.rates, number, last)
            runs.append(run)
            ends.append(layer.end(run, last))
            inputs = run.rates
        return runs, ends

    def _packed(
        self,
        packed: PackedSequence,
        state: State | None,
        contexts: Sequence[Tensor | None] | Tensor | None,
    ) -> tuple[PackedSequence, State]:
        padded, lengths = pad_packed_sequence(packed)
        if padded.shape[-1] != self.input_size:
            raise ValueError(f"input must have {self.input_size} channels: got {padded.shape[-1]}")
        dtype = self._zeros(0).dtype
        if padded.dtype != dtype:
            raise ValueError(f"input must be {dtype}, as the layer is: got {padded.dtype}")
        start = self._start(state, padded.shape[1], False)
        runs, ends = self._run(padded, start, given=contexts, last=lengths - 1)
        out, order = runs[-1].rates, packed.sorted_indices
        if order is not None:
            out, lengths = out.index_select(1, order), lengths[order.cpu()]
        data = pack_padded_sequence(out, lengths).data
        like = PackedSequence(data, packed.batch_sizes, order, packed.unsorted_indices)
        return like, self._state(ends, False)

    def _traced(self, runs: list[LayerRun], ends: list[LayerState], single: bool) -> ModulatedTrace:
        def turned(contexts: Contexts | None) -> Contexts | None:
            if contexts is None:
                return None
            return Contexts(
                self._like(contexts.excitability, single), self._like(contexts.synaptic, single)
            )

        return ModulatedTrace(
            tuple(self._like(run.rates, single) for run in runs),
            tuple(None if r.inferred is None else self._like(r.inferred, single) for r in runs),
            tuple(turned(run.contexts) for run in runs),
            self._state(ends, single),
        )

    def extra_repr(self) -> str:
        """Say the sizes."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"modulation={self.variant!r}, contexts={self.contexts}"
        )


def _check_finite(rates: Tensor, layer: int, last: Tensor | None) -> None:
    if math.isfinite(float(rates.detach().sum())):
        return
    bad = ~torch.isfinite(rates.detach()).all(dim=2)
    if last is not None:
        # Of sequences that ended only padding goes on.
        bad &= torch.arange(len(rates), device=bad.device)[:, None] <= last.to(bad.device)
    if bool(bad.any()):
        raise FloatingPointError(
            f"the state of layer {layer} left the numbers at step {int(bad.any(1).nonzero()[0])}: "
            "use a bounded encoder (softmax, sigmoid, tanh) and tanh units, a smaller learning "
            "rate, or clip gradients"
        )

"""One recurrent layer whose pathways are driven by a context that it infers from its input."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ctxrnn import _adjoint, _varying
from ctxrnn._catalogue import known_options, modulation
from ctxrnn._checks import check_count, check_not_negative, check_number, make_generator
from ctxrnn._circuit import Circuit, Dense, at_trials, of_trials
from ctxrnn._context import Contexts, filter_context
from ctxrnn._encoder import ContextEncoder
from ctxrnn._modulation import AbstractModulation, Chain
from ctxrnn._network import NONLINEARITIES

NEUTRAL_SD = 0.1
"""Spread of E, Theta, Gamma and of the factors of W at first: near neutral."""
LOOPS = ("auto", "compiled", "adjoint", "plain")


class LayerState(NamedTuple):
    """What a layer carries from step to step.

    Attributes:
        rates: r, (sequence, unit).
        excitability: Filtered c^e, (sequence, context), or None where it is not filtered.
        synaptic: Filtered c^s, likewise.
    """

    rates: Tensor
    excitability: Tensor | None = None
    synaptic: Tensor | None = None


class LayerRun(NamedTuple):
    """What a layer did.

    Attributes:
        rates: r after every step, (time, sequence, unit).
        contexts: As the pathways saw them, (time, sequence, context) each; None without pathways.
        inferred: The context before filters, (time, sequence, context), or None.
    """

    rates: Tensor
    contexts: Contexts | None
    inferred: Tensor | None


def near_neutral(variant: str, units: int, given: dict[str, Any]) -> dict[str, Any]:
    """Return options of the pathways of a variant, near neutral where nothing is given."""
    options = dict(given)
    known = known_options(variant)
    # A matrix that takes the place of W starts with the spread of W.
    if "g" in known:
        options.setdefault("g", 3**-0.5)
    spreads = {"sd", "sd_e", "sd_s"}
    if not spreads & set(options):
        # Products of factors of an additive part are small beside W without it.
        if "sd_e" in known:
            options["sd_e"] = NEUTRAL_SD
        if "sd_s" in known and not _additive(variant):
            options["sd_s"] = NEUTRAL_SD
    return options


def _additive(variant: str) -> bool:
    return variant.startswith(("s-add", "s-lowrankW")) or "-add-" in variant[3:] or (
        variant.endswith("-lowrankW")
    )  # fmt: skip


class ModulatedLayer(nn.Module):
    """One layer of `ModulatedRNN`; time comes first.

    Args:
        inputs: I.
        units: N.
        variant: Pathways: an id of the catalogue, a pathway or a Chain.
        contexts: K.
        encoder: Options of `ContextEncoder`, or the encoder.
        state_term: Whether the encoder sees the state.
        nonlinearity: phi.
        bias: Whether there is b.
        alpha: Share of the state that a step replaces, in (0, 1].
        tau_e: Time constant of the filter of the excitability context, in steps; 0 for none.
        tau_s: Likewise of the synaptic context.
        seed: Seed of the initial values.
        options: Of the pathways.
    """

    bias: Tensor | None
    weight: Tensor | None

    def __init__(
        self,
        inputs: int,
        units: int,
        variant: str | AbstractModulation | Chain,
        contexts: int,
        encoder: dict[str, Any] | ContextEncoder,
        state_term: bool,
        nonlinearity: str,
        bias: bool,
        alpha: float,
        tau_e: float,
        tau_s: float,
        seed: int,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        check_count("input_size", inputs)
        check_count("hidden_size", units)
        check_count("contexts", contexts)
        if not 0 < check_number("alpha", alpha) <= 1:
            raise ValueError(f"alpha must be in (0, 1]: got {alpha}")
        check_not_negative("tau_e", tau_e, "steps")
        check_not_negative("tau_s", tau_s, "steps")
        self.inputs, self.units, self.contexts = inputs, units, contexts
        self.alpha, self.tau_e, self.tau_s = float(alpha), float(tau_e), float(tau_s)
        self.nonlinearity, self.phi = nonlinearity, NONLINEARITIES[nonlinearity]
        self.loop = "auto"
        self.modulation = _chain(variant, units, contexts, seed, options)
        self.encoder: ContextEncoder | None = None
        if len(self.modulation):
            self.encoder = _encoder(encoder, inputs, contexts, units if state_term else None, seed)
        span = units**-0.5
        self.input_weight = _uniform((units, inputs), span, seed, "B")
        if self.modulation.replaces_weight:
            self.register_parameter("weight", None)
        else:
            self.weight = _uniform((units, units), span, seed, "W")
        if bias:
            # Two terms, as torch's layer has two biases: the spread of their sum.
            drawn = [_uniform((units,), span, seed, name).data for name in ("b_i", "b_h")]
            self.bias = nn.Parameter(drawn[0] + drawn[1])
        else:
            self.register_parameter("bias", None)

    @property
    def stays_finite(self) -> bool:
        """Whether units and encoder are bounded whatever the parameters."""
        bounded = self.encoder is None or self.encoder.bounded
        return bounded and self.phi in (torch.tanh, torch.sigmoid)

    def circuit(self, context: Tensor | Contexts | None) -> Circuit:
        """Return the effective parameters in a context, (trial, context)."""
        recurrent = None if self.weight is None else Dense(self.weight)
        bias = self.input_weight.new_zeros(self.units) if self.bias is None else self.bias
        base = Circuit(recurrent, self.input_weight, bias)
        return base if context is None else self.modulation(base, context)

    def circuit_of(self, inputs: Tensor, rates: Tensor) -> Circuit:
        """Return the circuit of an input and state, without filters; (sequence, ...) each."""
        return self.circuit(None if self.encoder is None else self.encoder(inputs, rates))

    def run(
        self,
        inputs: Tensor,
        start: LayerState,
        contexts: Tensor | None = None,
        symbols: Tensor | None = None,
    ) -> LayerRun:
        """Step through time.

        Args:
            inputs: u, (time, sequence, input); with `symbols` (symbol, input).
            start: The state before the first step.
            contexts: c, (time, sequence, context), in place of what the encoder infers.
            symbols: Row of `inputs` that every step sees, (time, sequence). What depends on the
                symbol alone is then computed once for each symbol.
        """
        encoder = self.encoder
        if encoder is None:
            seen = inputs if symbols is None else inputs[symbols]
            return LayerRun(self._stepped(self.circuit(None), seen, start.rates), None, None)
        if contexts is None and encoder.A_h is not None:
            return self._with_state(inputs if symbols is None else inputs[symbols], start)
        if symbols is not None and contexts is None and self.by_symbol:
            return self._by_symbol(inputs, symbols, start)
        inferred = encoder(inputs) if contexts is None else contexts
        if symbols is not None:
            inputs = inputs[symbols]
            inferred = inferred[symbols] if contexts is None else inferred
        filtered = self._filtered(inferred, start)
        rates = self._stepped(self._flat_circuit(filtered), inputs, start.rates)
        return LayerRun(rates, filtered, inferred)

    def end(self, run: LayerRun, last: Tensor | None = None) -> LayerState:
        """Return the state after the last step.

        Args:
            run: What the layer did.
            last: Last step of each sequence, (sequence,); None for that of the run.
        """

        def at_end(values: Tensor) -> Tensor:
            return values[-1] if last is None else values[last, torch.arange(len(last))]

        contexts = run.contexts
        return LayerState(
            at_end(run.rates),
            at_end(contexts.excitability) if contexts is not None and self.tau_e else None,
            at_end(contexts.synaptic) if contexts is not None and self.tau_s else None,
        )

    @property
    def by_symbol(self) -> bool:
        """Whether the circuit depends on the current input alone."""
        free = self.encoder is None or self.encoder.A_h is None
        return free and not (self.tau_e or self.tau_s)

    def _flat_circuit(self, contexts: Contexts) -> Circuit:
        """Return the circuit of all sequences at the first step, then at the second, ..."""
        if contexts.excitability is contexts.synaptic:
            return self.circuit(contexts.excitability.flatten(0, 1))
        return self.circuit(
            Contexts(contexts.excitability.flatten(0, 1), contexts.synaptic.flatten(0, 1))
        )

    def _stepped(
        self, circuit: Circuit, inputs: Tensor, rates: Tensor, symbols: Tensor | None = None
    ) -> Tensor:
        """Step through time with circuits that are known.

        Args:
            circuit: Of all steps, one after another, or common to them; with `symbols` of each
                symbol, the current of the input included.
            inputs: u, (time, sequence, input).
            rates: r before the first step.
            symbols: See `run`.
        """
        if self.loop in ("auto", "compiled"):
            states = self._compiled(circuit, inputs, rates, symbols)
            if states is not None:
                return states
            if self.loop == "compiled":
                raise RuntimeError(
                    "the compiled loop is not installed, or does not cover this layer: it needs "
                    "the CPU, and W scaled by factors, with drives and gains; choose loop='auto'"
                )
        if symbols is not None:
            circuit = at_trials(circuit, symbols.flatten())
        if self.loop != "plain" and _adjoint.covers(circuit):
            step = _adjoint.Step("rate", self.phi)
            return _adjoint.run(step, circuit, inputs, rates, self.alpha, None)
        if self.loop == "adjoint":
            raise RuntimeError(
                "the adjoint loop does not cover this layer: it needs pathways whose recurrence "
                "has a pullback; choose loop='auto'"
            )
        sequences, varies = (
            inputs.shape[1],
            _adjoint.rows_of(circuit) == inputs.shape[0] * inputs.shape[1],
        )
        found = []
        for time, current in enumerate((inputs @ circuit.input_weight.mT).unbind(0)):
            rows = slice(time * sequences, (time + 1) * sequences)
            rates = self.step(of_trials(circuit, rows) if varies else circuit, current, rates)
            found.append(rates)
        return torch.stack(found)

    def _compiled(
        self, circuit: Circuit, inputs: Tensor, rates: Tensor, symbols: Tensor | None
    ) -> Tensor | None:
        steps = len(inputs)
        if symbols is None:
            external = (inputs @ circuit.input_weight.mT).flatten(0, 1)
        else:
            external = circuit.current.new_zeros(())
        tables = _varying.tables_of(circuit, external)
        if tables is None:
            return None
        return _varying.run(tables, rates, self.alpha, self.nonlinearity, steps, symbols)

    def step(self, circuit: Circuit, current: Tensor, rates: Tensor) -> Tensor:
        """Return the rates after one step; `current` is that of the input."""
        total = circuit.propagate(rates, current + circuit.current)
        target = self.phi(circuit.excite(total))
        return target if self.alpha == 1 else torch.lerp(rates, target, self.alpha)

    def _by_symbol(self, table: Tensor, symbols: Tensor, start: LayerState) -> LayerRun:
        """Step through time with what belongs to each symbol computed once."""
        assert self.encoder is not None
        inferred = self.encoder(table)
        each = self.circuit(inferred)
        # The input's current is the symbol's, too; what is left of the input has no channel.
        current = each.current + table @ self.input_weight.mT
        each = dataclasses.replace(
            each, current=current, input_weight=self.input_weight.new_zeros(self.units, 0)
        )
        nothing = table.new_zeros(*symbols.shape, 0)
        rates = self._stepped(each, nothing, start.rates, symbols)
        contexts = inferred[symbols]
        return LayerRun(rates, Contexts.of(contexts), contexts)

    def _with_state(self, inputs: Tensor, start: LayerState) -> LayerRun:
        """Step through time where the context depends on the state of the step before."""
        encoder = self.encoder
        assert encoder is not None
        if self.loop == "adjoint":
            raise RuntimeError(
                "the adjoint loop does not cover a context that depends on the state; choose "
                "loop='auto'"
            )
        rates, drives = start.rates, encoder.drive(inputs).unbind(0)
        before = start
        found, inferred, seen = [], [], []
        for drive, current in zip(drives, (inputs @ self.input_weight.mT).unbind(0), strict=True):
            context = encoder.squashed(drive, rates)
            contexts = self._filtered(context.unsqueeze(0), before)
            now = Contexts(contexts.excitability[0], contexts.synaptic[0])
            rates = self.step(self.circuit(now), current, rates)
            before = LayerState(rates, now.excitability, now.synaptic)
            found.append(rates)
            inferred.append(context)
            seen.append(now)
        contexts = Contexts(
            torch.stack([now.excitability for now in seen]),
            torch.stack([now.synaptic for now in seen]),
        )
        return LayerRun(torch.stack(found), contexts, torch.stack(inferred))

    def _filtered(self, context: Tensor, start: LayerState) -> Contexts:
        """Return the contexts as the pathways see them, (time, sequence, context)."""
        seen = []
        for tau, before in ((self.tau_e, start.excitability), (self.tau_s, start.synaptic)):
            if not tau:
                seen.append(context)
                continue
            by_sequence = context.transpose(0, 1)
            if before is None:
                out = filter_context(by_sequence, tau, 1.0)
            else:
                # The state before the first step is no step of its own.
                longer = torch.cat([before.unsqueeze(1), by_sequence], dim=1)
                out = filter_context(longer, tau, 1.0, initial=before)[:, 1:]
            seen.append(out.transpose(0, 1))
        return Contexts(*seen)


def _chain(
    variant: str | AbstractModulation | Chain,
    units: int,
    contexts: int,
    seed: int,
    options: dict[str, Any],
) -> Chain:
    if isinstance(variant, str):
        chosen = near_neutral(variant, units, options)
        return modulation(variant, units, contexts, seed=seed, **chosen)
    if options:
        raise ValueError(f"options {', '.join(sorted(options))} are for a modulation given by id")
    chain = variant if isinstance(variant, Chain) else Chain(variant)
    for name, size in (("units", units), ("contexts", contexts)):
        if getattr(chain, name) not in (None, size):
            raise ValueError(
                f"the modulation must have {name}={size}, as the layer has: got "
                f"{getattr(chain, name)}"
            )
    return chain


def _encoder(
    encoder: dict[str, Any] | ContextEncoder,
    inputs: int,
    contexts: int,
    units: int | None,
    seed: int,
) -> ContextEncoder:
    if isinstance(encoder, ContextEncoder):
        if (encoder.inputs, encoder.contexts) != (inputs, contexts):
            raise ValueError(
                f"the encoder must turn {inputs} inputs into {contexts} contexts: got one of "
                f"{encoder.inputs} and {encoder.contexts}"
            )
        return encoder
    return ContextEncoder(inputs, contexts, units=units, seed=seed, **encoder)


def _uniform(shape: tuple[int, ...], span: float, seed: int, name: str) -> nn.Parameter:
    """Draw from U(-span, span), as torch's recurrent layers do, by its name."""
    drawn = torch.rand(shape, generator=make_generator(seed, name), dtype=torch.float64)
    return nn.Parameter(((2 * drawn - 1) * span).to(torch.get_default_dtype()))

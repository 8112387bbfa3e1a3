"""Models of sequences at equal numbers of parameters: plain, gated and modulated."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ctxrnn import CheckpointError, ModulatedRNN, derive_seed, parameter_count
from ctxrnn._catalogue import known_options
from ctxrnn._checkpoint import read_tensors, write_tensors
from ctxrnn.studies._configured import from_dict, to_dict
from ctxrnn.studies._sequence_settings import GATES, SequenceSettings, parts_of

APART = 0.01
"""Largest relative difference of parameter counts."""
_REACH = ((0.1, 8), (0.2, 24), (0.35, 40))
_KIND = "sequence model"


@dataclass(frozen=True)
class Shape:
    """What data ask of a model.

    Attributes:
        symbols: Size of the alphabet that is embedded; 0 for inputs that are numbers.
        features: Numbers of a step, where there is no alphabet.
        outputs: Symbols or classes.
    """

    symbols: int
    features: int
    outputs: int


@dataclass(frozen=True)
class Size:
    """Units of a model, and the size of the embedding (0 for none)."""

    units: int
    embedding: int


def count(settings: SequenceSettings, model: str, shape: Shape, size: Size) -> int:
    """Return the trainable parameters of a model, embedding and read-out included."""
    variant, ending = parts_of(model)
    N, D = size.units, size.embedding
    inputs = D or shape.features
    total = shape.symbols * D + shape.outputs * (N + 1)
    if variant in GATES:
        return total + GATES[variant] * (N * N + N * inputs + 2 * N)
    K, H = settings.contexts, settings.encoder_hidden
    # The count of the engine holds a read-out of one.
    layer = parameter_count(variant, units=N, inputs=inputs, outputs=1, contexts=K) - (N + 1)
    encoder = K * (inputs + 1) if H is None else H * (inputs + 1) + K * (H + 1)
    return total + layer + encoder + (K * N if ending == "state" else 0)


@functools.lru_cache(maxsize=64)
def sizes(settings: SequenceSettings, shape: Shape, budget: int) -> Mapping[str, Size]:
    """Return the sizes of all models, whose parameters differ by 1 % at most.

    Of the counts within a tenth of the budget, or else somewhat farther, the nearest is taken at
    which every model has a size; modulated ones have no more parameters than any baseline.
    Embeddings are of one size.

    Raises:
        ValueError: If there is none; tells a budget that has some.
    """
    found = _sized(settings, shape, budget)
    if found is not None:
        return found
    larger = (round(budget * factor) for factor in (1.5, 2, 3, 4, 6, 8))
    works = next((each for each in larger if _sized(settings, shape, each) is not None), None)
    told = "other contexts or embeddings" if works is None else f"budgets={works}"
    raise ValueError(
        f"no sizes of {', '.join(settings.models)} have numbers of parameters within 1 % of "
        f"each other near {budget}: choose {told}"
    )


def _sized(settings: SequenceSettings, shape: Shape, budget: int) -> Mapping[str, Size] | None:
    wanted = settings.embedding if shape.symbols else 0
    for span, reach in _REACH:
        near = range(max(1, wanted - reach), wanted + reach + 1) if wanted else (0,)
        best: tuple[float, Mapping[str, Size]] | None = None
        for embedding in near:
            counts = {
                model: dict(_counts(settings, model, shape, embedding, budget, span))
                for model in settings.models
            }
            for low in {value for table in counts.values() for value in table.values()}:
                found = _fit(counts, low, embedding)
                if found is None:
                    continue
                # The embedding moves only where it must.
                far = abs(low / budget - 1) + abs(embedding - wanted) / 1000
                if best is None or far < best[0]:
                    best = far, found
        if best is not None:
            return best[1]
    return None


def _counts(
    settings: SequenceSettings, model: str, shape: Shape, embedding: int, budget: int, span: float
) -> Iterable[tuple[int, int]]:
    """Go through units and parameters within reach of a budget."""
    units = 1
    while (total := count(settings, model, shape, Size(units, embedding))) <= budget * (1 + span):
        if total >= budget * (1 - span):
            yield units, total
        units += 1


def _fit(
    counts: Mapping[str, Mapping[int, int]], low: int, embedding: int
) -> Mapping[str, Size] | None:
    found, most = {}, int(low * (1 + APART))
    # Baselines first: what is modulated may not exceed the smallest of them.
    for model in sorted(counts, key=lambda name: name not in GATES):
        fitting = [units for units, total in counts[model].items() if low <= total <= most]
        if not fitting:
            return None
        found[model] = Size(max(fitting), embedding)
        if model in GATES:
            ceiling = min(counts[m][s.units] for m, s in found.items())
            if all(m in found for m in GATES if m in counts):
                most = ceiling
    return found


class SequenceModel(nn.Module):
    """Embedding (of symbols), one recurrent layer, read-out.

    Args:
        settings: Of the study.
        model: Its id.
        shape: What the data ask for.
        size: Its size.
        seed: Seed of the initial values.
    """

    embedding: nn.Embedding | None
    layer: nn.RNNBase | ModulatedRNN

    def __init__(
        self, settings: SequenceSettings, model: str, shape: Shape, size: Size, seed: int
    ) -> None:
        super().__init__()
        self.model, self.shape = model, shape
        variant, ending = parts_of(model)
        inputs = size.embedding or shape.features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "model"))
            self.embedding = nn.Embedding(shape.symbols, size.embedding) if shape.symbols else None
            self.readout = nn.Linear(size.units, shape.outputs)
            if variant in GATES:
                kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[variant]
                self.layer = kind(inputs, size.units)
                if isinstance(self.layer, nn.LSTM):
                    _open_forget_gates(self.layer)
            else:
                self.layer = _modulated(settings, variant, ending, inputs, size.units, seed)

    @property
    def modulated(self) -> ModulatedRNN | None:
        """The layer, where it has pathways."""
        return self.layer if isinstance(self.layer, ModulatedRNN) else None

    def forward(
        self, inputs: Tensor, state: Any = None, contexts: Any = None
    ) -> tuple[Tensor, Any]:
        """Return logits and the state after the last step.

        Args:
            inputs: Symbols, (time, sequence), or numbers, (time, sequence, feature).
            state: State before the first step.
            contexts: In place of those that are inferred, where the layer is modulated.

        Returns:
            Of symbols logits of every step, (time, sequence, output), else of the last step,
            (sequence, output).
        """
        layer = self.modulated
        if self.embedding is None:
            given = {} if contexts is None else {"contexts": contexts}
            out, state = self.layer(inputs, state, **given)
            return self.readout(out[-1]), state
        table = self.embedding.weight
        if layer is None:
            out, state = self.layer(table[inputs], state)
        elif contexts is None:
            out, state = layer.embedded(inputs, table, state)
        else:
            out, state = layer(table[inputs], state, contexts=contexts)
        return self.readout(out), state

    def inferred(self, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the contexts that a modulated layer infers, (time, sequence, context)."""
        layer = self.modulated
        if layer is None:
            raise ValueError(f"{self.model} has no context")
        if self.embedding is None:
            trace = layer.trace(inputs, state)
        else:
            trace = layer.trace_embedded(inputs, self.embedding.weight, state)
        (found,) = trace.inferred
        assert found is not None
        return found, trace.state

    def multiply_adds(self) -> int:
        """Return the multiply-adds of matrix products in a step of one sequence.

        What depends on the symbol alone, such as the product of its embedding with the input's
        weights, can be computed once for each symbol in every model, and does not count. The
        read-out of symbols counts, that of classes comes once in a sequence and does not.
        """
        symbols = self.embedding is not None
        read = self.readout.weight.numel() if symbols else 0
        if isinstance(self.layer, ModulatedRNN):
            return read + self.layer.multiply_adds(embedded=symbols)
        products = read + self.layer.get_parameter("weight_hh_l0").numel()
        return products + (0 if symbols else self.layer.get_parameter("weight_ih_l0").numel())


def _modulated(
    settings: SequenceSettings, variant: str, ending: str, inputs: int, units: int, seed: int
) -> ModulatedRNN:
    options: dict[str, Any] = {}
    if "interpolation" in known_options(variant):
        options["interpolation"] = settings.interpolation
    if ending == "slow":
        options |= {"tau_e": settings.slow, "tau_s": settings.slow}
    return ModulatedRNN(
        inputs, units, 1, variant, contexts=settings.contexts, squash=settings.squash,
        encoder_hidden=settings.encoder_hidden, state_term=ending == "state",
        seed=derive_seed(seed, "layer"), **options,
    )  # fmt: skip


def _open_forget_gates(layer: nn.LSTM) -> None:
    """Set the forget gate's bias, the sum of two, to 1."""
    units = layer.hidden_size
    with torch.no_grad():
        for name, value in (("bias_ih_l0", 1.0), ("bias_hh_l0", 0.0)):
            layer.get_parameter(name)[units : 2 * units] = value


def save_model(
    model: SequenceModel, path: Path, settings: SequenceSettings, size: Size, notes: dict[str, Any]
) -> None:
    """Save a model as one safetensors file with a JSON header.

    Args:
        model: The model.
        path: The file; written atomically.
        settings: Of the study.
        size: Of the model.
        notes: JSON-able values to keep beside it.
    """
    header = {
        "model": model.model, "shape": asdict(model.shape), "size": asdict(size),
        "settings": to_dict(settings), "notes": notes,
    }  # fmt: skip
    write_tensors(path, model.state_dict(), header, _KIND)


def load_sequence_model(path: str | Path) -> tuple[SequenceModel, dict[str, Any]]:
    """Load a network of the studies of inferred contexts: the model, and its notes.

    The layer is `model.layer` (a `ModulatedRNN`, or torch's), with `model.embedding` and
    `model.readout`.

    Args:
        path: The file, one of `networks/` in a results folder.

    Returns:
        The model, in evaluation mode; and its notes, among them "cell", the axes of its cell.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a whole, unaltered model of this kind.

    Example:
        >>> from dataclasses import replace
        >>> from ctxrnn.studies import load_sequence_model, study
        >>> few = ["models=e-gain", "options=characters=2000", "updates=2", "seeds=1"]
        >>> language = replace(study("language", "smoke", few), figure=None)  # only to be quick
        >>> table = language.run("results", executor="inline")
        >>> model, notes = load_sequence_model("results/networks/text-4000-e-gain-0.safetensors")
        >>> model.layer.variant, model.layer.contexts
        ('e-gain', 3)
    """
    tensors, header = read_tensors(path, _KIND)
    try:
        settings = from_dict(SequenceSettings, header["settings"])
        shape, size = Shape(**header["shape"]), Size(**header["size"])
        model = SequenceModel(settings, header["model"], shape, size, 0)
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        told = str(error).splitlines()[0]
        raise CheckpointError(f"{path} does not fit its own description: {told}") from error
    return model.eval(), dict(header["notes"])


def detached(state: Any) -> Any:
    """Return a state without its history."""
    if state is None or isinstance(state, Tensor):
        return None if state is None else state.detach()
    parts: Sequence[Any] = [detached(part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)

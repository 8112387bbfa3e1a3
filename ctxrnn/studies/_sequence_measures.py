"""What is measured of a model of sequences: on test data, with foreign contexts, of the context."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ctxrnn import derive_seed, make_generator
from ctxrnn.studies._sequence_data import Batch, Data, Text
from ctxrnn.studies._sequence_models import SequenceModel
from ctxrnn.studies._sequence_settings import SequenceSettings
from ctxrnn.studies._sequence_training import Contexts, score

if TYPE_CHECKING:
    import pandas as pd

STRIP = 60
"""Steps of the sequence that is shown."""
_UNITS = 24


def measure(
    settings: SequenceSettings, data: Data, model: SequenceModel, seed: int
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Measure a model on the test split: values, and tables by name.

    Args:
        settings: Of the study.
        data: The data.
        model: The model.
        seed: Seed of the noise in contexts; the first network's contexts are shown.
    """
    import pandas as pd

    model.eval()
    value, loss = score(model, data, "test", None)
    nan = math.nan
    values: dict[str, Any] = {
        "test": value, "test_loss": loss, "multiply_adds": model.multiply_adds(),
        "entropy": nan, "entropy_mean": nan, "information_input": nan, "information_target": nan,
    }  # fmt: skip
    if model.modulated is None:
        return values, {}
    tables = {"corruption": pd.DataFrame(_corrupted(settings, data, model, seed))}
    contexts, batches = _seen(settings, data, model)
    if settings.squash == "softmax":
        values |= _information(data, contexts, batches)
    if seed == 0:
        tables |= shown(data, model)
    return values, tables


def _corrupted(
    settings: SequenceSettings, data: Data, model: SequenceModel, seed: int
) -> list[dict[str, Any]]:
    """Score the test split with contexts that are not the input's.

    c <- (1 - level) c + level c', with c' the context of another sequence ("other") or the mean
    over the validation split ("mean"); or c <- c + level eta, one eta of N(0, 1) for each sequence
    ("noise"). Level 1 of the first two is the ablation.
    """
    mean = _mean(settings, data, model)
    rows = []
    kinds = [("other", level) for level in settings.levels]
    kinds += [("mean", level) for level in settings.levels]
    kinds += [("noise", level) for level in (0.0, *settings.noises)]
    for kind, level in kinds:
        contexts = _given(model, kind, level, mean, seed)
        value, loss = score(model, data, "test", settings.tested, contexts)
        rows.append({"kind": kind, "level": level, "value": value, "loss": loss})
    return rows


def _given(model: SequenceModel, kind: str, level: float, mean: Tensor, seed: int) -> Contexts:
    drawn: dict[str, Tensor] = {}
    generator = make_generator(derive_seed(seed, "noise in contexts"))

    def contexts(batch: Batch, state: Any) -> tuple[Tensor, Any]:
        own, state = model.inferred(batch.inputs, state)
        if kind == "other":
            return torch.lerp(own, own.roll(1, dims=1), level), state
        if kind == "mean":
            return torch.lerp(own, mean.expand_as(own), level), state
        if batch.fresh:
            drawn["eta"] = torch.randn(own.shape[1:], generator=generator).to(own)
        return own + level * drawn["eta"], state

    return contexts


@torch.no_grad()
def _mean(settings: SequenceSettings, data: Data, model: SequenceModel) -> Tensor:
    """Return the mean context over the validation split, (context,)."""
    device = model.readout.weight.device
    total, steps, state = None, 0, None
    for batch in data.parts("validation", settings.evaluated):
        own, state = model.inferred(batch.inputs.to(device), None if batch.fresh else state)
        part = own.double().sum(dim=(0, 1))
        total = part if total is None else total + part
        steps += own.shape[0] * own.shape[1]
    assert total is not None
    return (total / steps).to(model.readout.weight.dtype)


@torch.no_grad()
def _seen(
    settings: SequenceSettings, data: Data, model: SequenceModel
) -> tuple[list[Tensor], list[Batch]]:
    """Return the contexts of the validation split, batch by batch, and what was read."""
    device = model.readout.weight.device
    contexts, batches, state = [], [], None
    for batch in data.parts("validation", settings.evaluated):
        own, state = model.inferred(batch.inputs.to(device), None if batch.fresh else state)
        contexts.append(own.cpu())
        batches.append(batch)
    return contexts, batches


def _information(data: Data, contexts: list[Tensor], batches: list[Batch]) -> dict[str, float]:
    """Return the entropy of contexts in bits, and what they tell of input and target.

    Of a text the input is the current symbol, the target the next; of images the input is the time
    step, the target the class.
    """
    from ctxrnn.analysis import context_entropy, context_information

    c = np.concatenate([part.reshape(-1, part.shape[-1]).double().numpy() for part in contexts])
    c /= c.sum(axis=1, keepdims=True)
    inputs, targets = [], []
    for part, batch in zip(contexts, batches, strict=True):
        shape = part.shape[:2]
        if isinstance(data, Text):
            inputs.append(batch.inputs.reshape(-1))
            targets.append(batch.targets.reshape(-1))
        else:
            inputs.append(torch.arange(shape[0])[:, None].expand(shape).reshape(-1))
            targets.append(batch.targets.expand(shape).reshape(-1))
    mean = c.mean(axis=0, keepdims=True)
    return {
        "entropy": float(context_entropy(c).mean()),
        "entropy_mean": float(context_entropy(mean)[0]),
        "information_input": context_information(c, torch.cat(inputs).numpy()),
        "information_target": context_information(c, torch.cat(targets).numpy()),
    }


@torch.no_grad()
def shown(data: Data, model: SequenceModel) -> dict[str, pd.DataFrame]:
    """Return tables to draw of one network: contexts and gains along a sequence, by symbol.

    "strip" holds the context, "strip_gains" the gain G of a unit and the factor h of its synapses
    at every step of a sequence, "by_symbol" the context of every symbol (of a text whose contexts
    depend on the symbol alone), or of every class and step.
    """
    import pandas as pd

    layer = model.modulated
    assert layer is not None
    batch = next(iter(data.parts("test", 4 * STRIP * 32 if isinstance(data, Text) else 200)))
    own, _ = model.inferred(batch.inputs)
    steps = min(STRIP, len(own))
    tables = {"strip": _long(own[:steps, 0], _names(data, batch, steps), "context")}
    circuit = layer.layers[0].circuit(own[:steps, 0])  # type: ignore[operator]
    parts = []
    factors: Mapping[str, Any] = {
        "gain": circuit.gain,
        "synaptic factor": getattr(circuit.recurrent, "pre", None),
    }
    for what, values in factors.items():
        if values is None or (what != "gain" and len(values) > 1):
            continue
        each = values if what == "gain" else values[0]
        chosen = each.var(dim=0).topk(min(_UNITS, each.shape[1])).indices.sort().values
        named = _long(each[:, chosen], _names(data, batch, steps), "unit")
        units = chosen.cpu().numpy()[named["unit"].to_numpy()]
        parts.append(named.assign(what=what, unit=units))
    if parts:
        tables["strip_gains"] = pd.concat(parts, ignore_index=True)
    by_symbol = _by_symbol(data, model)
    if by_symbol is not None:
        tables["by_symbol"] = by_symbol
    return tables


def _names(data: Data, batch: Batch, steps: int) -> list[str]:
    if isinstance(data, Text):
        return [data.corpus.alphabet[int(k)] for k in batch.inputs[:steps, 0]]
    return [str(step) for step in range(steps)]


def _long(values: Tensor, names: list[str], column: str) -> pd.DataFrame:
    """Return (step, column) values as a long table."""
    import pandas as pd

    steps, width = values.shape
    return pd.DataFrame(
        {
            "step": np.repeat(np.arange(steps), width), "symbol": np.repeat(names, width),
            column: np.tile(np.arange(width), steps),
            "value": values.double().cpu().numpy().reshape(-1),
        }
    )  # fmt: skip


def _by_symbol(data: Data, model: SequenceModel) -> pd.DataFrame | None:
    import pandas as pd

    layer = model.modulated
    assert layer is not None
    encoder = layer.layers[0].encoder
    if isinstance(data, Text):
        if encoder.A_h is not None or model.embedding is None:  # type: ignore[union-attr]
            return None
        c = encoder(model.embedding.weight)  # type: ignore[operator]
        frequency = np.bincount(data.corpus.ids("train"), minlength=len(c))
        table = _long(c, list(data.corpus.alphabet), "context")
        return table.assign(count=frequency[table["step"].to_numpy()])
    parts = []
    batch = next(iter(data.parts("test", 500)))
    own, _ = model.inferred(batch.inputs)
    for label, name in enumerate(data.images.classes):
        mine = own[:, batch.targets == label]
        if mine.shape[1]:
            parts.append(
                _long(mine.mean(dim=1), _names(data, batch, len(own)), "context").assign(label=name)
            )
    return pd.concat(parts, ignore_index=True) if parts else None

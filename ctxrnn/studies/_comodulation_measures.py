"""What is measured of a network that was tuned under one condition."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from ctxrnn import make_generator
from ctxrnn.analysis import (
    attribute_scores,
    average_precision,
    brier_score,
    calibration_error,
    class_accuracy,
    class_noise,
    cosine_similarity,
    discriminability,
    effective_units,
    fit_temperature,
    group_structure,
    label_fidelity,
    modulator_noise,
    negative_log_likelihood,
    reliability_table,
    representation_change,
    share_above_one,
    tuned_thresholds,
)
from ctxrnn.comodulation import ComodulatedNetwork, Examples, Tuned, predict
from ctxrnn.comodulation._data import batches
from ctxrnn.comodulation._tuning import hidden

if TYPE_CHECKING:
    import pandas as pd

    from ctxrnn.studies._comodulation_settings import ComodulationSettings

# Images of which activities are kept at once.
_MOST = 2000


@dataclass(frozen=True)
class Measured:
    """Values and tables of one cell."""

    values: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def probabilities(logits: Tensor | np.ndarray, classes: bool) -> np.ndarray:
    """Return probabilities of attributes or classes, float64."""
    z = np.asarray(logits, dtype=float)
    return np.asarray(special.softmax(z, axis=1) if classes else special.expit(z))


def score_of(classes: bool) -> Callable[[Tensor, Tensor], Mapping[str, float]]:
    """Return what epochs and rates are chosen by: macro F1, or accuracy."""
    return functools.partial(_score, classes=classes)


def _score(logits: Tensor, labels: Tensor, *, classes: bool) -> dict[str, float]:
    if not bool(torch.isfinite(logits.max())):
        return {"score": float("nan")}
    loss = negative_log_likelihood(logits, labels)
    if classes:
        return {"score": class_accuracy(logits, labels), "nll": loss}
    macro = attribute_scores(probabilities(logits, False), labels).macro()
    return {"score": macro["f1"], "nll": loss, **macro}


def measure(
    before: ComodulatedNetwork,
    tuned: Tuned,
    data: Mapping[str, Examples],
    settings: ComodulationSettings,
    meaning: Mapping[str, Any],
    seed: int,
) -> Measured:
    """Measure a tuned network on the test split, once.

    Args:
        before: The network that it was tuned from.
        tuned: The tuned one.
        data: Examples of "train", "validation" and "test"; thresholds and the temperature are
            fitted on validation.
        settings: Of the study.
        meaning: Names of "contexts" and "outputs", and the number ("group") and the name
            ("group_names") of each context's group, or None.
        seed: Seed of the noise.
    """
    import pandas as pd

    classes = settings.classes
    logits = {split: tuned.predict(data[split]) for split in ("validation", "test")}
    labels = {split: data[split].labels for split in logits}
    kept = [row for row in tuned.history if row["epoch"] == tuned.kept_epoch]
    values: dict[str, Any] = {
        "validation_score": kept[-1]["score"],
        "kept_epoch": tuned.kept_epoch,
        "trained_parameters": tuned.trained,
        "steps_per_epoch": -(-len(data["train"]) // settings.tune.batch),
    }
    values |= _performance(logits, labels, classes)
    values["score_running"] = _running_score(tuned, data["test"], classes)
    calibration, bins = _calibration(logits, labels, classes)
    values |= calibration
    values |= _noise(tuned, data["test"], logits["test"], settings, seed)
    values |= _change(before, tuned, data["test"])
    gains, similarity = _gains(before, tuned, data["validation"], meaning, classes, seed)
    values |= gains
    tables = {"history": pd.DataFrame(tuned.history), "reliability": bins}
    if not classes:
        tables["attributes"] = _by_attribute(logits, labels, meaning)
    if similarity is not None:
        tables["similarity"] = similarity
    return Measured(values, tables)


def _performance(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], classes: bool
) -> dict[str, float]:
    if classes:
        return {"accuracy": class_accuracy(logits["test"], labels["test"])}
    p = {split: probabilities(z, False) for split, z in logits.items()}
    thresholds = tuned_thresholds(p["validation"], labels["validation"])
    tuned = attribute_scores(p["test"], labels["test"], thresholds).macro()
    precision = average_precision(p["test"], labels["test"], skip_undefined=True)
    return {
        **attribute_scores(p["test"], labels["test"]).macro(),
        "f1_tuned": tuned["f1"],
        "mean_average_precision": float(np.nanmean(precision))
        if np.isfinite(precision).any()
        else math.nan,
        "predicted_share": float((p["test"] >= 0.5).mean()),
    }


def _running_score(tuned: Tuned, test: Examples, classes: bool) -> float:
    """Return the score with the running gain of training in place of the probe's."""
    condition = tuned.modulation.condition
    if not condition.stochastic or condition.through:
        return math.nan
    gain = tuned.modulation.decision_gain()
    logits = predict(tuned.network, test, tuned.modulation, gain)
    return float(score_of(classes)(logits, test.labels)["score"])


def _by_attribute(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], meaning: Mapping[str, Any]
) -> pd.DataFrame:
    import pandas as pd

    p, y = probabilities(logits["test"], False), labels["test"]
    found = attribute_scores(p, y)
    return pd.DataFrame(
        {
            "attribute": meaning["outputs"],
            "prevalence": np.asarray(y, dtype=float).mean(axis=0),
            "precision": found.precision, "recall": found.recall, "f1": found.f1,
            "average_precision": average_precision(p, y, skip_undefined=True),
        }
    )  # fmt: skip


def _calibration(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], classes: bool
) -> tuple[dict[str, float], pd.DataFrame]:
    import pandas as pd

    z, y = logits["test"], labels["test"]
    temperature = fit_temperature(logits["validation"], labels["validation"]).value
    scaled = np.asarray(z, dtype=float) / temperature
    p, q = probabilities(z, classes), probabilities(scaled, classes)
    values = {
        "ece": calibration_error(p, y),
        "ece_scaled": calibration_error(q, y),
        "temperature": temperature,
        "nll": negative_log_likelihood(z, y),
        "nll_scaled": negative_log_likelihood(scaled, y),
        "brier": brier_score(p, y),
    }
    if not classes:
        values["ece_positive"] = calibration_error(p, y, kind="positive")
    tables = [
        reliability_table(forecast, y, pooled=not classes).assign(scaled=which)
        for which, forecast in ((False, p), (True, q))
    ]
    return values, pd.concat(tables, ignore_index=True)


@torch.no_grad()
def _noise(
    tuned: Tuned, test: Examples, logits: Tensor, settings: ComodulationSettings, seed: int
) -> dict[str, float]:
    """Measure how much of the read-out the modulator moves, and how noisy labels make it."""
    network, modulation = tuned.network, tuned.modulation
    values = {"noise_ratio": math.nan, "noise_label": math.nan}
    if not settings.classes:
        # An attribute that the test split has of one kind alone has no noise within classes.
        share = test.labels.double().mean(dim=0)
        known = (share > 0) & (share < 1)
        if bool(known.any()):
            ratio = class_noise(logits[:, known], test.labels[:, known])
            values["noise_label"] = float(np.median(ratio))
    elif len(tuned.gain):
        values["noise_label"] = _one_against_rest(logits, test.labels)
    if modulation.controller is None:
        return values
    some = test.take(range(min(settings.noise_images, len(test))))
    contexts = 1 if network.head.per_image else network.head.contexts
    draw = make_generator(seed, "decoder noise")
    noise = settings.modulation.sigma * torch.randn(
        settings.noise_draws, len(some), contexts, generator=draw
    )
    device = network.readout.weight.device
    (_, batch), *_ = batches(some, torch.arange(len(some)), len(some), device=device)
    h = hidden(network, batch)
    found = []
    for m in noise:
        parts = []
        for rows in torch.arange(len(h)).split(network.chunk(h)):
            context = None if batch.context is None else batch.context[rows]
            parts.append(_noisy(tuned, h[rows], context, m[rows].to(device)).cpu())
        found.append(torch.cat(parts))
    z = torch.stack(found).double()
    known = torch.isfinite(z).all(dim=(0, 1))
    # With a superclass as context each image has outputs of its own.
    if settings.classes and not bool(known.all()):
        ratios = [
            modulator_noise(z[:, some.context == k][..., network.allowed[k].cpu()])
            for k in range(network.head.contexts)
            if some.context is not None and int((some.context == k).sum()) > 1
        ]
        values["noise_ratio"] = float(np.mean(np.concatenate(ratios)))
        return values
    values["noise_ratio"] = float(np.mean(modulator_noise(z)))
    return values


def _noisy(tuned: Tuned, h: Tensor, context: Tensor | None, noise: Tensor) -> Tensor:
    """Return logits with the noise left on, about mu; of comod-0 about 0."""
    network, modulation = tuned.network, tuned.modulation
    return network(h, modulation, context, gain=tuned.gain, noise=noise)


def _one_against_rest(logits: Tensor, labels: Tensor) -> float:
    """Return the median over classes of Var[z | y] / (difference of means)^2, one against the rest.

    Images for which a class is ruled out do not count.
    """
    z, found = logits.double().numpy(), []
    for output in range(z.shape[1]):
        there = np.isfinite(z[:, output])
        mine = (np.asarray(labels) == output)[there]
        if 1 < mine.sum() < len(mine) - 1:
            found.append(class_noise(z[there, output, None], mine[:, None])[0])
    return float(np.median(found)) if found else math.nan


@torch.no_grad()
def activities(
    network: ComodulatedNetwork, examples: Examples, tuned: Tuned | None = None
) -> np.ndarray:
    """Return the decoder's activity with its gain as the read-out sees it, (image, context, unit).

    With one context where it is the same in all, or that of the image.
    """
    found = []
    device = network.readout.weight.device
    for _, batch in batches(examples, torch.arange(len(examples)), 512, device=device):
        h = hidden(network, batch)
        for rows in torch.arange(len(h)).split(network.chunk(h)):
            context = None if batch.context is None else batch.context[rows]
            modulation = None if tuned is None else tuned.modulation
            a = network.activity(h[rows], *network._channels(modulation, context, None))
            if tuned is not None:
                gain = tuned.gain.to(a)
                per_image = network.head.per_image and context is not None
                a = a * (gain[context][:, None] if per_image else gain)
            found.append(a.cpu())
    return torch.cat(found).numpy()


def _change(before: ComodulatedNetwork, tuned: Tuned, test: Examples) -> dict[str, float]:
    some = test.take(range(min(_MOST // max(1, tuned.network.head.contexts) + 1, len(test))))
    old, new = activities(before, some), activities(tuned.network, some, tuned)
    old = np.broadcast_to(old, new.shape)
    found = [representation_change(old[:, k], new[:, k]) for k in range(new.shape[1])]
    return {
        "change": float(np.mean([item.relative for item in found])),
        "cka": float(np.mean([item.cka for item in found])),
    }


def _gains(
    before: ComodulatedNetwork, tuned: Tuned, validation: Examples, meaning: Mapping[str, Any],
    classes: bool, seed: int,
) -> tuple[dict[str, Any], pd.DataFrame | None]:  # fmt: skip
    """Measure couplings and gains: how sparse, how near the label, how organised."""
    import pandas as pd

    c = tuned.modulation.couplings()
    g = tuned.gain.double().cpu().numpy()
    values: dict[str, Any] = {
        "gain_above_one": float(share_above_one(g).mean()),
        "gain_effective": float(effective_units(g).mean()),
        "coupling_mean": math.nan if c is None else float(c.detach().mean()),
    }
    contexts = len(g)
    rows = {"gains": g} | ({} if c is None else {"couplings": c.detach().double().cpu().numpy()})
    if not classes and contexts == validation.labels.shape[1]:
        values |= _fidelity(before, validation, rows)
    tables = []
    for what, strength in rows.items():
        if contexts < 2 or np.ptp(strength, axis=0).max() < 1e-9:
            continue
        similarity = cosine_similarity(strength, meaning["contexts"], centred=True)
        if meaning["group"] is not None and np.isfinite(similarity.to_numpy()).all():
            found = group_structure(similarity, meaning["group"], permutations=2000, seed=seed)
            values |= {f"{what}_silhouette": found.silhouette, f"{what}_silhouette_p": found.p}
        long = similarity.rename_axis(index="a", columns="b").stack().rename("cosine")
        group = dict(zip(meaning["contexts"], meaning["group_names"] or [], strict=False))
        table = long.reset_index().assign(what=what)
        tables.append(table.assign(group=[group.get(a, "") for a in table["a"]]))
    for name in ("gains", "couplings"):
        for column in (f"{name}_silhouette", f"{name}_silhouette_p", f"{name}_fidelity"):
            values.setdefault(column, math.nan)
    return values, pd.concat(tables, ignore_index=True) if tables else None


def _fidelity(
    before: ComodulatedNetwork, validation: Examples, rows: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Correlate couplings with |d'| of channels, gains with |d'| of decoder units."""
    some = validation.take(range(min(_MOST, len(validation))))
    device = before.readout.weight.device
    (_, batch), *_ = batches(some, torch.arange(len(some)), len(some), device=device)
    with torch.no_grad():
        channels = hidden(before, batch).mean(dim=(2, 3)).double().cpu().numpy()
    units = activities(before, some)[:, 0]
    found = {}
    for what, activity in (("couplings", channels), ("gains", units)):
        if what not in rows:
            continue
        d = []
        for k in range(rows[what].shape[0]):
            y = np.asarray(some.labels[:, k])
            constant = len(np.unique(y)) < 2 or min(np.bincount(y)) < 2
            row = np.full(activity.shape[1], np.nan) if constant else discriminability(activity, y)
            d.append(row)
        finite = np.isfinite(np.array(d)).all(axis=1)
        if finite.any():
            values = label_fidelity(rows[what][finite], np.array(d)[finite])
            found[f"{what}_fidelity"] = (
                float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
            )
    return found


def first_score(network: ComodulatedNetwork, examples: Examples, classes: bool) -> float:
    """Return the score of a network as it is."""
    return float(score_of(classes)(predict(network, examples), examples.labels)["score"])

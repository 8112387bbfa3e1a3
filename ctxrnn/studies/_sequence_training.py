"""Training of sequence models: a short search over learning rates, then the best few."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ctxrnn.studies._sequence_data import Batch, Data
from ctxrnn.studies._sequence_models import SequenceModel, detached
from ctxrnn.studies._sequence_settings import SequenceSettings

LN2 = math.log(2)
_DIVERGED = 50


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats, over steps and sequences or over sequences."""
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


Contexts = Callable[[Batch, Any], tuple[Any, Any]]
"""From a batch and the state of the model that infers to contexts and that model's new state."""


@torch.no_grad()
def score(
    model: SequenceModel, data: Data, split: str, most: int | None, contexts: Contexts | None = None
) -> tuple[float, float]:
    """Return the metric of a split, and the mean cross-entropy in nats.

    Of a text bits per character with the state carried through its streams, of images accuracy.

    Args:
        model: The model.
        data: The data.
        split: "validation" or "test".
        most: Symbols or images that are used; None for all.
        contexts: What stands in for the contexts that the model infers.
    """
    device = model.readout.weight.device
    state = inferring = None
    total = hits = 0.0
    seen = 0
    for batch in data.parts(split, most):
        state, inferring = (None, None) if batch.fresh else (state, inferring)
        inputs, targets = batch.inputs.to(device), batch.targets.to(device)
        given = None
        if contexts is not None:
            given, inferring = contexts(Batch(inputs, targets, batch.fresh), inferring)
        logits, state = model(inputs, state, given)
        total += float(loss_of(logits, targets)) * targets.numel()
        hits += float((logits.argmax(-1) == targets).sum())
        seen += targets.numel()
    loss = total / seen
    return (loss / LN2 if data.metric == "bits per character" else hits / seen), loss


@dataclass
class Run:
    """One learning rate.

    Attributes:
        rate: The learning rate.
        model: The model.
        optimiser: Its optimiser.
        batches: What it still reads.
        updates: Updates so far.
        seconds: Processor seconds of the updates so far.
        history: One row per evaluation.
        best: Best validation metric, of finite ones.
        kept: Parameters at it, averaged.
        averaged: Mean of the parameters so far, with a weight on later ones.
        state: State that is carried to the next window.
        failed: Whether a loss was not finite.
    """

    rate: float
    model: SequenceModel
    optimiser: torch.optim.Optimizer
    batches: Iterator[Batch]
    updates: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = math.nan
    kept: dict[str, Tensor] = field(default_factory=dict)
    averaged: list[Tensor] = field(default_factory=list)
    state: Any = None
    failed: bool = False

    def update(self, clip: float, averaging: int | None = None) -> None:
        """Take one step of the optimiser, and average its parameters."""
        device = self.model.readout.weight.device
        batch = next(self.batches)
        started = time.process_time()
        state = None if batch.fresh else detached(self.state)
        try:
            logits, self.state = self.model(batch.inputs.to(device), state)
            loss = loss_of(logits, batch.targets.to(device))
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            self.failed = not math.isfinite(float(norm))
        except FloatingPointError:
            self.failed = True
        if not self.failed:
            self.optimiser.step()
            self.average(averaging)
        self.updates += 1
        self.seconds += time.process_time() - started

    def average(self, weight: int | None) -> None:
        """Take the parameters into their mean.

        After t updates parameters of update s weigh about as s^weight (Shamir & Zhang 2013): a
        falling rate without an end that must be known, so that a run may be cut anywhere.
        """
        if weight is None:
            return
        with torch.no_grad():
            now = list(self.model.parameters())
            if not self.averaged:
                self.averaged = [value.clone() for value in now]
            # update() has not counted this one yet.
            share = (weight + 1) / (self.updates + 1 + weight)
            for mean, value in zip(self.averaged, now, strict=True):
                mean.lerp_(value, share)

    @contextmanager
    def means(self) -> Iterator[None]:
        """Give the model its averaged parameters, for a while."""
        if not self.averaged:
            yield
            return
        now = list(self.model.parameters())
        moving = [value.detach().clone() for value in now]
        try:
            self._put(self.averaged)
            yield
        finally:
            self._put(moving)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.model.parameters(), values, strict=True):
            parameter.copy_(value)

    def evaluate(self, settings: SequenceSettings, data: Data) -> None:
        """Evaluate on validation, and keep the parameters where it is the best so far."""
        with self.means():
            self._evaluate(settings, data)

    def _evaluate(self, settings: SequenceSettings, data: Data) -> None:
        try:
            value, loss = score(self.model, data, "validation", settings.evaluated)
        except FloatingPointError:
            value, loss = math.nan, math.nan
        # So many times what guessing costs is no score: an unbounded encoder ran away.
        limit = _DIVERGED * math.log(self.model.readout.out_features)
        self.failed = self.failed or not math.isfinite(loss) or loss > limit
        self.history.append(
            {"rate": self.rate, "update": self.updates, "seconds": self.seconds,
             "validation": value, "loss": loss}
        )  # fmt: skip
        if self.failed:
            return
        if math.isnan(self.best) or data.better * (value - self.best) > 0:
            self.best = value
            self.kept = copy.deepcopy(self.model.state_dict())

    def until(self, updates: int, settings: SequenceSettings, data: Data, tell: Any) -> None:
        """Train up to a number of updates, evaluated at even distances."""
        every = max(1, round(settings.updates / settings.evaluations))
        while self.updates < updates and not self.failed:
            self.update(settings.clip, settings.averaging)
            tell()
            if not self.failed and (self.updates % every == 0 or self.updates == updates):
                self.evaluate(settings, data)


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Attributes:
        model: With the parameters of its best evaluation.
        rate: The learning rate that was chosen.
        history: Evaluations of all rates; "chosen" marks those of the chosen one.
        seconds: Processor seconds of its updates.
        updates: Its updates.
        best: Its best validation metric.
    """

    model: SequenceModel
    rate: float
    history: list[dict[str, Any]]
    seconds: float
    updates: int
    best: float


def fit(
    settings: SequenceSettings,
    data: Data,
    make: Callable[[], SequenceModel],
    seed: int,
    report: Callable[[float], Any] | None = None,
) -> Fitted:
    """Try every learning rate for a share of the updates; go on with the best few on validation.

    The best of these at the end counts. All start from the same parameters and read the same
    batches.

    Args:
        settings: Of the study.
        data: The data.
        make: Makes the model, the same at every call.
        seed: Sets the order of the data.
        report: Told the share of the updates that is done.

    Raises:
        FloatingPointError: If no rate gave a finite loss.
    """
    first = max(1, round(settings.search * settings.updates))
    finalists = min(settings.finalists, len(settings.rates))
    whole = len(settings.rates) * first + finalists * (settings.updates - first)
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if report is not None and done % 20 == 0:
            report(min(1.0, done / whole))

    runs = []
    for rate in settings.rates:
        model = make().to(settings.device)
        optimiser = torch.optim.Adam(model.parameters(), lr=rate)
        run = Run(rate, model, optimiser, data.training(seed))
        run.until(first, settings, data, tell)
        runs.append(run)
    going = [run for run in runs if not run.failed and run.kept]
    if not going:
        raise FloatingPointError(
            f"no learning rate of {', '.join(f'{run.rate:g}' for run in runs)} gave a finite loss: "
            "use smaller ones, or a bounded encoder"
        )
    going.sort(key=lambda run: data.better * run.best, reverse=True)
    for run in going[:finalists]:
        run.until(settings.updates, settings, data, tell)
    best = max(going[:finalists], key=lambda run: data.better * run.best)
    best.model.load_state_dict(best.kept)
    history = [{**row, "chosen": run is best} for run in runs for row in run.history]
    return Fitted(best.model, best.rate, history, best.seconds, best.updates, best.best)

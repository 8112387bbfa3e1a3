"""The second stage: tuning a pretrained network under one condition."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ctxrnn._checks import check_count, check_finite, check_positive, make_generator

from ._conditions import Condition, ModulationConfig
from ._data import Batch, Examples, batches, epoch_order
from ._estimator import Covariance, draw_modulator
from ._modulation import Modulation
from ._network import ComodulatedNetwork

Score = Callable[[Tensor, Tensor], Mapping[str, float]]
"""From logits and labels to named numbers; "score" is what epochs are chosen by."""


@dataclass(frozen=True)
class TuningConfig:
    """How a condition is tuned.

    Attributes:
        epochs: E_2.
        batch: Images per step.
        learning_rate: Adam's; the encoder, where it is trained, gets a tenth.
        log_every: Steps between evaluations in the first epoch.
        images_at_once: Images whose graph is held at once, the gradient adding up; None for all of
            a batch.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> from ctxrnn.comodulation import TuningConfig
        >>> config = TuningConfig(epochs=5, batch=64)
        >>> config.epochs * -(-1000 // config.batch)  # optimiser steps on 1,000 images
        80
    """

    epochs: int = 10
    batch: int = 256
    learning_rate: float = 1e-2
    log_every: int = 50
    images_at_once: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "log_every"):
            check_count(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        if self.images_at_once is not None:
            check_count("images_at_once", self.images_at_once)


@dataclass
class Tuned:
    """A tuned network.

    Attributes:
        network: The network, of the epoch kept.
        modulation: Its modulation.
        gain: Decoder gain at test, (context, unit).
        history: One row per evaluation: epoch, step, and what the score told.
        kept_epoch: The epoch with the best score on validation.
        trained: Number of parameters that were trained.

    Example: that of `tune`.
    """

    network: ComodulatedNetwork
    modulation: Modulation
    gain: Tensor
    history: list[dict[str, float]] = field(default_factory=list)
    kept_epoch: int = 0
    trained: int = 0

    def predict(self, examples: Examples) -> Tensor:
        """Return logits, (example, output), on the CPU."""
        return predict(self.network, examples, self.modulation, self.gain)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over attributes, or the cross-entropy over classes."""
    if labels.ndim == 2:
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits))
    return nn.functional.cross_entropy(logits, labels)


def hidden(network: ComodulatedNetwork, batch: Batch) -> Tensor:
    """Return h of a batch: as it is, or computed from images."""
    if network.takes_images(batch.inputs, batch.images):
        return network.encoder.below(batch.inputs)
    return batch.inputs.to(network.readout.weight.dtype)


def check_inputs(name: str, batch: Batch) -> None:
    """Raise ValueError if images or features hold NaN or infinite numbers."""
    if batch.inputs.is_floating_point():
        check_finite(f"inputs of {name}", batch.inputs, "Leave these examples out or repair them")


@torch.no_grad()
def predict(
    network: ComodulatedNetwork,
    examples: Examples,
    modulation: Modulation | None = None,
    gain: Tensor | None = None,
    *,
    size: int = 1024,
) -> Tensor:
    """Return logits of all examples in their order, (example, output), on the CPU.

    Args:
        network: The network; it is evaluated, and left in the mode it is in.
        examples: Images, or features of the modulated layer.
        modulation: Of a condition; None for gains of 1.
        gain: Decoder gain, (context, unit); None takes the modulation's own.
        size: Examples that are read at once.

    Raises:
        ValueError: If inputs fit neither images nor features of the network.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import ComodulatedNetwork, EncoderConfig, Examples, Head
        >>> from ctxrnn.comodulation import NetworkConfig, predict
        >>> parts = NetworkConfig(EncoderConfig("small"), (32,), Head.attributes(5))
        >>> network = ComodulatedNetwork(parts)
        >>> examples = Examples(torch.rand(200, 3, 16, 16), torch.zeros(200, 5))
        >>> predict(network, examples).shape  # a logit for each image and attribute
        torch.Size([200, 5])
    """
    was = network.training
    network.eval()
    device = network.readout.weight.device
    found = []
    for _, batch in batches(examples, torch.arange(len(examples)), size, device=device):
        h = hidden(network, batch)
        step = network.chunk(h)
        for first in range(0, len(h), step):
            rows = slice(first, first + step)
            context = None if batch.context is None else batch.context[rows]
            found.append(network(h[rows], modulation, context, gain=gain).cpu())
    network.train(was)
    return torch.cat(found)


@torch.no_grad()
def probe_gain(
    network: ComodulatedNetwork, modulation: Modulation, probe: Examples, seed: int
) -> Tensor:
    """Return the decoder gain at test, from a fixed set of training images and fixed noise.

    Args:
        network: The network, in evaluation mode.
        modulation: The modulation.
        probe: Images of the training set.
        seed: Seed of the noise.

    Returns:
        g, (context, unit); the modulation's own where no noise is needed.

    Raises:
        ValueError: If the probe set holds NaN or infinite numbers.
        FloatingPointError: If a covariance is NaN or infinite.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import ComodulatedNetwork, EncoderConfig, Examples, Head
        >>> from ctxrnn.comodulation import Modulation, ModulationConfig, NetworkConfig
        >>> from ctxrnn.comodulation import condition, probe_gain
        >>> parts = NetworkConfig(EncoderConfig("small"), (32,), Head.attributes(5))
        >>> network = ComodulatedNetwork(parts).eval()
        >>> comod = Modulation(condition("comod"), ModulationConfig(), 5, 64, 32)
        >>> probe = Examples(torch.rand(100, 64, 1, 1), torch.zeros(100, 5))
        >>> gain = probe_gain(network, comod, probe, seed=0)  # (context, unit)
        >>> gain.mean(1).round(decimals=3).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    config, head = modulation.config, network.head
    condition = modulation.condition
    # With the gradient through the gain there is no running mean.
    running = config.eval_gain == "running" and not condition.through
    if not condition.stochastic or running:
        return modulation.decision_gain()
    device = network.readout.weight.device
    draws = draw_modulator(
        len(probe), head.contexts, sigma=config.sigma, generator=make_generator(seed, "probe"),
        axis=config.noise_axis, draws=config.draws, center=config.noise_center,
        shuffled=condition.gain == "shuffled",
    )  # fmt: skip
    sums = Covariance(head.contexts, network.units, config.sigma, device)
    for number, batch in batches(probe, torch.arange(len(probe)), 1024, device=device):
        check_inputs("the probe set", batch)
        h = hidden(network, batch)
        some = draws
        if config.noise_axis != "single":
            some = draws.rows(1024 * number, 1024 * number + len(h))
        context = batch.context if config.probe_scope == "own_context" else None
        network.covariance(h, modulation, some, sums, context)
        if config.noise_axis == "single":
            break
    return modulation.shown(sums.gain(config.gain_stat, "the noise pass of the probe set"))


def trained_parameters(
    network: ComodulatedNetwork, modulation: Modulation
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters that a condition trains: those at the full rate, and the encoder's."""
    parts: dict[str, list[nn.Parameter]] = {
        "controller": [*(modulation.controller.parameters() if modulation.controller else ())],
        "film": [*(modulation.film.parameters() if modulation.film else ())],
        "gain": [modulation.eta] if modulation.eta is not None else [],
        "bias": [network.readout.bias],
        "readout": list(network.readout.parameters()),
        "decoder": list(network.decoder.parameters()),
    }
    trained = modulation.condition.trained
    own = [parameter for name in trained if name != "encoder" for parameter in parts[name]]
    return own, list(network.encoder.parameters()) if "encoder" in trained else []


class _Tuning:
    """A run under way."""

    def __init__(
        self, network: ComodulatedNetwork, modulation: Modulation, config: TuningConfig, seed: int
    ) -> None:
        self.network, self.modulation, self.config, self.seed = network, modulation, config, seed
        network.eval().requires_grad_(False)
        own, encoder = trained_parameters(network, modulation)
        for parameter in (*own, *encoder):
            parameter.requires_grad_(True)
        self.encoding = bool(encoder)
        self.trained = sum(parameter.numel() for parameter in (*own, *encoder))
        rate = config.learning_rate
        groups = [{"params": own, "lr": rate}, {"params": encoder, "lr": rate / 10}]
        groups = [group for group in groups if group["params"]]
        self.optimiser = torch.optim.Adam(groups) if groups else None

    def step(self, batch: Batch, epoch: int, number: int) -> None:
        """Take a step of the optimiser, then move the running gain."""
        assert self.optimiser is not None
        condition = self.modulation.condition
        self.network.train(self.encoding)
        self.optimiser.zero_grad()
        gain, noise = None, None
        if condition.through:
            h = hidden(self.network, batch)
            sums = self._fresh(h, batch, epoch, number)
            gain = self.modulation.shown(self._gain(sums, batch, epoch, number))
        if condition.noisy:
            noise = self._noise(batch, epoch, number)
        at_once = len(batch.labels) if condition.through else self.config.images_at_once
        size = at_once or len(batch.labels)
        for first in range(0, len(batch.labels), size):
            part = _rows(batch, slice(first, first + size))
            some = None if noise is None else noise[first : first + size]
            h = hidden(self.network, part)
            z = self.network(h, self.modulation, part.context, gain=gain, noise=some)
            (loss_of(z, part.labels) * len(part.labels) / len(batch.labels)).backward()
        self.optimiser.step()
        if condition.stochastic and not condition.through:
            with torch.no_grad():
                h = hidden(self.network, batch)
                sums = self._fresh(h, batch, epoch, number)
                fresh = self._gain(sums, batch, epoch, number)
                self.modulation.update(fresh, sums.images > 0)

    def _gain(self, sums: Covariance, batch: Batch, epoch: int, number: int) -> Tensor:
        where = f"step {number} of epoch {epoch}"
        try:
            return sums.gain(self.modulation.config.gain_stat, f"the noise pass of {where}")
        except FloatingPointError:
            check_inputs(f"the training set at {where}", batch)
            raise

    def _noise(self, batch: Batch, epoch: int, number: int) -> Tensor:
        contexts = 1 if self.network.head.per_image else self.network.head.contexts
        source = make_generator(self.seed, "noise", epoch, number)
        noise = torch.randn(len(batch.labels), contexts, generator=source)
        return (self.modulation.config.sigma * noise).to(batch.labels.device)

    def _fresh(self, h: Tensor, batch: Batch, epoch: int, number: int) -> Covariance:
        """Run the noise passes of a batch."""
        config, head = self.modulation.config, self.network.head
        draws = draw_modulator(
            len(h), head.contexts, sigma=config.sigma,
            generator=make_generator(self.seed, "noise", epoch, number),
            axis=config.noise_axis, draws=config.draws, center=config.noise_center,
            shuffled=self.modulation.condition.gain == "shuffled",
        )  # fmt: skip
        sums = Covariance(head.contexts, self.network.units, config.sigma, h.device)
        context = batch.context if config.probe_scope == "own_context" else None
        return self.network.covariance(h, self.modulation, draws, sums, context)


def _rows(batch: Batch, rows: slice) -> Batch:
    context = None if batch.context is None else batch.context[rows]
    return Batch(batch.inputs[rows], batch.labels[rows], context, batch.images)


def tune(
    network: ComodulatedNetwork,
    condition: Condition,
    train: Examples,
    validation: Examples,
    probe: Examples,
    *,
    score: Score,
    options: ModulationConfig | None = None,
    config: TuningConfig | None = None,
    seed: int = 0,
    report: Callable[[float], Any] | None = None,
) -> Tuned:
    """Tune a copy of a pretrained network under a condition; keep the best epoch.

    Batches and noise depend on the seed and the step alone, so that conditions are paired. What is
    not trained stays as it is: the network is in evaluation mode, but for the condition "full".

    Args:
        network: The pretrained network, which is not changed.
        condition: What is trained, and how decisions are taken.
        train: Features of the modulated layer, or images, which are encoded at every step.
        validation: The same of the validation set.
        probe: The same of the images that the gain at test is taken from, of the training set.
        score: From logits and labels to named numbers, with "score" to choose by.
        options: Unknowns of the modulation.
        config: How it is tuned.
        seed: Seed.
        report: Told the share of the work that is done.

    Raises:
        ValueError: If inputs, labels or contexts do not fit the network, or the probe set holds
            NaN.
        FloatingPointError: If a noise pass gave NaN, or no epoch a finite score.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import ComodulatedNetwork, EncoderConfig, Examples, Head
        >>> from ctxrnn.comodulation import NetworkConfig, TuningConfig, condition, tune
        >>> parts = NetworkConfig(EncoderConfig("small"), (32,), Head.attributes(5))
        >>> network = ComodulatedNetwork(parts)  # in earnest a pretrained one
        >>> data = Examples(torch.rand(200, 64, 1, 1), torch.randint(2, (200, 5)))  # features
        >>> def score(logits, labels):
        ...     return {"score": float(((logits > 0) == labels).float().mean())}
        >>> comod, config = condition("comod"), TuningConfig(epochs=1)
        >>> tuned = tune(network, comod, data, data, data, score=score, config=config)
        >>> tuned.trained  # couplings of 5 contexts to 64 channels
        320
        >>> tuned.predict(data).shape
        torch.Size([200, 5])
    """
    config, options = config or TuningConfig(), options or ModulationConfig()
    for name, examples in (("train", train), ("validation", validation), ("probe", probe)):
        if not len(examples):
            raise ValueError(f"{name} must hold one example at least: got none")
        # Of the probe set neither labels nor, as a rule, contexts are used.
        if name != "probe" or options.probe_scope == "own_context":
            network.head.check(name, examples.labels, examples.context)
    own = copy.deepcopy(network)
    modulation = Modulation(
        condition, options, own.head.contexts, own.channels, own.units, seed=seed
    ).to(own.readout.weight.device)
    for parameter in modulation.parameters():
        parameter.data = parameter.data.to(own.readout.weight.dtype)
    images = own.takes_images(train.read(torch.arange(1)), train.images)
    if "encoder" in condition.trained and not images:
        raise ValueError("the condition 'full' trains the encoder: give images, not features")
    run = _Tuning(own, modulation, config, seed)
    result = Tuned(own, modulation, modulation.decision_gain(), trained=run.trained)
    best = -torch.inf
    kept: tuple[Any, ...] | None = None
    steps = -(-len(train) // config.batch)

    def evaluated(epoch: int, step: int) -> float:
        own.eval()
        result.gain = probe_gain(own, modulation, probe, seed).detach().clone()
        told = score(predict(own, validation, modulation, result.gain), validation.labels)
        result.history.append({"epoch": epoch + 0.0, "step": step + 0.0, **told})
        return float(told["score"])

    evaluated(0, 0)
    if run.optimiser is None:
        return result
    device = own.readout.weight.device

    def trained(epoch: int) -> float:
        order = epoch_order(len(train), seed, epoch)
        for number, batch in batches(train, order, config.batch, device=device):
            run.step(batch, epoch, number)
            done = (epoch - 1) * steps + number + 1
            if report is not None:
                report(done / (steps * config.epochs))
            if epoch == 1 and (number + 1) % config.log_every == 0 and number + 1 < steps:
                evaluated(epoch, done)
        return evaluated(epoch, epoch * steps)

    for epoch in range(1, config.epochs + 1):
        try:
            value = trained(epoch)
        except FloatingPointError:
            # It diverged: what was good before stays.
            if kept is None:
                raise
            break
        if value > best:
            best, result.kept_epoch = value, epoch
            state = copy.deepcopy((own.state_dict(), modulation.state_dict()))
            kept = (*state, result.gain)
    if kept is None:
        raise FloatingPointError(
            f"{condition.name} gave no finite score: use a smaller learning rate than "
            f"{config.learning_rate:g}, or look for NaN in the inputs"
        )
    own.load_state_dict(kept[0])
    modulation.load_state_dict(kept[1])
    result.gain = kept[2]
    own.eval()
    return result

"""Settings of the studies of stochastic comodulation, and the cells that follow from them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

from ctxrnn._checks import check_count, check_positive, derive_seed, unknown_name
from ctxrnn.comodulation import (
    CONDITIONS,
    EncoderConfig,
    ModulationConfig,
    PretrainConfig,
    TuningConfig,
    condition,
)
from ctxrnn.studies._cells import Cell

VERSIONS = ("attributes", "groups", "V1", "V2")
"""What a context is: an attribute, a group of them, nothing (V1), the superclass (V2)."""


@dataclass(frozen=True)
class Rates:
    """Learning rates that are tried, as many for every kind of parameter.

    Attributes:
        couplings: Of theta, and of the free gain.
        readout: Of decoder, read-out and bias.
        film: Of gamma and beta.
        full: Of the whole network; the encoder gets a tenth.
    """

    couplings: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    readout: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    film: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    full: tuple[float, ...] = (3e-6, 1e-5, 3e-5)

    def __post_init__(self) -> None:
        rows = [self.couplings, self.readout, self.film, self.full]
        for rate in itertools.chain.from_iterable(rows):
            check_positive("rates", rate)
        if len({len(row) for row in rows}) > 1 or not self.couplings:
            raise ValueError(
                "rates must be as many for every kind of parameter, so that the effort is equal: "
                f"got {', '.join(str(len(row)) for row in rows)}"
            )

    def of(self, name: str) -> tuple[float, ...]:
        """Return the rates tried for a condition; one that trains nothing has the rate 0."""
        trained = condition(name).trained
        if not trained:
            return (0.0,)
        if "encoder" in trained:
            return self.full
        if "film" in trained:
            return self.film
        return self.couplings if "controller" in trained else self.readout


FEW_STEPS = Rates((1e-2, 3e-2, 1e-1), (1e-3, 3e-3, 1e-2), (1e-3, 3e-3, 1e-2), (3e-4, 1e-3, 3e-3))
"""Of small networks and sets, tuned in some hundred steps."""
ONE_RATE = Rates((1e-2,), (3e-3,), (3e-3,), (1e-3,))
"""To try things out."""


@dataclass(frozen=True)
class ComodulationSettings:
    """Settings of a study of comodulation.

    Attributes:
        data: Name of the image set.
        data_dir: Where its files lie; None for the usual place.
        options: Options of the image set, "name=value" each.
        most_train: Most training images that are used; None for all.
        versions: What contexts are: "attributes", "groups", "V1", "V2".
        conditions: Conditions that are compared.
        joint: Of those, the ones that are also tuned together with the read-out.
        rates: Learning rates that are tried.
        seeds: Networks, each with its own first stage; conditions are paired by it.
        heldout: Attributes that the first stage does not see; their read-outs are fitted on frozen
            features, and only they are tuned. They are every n-th in order of prevalence.
        head_epochs: Epochs E_h in which a new read-out is fitted.
        head_rate: Its learning rate.
        layers: Modulated layers.
        skips: Whether blocks have identity paths.
        decoders: Hidden units of the decoder, "128-128" for two layers. Layers and skips are
            combined with the first, the other decoders with the first layer and skip.
        encoder: The encoder.
        modulation: Unknowns of the modulation.
        pretrain: First stage; its lengths are an axis.
        tune: Second stage.
        probe: Training images that the gain at test is taken from.
        noise_images: Test images on which the noise of the decoder is measured.
        noise_draws: Draws of the modulator for each.
        keep_features: Whether features stay on disk after the study.
        device: Where networks are computed.
    """

    data: str = "celeba"
    data_dir: str | None = None
    options: tuple[str, ...] = ()
    most_train: int | None = None
    versions: tuple[str, ...] = ("attributes",)
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    joint: tuple[str, ...] = ()
    rates: Rates = field(default_factory=Rates)
    seeds: int = 5
    heldout: int = 0
    head_epochs: tuple[int, ...] = (10,)
    head_rate: float = 1e-3
    layers: tuple[str, ...] = ("layer4",)
    skips: tuple[bool, ...] = (True,)
    decoders: tuple[str, ...] = ("512-512-256",)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    modulation: ModulationConfig = field(default_factory=ModulationConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    tune: TuningConfig = field(default_factory=TuningConfig)
    probe: int = 2048
    noise_images: int = 256
    noise_draws: int = 64
    keep_features: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("probe", 1), ("noise_images", 2), ("noise_draws", 2)):
            check_count(name, getattr(self, name), minimum=least)
        self._check_without_effect()
        check_count("heldout", self.heldout, minimum=0)
        check_positive("head_rate", self.head_rate)
        for epochs in self.head_epochs:
            check_count("head_epochs", epochs)
        for version in self.versions:
            if version not in VERSIONS:
                raise unknown_name("version", version, VERSIONS)
        attributes = [version in ("attributes", "groups") for version in self.versions]
        if not attributes or len(set(attributes)) > 1:
            raise ValueError(
                f"versions must be of attributes or of classes, not both: got {self.versions}"
            )
        for name in (*self.conditions, *self.joint):
            condition(name)
        for arm in self.joint:
            if arm not in self.conditions or "controller" not in condition(arm).trained:
                raise ValueError(
                    f"joint must name conditions of the study that tune couplings: got {arm!r}"
                )
        for names in (self.layers, self.skips, self.decoders, self.conditions, self.head_epochs):
            if not names or len(set(names)) < len(names):
                raise ValueError(f"each must be named once, and one at least: got {names}")
        for text in self.decoders:
            decoder_of(text)
        for layer, skip in itertools.product(self.layers, self.skips):
            encoder_of(self, layer, skip)

    def _check_without_effect(self) -> None:
        """Refuse settings that another one takes the place of."""
        plain = EncoderConfig(self.encoder.kind)
        for name, place in (("skips", "skips"), ("channels", "the images")):
            if getattr(self.encoder, name) != getattr(plain, name):
                raise ValueError(f"encoder.{name} has no effect: set by {place}")
        if self.encoder.layer not in (plain.layer, *self.layers):
            raise ValueError("encoder.layer has no effect: set layers")
        if self.tune.learning_rate != TuningConfig().learning_rate:
            raise ValueError("tune.learning_rate has no effect: set rates")

    @property
    def classes(self) -> bool:
        """Whether images have one class each."""
        return self.versions[0] in ("V1", "V2")


def decoder_of(text: str) -> tuple[int, ...]:
    """Read "512-512-256"."""
    parts = text.split("-")
    if not all(part.isdigit() and int(part) for part in parts):
        raise ValueError(f"decoders must be numbers of units, such as 512-512-256: got {text!r}")
    return tuple(int(part) for part in parts)


def encoder_of(settings: ComodulationSettings, layer: str, skip: bool) -> EncoderConfig:
    """Return the encoder of a cell."""
    return replace(settings.encoder, layer=layer, skips=bool(skip))


def cells_of(settings: ComodulationSettings) -> list[Cell]:
    """Return all cells: architectures, lengths, versions, conditions, rates, seeds."""
    first, others = settings.decoders[0], settings.decoders[1:]
    shapes = [
        *((layer, skip, first) for layer in settings.layers for skip in settings.skips),
        *((settings.layers[0], settings.skips[0], decoder) for decoder in others),
    ]
    arms = [(name, False) for name in settings.conditions]
    arms += [(name, True) for name in settings.joint]
    # Read-outs are new for classes and for attributes that the first stage did not see.
    epochs = settings.head_epochs if settings.classes or settings.heldout else (0,)
    cells: list[Cell] = []
    for seed in range(settings.seeds):
        for layer, skip, decoder in shapes:
            for length, version, head in itertools.product(
                settings.pretrain.lengths, settings.versions, epochs
            ):
                for name, joint in arms:
                    cells += [
                        {
                            "seed": seed, "layer": layer, "skips": skip, "decoder": decoder,
                            "length": length, "version": version, "head_epochs": head,
                            "condition": name, "joint": joint, "rate": rate,
                        }
                        for rate in settings.rates.of(name)
                    ]  # fmt: skip
    return cells


def seed_of(cell: Cell) -> int:
    """Return the seed of a cell's networks; cells that are paired share it."""
    return derive_seed(int(cell["seed"]), "comodulation")


def first_stage(settings: ComodulationSettings, cell: Cell) -> dict[str, Any]:
    """Return what cells share that have the same first stage."""
    whole = bool(cell["skips"]) or settings.encoder.skip_scope == "all"
    return {
        "seed": cell["seed"], "skips": cell["skips"], "decoder": cell["decoder"],
        # Without skips above the modulated layer the network depends on which one that is.
        "layer": "any" if whole else cell["layer"],
    }  # fmt: skip

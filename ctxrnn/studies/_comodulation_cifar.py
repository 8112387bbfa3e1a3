"""Does it help to tell fine classes apart after coarse ones? CIFAR-100, or Fashion-MNIST."""

from __future__ import annotations

from ctxrnn.comodulation import EncoderConfig, PretrainConfig, TuningConfig
from ctxrnn.studies._comodulation import comodulation
from ctxrnn.studies._comodulation_settings import FEW_STEPS, ONE_RATE, ComodulationSettings
from ctxrnn.studies._recipes import Recipe
from ctxrnn.studies._study import Study


def cifar(settings: ComodulationSettings) -> Study:
    """Return the study."""
    return comodulation(
        "comodulation-cifar",
        "After training on superclasses, does comodulation help with their classes more than "
        "attention, without a context (V1) or with the superclass as context (V2)?",
        settings,
    )


SMALL = EncoderConfig("small", "layer3")

RECIPE = Recipe(
    build=cifar,
    summary="Comodulation against attention and controls, coarse to fine classes (paper: "
    "CIFAR-100; quick: Fashion-MNIST; smoke: drawn textures).",
    scales={
        "smoke": ComodulationSettings(
            data="hier-textures",
            options=("images=900", "size=16"),
            rates=ONE_RATE,
            versions=("V1", "V2"),
            joint=("attention", "comod"),
            seeds=2,
            head_epochs=(2,),
            layers=("layer3",),
            decoders=("32-32",),
            encoder=SMALL,
            pretrain=PretrainConfig(lengths=(2,), learning_rate=1e-3, batch=64),
            tune=TuningConfig(epochs=2, batch=64, log_every=5),
            probe=128,
            noise_images=32,
            noise_draws=8,
        ),
        "quick": ComodulationSettings(
            data="fashion-mnist",
            most_train=10_000,
            versions=("V1", "V2"),
            joint=("attention", "comod"),
            rates=FEW_STEPS,
            layers=("layer3",),
            decoders=("128-128",),
            encoder=SMALL,
            pretrain=PretrainConfig(lengths=(5,), learning_rate=1e-3),
            tune=TuningConfig(epochs=5, log_every=10),
        ),
        "paper": ComodulationSettings(
            data="cifar100",
            versions=("V1", "V2"),
            joint=("attention", "comod"),
            head_epochs=(1, 10),
            encoder=EncoderConfig("resnet18", "layer4", stem="cifar"),
            pretrain=PretrainConfig(
                lengths=(60,), optimiser="sgd", learning_rate=0.1, weight_decay=5e-4,
                schedule="cosine", augment="crop-flip",
            ),
            keep_features=True,
        ),
    },
)  # fmt: skip

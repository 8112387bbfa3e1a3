"""Do residual connections, the modulated layer, the decoder decide what comodulation gives?"""

from __future__ import annotations

from ctxrnn.comodulation import EncoderConfig, PretrainConfig, TuningConfig
from ctxrnn.studies._comodulation import comodulation
from ctxrnn.studies._comodulation_settings import FEW_STEPS, ONE_RATE, ComodulationSettings
from ctxrnn.studies._recipes import Recipe
from ctxrnn.studies._study import Study


def architecture(settings: ComodulationSettings) -> Study:
    """Return the study."""
    return comodulation(
        "comodulation-architecture",
        "Is the benefit of comodulation over attention larger with residual connections, and how "
        "does it depend on the modulated layer and the decoder?",
        settings,
    )


ARMS = ("none", "attention", "comod")

RECIPE = Recipe(
    build=architecture,
    summary="Comodulation with and without residual connections, per layer and decoder (paper: "
    "CIFAR-100; quick: Fashion-MNIST; smoke: drawn textures).",
    scales={
        "smoke": ComodulationSettings(
            data="hier-textures",
            options=("images=900", "size=16"),
            versions=("V1",),
            conditions=ARMS,
            rates=ONE_RATE,
            seeds=2,
            head_epochs=(2,),
            layers=("layer1", "layer2"),
            skips=(True, False),
            decoders=("32-32", "32"),
            encoder=EncoderConfig("small", "layer1"),
            pretrain=PretrainConfig(lengths=(1,), learning_rate=1e-3, batch=64),
            tune=TuningConfig(epochs=1, batch=64, log_every=5),
            probe=128,
            noise_images=32,
            noise_draws=8,
        ),
        "quick": ComodulationSettings(
            data="fashion-mnist",
            most_train=4000,
            versions=("V1",),
            conditions=ARMS,
            rates=FEW_STEPS,
            head_epochs=(5,),
            layers=("layer2", "layer3"),
            skips=(True, False),
            decoders=("128-128", "128", "128-128-128", "32-32"),
            encoder=EncoderConfig("small", "layer2", skip_scope="all"),
            pretrain=PretrainConfig(lengths=(5,), learning_rate=1e-3),
            tune=TuningConfig(epochs=3, log_every=5),
            probe=1024,
        ),
        "paper": ComodulationSettings(
            data="cifar100",
            versions=("V1", "V2"),
            conditions=ARMS,
            layers=("layer1", "layer2", "layer3"),
            skips=(True, False),
            decoders=("512-512-256", "256", "512-256", "64-64-64", "1024-1024-1024"),
            encoder=EncoderConfig("resnet18", "layer1", stem="cifar"),
            pretrain=PretrainConfig(
                lengths=(60,), optimiser="sgd", learning_rate=0.1, weight_decay=5e-4,
                schedule="cosine", augment="crop-flip",
            ),
            keep_features=True,
        ),
    },
)  # fmt: skip

"""Does stochastic comodulation of gains help with many binary attributes? CelebA, or a stand-in."""

from __future__ import annotations

from ctxrnn.comodulation import EncoderConfig, PretrainConfig, TuningConfig
from ctxrnn.studies._comodulation import comodulation
from ctxrnn.studies._comodulation_settings import FEW_STEPS, ONE_RATE, ComodulationSettings
from ctxrnn.studies._recipes import Recipe
from ctxrnn.studies._study import Study


def celeba(settings: ComodulationSettings) -> Study:
    """Return the study."""
    return comodulation(
        "comodulation-celeba",
        "Does tuning the gains of a pretrained network help more with the noise-derived decoder "
        "gain than without it, attribute by attribute?",
        settings,
    )


SMALL = EncoderConfig("small", "layer3")

RECIPE = Recipe(
    build=celeba,
    summary="Comodulation against attention and controls on binary attributes (paper: CelebA; "
    "quick, smoke: drawn sprites in its place).",
    scales={
        "smoke": ComodulationSettings(
            data="attr-sprites",
            options=("images=800", "attributes=6"),
            rates=ONE_RATE,
            seeds=2,
            layers=("layer3",),
            decoders=("32-32",),
            encoder=SMALL,
            pretrain=PretrainConfig(lengths=(1, 2), learning_rate=1e-3, batch=64),
            tune=TuningConfig(epochs=2, batch=64, log_every=3),
            probe=128,
            noise_images=32,
            noise_draws=8,
        ),
        "quick": ComodulationSettings(
            data="attr-sprites",
            rates=FEW_STEPS,
            layers=("layer3",),
            decoders=("128-128",),
            encoder=SMALL,
            pretrain=PretrainConfig(lengths=(2, 5, 12), learning_rate=1e-3),
            tune=TuningConfig(epochs=5, log_every=10),
        ),
        "paper": ComodulationSettings(
            data="celeba",
            encoder=EncoderConfig("resnet18", "layer4", weights="imagenet"),
            pretrain=PretrainConfig(lengths=(1, 2, 5, 10, 20), workers=8),
            keep_features=True,
        ),
    },
)

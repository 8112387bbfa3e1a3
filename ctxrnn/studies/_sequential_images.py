"""Does a context that is inferred from the input help to classify images read in parts?"""

from __future__ import annotations

from ctxrnn.studies._recipes import Recipe
from ctxrnn.studies._sequence_settings import SequenceSettings
from ctxrnn.studies._sequences import sequences
from ctxrnn.studies._study import Study


def sequential_images(settings: SequenceSettings) -> Study:
    """Return the study."""
    return sequences(
        "sequential-images",
        "At equal parameters, does a layer with inferred contexts classify images that are read "
        "in parts better than plain and gated ones?",
        settings,
    )


RECIPE = Recipe(
    build=sequential_images,
    summary="Contexts inferred from the input: images read row by row (quick: Fashion-MNIST, also "
    "permuted; smoke: digits; paper: pixel by pixel).",
    scales={
        "smoke": SequenceSettings(
            data="digits",
            readings=("rows", "permuted-rows"),
            models=("rnn", "gru", "e-gain", "es-gain-sym"),
            budgets=(14_000,),
            seeds=2,
            contexts=2,
            rates=(3e-3, 1e-2),
            updates=20,
            batch=32,
            evaluations=4,
            evaluated=200,
            levels=(0.0, 1.0),
            noises=(0.3,),
            tested=200,
        ),
        "quick": SequenceSettings(
            data="fashion-mnist",
            readings=("rows", "permuted-rows"),
            budgets=(10_000, 40_000),
            updates=1500,
            batch=64,
            evaluated=5000,
        ),
        "paper": SequenceSettings(
            data="fashion-mnist",
            readings=("rows", "permuted-rows", "pixels", "permuted-pixels"),
            models=(
                "rnn", "gru", "lstm", "e-add", "e-gain", "s-sym", "es-gain-sym", "s-asym-2",
                "e-add:slow",
            ),
            updates=20_000,
            batch=128,
            evaluations=40,
            evaluated=5000,
            device="cuda",
        ),
    },
)  # fmt: skip

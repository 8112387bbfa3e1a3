"""Does a context that is inferred from the text help to predict its next character?"""

from __future__ import annotations

from ctxrnn.studies._recipes import Recipe
from ctxrnn.studies._sequence_settings import SequenceSettings
from ctxrnn.studies._sequences import sequences
from ctxrnn.studies._study import Study


def language(settings: SequenceSettings) -> Study:
    """Return the study."""
    return sequences(
        "language",
        "At equal parameters, does a layer with inferred contexts model characters better than "
        "plain and gated ones?",
        settings,
    )


RECIPE = Recipe(
    build=language,
    summary="Contexts inferred from the input: character language modelling (quick, paper: King "
    "James Bible; smoke: drawn words).",
    scales={
        "smoke": SequenceSettings(
            data="words",
            options=("characters=40000",),
            models=("rnn", "lstm", "e-gain", "es-gain-sym"),
            budgets=(4000,),
            seeds=2,
            contexts=3,
            embedding=12,
            rates=(3e-3, 1e-2),
            updates=20,
            batch=8,
            length=30,
            evaluations=4,
            evaluated=1000,
            levels=(0.0, 1.0),
            noises=(0.3,),
            tested=1000,
        ),
        "quick": SequenceSettings(
            budgets=(20_000, 60_000), updates=2000, evaluated=40_000, tested=60_000
        ),
        "paper": SequenceSettings(
            models=(
                "rnn", "gru", "lstm", "e-add", "e-gain", "s-sym", "es-gain-sym", "s-asym-2",
                "e-add:state", "e-add:slow", "es-gain-sym:state",
            ),
            updates=20_000,
            batch=64,
            length=150,
            evaluations=40,
            evaluated=200_000,
            device="cuda",
        ),
    },
)  # fmt: skip

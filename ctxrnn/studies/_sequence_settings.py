"""Settings of the studies of inferred contexts, and the cells that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ctxrnn._catalogue import check_variant
from ctxrnn._checks import (
    check_count,
    check_fraction,
    check_not_negative,
    check_positive,
    unknown_name,
)
from ctxrnn._encoder import SQUASHES, Squash

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Baselines, and how many maps each has."""
ENDINGS = {"state": "the encoder sees the state", "slow": "contexts are filtered"}
READINGS = ("text", "rows", "columns", "pixels", "permuted-rows", "permuted-pixels")


@dataclass(frozen=True)
class SequenceSettings:
    """Settings of a study of inferred contexts.

    Attributes:
        data: Name of a text, or of an image set with classes.
        data_dir: Where its files lie; None for the usual place.
        data_digest: SHA-256 of the text of "file", filled in: another text is another study.
        options: Options of the text or image set, "name=value" each.
        readings: "text", or how images are read: "rows", "permuted-rows", "pixels", ...
        models: "rnn", "gru", "lstm", or an id of the catalogue, with ":state" where the encoder
            sees the state and ":slow" where contexts are filtered.
        budgets: Trainable parameters, about; sizes of all models agree within 1 %.
        seeds: Networks of each; models are paired by the seed, which sets the order of the data.
        contexts: K.
        squash: psi of the encoder.
        encoder_hidden: Units of its hidden layer; None for none.
        interpolation: "factor-linear" takes 1 + R products of W in a step, "outer-linear" 1 + K R.
        slow: Time constant of filtered contexts, in steps.
        embedding: Size of the embedding of symbols, about; it is the same in all models.
        rates: Learning rates that are tried.
        updates: Updates of the rate that is chosen.
        search: Share of the updates after which only the best rates on validation go on.
        finalists: How many do; the best of them at the end is chosen.
        batch: Sequences of an update.
        length: Steps of truncated back-propagation, for texts.
        clip: Largest norm of the gradient.
        averaging: Parameters of update s weigh about as s to this power in the mean that is
            evaluated; None for the last ones alone.
        evaluations: How often a run is evaluated.
        evaluated: Symbols or images of the validation split that are used for it.
        levels: Shares of a foreign context at test.
        noises: Standard deviations of noise added to the context at test.
        tested: Symbols or images of the test split that are used for them; None for all.
        device: Where networks are computed.
    """

    data: str = "bible-kjv"
    data_dir: str | None = None
    data_digest: str | None = None
    options: tuple[str, ...] = ()
    readings: tuple[str, ...] = ("text",)
    models: tuple[str, ...] = ("rnn", "gru", "lstm", "e-gain", "s-sym", "es-gain-sym")
    budgets: tuple[int, ...] = (50_000, 500_000)
    seeds: int = 5
    contexts: int = 8
    squash: Squash = "softmax"
    encoder_hidden: int | None = None
    interpolation: Literal["outer-linear", "factor-linear"] = "factor-linear"
    slow: float = 10.0
    embedding: int = 32
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    updates: int = 2000
    search: float = 0.1
    finalists: int = 2
    batch: int = 32
    length: int = 100
    clip: float = 1.0
    averaging: int | None = 8
    evaluations: int = 12
    evaluated: int = 50_000
    levels: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    noises: tuple[float, ...] = (0.1, 0.3, 1.0)
    tested: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("seeds", "contexts", "embedding", "updates", "batch", "length", "evaluations",
                     "evaluated", "finalists"):  # fmt: skip
            check_count(name, getattr(self, name))
        # With one sequence there is no other whose context could stand in.
        check_count("batch", self.batch, minimum=2)
        for name in ("clip", "slow"):
            check_positive(name, getattr(self, name))
        for name in ("encoder_hidden", "tested"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), minimum=2 if name == "tested" else 1)
        for noise in self.noises:
            check_not_negative("noises", noise)
        if self.averaging is not None:
            check_count("averaging", self.averaging, minimum=0)
        for rate in self.rates:
            check_positive("rates", rate)
        if not 0 < self.search <= 1:
            raise ValueError(f"search must be in (0, 1]: got {self.search}")
        for level in self.levels:
            check_fraction("levels", level)
        if self.squash not in SQUASHES:
            raise unknown_name("squash", self.squash, SQUASHES)
        for names in (self.readings, self.models, self.budgets, self.rates):
            if not names or len(set(names)) < len(names):
                raise ValueError(f"each must be named once, and one at least: got {names}")
        for reading in self.readings:
            if reading not in READINGS:
                raise unknown_name("reading", reading, READINGS)
        if ("text" in self.readings) != (self.readings == ("text",)):
            raise ValueError(
                f"readings must be 'text' alone or of images: got {', '.join(self.readings)}"
            )
        for budget in self.budgets:
            check_count("budgets", budget)
        for model in self.models:
            parts_of(model)

    @property
    def text(self) -> bool:
        """Whether symbols are predicted, not images classified."""
        return self.readings == ("text",)

    @property
    def modulated(self) -> tuple[str, ...]:
        """Models with pathways."""
        return tuple(model for model in self.models if model not in GATES)


def parts_of(model: str) -> tuple[str, str]:
    """Return the id of a model's pathways, or of a baseline, and its ending.

    Raises:
        ValueError: For unknown ones.
    """
    variant, _, ending = model.partition(":")
    if variant in GATES:
        if ending:
            raise ValueError(f"{variant} has no context: got {model!r}")
        return variant, ""
    if variant == "none":
        raise ValueError("the network without pathways is 'rnn': got 'none'")
    check_variant(variant)
    if ending and ending not in ENDINGS:
        raise unknown_name(f"ending of {variant!r}", ending, ENDINGS)
    return variant, ending

"""The data of the studies of inferred contexts, as models read them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrnn import derive_seed
from ctxrnn.studies._configured import parsed
from ctxrnn.studies._sequence_models import Shape
from ctxrnn.studies._sequence_settings import SequenceSettings
from ctxrnn.tasks import sequence_set, text_corpus

PERMUTATION = 0
"""Seed of the permutation of pixels: one for all networks."""


@dataclass(frozen=True)
class Batch:
    """What an update or an evaluation sees.

    Attributes:
        inputs: Symbols, (time, sequence), or numbers, (time, sequence, feature).
        targets: Next symbols, (time, sequence), or classes, (sequence,).
        fresh: Whether the state starts anew.
    """

    inputs: Tensor
    targets: Tensor
    fresh: bool


class Text:
    """Symbols of a text: streams that are read side by side.

    Args:
        settings: Of the study.
    """

    metric, better = "bits per character", -1

    def __init__(self, settings: SequenceSettings) -> None:
        self.settings = settings
        self.corpus = text_corpus(settings.data, settings.data_dir, **_options(settings))
        symbols = len(self.corpus.alphabet)
        self.shape = Shape(symbols, 0, symbols)
        self._streams: dict[tuple[str, int, int | None], Tensor] = {}

    @property
    def facts(self) -> dict[str, Any]:
        """What records say of the data."""
        corpus = self.corpus
        return {
            "data_name": corpus.name, "stand_in_for": corpus.stand_in_for or "",
            "data_title": corpus.title, "data_fingerprint": corpus.fingerprint,
            "chance": corpus.unigram_bits("test"), "bigram": corpus.bigram_bits("test"),
            "bound": math.nan if corpus.entropy_rate is None else corpus.entropy_rate,
        }  # fmt: skip

    @property
    def labels(self) -> tuple[str, ...]:
        """The symbols by their numbers."""
        return self.corpus.alphabet

    def streams(self, split: str, most: int | None = None) -> Tensor:
        """Return contiguous streams of a split, (time, sequence)."""
        key = (split, self.settings.batch, most)
        if key not in self._streams:
            batch = self.settings.batch
            whole = torch.tensor(np.asarray(self.corpus.streams(split, batch)))
            length = len(whole) if most is None else max(2, min(len(whole), most // batch))
            self._streams[key] = whole[:length]
        return self._streams[key]

    def check(self) -> None:
        """Raise ValueError unless every split is long enough, and training for one sequence."""
        for split in ("train", "validation", "test"):
            self.streams(split)
        longest = len(self.streams("train")) - 1
        if self.settings.length > longest:
            raise ValueError(
                f"{self.settings.data}: its {self.settings.batch} streams are shorter than a "
                f"sequence: choose length={longest} or less, a smaller batch, or a longer text"
            )

    def training(self, seed: int) -> Iterator[Batch]:
        """Go through the training split without end; streams start at a place of the seed's."""
        streams, length = self.streams("train"), self.settings.length
        last = len(streams) - 1
        start = derive_seed(seed, "start") % last
        fresh = True
        while True:
            stop = min(start + length, last)
            yield Batch(streams[start:stop], streams[start + 1 : stop + 1], fresh)
            start, fresh = (0, True) if stop == last else (stop, False)

    def parts(self, split: str, most: int | None) -> Iterator[Batch]:
        """Go through a split once, in parts of some length, with the state carried."""
        streams = self.streams(split, most)
        for start in range(0, len(streams) - 1, 500):
            stop = min(start + 500, len(streams) - 1)
            yield Batch(streams[start:stop], streams[start + 1 : stop + 1], start == 0)


class Images:
    """Images that are read as sequences.

    Args:
        settings: Of the study.
        reading: How.
    """

    metric, better = "accuracy", 1

    def __init__(self, settings: SequenceSettings, reading: str) -> None:
        self.settings, self.reading = settings, reading
        permuted = reading.startswith("permuted-")
        self.images = sequence_set(
            settings.data, settings.data_dir, reading=reading.removeprefix("permuted-"),
            permutation=PERMUTATION if permuted else None, standardise=True, **_options(settings),
        )  # fmt: skip
        self.shape = Shape(0, self.images.features, len(self.images.classes))

    @property
    def facts(self) -> dict[str, Any]:
        """What records say of the data."""
        images = self.images
        test = np.bincount(images.labels[images.splits["test"]], minlength=len(images.classes))
        return {
            "data_name": images.name, "stand_in_for": images.stand_in_for or "",
            "data_title": images.title, "data_fingerprint": images.fingerprint,
            "chance": float(test.max() / test.sum()), "bigram": math.nan, "bound": math.nan,
        }  # fmt: skip

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes by their numbers."""
        return self.images.classes

    def _batch(self, rows: np.ndarray) -> Batch:
        labels = torch.tensor(self.images.labels[rows])
        return Batch(self.images.read(rows).transpose(0, 1).contiguous(), labels, True)

    def check(self) -> None:
        """Raise ValueError unless every split holds images, two at least."""
        for split in ("train", "validation", "test"):
            if len(self.images.splits.get(split, ())) < 2:
                raise ValueError(
                    f"{self.settings.data}: the {split} split must hold two images at least: "
                    "choose another set, or hold images out (options=validation=500)"
                )

    def training(self, seed: int) -> Iterator[Batch]:
        """Go through the training images without end, every epoch in an order of the seed's."""
        rows, batch = self.images.splits["train"], self.settings.batch
        batch = min(batch, len(rows))
        epoch = 0
        while True:
            order = np.random.default_rng(derive_seed(seed, "epoch", epoch)).permutation(rows)
            for start in range(0, len(order) - batch + 1, batch):
                yield self._batch(order[start : start + batch])
            epoch += 1

    def parts(self, split: str, most: int | None) -> Iterator[Batch]:
        """Go through a split once, in parts."""
        rows = self.images.splits[split][:most]
        # Of even size: a part of one image has no other whose context could stand in.
        for part in np.array_split(rows, -(-len(rows) // 500)):
            yield self._batch(part)


Data = Text | Images


@functools.lru_cache(maxsize=3)
def data_of(settings: SequenceSettings, reading: str) -> Data:
    """Read the data of a study, once in a process.

    Raises:
        FileNotFoundError: If data are missing; the line says which, where, and how to get them.
    """
    return Text(settings) if reading == "text" else Images(settings, reading)


def _options(settings: SequenceSettings) -> Mapping[str, Any]:
    options = {}
    for assignment in settings.options:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"options must be name=value each: got {assignment!r}")
        options[name] = parsed(text)
    return options

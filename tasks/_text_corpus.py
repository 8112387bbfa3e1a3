"""Texts as symbols: an alphabet, fixed splits, streams and windows, and reference levels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrnn._checks import check_count, unknown_name

from .images._image_set import SPLITS

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# An input and its target.
_LEAST = 2


@dataclass(frozen=True, eq=False, repr=False)
class TextCorpus:
    """A text for character language modelling.

    Attributes:
        name: Its name in `text_corpus`, e.g. "bible-kjv".
        stand_in_for: What a drawn or unverified text only takes the place of; None for texts that
            go by their own name. `title` says so, for figures and records.
        alphabet: The symbols by their numbers. The last is U+FFFD, the unknown symbol, where the
            text holds others than those before it.
        splits: Numbers of the symbols of "train", "validation" and "test", int64 (time,).
        entropy_rate: Of the source that a text was drawn from, in bits per character: what no model
            goes below on average; None for texts of people.
        options: What it was made with, for records.

    Raises:
        ValueError: If the alphabet is not one of single characters, or splits do not fit it.

    Example:
        >>> from ctxrnn.tasks import text_corpus
        >>> corpus = text_corpus("words", characters=20_000)
        >>> corpus.decode(corpus.encode("a text"))
        'a text'
        >>> inputs, targets = next(corpus.windows("train", batch=4, length=50))
        >>> bool((inputs[1:] == targets[:-1]).all())  # a target is the next input
        True
        >>> corpus.entropy_rate < corpus.bigram_bits("test") < corpus.unigram_bits("test")
        True
    """

    name: str
    stand_in_for: str | None
    alphabet: tuple[str, ...]
    splits: Mapping[str, np.ndarray]
    entropy_rate: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.alphabet)) < len(self.alphabet) or {*map(len, self.alphabet)} != {1}:
            raise ValueError(
                f"{self.name}: alphabet must hold single characters, each once: got {self.alphabet}"
            )
        if tuple(self.splits) != SPLITS:
            raise ValueError(
                f"{self.name}: splits must be {', '.join(SPLITS)}: got {', '.join(self.splits)}"
            )
        for split, ids in self.splits.items():
            self._check_split(split, ids)
            ids.setflags(write=False)

    def _check_split(self, split: str, ids: np.ndarray) -> None:
        if ids.ndim != 1 or ids.dtype != np.int64 or len(ids) < _LEAST:
            raise ValueError(
                f"{self.name}: {split} must be int64 (time,), of {_LEAST} symbols at least: got "
                f"{ids.dtype} {ids.shape}"
            )
        self._check_range(ids)

    def _check_range(self, ids: np.ndarray) -> None:
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self.alphabet):
            raise ValueError(
                f"{self.name}: symbols must lie in 0..{len(self.alphabet) - 1}: got {ids.min()} to "
                f"{ids.max()}"
            )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(ids)}" for split, ids in self.splits.items())
        others = ", ".join(f"{split} {n}" for split, n in self.unknowns.items() if n)
        unknown = f"; unknown: {others}" if others else ""
        return f"TextCorpus({self.title}; {len(self.alphabet)} symbols; {sizes}{unknown})"

    @property
    def title(self) -> str:
        """Its name, how much of it is used where that was chosen, and what it stands in for."""
        title = str(self.options.get("file") or self.name)
        if self.options.get("characters"):
            title += f", first {self.options['characters']:,} characters"
        return title if self.stand_in_for is None else f"{title} (stand-in for {self.stand_in_for})"

    @property
    def unknown(self) -> int | None:
        """Number of the unknown symbol; None where every symbol is known."""
        return len(self.alphabet) - 1 if self.alphabet[-1] == UNKNOWN else None

    @cached_property
    def unknowns(self) -> dict[str, int]:
        """How many unknown symbols each split holds."""
        if self.unknown is None:
            return dict.fromkeys(self.splits, 0)
        return {split: int((ids == self.unknown).sum()) for split, ids in self.splits.items()}

    def ids(self, split: str) -> np.ndarray:
        """Return the symbols of "train", "validation" or "test", int64 (time,)."""
        if split not in self.splits:
            raise unknown_name("split", split, self.splits)
        return self.splits[split]

    def encode(self, text: str) -> np.ndarray:
        """Return the numbers of a text's symbols, int64 (time,).

        Raises:
            ValueError: If it holds symbols that the alphabet lacks, and that has no unknown symbol.
        """
        ids = symbol_ids(text, self.alphabet)
        others = np.flatnonzero(ids < 0)
        if len(others) and self.unknown is None:
            raise ValueError(
                f"{self.name}: the alphabet of {len(self.alphabet)} symbols lacks "
                f"{text[others[0]]!r}, at position {others[0]}; replace it, or pass symbols= below "
                f"{len(self.alphabet)} to have an unknown symbol"
            )
        ids[others] = self.unknown or 0
        return ids

    def decode(self, ids: Sequence[int] | np.ndarray | Tensor) -> str:
        """Return the text of some symbols; unknown ones are U+FFFD."""
        numbers = np.asarray(ids)
        if numbers.ndim != 1 or (numbers.size and not np.issubdtype(numbers.dtype, np.integer)):
            raise ValueError(
                f"{self.name}: symbols must be a list of integers: got shape {numbers.shape}, "
                f"{numbers.dtype}"
            )
        self._check_range(numbers)
        return "".join(self.alphabet[number] for number in numbers.tolist())

    def streams(self, split: str, batch: int) -> np.ndarray:
        """Cut a split into contiguous streams of one length, int64 (time, batch).

        Stream after stream they are the split, but for up to `batch` - 1 symbols at its end.

        Raises:
            ValueError: If it is too short for so many.
        """
        check_count("batch", batch)
        ids = self.ids(split)
        time = len(ids) // batch
        if time < _LEAST:
            raise ValueError(
                f"{self.name}: {split} holds {len(ids)} symbols, too few for {batch} streams of "
                f"{_LEAST} or more; choose batch up to {len(ids) // _LEAST}"
            )
        return ids[: time * batch].reshape(batch, time).T

    def windows(
        self, split: str, batch: int, length: int, *, partial: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the streams of a split in windows that follow each other in time.

        The state after a window is the one to start the next with. A target is the symbol after its
        input, so that the last target of a window is the first input of the next.

        Args:
            split: "train", "validation" or "test".
            batch: Number of streams.
            length: Steps of a window.
            partial: Whether a last, shorter window is given, to score a whole split; otherwise up
                to `length` - 1 steps at the end are left out.

        Returns:
            Pairs of inputs and targets, int64 (length, batch).

        Raises:
            ValueError: If the streams are shorter than one window and its last target.
        """
        check_count("length", length)
        streams = self.streams(split, batch)
        steps = len(streams) - 1
        if steps < length:
            raise ValueError(
                f"{self.name}: {split} in {batch} streams of {len(streams)} symbols is too short "
                f"for a sequence of {length} and its last target; choose length up to {steps}, or "
                "a smaller batch"
            )
        end = steps if partial else steps - length + 1
        return (
            _pair(streams, start, min(start + length, steps)) for start in range(0, end, length)
        )

    def unigram_bits(self, split: str) -> float:
        """Return the bits per character of single frequencies.

        The mean of -log2 (n(c) + 1) / (N + K) over the split, n and N counted in the training
        split, K symbols.
        """
        counts = np.bincount(self.splits["train"], minlength=len(self.alphabet)) + 1
        return float(-np.log2(counts / counts.sum())[self.ids(split)].mean())

    def bigram_bits(self, split: str) -> float:
        """Return the bits per character of frequencies after the character before.

        The mean of -log2 (n(b, c) + 1) / (n(b) + K) over the split but for its first character.
        """
        size = len(self.alphabet)
        train, ids = self.splits["train"], self.ids(split)
        pairs = np.bincount(train[:-1] * size + train[1:], minlength=size**2)
        counts = pairs.reshape(size, size) + 1
        bits = -np.log2(counts / counts.sum(1, keepdims=True))
        return float(bits[ids[:-1], ids[1:]].mean())

    @cached_property
    def fingerprint(self) -> str:
        """Digest of name, options, alphabet and splits; names caches."""
        head = [self.name, self.stand_in_for, self.alphabet, self.entropy_rate, dict(self.options)]
        digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        for ids in self.splits.values():
            digest.update(str(ids.shape).encode())
            digest.update(ids.astype("<i8", copy=False).tobytes())
        return digest.hexdigest()[:32]


def _pair(streams: np.ndarray, start: int, end: int) -> tuple[Tensor, Tensor]:
    # Copies: torch takes no arrays that cannot be written.
    return torch.tensor(streams[start:end]), torch.tensor(streams[start + 1 : end + 1])


def symbol_ids(text: str, alphabet: Sequence[str]) -> np.ndarray:
    """Return the number of each symbol, int64 (time,); -1 where the alphabet lacks it."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    known = [ord(symbol) for symbol in alphabet]
    table = np.full(max(known) + 2, -1, dtype=np.int64)
    table[known] = np.arange(len(known))
    return table[np.minimum(codes, len(table) - 1)]


def choose_alphabet(
    name: str, texts: Mapping[str, str], symbols: int | str | None
) -> tuple[str, ...]:
    """Choose the symbols that are known, in the order of their code points, from the training text.

    Args:
        name: Of the corpus, for errors.
        texts: The splits.
        symbols: How many are known, the most frequent ones; None for all; "strict" for all, and
            for an error where the other splits hold others.

    Returns:
        The symbols, and the unknown symbol last where a split holds others.
    """
    if isinstance(symbols, str) and symbols != "strict":
        raise unknown_name("value of symbols", symbols, ["strict"])
    counts = Counter(texts["train"])
    if symbols == "strict":
        _check_known(name, texts, set(counts))
    counts.pop(UNKNOWN, None)
    known = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    if isinstance(symbols, str) or symbols is None:
        symbols = len(known)
    check_count("symbols", symbols)
    known = sorted(known[:symbols])
    others = set().union(*texts.values()) - set(known)
    return (*known, UNKNOWN) if others else tuple(known)


def _check_known(name: str, texts: Mapping[str, str], known: set[str]) -> None:
    for split in SPLITS[1:]:
        others = sorted(set(texts[split]) - known)
        if others:
            first = min(texts[split].index(symbol) for symbol in others)
            raise ValueError(
                f"{name}: {split} holds symbols that the training split lacks: {others[:8]} "
                f"({len(others)} in all), first at position {first} of it; leave out "
                "symbols='strict' to count them as unknown"
            )

"""Texts for character language modelling, by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ctxrnn._checks import check_count, unknown_name

from . import _text_files as files
from ._text_bible import bible
from ._text_corpus import TextCorpus, choose_alphabet, symbol_ids
from ._text_files import Source
from ._text_words import words
from .images._image_set import SPLITS

Reader = Callable[[str | os.PathLike[str] | None], Source]
READERS: dict[str, Reader] = {
    "bible-kjv": bible,
    "jargon": files.jargon,
    "ptb": files.ptb,
    "text8": files.text8,
    "file": files.file,
}
NAMES = (*READERS, "words")
# A twentieth of a text is held out twice, and must hold an input and its target.
_SHARE = 20
_LEAST = 2 * _SHARE


def text_corpus_names() -> tuple[str, ...]:
    """Return the names that `text_corpus` knows.

    Example:
        >>> from ctxrnn.tasks import text_corpus_names
        >>> text_corpus_names()
        ('bible-kjv', 'jargon', 'ptb', 'text8', 'file', 'words')
    """
    return NAMES


def text_corpus(
    name: str,
    data: str | os.PathLike[str] | None = None,
    *,
    symbols: int | str | None = None,
    characters: int | None = None,
) -> TextCorpus:
    """Return a text by name, in symbols; docs/text.md lists them.

    The last 5 % of a text test, the 5 % before validate and the rest trains, each contiguous;
    "ptb" keeps its own splits. The alphabet is that of the training split.

    Args:
        name: "bible-kjv", "jargon", "ptb", "text8", "file" (any text in UTF-8) or "words" (drawn
            from a source of known entropy, without any file).
        data: Folder of the files, or the file where it is one; None for the folder that the
            environment variable CTXRNN_DATA names, else `data` in the working directory, then that
            of the Debian package. "file" needs a path.
        symbols: How many symbols are known, the most frequent ones of the training split; None for
            all of them. Others are mapped to the unknown symbol, which is last in the alphabet, and
            counted in `unknowns`. "strict" for all, and an error where the splits to validate and
            to test hold others.
        characters: Use the first ones only, of each split in proportion where a text has its own;
            of "words", how many are drawn (200,000).

    Raises:
        ValueError: If a name is unknown, or a text is empty, too short, damaged or not UTF-8.
        FileNotFoundError: If files are missing.

    Example:
        >>> from ctxrnn.tasks import text_corpus
        >>> corpus = text_corpus("words", characters=20_000)
        >>> corpus.title, len(corpus.alphabet)
        ('words, first 20,000 characters (stand-in for an English text)', 27)
        >>> {split: len(ids) for split, ids in corpus.splits.items()}
        {'train': 18000, 'validation': 1000, 'test': 1000}
    """
    if name not in NAMES:
        raise unknown_name("text", name, NAMES)
    if characters is not None:
        check_count("characters", characters, _LEAST)
        characters = int(characters)
    source = words(data, characters) if name == "words" else READERS[name](data)
    texts = _split(name, _cut(name, source.text, characters))
    alphabet = choose_alphabet(name, texts, symbols)
    known = symbols if symbols is None or isinstance(symbols, str) else int(symbols)
    options: dict[str, Any] = {"symbols": known, "characters": characters}
    return TextCorpus(
        name=name,
        stand_in_for=source.stand_in_for,
        alphabet=alphabet,
        splits={split: _numbers(texts[split], alphabet) for split in SPLITS},
        entropy_rate=source.entropy_rate,
        options=options if source.file is None else {**options, "file": source.file},
    )


def _cut(name: str, text: str | dict[str, str], characters: int | None) -> str | dict[str, str]:
    if characters is None:
        return text
    total = len(text) if isinstance(text, str) else sum(map(len, text.values()))
    if characters > total:
        raise ValueError(
            f"{name}: characters must be at most the {total} that the text has: got {characters}"
        )
    if isinstance(text, str):
        return text[:characters]
    return {split: part[: len(part) * characters // total] for split, part in text.items()}


def _split(name: str, text: str | dict[str, str]) -> dict[str, str]:
    if isinstance(text, str):
        if len(text) < _LEAST:
            raise ValueError(
                f"{name}: a text must have at least {_LEAST} characters, to split it: got "
                f"{len(text)}; use a longer one"
            )
        held = len(text) // _SHARE
        ends = (0, len(text) - 2 * held, len(text) - held, len(text))
        text = {split: text[ends[i] : ends[i + 1]] for i, split in enumerate(SPLITS)}
    for split, part in text.items():
        if len(part) < 2:
            raise ValueError(
                f"{name}: {split} must hold two characters at least: got {len(part)}; use a longer "
                "text, or more characters="
            )
    return text


def _numbers(text: str, alphabet: tuple[str, ...]) -> np.ndarray:
    """Return the numbers of symbols, those that are not known as the last of the alphabet."""
    ids = symbol_ids(text, alphabet)
    ids[ids < 0] = len(alphabet) - 1
    return ids

"""Texts by name, what a TextCorpus promises, reference levels, and the known entropy of words."""

import math
import pickle
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ctxrnn.tasks import TextCorpus, _text_words, text_corpus, text_corpus_names

ROOT = Path(__file__).resolve().parents[2]
BIBLE = Path("/usr/lib/bible.data")
JARGON = Path("/usr/share/doc/jargon-text/jargon.txt.gz")
SPLITS = ("train", "validation", "test")


def small(**changes):
    """A text of the symbols a and b."""
    splits = {"train": [0, 1, 0, 1, 0], "validation": [0, 0], "test": [0, 1, 1]}
    fields = {
        "name": "small",
        "stand_in_for": None,
        "alphabet": ("a", "b"),
        "splits": {split: np.array(ids) for split, ids in splits.items()},
    }
    return TextCorpus(**(fields | changes))


def corpus_of(folder, text, **options):
    path = folder / "text.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return text_corpus("file", path, **options)


def test_the_end_tests_what_is_before_it_validates_the_rest_trains(tmp_path):
    text = "".join(chr(ord("a") + i % 26) for i in range(109))
    corpus = corpus_of(tmp_path, text)
    decoded = [corpus.decode(corpus.ids(split)) for split in SPLITS]
    # A twentieth of 109, rounded down, is 5.
    assert decoded == [text[:99], text[99:104], text[104:]]
    assert corpus.alphabet == tuple("abcdefghijklmnopqrstuvwxyz")
    assert corpus.ids("train")[:3].tolist() == [0, 1, 2]
    assert corpus.title == "text.txt"


def test_the_alphabet_is_that_of_the_training_split(tmp_path):
    text = "ba" * 45 + "abcab" + "dzabd"
    corpus = corpus_of(tmp_path, text)
    assert corpus.alphabet == ("a", "b", "\ufffd")
    assert corpus.unknown == 2
    assert corpus.unknowns == {"train": 0, "validation": 1, "test": 3}
    assert corpus.decode(corpus.ids("test")) == "\ufffd\ufffdab\ufffd"
    assert repr(corpus) == (
        "TextCorpus(text.txt; 3 symbols; train 90, validation 5, test 5; "
        "unknown: validation 1, test 3)"
    )
    message = (
        r"^file: validation holds symbols that the training split lacks: \['c'\] \(1 in all\), "
        "first at position 2 of it; leave out symbols='strict' to count them as unknown$"
    )
    with pytest.raises(ValueError, match=message):
        corpus_of(tmp_path, text, symbols="strict")
    strict = corpus_of(tmp_path, "ab" * 50, symbols="strict")
    assert (strict.alphabet, strict.unknown) == (("a", "b"), None)
    assert strict.unknowns == dict.fromkeys(SPLITS, 0)


def test_only_the_most_frequent_symbols_are_known(tmp_path):
    # In the training split c occurs 40 times, a and d 20 times each, b 10 times.
    text = "c" * 40 + "d" * 20 + "a" * 20 + "b" * 10 + "abbcd" + "bbbbb"
    corpus = corpus_of(tmp_path, text, symbols=2)
    assert corpus.alphabet == ("a", "c", "\ufffd"), "of equals the first one stays"
    assert corpus.unknowns == {"train": 30, "validation": 3, "test": 5}
    assert corpus_of(tmp_path, text, symbols=4).alphabet == tuple("abcd")
    assert corpus_of(tmp_path, text, symbols=9).unknown is None
    # A U+FFFD of the text itself is unknown, too.
    assert corpus_of(tmp_path, text.replace("b", "\ufffd")).alphabet == tuple("acd\ufffd")
    corpus = corpus_of(tmp_path, text.replace("c", "\ufffd").replace("d", "𝄞"), symbols=2)
    assert corpus.alphabet == ("a", "𝄞", "\ufffd")
    assert corpus.unknowns["train"] == 50


def test_encode_and_decode(tmp_path):
    corpus = corpus_of(tmp_path, "αβ\n𝄞" * 25)
    assert corpus.alphabet == ("\n", "α", "β", "𝄞")
    assert corpus.encode("𝄞α\nβ").tolist() == [3, 1, 0, 2]
    assert corpus.encode("").tolist() == []
    for ids in ([3, 0], np.array([3, 0], "u1"), torch.tensor([3, 0])):
        assert corpus.decode(ids) == "𝄞\n"
    assert corpus.decode([]) == ""
    message = (
        "^file: the alphabet of 4 symbols lacks 'z', at position 2; replace it, or pass symbols= "
        "below 4 to have an unknown symbol$"
    )
    with pytest.raises(ValueError, match=message):
        corpus.encode("αβzq")
    with pytest.raises(ValueError, match=r"lacks '\\U0010ffff', at position 0"):
        corpus.encode("\U0010ffff")
    assert corpus_of(tmp_path, "αβ\n𝄞" * 25, symbols=3).encode("αz𝄞").tolist() == [1, 3, 3]
    with pytest.raises(ValueError, match=r"file: symbols must lie in 0..3: got 0 to 4"):
        corpus.decode([0, 4])
    with pytest.raises(ValueError, match="symbols must be a list of integers: got shape"):
        corpus.decode([0.5])


@given(
    length=st.integers(40, 400),
    batch=st.integers(1, 8),
    window=st.integers(1, 12),
    split=st.sampled_from(SPLITS),
    partial=st.booleans(),
)
@example(length=100, batch=1, window=4, split="test", partial=False)
@example(length=100, batch=2, window=4, split="train", partial=True)
def test_windows_are_the_streams_and_streams_the_split(length, batch, window, split, partial):
    held = length // 20
    ids = np.random.default_rng(length).integers(0, 5, length)
    parts = np.split(ids, [length - 2 * held, length - held])
    corpus = small(alphabet=tuple("abcde"), splits=dict(zip(SPLITS, parts, strict=True)))
    whole, time = corpus.ids(split), len(corpus.ids(split)) // batch
    if time < window + 1 or time < 2:
        with pytest.raises(ValueError, match=r"small: .* too (few|short) for"):
            corpus.windows(split, batch, window)
        return
    streams = corpus.streams(split, batch)
    np.testing.assert_array_equal(streams.T.ravel(), whole[: len(whole) // batch * batch])
    pairs = list(corpus.windows(split, batch, window, partial=partial))
    inputs, targets = (torch.cat(part).numpy() for part in zip(*pairs, strict=True))
    steps = time - 1 if partial else (time - 1) // window * window
    np.testing.assert_array_equal(inputs, streams[:steps])
    np.testing.assert_array_equal(targets, streams[1 : steps + 1])
    lengths = [len(pair[0]) for pair in pairs]
    assert set(lengths[:-1]) <= {window}
    assert lengths[-1] == (steps - 1) % window + 1
    for (_, before), (after, _) in pairwise(pairs):
        assert torch.equal(before[-1], after[0])


def test_streams_by_hand():
    corpus = small(
        alphabet=tuple("abcdefg"), splits=dict.fromkeys(SPLITS, np.array([0, 1, 2, 3, 4, 5, 6]))
    )
    assert corpus.streams("train", 2).tolist() == [[0, 3], [1, 4], [2, 5]]
    ((inputs, targets),) = corpus.windows("train", 2, 2)
    assert (inputs.tolist(), targets.tolist()) == ([[0, 3], [1, 4]], [[1, 4], [2, 5]])
    assert inputs.dtype == torch.int64
    inputs.zero_()
    assert corpus.ids("train")[1] == 1, "a window shares the corpus' memory"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda c: c.streams("test", 2),
            "small: test holds 3 symbols, too few for 2 streams of 2 or more; choose batch up to 1",
        ),
        (
            lambda c: c.windows("train", 1, 5),
            "small: train in 1 streams of 5 symbols is too short for a sequence of 5 and its last "
            "target; choose length up to 4, or a smaller batch",
        ),
        (lambda c: c.streams("train", 0), "batch must be at least 1: got 0"),
        (lambda c: c.windows("train", 1, 0), "length must be at least 1: got 0"),
        (lambda c: c.ids("valid"), "unknown split 'valid'. Did you mean 'validation'?"),
    ],
)
def test_texts_that_are_too_short_are_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        call(small())
    assert "\n" not in str(caught.value)


def test_reference_levels_by_hand():
    corpus = small()
    # Of 5 training symbols 3 are a and 2 are b: 4/7 and 3/7.
    unigram = -(math.log2(4 / 7) + 2 * math.log2(3 / 7)) / 3
    assert corpus.unigram_bits("test") == pytest.approx(unigram, rel=1e-14)
    # ab and ba occur twice each: 3/4 and 1/4. The test text has the pairs ab and bb.
    bigram = -(math.log2(3 / 4) + math.log2(1 / 4)) / 2
    assert corpus.bigram_bits("test") == pytest.approx(bigram, rel=1e-14)


@given(text=st.text(alphabet="abcé ", min_size=60, max_size=200))
def test_reference_levels_are_counts_written_out(text):
    parts = dict(zip(SPLITS, (text[:-20], text[-20:-10], text[-10:]), strict=True))
    alphabet = "abcé "
    corpus = small(
        alphabet=tuple(alphabet),
        splits={s: np.array([alphabet.index(c) for c in part]) for s, part in parts.items()},
    )
    train, test = parts["train"], parts["test"]
    single, before = Counter(train), Counter(train[:-1])
    pairs = Counter(pairwise(train))
    ones = [-math.log2((single[c] + 1) / (len(train) + 5)) for c in test]
    twos = [-math.log2((pairs[b, c] + 1) / (before[b] + 5)) for b, c in pairwise(test)]
    assert corpus.unigram_bits("test") == pytest.approx(np.mean(ones), rel=1e-12)
    assert corpus.bigram_bits("test") == pytest.approx(np.mean(twos), rel=1e-12)


def test_fingerprint_changes_with_anything_that_matters():
    other = {split: ids.copy() for split, ids in small().splits.items()}
    other["test"][0] = 1
    moved = {"train": [0, 1, 0, 1], "validation": [0, 0, 0], "test": [0, 1, 1]}
    variants = [
        small(),
        small(name="other"),
        small(stand_in_for="text8"),
        small(alphabet=("a", "c")),
        small(splits=other),
        small(splits={split: np.array(ids) for split, ids in moved.items()}),
        small(entropy_rate=1.0),
        small(options={"symbols": 2}),
    ]
    assert len({corpus.fingerprint for corpus in variants}) == len(variants)
    assert small().fingerprint == small().fingerprint


def test_a_corpus_survives_pickling_and_guards_its_arrays():
    corpus = text_corpus("words", characters=np.int64(400), symbols=np.int64(9))
    copy = pickle.loads(pickle.dumps(corpus))
    assert copy.fingerprint == corpus.fingerprint
    with pytest.raises(ValueError, match="read-only"):
        corpus.ids("train")[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        corpus.streams("train", 2)[0, 0] = 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alphabet": ("a", "a")}, "alphabet must hold single characters, each once"),
        ({"alphabet": ("a", "bc")}, "alphabet must hold single characters, each once"),
        ({"splits": {"train": np.array([0, 1])}}, "splits must be train, validation, test: got tr"),
        (
            {"splits": dict.fromkeys(SPLITS, np.array([0, 2]))},
            r"symbols must lie in 0..1: got 0 to 2",
        ),
        (
            {"splits": dict.fromkeys(SPLITS, np.array([0.0, 1.0]))},
            r"train must be int64 \(time,\), of 2 symbols at least: got float64",
        ),
        ({"splits": dict.fromkeys(SPLITS, np.array([0]))}, r"at least: got int64 \(1,\)"),
    ],
)
def test_inconsistent_corpora_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        small(**changes)
    assert str(caught.value).startswith("small: ")


def test_entropy_rate_is_that_of_the_transitions_iterated():
    table = _text_words.transitions()
    np.testing.assert_allclose(table.sum(-1), 1, rtol=1e-12)
    # A pair of characters after very many steps from "e", "t".
    share = np.zeros(table.shape[:2])
    share[1, 2] = 1
    for _ in range(2000):
        share = np.einsum("ab,abc->bc", share, table)
    entropy = -(table * np.log2(np.where(table > 0, table, 1))).sum(-1)
    np.testing.assert_allclose(_text_words.stationary(), share.ravel(), atol=1e-12)
    assert _text_words.entropy_rate() == pytest.approx((share * entropy).sum(), rel=1e-11)


def test_entropy_rate_is_that_of_the_text_by_its_own_counts():
    count, size = 1_000_000, 27
    corpus = text_corpus("words", characters=count)
    ids = np.concatenate([corpus.ids(split) for split in SPLITS])
    text = corpus.decode(ids)
    assert "  " not in text
    own = np.array([_text_words.SYMBOLS.index(symbol) for symbol in corpus.alphabet])[ids]
    bits = -np.log2(_text_words.transitions()[own[:-2], own[1:-1], own[2:]])
    blocks = bits[: len(bits) // 500 * 500].reshape(500, -1).mean(1)
    error = blocks.std(ddof=1) / math.sqrt(500)
    assert abs(bits.mean() - corpus.entropy_rate) < 5 * error

    counts = np.bincount((own[:-2] * size + own[1:-1]) * size + own[2:], minlength=size**3)
    counts = counts.reshape(size**2, size)
    total = counts.sum(1)
    shares = counts / np.maximum(total, 1)[:, None]
    plugin = -(counts * np.log2(np.where(counts > 0, shares, 1))).sum() / counts.sum()
    # No code does better on a text than its own counts; how much better is at most
    # log2(1 + (K - 1) / n) per context seen n times, on average (Paninski 2003, prop. 1).
    gain = (total * np.log2(1 + (size - 1) / np.maximum(total, 1))).sum() / total.sum()
    assert gain < 0.05
    assert corpus.entropy_rate - gain - 5 * error < plugin < corpus.entropy_rate + 5 * error


def test_words_is_one_text_of_any_length_that_says_what_it_is():
    long, short = text_corpus("words"), text_corpus("words", characters=1000)
    assert sum(map(len, long.splits.values())) == 200_000
    assert long.decode(long.ids("train")[:900]) == short.decode(short.ids("train"))
    assert long.title == "words (stand-in for an English text)"
    assert long.unknown is None
    levels = [long.entropy_rate, long.bigram_bits("test"), long.unigram_bits("test"), math.log2(27)]
    assert levels == sorted(levels)
    assert min(np.diff(levels)) > 0.1


def levels(corpus):
    return [
        f"{bits(split):.2f}"
        for split in ("validation", "test")
        for bits in (corpus.unigram_bits, corpus.bigram_bits)
    ]


def test_the_page_lists_every_text_its_levels_and_its_snippets_run(capsys):
    page = (ROOT / "docs" / "text.md").read_text(encoding="utf-8")
    scope = {}
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(snippet, "text.md", "exec"), scope)
    assert (
        "words, first 20,000 characters (stand-in for an English text)" in capsys.readouterr().out
    )
    assert tuple(re.findall(r"^\| `([\w-]+)` \| .* \| (?:yes|drawn)", page, re.M)) == (
        text_corpus_names()
    )
    rows = dict(re.findall(r"^\| `([\w-]+)` \|((?: [\d.,]+ \|)+)$", page, re.MULTILINE))
    here = {"words": True, "bible-kjv": BIBLE.is_file(), "jargon": JARGON.is_file()}
    assert set(rows) == set(here)
    for name in (name for name in here if here[name]):
        corpus = text_corpus(name)
        size = f"{sum(map(len, corpus.splits.values())):,}"
        stated = [cell.strip() for cell in rows[name].strip("|").split("|")]
        assert stated == [size, str(len(corpus.alphabet)), *levels(corpus)]
    assert f"Entropy rate: {text_corpus('words').entropy_rate:.4f} bits" in page

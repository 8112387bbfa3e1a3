"""Texts in files: any text in UTF-8, text8, the Penn Treebank and the Jargon File."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from ctxrnn.tasks import _text_files as files
from ctxrnn.tasks import text_corpus

JARGON = Path("/usr/share/doc/jargon-text/jargon.txt.gz")
SPLITS = ("train", "validation", "test")
needs_jargon = pytest.mark.skipif(
    not JARGON.is_file(), reason="Debian package jargon-text is not installed"
)


def corpus_of(folder, text, **options):
    path = folder / "text.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return text_corpus("file", path, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; a text of 40 characters at least is needed"),
        (b"a" * 12 + b"\xe9b" * 40, "must be UTF-8: byte 0xe9 at offset 12 is not .*iconv -f LAT"),
        ("﻿".encode() + b"a\xff", "must be UTF-8: byte 0xff at offset 4"),
        (b"a" * 39, "must have at least 40 characters, to split it: got 39; use a longer one"),
    ],
)
def test_empty_short_and_other_files_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        corpus_of(tmp_path, content)
    assert str(caught.value).startswith("file: ")
    assert "\n" not in str(caught.value)
    if content != b"a" * 39:
        assert str(tmp_path / "text.txt") in str(caught.value)


def test_byte_order_marks_and_line_ends_are_no_symbols(tmp_path):
    corpus = corpus_of(tmp_path, "\ufeff" + "ab\r\nc\rd\n" * 20)
    assert corpus.alphabet == tuple("\nabcd")
    assert corpus.decode(corpus.ids("train"))[:14] == "ab\nc\nd\nab\nc\nd\n"


def test_packed_texts_are_unpacked_and_damage_is_named(tmp_path):
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(b"abcd" * 30))
    assert text_corpus("file", path).alphabet == tuple("abcd")
    path.write_bytes(gzip.compress(b"abcd" * 30)[:-6])
    with pytest.raises(ValueError, match=rf"file: {path} is damaged: it cannot be unpacked"):
        text_corpus("file", path)


def test_only_the_first_characters(tmp_path):
    corpus = corpus_of(tmp_path, "ab" * 50 + "c" * 50, characters=100)
    assert [len(ids) for ids in corpus.splits.values()] == [90, 5, 5]
    assert corpus.alphabet == ("a", "b")
    assert corpus.title == "text.txt, first 100 characters"
    assert corpus.fingerprint != corpus_of(tmp_path, "ab" * 50).fingerprint
    with pytest.raises(ValueError, match="at most the 150 that the text has: got 151"):
        corpus_of(tmp_path, "ab" * 50 + "c" * 50, characters=151)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            ("bible",),
            {},
            ValueError,
            "unknown text 'bible'. Did you mean 'bible-kjv'.*: bible-kjv, ",
        ),
        (("words", "/data"), {}, ValueError, "words is not read from a file: .* data='/data'"),
        (("words",), {"characters": 39}, ValueError, "characters must be at least 40: got 39"),
        (("words",), {"characters": 1e3}, TypeError, "characters must be an integer: got 1000.0"),
        (("words",), {"symbols": 0}, ValueError, "symbols must be at least 1: got 0"),
        (("words",), {"symbols": True}, TypeError, "symbols must be an integer: got True"),
        (("words",), {"symbols": "strickt"}, ValueError, "unknown value of symbols 'strickt'. Did"),
        (("file",), {}, ValueError, "file: no path; pass the path of a text as data="),
        (("file", "."), {}, ValueError, "file: . is a folder; pass the path of a text as data="),
    ],
)
def test_refusals(arguments, options, error, message):
    with pytest.raises(error, match=message) as caught:
        text_corpus(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file", "remedy"),
    [
        ("bible-kjv", "bible.data", "install the Debian package bible-kjv-text, or pass"),
        ("jargon", "jargon.txt.gz", "install the Debian package jargon-text, or pass"),
        ("text8", "text8", "get text8.zip from mattmahoney.net/dc/textdata"),
        ("ptb", "ptb.train.txt, ptb.valid.txt, ptb.test.txt", "get simple-examples.tgz"),
    ],
)
def test_missing_files_are_named_with_the_remedy(tmp_path, monkeypatch, name, file, remedy):
    # A folder that is given is the only place: what the system has does not take its place.
    with pytest.raises(
        FileNotFoundError, match=rf"^{name}: missing {file} in {tmp_path}; {remedy}"
    ):
        text_corpus(name, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere \(no such folder\)"):
        text_corpus(name, tmp_path / "nowhere")
    if name in ("text8", "ptb"):
        monkeypatch.setenv("CTXRNN_DATA", str(tmp_path / "here"))
        with pytest.raises(FileNotFoundError, match=str(tmp_path / "here")):
            text_corpus(name)


def test_a_missing_path_is_named(tmp_path):
    message = rf"^file: missing a.txt in {tmp_path}; pass the path of a text as data=$"
    with pytest.raises(FileNotFoundError, match=message):
        text_corpus("file", tmp_path / "a.txt")


@pytest.mark.parametrize("place", ["text8", "text8/text8"])
def test_text8_is_split_by_twentieths(tmp_path, monkeypatch, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    content = "".join(np.random.default_rng(0).choice(list("abcxyz "), 200))
    path.write_text(content)
    corpus = text_corpus("text8", tmp_path)
    assert [len(ids) for ids in corpus.splits.values()] == [180, 10, 10]
    assert corpus.decode(corpus.ids("test")) == content[-10:]
    # The published text has 100 million characters, split 90, 5 and 5 million.
    assert corpus.title == "text8 (stand-in for text8)"
    monkeypatch.setattr(files, "TEXT8_SIZE", 200)
    assert text_corpus("text8", path).stand_in_for is None


def test_text8_has_27_symbols_only(tmp_path):
    (tmp_path / "text8").write_text("abc d" * 20 + "\n")
    with pytest.raises(
        ValueError, match=r"text8: .*text8 must hold .*: got '\\n' at byte 100; get"
    ):
        text_corpus("text8", tmp_path)


SENTENCES = {
    "train": ["aer banknote <unk> n.v.", "mr. vinken is chairman of the dutch group N", "a b c"],
    "valid": ["consumers may want", "to move"],
    "test": ["no it was n't black", "but while"],
}


def write_ptb(folder, form):
    folder.mkdir(parents=True, exist_ok=True)
    for part, sentences in SENTENCES.items():
        if form == "words":
            content = "".join(f" {sentence} \n" for sentence in sentences)
            (folder / f"ptb.{part}.txt").write_text(content)
        else:
            lines = (" ".join(sentence.replace(" ", "_")) for sentence in sentences)
            content = "".join(f" {line} _ \n" for line in lines)
            (folder / f"ptb.char.{part}.txt").write_text(content)


@pytest.mark.parametrize("form", ["words", "characters"])
@pytest.mark.parametrize("place", [".", "ptb", "simple-examples/data"])
def test_both_forms_of_the_penn_treebank_are_one_text(tmp_path, monkeypatch, form, place):
    write_ptb(tmp_path / place, form)
    corpus = text_corpus("ptb", tmp_path)
    decoded = [corpus.decode(corpus.ids(split)) for split in SPLITS]
    texts = ["".join(f"{line}\n" for line in lines) for lines in SENTENCES.values()]
    known = set(texts[0])
    assert decoded[0] == texts[0]
    for got, text in zip(decoded[1:], texts[1:], strict=True):
        assert got == "".join(c if c in known else "\ufffd" for c in text)
    assert corpus.stand_in_for == "Penn Treebank"
    sums = {
        split: hashlib.md5("".join(f" {line} \n" for line in lines).encode()).hexdigest()
        for split, lines in zip(SPLITS, SENTENCES.values(), strict=True)
    }
    monkeypatch.setattr(files, "PTB_DIGESTS", sums)
    assert text_corpus("ptb", tmp_path).stand_in_for is None


def test_the_penn_treebank_in_part(tmp_path):
    write_ptb(tmp_path, "words")
    whole = text_corpus("ptb", tmp_path)
    total = sum(map(len, whole.splits.values()))
    cut = text_corpus("ptb", tmp_path, characters=total // 2)
    for split in SPLITS:
        count = len(whole.ids(split)) * (total // 2) // total
        assert cut.decode(cut.ids(split)).replace("\ufffd", "?") == "".join(
            c if c in cut.alphabet else "?" for c in "".join(
                f"{line}\n" for line in SENTENCES[files._PTB_PARTS[split]]
            )[:count]
        )  # fmt: skip


def test_damaged_files_of_the_penn_treebank_are_named(tmp_path):
    write_ptb(tmp_path, "characters")
    path = tmp_path / "ptb.char.valid.txt"
    path.write_text(" c o n \n no spaces here \n")
    message = (
        r"ptb: .*ptb.char.valid.txt must hold characters .*: line 2 holds 'spaces'; name files"
    )
    with pytest.raises(ValueError, match=message):
        text_corpus("ptb", tmp_path)
    path.write_text(" \n")
    with pytest.raises(
        ValueError, match="ptb: validation must hold two characters at least: got 0"
    ):
        text_corpus("ptb", tmp_path)
    path.write_text("")
    with pytest.raises(ValueError, match=r"ptb: .*ptb.char.valid.txt is empty"):
        text_corpus("ptb", tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"missing ptb.char.valid.txt \(1 of 3 files\) in"):
        text_corpus("ptb", tmp_path)


def test_the_jargon_file_in_small(tmp_path):
    content = " " * 32 + "The Jargon File\n\n(version 4.4.7)\n" + "hacker‘s ═\n" * 20
    (tmp_path / "jargon.txt.gz").write_bytes(gzip.compress(content.encode()))
    corpus = text_corpus("jargon", tmp_path)
    assert corpus.decode(corpus.ids("train")) == content[: len(corpus.ids("train"))]
    assert corpus.stand_in_for is None
    (tmp_path / "jargon.txt.gz").write_bytes(gzip.compress(b"another text\n" * 20))
    assert text_corpus("jargon", tmp_path).stand_in_for == "the Jargon File"


@needs_jargon
def test_the_real_jargon_file():
    corpus = text_corpus("jargon", JARGON.parent)
    assert sum(map(len, corpus.splits.values())) == 1_618_757
    assert len(corpus.alphabet) == 155
    assert corpus.unknowns == {"train": 0, "validation": 0, "test": 12}
    assert corpus.stand_in_for is None

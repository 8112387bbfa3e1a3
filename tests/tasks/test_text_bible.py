"""The King James Bible: the packed format in small files, and the real one where it is at hand."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ctxrnn.tasks._text_bible import _expand
from hypothesis import example, given
from hypothesis import strategies as st

from ctxrnn.tasks import text_corpus

BIBLE = Path("/usr/lib/bible.data")
SPLITS = ("train", "validation", "test")
needs_bible = pytest.mark.skipif(
    not BIBLE.is_file(), reason="Debian package bible-kjv-text is not installed"
)


def packed_window(text, ended=True):
    """Pack as Unix `compress` does, codes padded to eights where the code to start anew ends it."""
    codes, known, word = [], {bytes([i]): i for i in range(256)}, b""
    for value in text:
        longer = word + bytes([value])
        if longer in known:
            word = longer
            continue
        codes.append(known[word])
        known[longer] = len(known) + 1  # 256 is the code to start anew
        word = bytes([value])
    codes += [known[word]] + [256] * ended
    bits, width, free, group = [], 9, 257, 0
    for place, code in enumerate(codes):
        bits.append(f"{code:0{width}b}")
        group += 1
        free += place > 0
        if free > (1 << width) - 1 and width < 16:
            width, group = width + 1, 0
    if ended:
        bits.append("0" * (-group % 8 * width))
    stream = "".join(reversed(bits))
    return int(stream, 2).to_bytes((len(stream) + 7) // 8, "little")


def packed_bible(text, size=3000):
    content = text.encode("latin-1")
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    windows = [packed_window(chunk, chunk is not chunks[-1]) for chunk in chunks]
    first = 84 + 8 + 4 * (len(windows) + 1) + 3
    starts = np.cumsum([first, *map(len, windows)])
    numbers = b"".join(int(n).to_bytes(4, "big") for n in (size, len(windows), *starts))
    head = b"EC02" + b"Compressed Data File".ljust(80, b"\0")
    return head + numbers + b"\x1f\x9d\x90" + b"".join(windows)


TITLE = "Holy Bible, Authorized (King James) Version.  Textfile 930105.\n"
WORDS = ("and", "the", "of", "to", "he", "that", "in", "for", "it", "not", "thee", "unto", "LORD;")


def verses(count=300, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 12)) for _ in range(count)]


def bible_text(lines):
    names = ("Ge", "1Sm", "SSol")
    return TITLE + "".join(f"{names[i % 3]}{i + 1}:{i % 7 + 1} {v}\n" for i, v in enumerate(lines))


@pytest.mark.parametrize("size", [200, 3000, 65536])
def test_every_verse_of_a_packed_bible_comes_back_without_its_reference(tmp_path, size):
    lines = verses()
    (tmp_path / "bible.data").write_bytes(packed_bible(bible_text(lines), size))
    corpus = text_corpus("bible-kjv", tmp_path)
    decoded = "".join(corpus.decode(corpus.ids(split)) for split in SPLITS)
    assert decoded == "".join(f"{line}\n" for line in lines)
    assert corpus.stand_in_for == "the King James Bible"


@given(text=st.binary(min_size=1, max_size=3000), repeats=st.integers(1, 40))
@example(text=b"a", repeats=3000)
@example(text=np.random.default_rng(0).bytes(65536), repeats=1)
def test_any_bytes_survive_packing(text, repeats):
    for ended in (True, False):
        assert _expand(packed_window((text * repeats)[:65536], ended)) == (text * repeats)[:65536]


@pytest.mark.skipif(shutil.which("gzip") is None, reason="no gzip")
def test_the_packing_of_these_tests_is_that_of_compress():
    text = bible_text(verses()).encode()
    done = subprocess.run(
        ["gzip", "-dc"], input=b"\x1f\x9d\x90" + packed_window(text, False), capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: b"EC01" + c[4:], "it must start with b'EC02': got b'EC01'"),
        (lambda c: c[:60], "it must hold 0 windows, one at least: got 60 bytes"),
        (lambda c: c[:100], r"it must hold \d+ windows, one at least: got 100 bytes"),
        (lambda c: c[:88] + b"\xff\xff\xff\xff" + c[92:], "it must hold 4294967295 windows"),
        (lambda c: c[:-1], r"its windows must follow each other from byte \d+ to \d+"),
        (lambda c: c + b"\0", "its windows must follow each other"),
        (lambda c: c.replace(b"\x1f\x9d\x90", b"\x1f\x9d\x8c"), r"must be 1f 9d 90"),
        (lambda c: c[:84] + (2999).to_bytes(4, "big") + c[88:], "window 1 cannot be unpacked"),
        (lambda c: c[:84] + (3001).to_bytes(4, "big") + c[88:], "window 1 cannot be unpacked"),
        (lambda c: c[:-600] + b"\xff" * 600, r"window \d+ cannot be unpacked"),
    ],
)
def test_damaged_bibles_are_named(tmp_path, change, message):
    path = tmp_path / "bible.data"
    path.write_bytes(change(packed_bible(bible_text(verses()))))
    with pytest.raises(ValueError, match=message) as caught:
        text_corpus("bible-kjv", path)
    assert str(caught.value).startswith(f"bible-kjv: {path} is damaged or another file: ")
    assert str(caught.value).endswith("; install the Debian package bible-kjv-text, or pass its "
                                      "folder or the file itself as data=")  # fmt: skip
    assert "\n" not in str(caught.value)


def test_other_packed_texts_are_no_bible(tmp_path):
    path = tmp_path / "bible.data"
    path.write_bytes(packed_bible(TITLE + "Ge1:1 In the beginning\nno verse at all\n"))
    with pytest.raises(
        ValueError, match="line 3 must be a verse after its reference: 'no verse at"
    ):
        text_corpus("bible-kjv", path)
    path.write_bytes(packed_bible(TITLE + "Ge1:1 In the b\xe9ginning\n"))
    with pytest.raises(ValueError, match="its text must be ASCII"):
        text_corpus("bible-kjv", path)


@needs_bible
def test_the_real_bible():
    corpus = text_corpus("bible-kjv", BIBLE)
    text = "".join(corpus.decode(corpus.ids(split)) for split in SPLITS)
    assert text.startswith("In the beginning God created the heaven and the earth.\n")
    assert text.endswith("The grace of our Lord Jesus Christ be with you all. Amen.\n")
    assert (len(text), text.count("\n"), len(corpus.alphabet)) == (4_137_850, 31_102, 63)
    assert (corpus.stand_in_for, corpus.unknown) == (None, None)


@needs_bible
@pytest.mark.skipif(shutil.which("bible") is None, reason="Debian package bible-kjv is not here")
def test_the_real_bible_is_what_its_program_prints():
    command = ["bible", "-f", "Ge1:1-Rev22:21"]
    printed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    expected = re.sub(r"^\S+ ", "", printed.stdout.decode(), flags=re.MULTILINE)
    corpus = text_corpus("bible-kjv")
    assert "".join(corpus.decode(corpus.ids(split)) for split in SPLITS) == expected

"""Texts in files: where they are, and how they are read."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .images._places import check_files, data_folder, missing_files

TEXT8_SIZE = 100_000_000
_TEXT8_SYMBOLS = b"abcdefghijklmnopqrstuvwxyz "
_PTB_PARTS = {"train": "train", "validation": "valid", "test": "test"}
# MD5 sums of the files of words, as torchtext has them.
PTB_DIGESTS = {
    "train": "f26c4b92c5fdc7b3f8c7cdcb991d8420",
    "validation": "aa0affc06ff7c36e977d7cd49e3839bf",
    "test": "8b80168b89c18661a38ef683c0dc3721",
}
_JARGON = Path("/usr/share/doc/jargon-text")
_JARGON_REMEDY = (
    "install the Debian package jargon-text, or pass its folder or the file itself as data="
)
_TEXT8_REMEDY = (
    "get text8.zip from mattmahoney.net/dc/textdata, unpack it, and pass its folder or the file "
    "itself as data="
)
_PTB_REMEDY = (
    "get simple-examples.tgz of Mikolov's RNNLM toolkit and pass the folder of the files as data="
)


@dataclass(frozen=True)
class Source:
    """A text as it is read or drawn: whole, or in splits of its own."""

    text: str | dict[str, str]
    stand_in_for: str | None = None
    entropy_rate: float | None = None
    file: str | None = None


def jargon(data: str | os.PathLike[str] | None) -> Source:
    """Read the Jargon File as its package lays it out."""
    path = locate("jargon", data, ("jargon.txt.gz", "jargon.txt"), _JARGON, _JARGON_REMEDY)
    text = read_text("jargon", path)
    return Source(text, None if "The Jargon File" in text[:200] else "the Jargon File")


def text8(data: str | os.PathLike[str] | None) -> Source:
    """Read text8: a text of Wikipedia in the letters a to z and spaces."""
    path = locate("text8", data, ("text8",), None, _TEXT8_REMEDY)
    content = read_bytes("text8", path)
    others = content.translate(None, _TEXT8_SYMBOLS)
    if others:
        raise ValueError(
            f"text8: {path} must hold the letters a to z and spaces only: got "
            f"{chr(others[0])!r} at byte {content.index(others[:1])}; get it again"
        )
    whole = len(content) == TEXT8_SIZE
    return Source(_decoded("text8", path, content), None if whole else "text8")


def file(data: str | os.PathLike[str] | None) -> Source:
    """Read any text by its path."""
    remedy = "pass the path of a text as data="
    if data is None:
        raise ValueError(f"file: no path; {remedy}")
    path = Path(data).expanduser()
    if path.is_dir():
        raise ValueError(f"file: {path} is a folder; {remedy}")
    check_files("file", path.parent, [path.name], remedy)
    return Source(read_text("file", path), file=path.name)


def ptb(data: str | os.PathLike[str] | None) -> Source:
    """Read the Penn Treebank as Mikolov prepared it, from files of words or of characters.

    Both give one text: words and "<unk>" in small letters with a space between them, numbers as
    "N", a line end after each sentence.
    """
    root = data_folder(data)
    folders = (root, root / "ptb", root / "simple-examples" / "data")
    forms = ("ptb.{}.txt", "ptb.char.{}.txt")
    choices = [
        (folder, [form.format(part) for part in _PTB_PARTS.values()])
        for folder in folders
        for form in forms
    ]
    folder, names = min(choices, key=lambda choice: len(missing_files(*choice)))
    check_files("ptb", folder, names, _PTB_REMEDY)
    texts, published = {}, True
    for split, name in zip(_PTB_PARTS, names, strict=True):
        lines = _sentences(folder / name)
        texts[split] = "".join(f"{line}\n" for line in lines)
        # A line of the files of words starts and ends with a space.
        words = "".join(f" {line} \n" for line in lines).encode()
        published &= _digest(words) == PTB_DIGESTS[split]
    return Source(texts, None if published else "Penn Treebank")


def _sentences(path: Path) -> list[str]:
    lines = [line.split() for line in read_text("ptb", path).split("\n")]
    if not path.name.startswith("ptb.char."):
        return [" ".join(words) for words in lines if words]
    for number, symbols in enumerate(lines, 1):
        if any(len(symbol) > 1 for symbol in symbols):
            raise ValueError(
                f"ptb: {path} must hold characters with spaces between them, and _ for a space: "
                f"line {number} holds {max(symbols, key=len)[:20]!r}; name files of words "
                "ptb.train.txt, ptb.valid.txt, ptb.test.txt"
            )
    return ["".join(symbols).replace("_", " ").strip() for symbols in lines if symbols]


def _digest(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def locate(
    name: str,
    data: str | os.PathLike[str] | None,
    files: Sequence[str],
    system: Path | None,
    remedy: str,
) -> Path:
    """Return the file of a text.

    Args:
        name: Of the corpus, for errors, and of a folder in `data`.
        data: The file, or its folder; None for the usual folder, then that of the system.
        files: Names that it may have.
        system: Where a package puts it.
        remedy: How to get it.

    Raises:
        FileNotFoundError: If it is not there.
    """
    root = data_folder(data)
    if data is not None and root.is_file():
        return root
    folders = [root, root / name, *([system] if system and data is None else [])]
    for path in (folder / file for folder in folders for file in files):
        if path.is_file():
            return path
    check_files(name, root, files[:1], remedy)
    return root / files[0]


def read_text(name: str, path: Path) -> str:
    """Read a text in UTF-8, packed by gzip or not; every line end becomes a newline.

    Raises:
        ValueError: If it is empty, damaged, or not UTF-8.
    """
    return _decoded(name, path, read_bytes(name, path))


def read_bytes(name: str, path: Path) -> bytes:
    """Read a file, unpacked if its name ends in ".gz"; empty is an error."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{name}: {path} is damaged: it cannot be unpacked ({error}); get it again"
            ) from error
    if not content:
        raise ValueError(f"{name}: {path} is empty; a text of 40 characters at least is needed")
    return content


def _decoded(name: str, path: Path, content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: {path} must be UTF-8: byte 0x{content[error.start]:02x} at offset "
            f"{error.start} is not ({error.reason}); convert it, for example with "
            "iconv -f LATIN1 -t UTF-8"
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")

"""The King James Bible as the Debian package bible-kjv-text packs it.

The file is that of Chapin's Bible Retrieval System: a header (magic number, 80 bytes of title, size
and number of windows, where each window starts, and the header of Unix `compress`), then windows of
64 KiB of text, each packed by LZW with codes of 9 to 16 bits and ended by the code to start anew;
the last one is shorter and ends with the file.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from ._text_files import Source, locate, read_bytes

VERSES = 31_102
_SYSTEM = Path("/usr/lib")
_REMEDY = (
    "install the Debian package bible-kjv-text, or pass its folder or the file itself as data="
)
_MAGIC, _SIZES = b"EC02", 84
# Of `compress`: its magic number, then codes of up to 16 bits with a code to start anew.
_COMPRESS = b"\x1f\x9d\x90"
_RESTART, _LEAST_BITS, _MOST_BITS = 256, 9, 16
_VERSE = re.compile(r"[1-3]?[A-Za-z]+\d+:\d+ (.+)")


def bible(data: str | os.PathLike[str] | None) -> Source:
    """Read the verses, a line each, without their references and without the title of the file."""
    path = locate("bible-kjv", data, ("bible.data",), _SYSTEM, _REMEDY)
    lines = unpacked(path).removesuffix("\n").split("\n")[1:]
    verses = []
    for number, line in enumerate(lines, 2):
        verse = _VERSE.fullmatch(line)
        if verse is None:
            raise _damaged(
                path, f"line {number} must be a verse after its reference: {line[:40]!r}"
            )
        verses.append(f"{verse[1]}\n")
    return Source("".join(verses), None if len(verses) == VERSES else "the King James Bible")


def unpacked(path: Path) -> str:
    """Return the whole text of a packed file.

    Raises:
        ValueError: If it is damaged or another file.
    """
    content = read_bytes("bible-kjv", path)
    if not content.startswith(_MAGIC):
        raise _damaged(path, f"it must start with {_MAGIC!r}: got {content[:4]!r}")
    size, starts = _windows(path, content)
    text = b""
    for number, (start, end) in enumerate(pairwise(starts), 1):
        window = _expand(content[start:end])
        least = 1 if number == len(starts) - 1 else size
        if window is None or not least <= len(window) <= size:
            raise _damaged(path, f"window {number} cannot be unpacked")
        text += window
    try:
        return text.decode("ascii")
    except UnicodeDecodeError as error:
        raise _damaged(path, f"its text must be ASCII ({error.reason})") from error


def _windows(path: Path, content: bytes) -> tuple[int, list[int]]:
    """Return the size of a window of text, and where the packed windows start and the last ends."""
    size, count = np.frombuffer(content[_SIZES : _SIZES + 8].ljust(8, b"\0"), dtype=">u4").tolist()
    header = _SIZES + 8 + 4 * (count + 1)
    if not count or len(content) < header + len(_COMPRESS):
        raise _damaged(
            path, f"it must hold {count} windows, one at least: got {len(content)} bytes"
        )
    starts = np.frombuffer(content[_SIZES + 8 : header], dtype=">u4").astype(np.int64)
    first = header + len(_COMPRESS)
    if starts[0] != first or starts[-1] != len(content) or (np.diff(starts) <= 0).any():
        raise _damaged(
            path, f"its windows must follow each other from byte {first} to {len(content)}"
        )
    if content[header:first] != _COMPRESS:
        raise _damaged(path, f"bytes {header} to {first - 1} must be {_COMPRESS.hex(' ')}")
    return size, starts.tolist()


def _expand(packed: bytes) -> bytes | None:
    """Undo LZW up to the code to start anew or the end; None where a code makes no sense."""
    entries = [bytes([value]) for value in range(256)] + [b""]
    parts: list[bytes] = []
    before = b""
    for code in _codes(packed):
        if code == _RESTART:
            break
        if code > len(entries) or (code == len(entries) and not before):
            return None
        part = entries[code] if code < len(entries) else before + before[:1]
        if before and len(entries) < 1 << _MOST_BITS:
            entries.append(before + part[:1])
        parts.append(part)
        before = part
    return b"".join(parts)


def _codes(packed: bytes) -> list[int]:
    """Return the codes of a window; they widen by a bit whenever the entries double."""
    codes: list[int] = []
    start = 0
    for width in range(_LEAST_BITS, _MOST_BITS + 1):
        end = start + (1 << (width - 1)) * width // 8 if width < _MOST_BITS else len(packed)
        bits = np.unpackbits(np.frombuffer(packed[start:end], dtype=np.uint8), bitorder="little")
        whole = bits[: len(bits) // width * width].reshape(-1, width)
        codes += (whole @ (1 << np.arange(width))).tolist()
        start = end
    return codes


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"bible-kjv: {path} is damaged or another file: {what}; {_REMEDY}")

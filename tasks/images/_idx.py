"""IDX files, the format of MNIST: a magic number, the sizes, then bytes."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

_UNSIGNED_BYTES = 8


def read_idx(name: str, path: Path, axes: int, digest: str | None = None) -> np.ndarray:
    """Read an IDX file of unsigned bytes, packed by gzip or not.

    Args:
        name: Of the image set, for errors.
        path: The file; packed if its name ends in ".gz".
        axes: Axes that the array must have: 1 for labels, 3 for images.
        digest: MD5 sum that the unpacked bytes must have.

    Raises:
        ValueError: If the file is damaged, of another kind, or does not have this digest.
    """
    content = _unpacked(name, path)
    if digest is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() != digest:
        raise ValueError(
            f"{name}: {path} is damaged or another file: its content does not have the MD5 sum "
            f"{digest}; get it again"
        )
    header = 4 + 4 * axes
    magic = (_UNSIGNED_BYTES << 8) + axes
    found = int.from_bytes(content[:4], "big")
    if len(content) < header or found != magic:
        raise ValueError(
            f"{name}: {path} must start with the magic number {magic} (unsigned bytes, "
            f"{axes} axes): got {found}; get it again"
        )
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], dtype=">u4"))
    values = np.frombuffer(content, dtype=np.uint8, offset=header)
    if len(values) != math.prod(shape):
        raise ValueError(
            f"{name}: {path} must hold {' x '.join(map(str, shape))} bytes, as its header says: "
            f"got {len(values)}; get it again"
        )
    return values.reshape(shape)


def _unpacked(name: str, path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{name}: {path} is damaged: it cannot be unpacked ({error}); get it again"
        ) from error

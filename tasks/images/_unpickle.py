"""Pickles of plain data, read without running anything that they name."""

from __future__ import annotations

import _codecs
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

# All that a pickle of arrays and plain values calls, in Python 2 and 3.
_reconstruct = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _codecs.encode,
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no plain data")
        return _ALLOWED[module, name]


def read_pickle(name: str, path: Path) -> dict[str, Any]:
    """Read a dict of plain values and arrays.

    Args:
        name: Of the image set, for errors.
        path: The file.

    Raises:
        ValueError: If the file is no such pickle; nothing in it was run.
    """
    try:
        content = _Plain(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:
        # Bytes that are no pickle can fail in any way.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{name}: {path} is refused: not a pickle of plain data ({reason}); get it again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{name}: {path} must hold a dict: got {type(content).__name__}; get it again"
        )
    return content

"""Libraries that need not be installed."""

from __future__ import annotations


def missing(package: str, install: str | None = None) -> ImportError:
    """Build the error for a package that is not installed."""
    return ImportError(
        f"{package} is not installed: pip install {install or package} (or all that "
        'ctxrnn.interop can use: pip install "ctxrnn[interop]")'
    )

"""Which commit of the package is running, where it is a checkout."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

_HERE = Path(__file__)


@functools.cache
def commit() -> str | None:
    """Return the commit of the checkout, with a note where files were changed, else None.

    A package that is installed may lie within somebody else's repository, whose commit says nothing
    of it: what counts is whether git keeps this very file.
    """
    if _git("ls-files", "--error-unmatch", _HERE.name) is None:
        return None
    found = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", ":/")
    return f"{found} with changes" if found and changed else found


def _git(*arguments: str) -> str | None:
    """Return what git says, or None where it is not there or refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(_HERE.parent), *arguments],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

"""What the command line tells a newcomer: an overview, and which page explains an error.

Loads nothing, so that `ctxrnn` answers at once.
"""

from __future__ import annotations

import re
from pathlib import Path

_OVERVIEW = """\
ctxrnn: how does one network hold many tasks, and which one does it do in which context?

Contexts act on the excitability of neurons, on the strength of their synapses, or on both.
Train such networks, compare them, and see what a mixed context does to them.

Try it
  ctxrnn reproduce --scale smoke    the whole way in under a minute; learns nothing
  ctxrnn reproduce --scale quick    train and compare four mechanisms, about two minutes
One network (README.md, "By hand", trains one in Python)
  ctxrnn models                     how contexts can act: equations, parameter counts
  ctxrnn tasks                      what networks are trained on
  ctxrnn analyse NETWORK            take a trained one apart: fixed points, flow, units
Studies over many networks
  ctxrnn study --help               which there are: packing, ambiguity, synergy, ...
  ctxrnn study packing --dry-run    cells, time and memory; runs nothing
Data and this machine
  ctxrnn doctor                     data sets, versions, speed; what is missing, and how to mend it
Help
  ctxrnn COMMAND --help             options, and an example that works
  ctxrnn completion bash            complete names with the Tab key
"""
_FIRST = "ctxrnn reproduce --scale quick"
_QUICK = Path("results") / "reproduce-quick"


def overview() -> str:
    """Return what there is, and the next command to type."""
    networks = _QUICK / "networks"
    found = sorted(networks.glob("s-sym_*.safetensors")) if networks.is_dir() else []
    if not (_QUICK / "report.html").is_file() or not found:
        return f"{_OVERVIEW}\nNext, type: {_FIRST}"
    return (
        f"{_OVERVIEW}\nYou have {_QUICK / 'report.html'}: open it. "
        f"Next, type: ctxrnn analyse {found[0]}"
    )


PAGES: tuple[tuple[str, str], ...] = (
    (r"\b(bible-kjv|jargon|ptb|text8): |^file: ", "docs/text.md"),
    (r"[\w-]+: (missing .+ in |the download failed)", "docs/images.md"),
    (r"needs (torchvision|mlxtend)\b|its MD5 sum is|must lie in a folder", "docs/images.md"),
    (r"holds results with other settings|is not empty and holds no study", "docs/studies.md"),
    (r"no study in |is in use by |was not written by ctxrnn: choose another", "docs/studies.md"),
    (r"restore it from a copy, or choose a new folder", "docs/studies.md"),
    (r"executor='ray' needs Ray", "docs/cluster.md"),
    (r"no checkpoint at |not a checkpoint|is a pickle or zip", "docs/first-contact.md"),
    (r"was not written by ctxrnn: it lacks|has a damaged header", "docs/first-contact.md"),
    (r"was altered after it was written|; this version reads up to", "docs/first-contact.md"),
    (r"the compiled loop is not ", "docs/speed.md"),
    (r"CTXRNN_THREADS must be|^No module named ", "docs/first-contact.md"),
)
"""Which page explains an error: patterns of messages, the first that is found counts."""


def page_of(message: str) -> str | None:
    """Return the page that explains an error, or None."""
    return next((page for pattern, page in PAGES if re.search(pattern, message)), None)


def told(error: BaseException) -> str:
    """Return an error as one line, with the page that explains it."""
    line = " ".join(str(error).split())
    page = page_of(line)
    return line if page is None or page in line else f"{line} (see {page})"

"""Which data sets are here: image sets and texts, by the names of their files only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ctxrnn._cli_doctor import Check
from ctxrnn.tasks import list_image_sets, text_corpus, text_corpus_names

VARIABLE = "CTXRNN_DATA"

_PTB = [[f"ptb.{kind}{part}.txt" for part in ("train", "valid", "test")] for kind in ("", "char.")]
_TEXTS = {
    "bible-kjv": ([["bible.data"]], ("", "bible-kjv"), "/usr/lib"),
    "jargon": (
        [["jargon.txt.gz"], ["jargon.txt"]],
        ("", "jargon"),
        "/usr/share/doc/jargon-text",
    ),
    "text8": ([["text8"]], ("", "text8"), None),
    "ptb": (_PTB, ("", "ptb", "simple-examples/data"), None),
}
"""Of each text: files that make it up, in several forms; folders within that of the data; and the
place of its package, which counts where no folder is given. As docs/text.md has it.
"""


def data_folder(data: Path | None) -> Path:
    """Return the folder that is given, else that of CTXRNN_DATA, else `data` where one is."""
    return Path(data if data is not None else os.environ.get(VARIABLE) or "data").expanduser()


def data_sets(data: Path | None) -> Iterator[Check]:
    """Tell which image sets and texts are here, and how to get those that are not."""
    table = list_image_sets(data)
    images = {row["name"]: str(row["missing"]) for row in table.to_dict("records")}
    texts = {name: missing_text(name, data) for name in text_corpus_names() if name != "file"}
    for what, found in (("images", images), ("texts", texts)):
        here = [name for name, missing in found.items() if not missing]
        told = f"here: {', '.join(here)}" if here else "none here"
        yield Check("Data", what, told, values={"here": here})
        for name, missing in found.items():
            if missing:
                why, _, remedy = missing.removeprefix(f"{name}: ").partition("; ")
                yield Check("Data", name, why, "absent", remedy)


def missing_text(name: str, data: Path | None = None) -> str:
    """Return what is missing of a text, and how to get it; "" if nothing is.

    Files are looked for, not read, where they are in the places that docs/text.md names.
    """
    if name == "words" or _lies_there(name, data):
        return ""
    try:
        # Where nothing is to be read, the reader says at once what is missing.
        text_corpus(name, data)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return ""


def _lies_there(name: str, data: Path | None) -> bool:
    if name not in _TEXTS:
        return False
    forms, within, system = _TEXTS[name]
    folders = [data_folder(data) / part for part in within]
    if system is not None and data is None:
        folders.append(Path(system))
    return any(
        all((folder / file).is_file() for file in form) for folder in folders for form in forms
    )

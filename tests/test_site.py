"""The documentation site: its front page, its notebooks and its gallery. CI builds all of it."""

import inspect
import re
from pathlib import Path

import pytest

from ctxrnn.analysis import plots

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = [
    path for path in sorted(DOCS.rglob("*.md")) if "file_format: mystnb" in path.read_text("utf-8")
]


@pytest.mark.timeout(300)
def test_the_front_page_runs_as_it_stands(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "index.md").read_text("utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    scope = {}
    exec(compile(code, "index.md", "exec"), scope)
    told = capsys.readouterr().out
    assert "'dnms': " in told
    assert "normalised" in told
    assert scope["ambiguity_curve"](scope["sweep"])["normalised"].iloc[0] > 0.9


def test_there_are_ten_tutorials_and_a_gallery():
    listed = (DOCS / "tutorials" / "index.md").read_text("utf-8")
    tutorials = [path for path in NOTEBOOKS if path.parent.name == "tutorials"]
    assert len(tutorials) == 10
    for path in tutorials:
        assert re.search(rf"^{path.stem}$", listed, re.MULTILINE)
    assert DOCS / "gallery.md" in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_can_be_downloaded_and_shows_figures(path):
    text = path.read_text("utf-8")
    assert f"{{nb-download}}`{path.stem}.ipynb`" in text
    cells = re.findall(r"```\{code-cell\} python\n(.*?)```", text, re.DOTALL)
    assert len(cells) >= 6
    if path.stem != "cluster":
        assert any(cell.rstrip().endswith("figure") for cell in cells)
    for cell in cells:
        compile(cell.replace(":tags: [remove-cell]", ""), path.name, "exec")


def test_the_gallery_shows_every_figure():
    text = (DOCS / "gallery.md").read_text("utf-8")
    drawing = {
        name
        for name, value in vars(plots).items()
        if inspect.isfunction(value) and not name.startswith("_")
        and next(iter(inspect.signature(value).parameters), "") == "ax"
    }  # fmt: skip
    assert len(drawing) > 20
    # A band is a part of curves.
    missing = {name for name in drawing - {"band"} if f"plots.{name}(" not in text}
    assert not missing

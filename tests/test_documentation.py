"""The Python on the how-to pages and in the migration guides runs, page by page, as it stands."""

import importlib.util
import re
import warnings
from pathlib import Path

import matplotlib
import pytest

DOCS = Path(__file__).parents[1] / "docs"
# Written and tested elsewhere.
ELSEWHERE = {"interop.md"}
FOLDERS = ("howto", "migration")
PAGES = [
    page
    for folder in FOLDERS
    for page in sorted((DOCS / folder).glob("*.md"))
    if page.name not in {"index.md", *ELSEWHERE}
]
# A block of Python, or a check of what it left, which readers do not see.
PART = re.compile(r"^```python\n(.*?)^```$|^<!-- test: (.*?) -->$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"# .*\(not run here\)")
PEER = re.compile(r"# (nn4n|neurogym) \d")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+\.md)(?:#[^)]*)?\)")


def parts(page):
    """Code and checks of a page, in order: (number of its first line, whether a check, text)."""
    text = page.read_text(encoding="utf-8")
    for found in PART.finditer(text):
        hidden = found[2] is not None
        line = text.count("\n", 0, found.start()) + (0 if hidden else 1)
        yield line, hidden, found[2] if hidden else found[1]


def run(page, scope):
    """Run a page in one namespace; return how many blocks ran."""
    ran, skipped, peer = 0, False, None
    for line, hidden, code in parts(page):
        if not hidden:
            peer = PEER.match(code)
            missing = peer and importlib.util.find_spec(peer[1]) is None
            skipped = bool(NOT_RUN.match(code) or missing)
        if skipped:
            continue
        # So that a traceback shows the line of the page.
        compiled = compile("\n" * line + code, str(page), "exec")
        with warnings.catch_warnings():
            if peer:
                warnings.simplefilter("ignore")
            exec(compiled, scope)
        ran += not hidden
    return ran


def test_there_are_pages():
    assert {page.name for page in PAGES} >= {"records.md", "long-runs.md", "nn4n.md", "psychrnn.md"}


@pytest.mark.timeout(300)  # Without compiled loops, pages take ten times as long.
@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(matplotlib, "rcParams", matplotlib.rcParams.copy())
    assert run(page, {"__name__": "__main__"}) > 0


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_index_lists_every_page(folder):
    index = (DOCS / folder / "index.md").read_text(encoding="utf-8")
    listed = re.search(r"^```\{toctree\}\n(.*?)^```$", index, re.MULTILINE | re.DOTALL)[1].split()
    mine = {page.stem for page in PAGES if page.parent.name == folder}
    assert mine <= set(listed)
    assert mine <= {Path(link).stem for link in LINK.findall(index)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_lead_to_files(folder):
    for page in (DOCS / folder).glob("*.md"):
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = page.parent / link
            assert target.is_file() or target.name in ELSEWHERE, f"{page.name}: {link}"


def test_a_block_says_when_it_is_not_run(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n"
        "<!-- test: assert x == 1 -->\n"
        "```python\n# Another library 2.0 (not run here)\nx = 2\n```\n"
        "<!-- test: assert x == 2 -->\n"
        "```python\ny = x\n```\n"
    )
    scope = {}
    assert run(page, scope) == 2
    assert scope["y"] == 1
    page.write_text("text\n\n```python\nx = 1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as raised:
        run(page, {})
    assert raised.traceback[-1].lineno + 1 == 4

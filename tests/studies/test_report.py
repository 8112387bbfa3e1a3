"""Pages: what their figures are said to show, and how a browser lays them out."""

import html
import json
import re
import shutil
import subprocess

import pandas as pd
import pytest

from ctxrnn.studies import _commit
from ctxrnn.studies._page import figure_of, page_of, scrolling, table_of
from ctxrnn.studies._report_findings import ambiguity_finding, learning_finding, tasks_finding

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def networks(areas, relative=0.95):
    return pd.DataFrame([
        {"variant": variant, "seed": seed, "relative_mean": 0.6 if variant == "none" else relative,
         "area": value}
        for variant, values in areas.items() for seed, value in enumerate(values)
    ])  # fmt: skip


BASE = [0.70, 0.72, 0.69, 0.71, 0.73]


def test_learning_is_told_with_and_without_a_context():
    table = networks({"none": BASE, "e-add": BASE, "s-sym": BASE})
    table.loc[table["variant"] == "s-sym", "relative_mean"] = 0.97
    assert learning_finding(table) == (
        "With a context networks reach 0.95 to 0.97 of what is possible, without one 0.60."
    )
    short = networks({"e-add": BASE}, relative=0.2)
    assert learning_finding(short) == (
        "With a context networks reach 0.20 of what is possible. "
        "Training was too short to learn the tasks."
    )
    assert "Without a context networks reach 0.60" in learning_finding(networks({"none": BASE}))


def test_robustness_is_claimed_only_where_it_may_be():
    higher = [value + 0.1 for value in BASE]
    table = networks({"none": [0.9] * 5, "e-add": BASE, "s-sym": higher, "es-add-sym": BASE[::-1]})
    said = ambiguity_finding(table)
    assert "s-sym is more robust than e-add (area +0.100" in said
    assert "s-sym is more robust than es-add-sym" in said
    assert "e-add is more robust" not in said
    assert "none" not in said
    few = table[table["seed"] < 3]
    assert ambiguity_finding(few).startswith("With 3 networks per mechanism no difference")
    untrained = networks({"e-add": BASE, "s-sym": higher}, relative=0.3)
    assert "have not learnt" in ambiguity_finding(untrained)
    assert ambiguity_finding(networks({"none": BASE, "e-add": BASE})) == ""


def test_the_hardest_task_is_relative_to_its_ceiling():
    table = pd.DataFrame({
        "variant": ["none", "e-add", "e-add"], "task": ["go", "dm1", "anti"],
        "accuracy": [0.1, 0.9, 0.92], "ceiling": [1.0, 0.9, 1.0],
    })  # fmt: skip
    said = tasks_finding(table)
    assert "hardest task is anti, with 0.92" in said
    assert "easiest dm1, with 1.00" in said
    assert tasks_finding(table[table["variant"] == "none"]) == ""


def test_the_commit_is_that_of_the_package(monkeypatch):
    here = _commit._HERE
    _commit.commit.cache_clear()
    found = _commit.commit()
    if (here.parents[2] / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{12}( with changes)?", found)
    # Within somebody else's repository, as an installed copy may lie, there is none.
    monkeypatch.setattr(_commit, "_HERE", here.with_name("not_kept_by_git.py"))
    _commit.commit.cache_clear()
    assert _commit.commit() is None
    monkeypatch.undo()
    _commit.commit.cache_clear()


def page(tmp_path):
    """A page with what is hard on a phone: a wide figure, a wide table, a long command."""
    from ctxrnn.analysis import plots

    figure = plots.new_figure(1, 3, size=("double", 2.4))
    path = plots.save_figure(figure, tmp_path / "figure")[1]
    table = table_of(["mechanism"] + ["a measure of it"] * 9, [["es"] + ["0.123 ± 0.045"] * 9] * 3)
    return page_of("title", [
        "<h1>Question</h1>", scrolling(table), figure_of(path, "A & b", "x &lt; y.", "It rises."),
        f"<pre>{'ctxrnn reproduce ' * 20}</pre><p>{'x' * 200}</p>",
    ])  # fmt: skip


def test_a_figure_says_what_it_shows_to_those_who_cannot_see_it(tmp_path):
    (alt,) = re.findall(r'<img alt="([^"]*)"', page(tmp_path))
    assert html.unescape(alt) == "A & b. It rises. x < y."


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_scrolling_sideways(tmp_path, width):
    script = """<script>addEventListener('load', () => {
      const root = document.documentElement, images = [...document.images];
      const first = document.querySelector('td');
      document.querySelector('.scroll').scrollLeft = 200;
      parent.document.title = JSON.stringify({
        inner: innerWidth, page: root.scrollWidth,
        images: images.map(i => [i.complete && i.naturalWidth > 0, i.alt.length,
                                 i.getBoundingClientRect().width]),
        text: Math.min(...[...document.querySelectorAll('td,figcaption,p,pre')].map(
          e => parseFloat(getComputedStyle(e).fontSize))),
        kept: first.getBoundingClientRect().left,
        head: Math.max(...[...document.querySelectorAll('th')].map(e => e.clientHeight)),
      });
    });</script></body>"""
    # A window has a least width, a frame has not.
    inner = html.escape(page(tmp_path).replace("</body>", script), quote=True)
    frame = f'<iframe style="border:0;width:{width}px;height:800px" srcdoc="{inner}"></iframe>'
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><title>none</title>{frame}", encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
         "--window-size=1400,900", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))
    assert found["inner"] == width
    assert found["page"] <= width
    assert found["images"]
    for loaded, alt, shown in found["images"]:
        assert loaded
        assert alt > 10
        assert shown <= width
    assert found["text"] >= 13
    # Words of a head are not broken: at most four short lines.
    assert found["head"] < 100
    # The first column of a table that is scrolled stays in sight.
    assert 0 <= found["kept"] < 80 or width > 1000

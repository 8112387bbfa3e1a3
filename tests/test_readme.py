import math
import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"


def snippets(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.timeout(300)
def test_the_snippet_runs_as_it_stands_and_learns(tmp_path, monkeypatch, capsys):
    first, *others = snippets(README)
    assert len(first.strip().splitlines()) <= 30
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(first, "README.md", "exec"), scope)
    assert scope["history"].rows[-1]["relative_mean"] > 0.9
    curve = scope["curve"]
    assert curve["normalised"].iloc[0] > 0.9
    assert curve["normalised"].iloc[-1] < curve["normalised"].iloc[0]
    for name in ("ambiguity.pdf", "ambiguity.png", "network.safetensors"):
        assert (tmp_path / name).stat().st_size > 0
    assert "robustness area" in capsys.readouterr().out
    for snippet in others:
        exec(compile(snippet, "README.md", "exec"), scope)
    assert len(scope["histories"]) == len(scope["networks"]) == 12
    means = [history.rows[-1]["relative_mean"] for history in scope["histories"]]
    assert sum(means) / len(means) > 0.8, means


def test_the_snippet_on_speed_runs_as_it_stands(monkeypatch):
    (snippet,) = snippets(README.parent / "docs" / "speed.md")
    scope = {}
    exec(compile(snippet.replace("steps=2000", "steps=20"), "speed.md", "exec"), scope)
    assert len(scope["histories"]) == len(scope["ensemble"]) == 30


def test_the_snippet_on_dynamics_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    snippet, similarity = snippets(README.parent / "docs" / "dynamics.md")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(snippet, "dynamics.md", "exec"), scope)
    points = scope["points"]
    assert len(points) >= 2
    assert set(points.condition) == {0, 1}
    assert (points.speed[~points.slow] <= 1e-11).all()
    assert len(scope["branches"]) >= 1
    assert "state_dependence" in capsys.readouterr().out
    assert (tmp_path / "dynamics.png").stat().st_size > 0
    try:
        import DSA  # noqa: F401
    except ImportError:
        return
    exec(compile(similarity, "dynamics.md", "exec"), scope)
    table = scope["table"]
    assert table.loc["slow", "wider"] < 1e-6
    expected = math.acos((math.cos(0.4) + math.cos(1.2)) / 2)
    assert math.isclose(table.loc["slow", "fast"], expected, abs_tol=1e-6)
    assert f"{expected:.2f} from both" in similarity
    assert (tmp_path / "similarity.png").stat().st_size > 0


def test_the_snippet_on_comodulation_runs_as_it_stands(capsys):
    (snippet,) = snippets(README.parent / "docs" / "comodulation.md")
    scope = {}
    exec(compile(snippet, "comodulation.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert "attention {" in printed
    assert "comod {" in printed
    assert (scope["tuned"].gain.mean(dim=1) - 1).abs().max() < 1e-9


@pytest.mark.parametrize("page", ["inferred.md", "text.md"])
def test_the_snippets_on_inferred_contexts_and_texts_run_in_order(page):
    scope = {}
    for snippet in snippets(README.parent / "docs" / page):
        exec(compile(snippet, page, "exec"), scope)
    if page == "inferred.md":
        table, symbols = scope["table"], scope["symbols"]
        expected = scope["reader"](table(symbols))[0]
        assert torch.allclose(scope["reader"].embedded(symbols, table.weight)[0], expected)


def test_the_snippets_on_other_libraries_run_in_order(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nn4n")
    pytest.importorskip("tensorboard")
    pytest.importorskip("xarray")
    monkeypatch.chdir(tmp_path)
    scope = {}
    for snippet in snippets(README.parent / "docs" / "howto" / "interop.md"):
        exec(compile(snippet, "interop.md", "exec"), scope)
    gaps = re.findall(r"tensor\((\S+?)[,)]", capsys.readouterr().out)
    assert len(gaps) == 3
    assert all(float(gap) < 1e-4 for gap in gaps)
    assert scope["by_task"].sizes["task"] == 2
    assert scope["late"].notnull().all()
    assert (tmp_path / "run.nc").stat().st_size > 0
    assert list((tmp_path / "runs" / "s-sym").glob("events.*"))

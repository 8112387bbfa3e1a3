import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.timeout(300)
def test_the_snippet_runs_as_it_stands_and_learns(tmp_path, monkeypatch, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippet.strip().splitlines()) <= 30
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(snippet, "README.md", "exec"), scope)
    assert scope["history"].rows[-1]["relative_mean"] > 0.9
    curve = scope["curve"]
    assert curve["normalised"].iloc[0] > 0.9
    assert curve["normalised"].iloc[-1] < curve["normalised"].iloc[0]
    for name in ("ambiguity.pdf", "ambiguity.png", "network.safetensors"):
        assert (tmp_path / name).stat().st_size > 0
    assert "robustness area" in capsys.readouterr().out

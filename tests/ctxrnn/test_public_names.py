import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ctxrnn

SOURCE = Path(__file__).parents[2] / "ctxrnn" / "__init__.py"


def test_names_for_type_checkers_are_the_names_at_run_time():
    declared = {
        alias.name: node.module.removeprefix("ctxrnn.")
        for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ctxrnn.")
        for alias in node.names
    }
    assert declared == ctxrnn._HOMES
    for name, home in declared.items():
        assert getattr(ctxrnn, name) is getattr(sys.modules[f"ctxrnn.{home}"], name)
        assert name in dir(ctxrnn)
        assert getattr(ctxrnn, name).__doc__ or name == "VARIANTS"


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="no attribute 'CTRN'"):
        ctxrnn.CTRN  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = "import ctxrnn, sys; print({'torch', 'numpy', 'neurogym'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

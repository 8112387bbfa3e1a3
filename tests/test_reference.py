"""Every public name is documented, with an example that is run."""

import doctest
import importlib
import inspect
import re
import types

import matplotlib
import pytest

PACKAGES = (
    "ctxrnn",
    "ctxrnn.tasks",
    "ctxrnn.tasks.images",
    "ctxrnn.analysis",
    "ctxrnn.studies",
    "ctxrnn.comodulation",
    "ctxrnn.interop",
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
# A class that a function returns may point to the example of that function.
ELSEWHERE = re.compile(r"^ *Example: that of `(\w+)`\.$", re.MULTILINE)


def public(package):
    """Public functions and classes of a package by name."""
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None) or dir(module)
    found = {name: getattr(module, name) for name in names if not name.startswith("_")}
    return {
        name: value
        for name, value in found.items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and str(getattr(value, "__module__", "")).startswith("ctxrnn")
        and not isinstance(value, types.GenericAlias)
    }


NAMES = sorted({
    (value.__module__, value.__qualname__): (package, name)
    for package in reversed(PACKAGES)
    for name, value in public(package).items()
}.values())  # fmt: skip


def test_there_are_names():
    assert len(NAMES) > 200
    assert ("ctxrnn", "CTRNN") in NAMES
    assert ("ctxrnn.analysis", "find_fixed_points") in NAMES


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda part: part)
def test_the_example_runs(package, name, tmp_path, monkeypatch):
    value = public(package)[name]
    text = inspect.getdoc(value) or ""
    elsewhere = ELSEWHERE.search(text)
    if elsewhere:
        home = public(package)
        assert elsewhere[1] in home, f"there is no {package}.{elsewhere[1]}"
        assert ">>>" in (inspect.getdoc(home[elsewhere[1]]) or "")
        return
    assert re.search(r"^Example:\n", text, re.MULTILINE), f"{package}.{name} has no example"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(matplotlib, "rcParams", matplotlib.rcParams.copy())
    (test,) = [
        found
        for found in doctest.DocTestFinder(recurse=False).find(value, name, globs={})
        if found.examples
    ]
    told = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    result = runner.run(test, out=told.append)
    assert result.failed == 0, "".join(told)
    # An example that shows nothing tests nothing.
    assert any(example.want for example in test.examples)

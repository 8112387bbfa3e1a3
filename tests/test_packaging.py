"""The packages, the wheel, the import names, and what the documents promise about them."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALL = "pip install -e . && ctxrnn reproduce --scale quick"
TEST = 'pip install -e ".[test]" && pytest'


def read_setup(root):
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    return setup


def listed_packages(root):
    """Map each package named in setup.cfg to its folder, relative to the root."""
    options = read_setup(root)["options"]
    moved = dict(re.split(r"\s*=\s*", line) for line in options["package_dir"].strip().splitlines())
    packages = options["packages"].split()
    return {name: Path(moved.get(name, name.replace(".", "/"))) for name in packages}


def folders_with_code(root):
    """Every folder with a Python file under the three source folders, relative to the root."""
    sources = ("ctxrnn", "tasks", "analysis")
    files = (file for source in sources for file in (root / source).rglob("*.py"))
    return {file.parent.relative_to(root) for file in files}


def test_every_folder_with_code_is_a_package_listed_in_setup_cfg():
    listed = listed_packages(ROOT)
    assert set(listed.values()) == folders_with_code(ROOT)
    assert [
        folder for folder in listed.values() if not (ROOT / folder / "__init__.py").exists()
    ] == []


def test_a_folder_that_setup_cfg_forgets_is_noticed(tmp_path):
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    for folder in [*listed_packages(ROOT).values(), Path("tasks/new")]:
        (tmp_path / folder).mkdir(exist_ok=True, parents=True)
        (tmp_path / folder / "__init__.py").touch()
    forgotten = folders_with_code(tmp_path) - set(listed_packages(tmp_path).values())
    assert forgotten == {Path("tasks/new")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a copy of the checkout with the setuptools of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("ctxrnn", "tasks", "analysis", "tests", "docs", "benchmarks"):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, folder], cwd=source, check=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_wheel_holds_the_packages_and_nothing_else(wheel):
    version = read_setup(ROOT)["metadata"]["version"]
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {"ctxrnn/py.typed"}
    for package, folder in listed_packages(ROOT).items():
        place = package.replace(".", "/")
        expected |= {f"{place}/{file.name}" for file in (ROOT / folder).glob("*.py")}
    # Where there is a C compiler, the time loop and the local layers for each instruction set.
    prefixes = ("ctxrnn/_kernel_", "ctxrnn/comodulation/_local_")
    compiled = [{name for name in names if name.startswith(prefix)} for prefix in prefixes]
    assert names.difference(*compiled) == expected
    for found in compiled:
        assert len(found) in ((1, 3) if shutil.which("cc") else (0, 1, 3))
    assert {name.split("/")[0] for name in wheel.namelist()} == {
        "ctxrnn",
        f"ctxrnn-{version}.dist-info",
    }


def test_wheel_brings_the_command_and_the_licence(wheel):
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert "ctxrnn = ctxrnn._cli:main" in wheel.read(entry_points).decode()
    (licence,) = (name for name in wheel.namelist() if name.endswith("/LICENSE"))
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("name", ["tasks", "analysis"])
@pytest.mark.parametrize("order", ["import {0}, ctxrnn.{0}", "import ctxrnn.{0}, {0}"])
def test_the_folder_imported_in_a_checkout_is_the_installed_module(name, order):
    code = f"""
import sys
{order.format(name)}
assert {name} is ctxrnn.{name}, ({name}, ctxrnn.{name})
assert {name}.__name__ == "ctxrnn.{name}", {name}.__name__
copies = [module for module in sys.modules if module.startswith("{name}.")]
assert not copies, copies
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("CITATION.cff", r"^version: (\S+)$"),
        ("CHANGELOG.md", r"^## \[?(\d+\.\d+\.\d+)\]?"),
    ],
)
def test_version_is_the_one_in_setup_cfg(file, pattern):
    found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    assert found[1] == read_setup(ROOT)["metadata"]["version"]


def lines(file):
    return [line.strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("file", "command"), [("README.md", INSTALL), ("README.md", TEST), (".ci/run", TEST)]
)
def test_command_stands_on_a_line_of_its_own(file, command):
    assert command in lines(file)


STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$(basename "$0") $*" in "$FAIL"*) exit 3 ;; esac
"""
# Stands in for the interpreter: makes a virtual environment without one, agrees to its version.
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && touch "$3/bin/activate"; fi
"""
STEPS = [
    "pip install -e .[test]", "pytest", "ruff check", "ruff format", "mypy", "ctxrnn reproduce",
    "pip install -e .[docs]", "sphinx-build",
]  # fmt: skip


def run_ci(folder, fail):
    """Run a copy of .ci/run on stubs, of which one fails; return the status and the calls."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", folder / ".ci/run")
    stubs = folder / "stubs"
    stubs.mkdir()
    for name in ("python3", *{step.split()[0] for step in STEPS}):
        (stubs / name).write_text(PYTHON if name == "python3" else STUB)
        (stubs / name).chmod(0o755)
    scratch = folder / "scratch"
    scratch.mkdir()
    log = folder / "log"
    environment = {
        "PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}",
        "LOG": str(log),
        "FAIL": fail,
        "TMPDIR": str(scratch),
    }
    status = subprocess.run(
        [folder / ".ci/run"], env=environment, stdin=subprocess.DEVNULL, check=False
    ).returncode
    assert list(scratch.iterdir()) == [], "the temporary folder was left behind"
    return status, log.read_text().splitlines()


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


@needs_bash
@pytest.mark.parametrize("step", STEPS)
def test_ci_fails_and_stops_where_a_step_fails(tmp_path, step):
    status, calls = run_ci(tmp_path, fail=step)
    assert status != 0
    assert [call.startswith(step) for call in calls] == [False] * STEPS.index(step) + [True]


@needs_bash
def test_ci_passes_where_every_step_does(tmp_path):
    status, calls = run_ci(tmp_path, fail="none")
    assert status == 0
    assert len(calls) == len(STEPS)

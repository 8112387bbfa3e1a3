"""Who may import whom, read off the import statements and, for loading, off a new interpreter."""

import ast
import configparser
import re
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"ctxrnn": "ctxrnn", "tasks": "ctxrnn.tasks", "analysis": "ctxrnn.analysis"}

# Each layer and the layers of ours that it may import.
MAY_IMPORT = {
    "engine": {"engine"},
    "tasks": {"engine", "tasks"},
    "analysis": {"engine", "analysis"},
    "studies": {"engine", "tasks", "analysis", "studies"},
    "command line": {"engine", "tasks", "analysis", "studies", "command line"},
}
# Libraries with a fixed place: a pattern for the modules that may import them.
PLACES = {
    "matplotlib": r"ctxrnn\.analysis\.(plots|_plots_\w+)|ctxrnn\.studies\.\w*figures",
    "neurogym": r"ctxrnn\.tasks(\..*)?",
    "gymnasium": r"ctxrnn\.tasks(\..*)?",
    "ray": r"ctxrnn\.studies\._ray\w*",
    "DSA": r"ctxrnn\.analysis\._dsa",
    "torchvision": r"ctxrnn\.comodulation\._\w+|ctxrnn\.tasks\.images\._\w+",
    "mlxtend": r"ctxrnn\.tasks\.images\._\w+",
    "nn4n": r"ctxrnn\.interop\._nn4n",
    "xarray": r"ctxrnn\.interop\._xarray",
}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "DSA": "dsa-metric"}


@dataclass(frozen=True)
class Module:
    name: str
    source: str
    is_package: bool = False


@dataclass(frozen=True)
class Import:
    target: str
    # Executed when the module is imported: neither in a function nor for type checkers only.
    on_load: bool


def our_modules():
    modules = []
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *file.relative_to(ROOT / folder).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            modules.append(Module(name, file.read_text(encoding="utf-8"), is_package))
    return modules


def imports(module):
    """List what a module imports; `from x import y` counts as x.y, since y may be a module."""
    found = []

    def absolute(node):
        if node.level == 0:
            return node.module
        parts = module.name.split(".")
        parts = parts[: len(parts) - node.level + module.is_package]
        return ".".join([*parts, node.module] if node.module else parts)

    def visit(node, on_load):
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, on_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node)
            found.extend(Import(f"{source}.{alias.name}", on_load) for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            on_load = False
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, False)
            for child in node.orelse:
                visit(child, on_load)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, on_load)

    visit(ast.parse(module.source), True)
    return found


def layer(name):
    """Name the layer of a dotted name of ours, or None for anybody else's."""
    for prefix, found in (
        ("ctxrnn.tasks", "tasks"),
        ("ctxrnn.analysis", "analysis"),
        ("ctxrnn.studies", "studies"),
        ("ctxrnn._cli", "command line"),
        ("ctxrnn.__main__", "command line"),
        ("ctxrnn", "engine"),
    ):
        if name == prefix or name.startswith(prefix + "."):
            return found
    return None


def broken_layers(modules):
    return [
        f"{module.name} ({layer(module.name)}) imports {imported.target}"
        for module in modules
        for imported in imports(module)
        if layer(imported.target) not in {None, *MAY_IMPORT[layer(module.name)]}
        or imported.target.split(".")[0] in {"tasks", "analysis"}
    ]


def misplaced_libraries(modules):
    return [
        f"{module.name} imports {imported.target}"
        for module in modules
        for imported in imports(module)
        for library, place in PLACES.items()
        if imported.target.split(".")[0] == library and not re.fullmatch(place, module.name)
    ]


def undeclared_libraries(modules, declared):
    used = {imported.target.split(".")[0] for module in modules for imported in imports(module)}
    others = used - sys.stdlib_module_names - {"ctxrnn"}
    return sorted(name for name in others if DISTRIBUTIONS.get(name, name) not in declared)


def import_cycle(modules):
    """Return the modules of one cycle of imports on loading, or an empty list."""
    names = {module.name for module in modules}
    graph = {}
    for module in modules:
        targets = {item.target for item in imports(module) if item.on_load}
        # The module meant by x.y is x.y where there is one, else x.
        meant = {name if name in names else name.rpartition(".")[0] for name in targets}
        graph[module.name] = (meant & names) - {module.name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def declared_requirements():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    requirements = setup["options"]["install_requires"].strip().splitlines()
    # Imported only when asked for, and in one place.
    for extra in ("cluster", "images", "interop", "similarity"):
        requirements += setup["options.extras_require"][extra].strip().splitlines()
    return {re.match(r"[\w-]+", line)[0].lower() for line in requirements if line[0] != "#"}


def test_all_modules_are_seen():
    seen = {module.name for module in our_modules()}
    assert {"ctxrnn", "ctxrnn._network", "ctxrnn._cli"} <= seen
    assert {"ctxrnn.tasks", "ctxrnn.analysis", "ctxrnn.analysis.plots", "ctxrnn.studies"} <= seen


def test_layers_import_only_what_they_may():
    assert broken_layers(our_modules()) == []


def test_libraries_are_imported_only_in_their_place():
    assert misplaced_libraries(our_modules()) == []


def test_imported_libraries_are_declared():
    assert undeclared_libraries(our_modules(), declared_requirements()) == []


def test_imports_form_no_cycle():
    assert import_cycle(our_modules()) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("ctxrnn._network", "import ctxrnn.tasks"),
        ("ctxrnn._network", "from ctxrnn import analysis"),
        ("ctxrnn._network", "from . import studies"),
        ("ctxrnn._network", "def f():\n    from ctxrnn.tasks import task_set"),
        ("ctxrnn._network", "if TYPE_CHECKING:\n    from .studies import reproduce"),
        ("ctxrnn.tasks._bank", "from ..analysis import plots"),
        ("ctxrnn.tasks._bank", "from ctxrnn.studies import reproduce"),
        ("ctxrnn.analysis.plots", "from ctxrnn.tasks import task_set"),
        ("ctxrnn.analysis.plots", "import ctxrnn._cli"),
        ("ctxrnn.studies._report", "from ctxrnn import _cli"),
        ("ctxrnn.studies._report", "import tasks"),
    ],
)
def test_a_broken_layer_is_noticed(name, source):
    assert len(broken_layers([Module(name, source)])) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("ctxrnn._network", "from ctxrnn._circuit import Circuit\nimport torch"),
        ("ctxrnn.tasks._bank", "from . import _raw\nfrom ctxrnn import TrialBatch"),
        ("ctxrnn._cli", "def f():\n    from ctxrnn.studies import reproduce"),
        ("ctxrnn.studies._figures", "from ctxrnn.analysis import plots"),
    ],
)
def test_an_allowed_import_passes(name, source):
    assert broken_layers([Module(name, source)]) == []


@pytest.mark.parametrize(
    ("name", "source", "misplaced"),
    [
        ("ctxrnn._training", "import matplotlib.pyplot as plt", 1),
        ("ctxrnn.analysis.ambiguity", "def f():\n    from matplotlib import figure", 1),
        ("ctxrnn.studies._report", "import neurogym", 1),
        ("ctxrnn.analysis.plots", "import matplotlib", 0),
        ("ctxrnn.studies._figures", "from matplotlib.figure import Figure", 0),
        ("ctxrnn.tasks._neurogym", "import neurogym, gymnasium", 0),
    ],
)
def test_a_misplaced_library_is_noticed(name, source, misplaced):
    assert len(misplaced_libraries([Module(name, source)])) == misplaced


def test_an_undeclared_library_is_noticed():
    module = Module("ctxrnn._x", "import os, torch\nfrom sklearn.svm import SVC\nimport click.core")
    assert undeclared_libraries([module], {"torch", "scikit-learn"}) == ["click"]


@pytest.mark.parametrize(
    ("second", "cyclic"),
    [
        ("from ctxrnn import _a", True),
        ("from ._a import name", True),
        ("class C:\n    import ctxrnn._a", True),
        ("def f():\n    from ._a import name", False),
        ("if TYPE_CHECKING:\n    from ._a import name", False),
        ("import os", False),
    ],
)
def test_a_cycle_is_noticed(second, cyclic):
    modules = [Module("ctxrnn._a", "from ctxrnn._b import name"), Module("ctxrnn._b", second)]
    assert bool(import_cycle(modules)) is cyclic


def test_the_engine_loads_no_task_figure_or_table_library():
    # Each module by name, since the package loads its own modules only when they are used.
    engine = [module.name for module in our_modules() if layer(module.name) == "engine"]
    code = f"import sys, {', '.join(engine)}; print(*sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    loaded = set(printed.split())
    assert loaded >= {"torch", *engine}
    unwanted = {"neurogym", "gymnasium", "matplotlib", "torchvision", "pandas"}
    unwanted |= {"nn4n", "tensorboard", "xarray"}
    ours = {"ctxrnn.tasks", "ctxrnn.analysis", "ctxrnn.studies", "ctxrnn._cli"}
    assert loaded & (unwanted | ours) == set()

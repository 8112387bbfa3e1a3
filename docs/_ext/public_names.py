"""The public names, their pages, and a warning for each that no page shows."""

import importlib
import inspect

from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

_log = logging.getLogger(__name__)
PACKAGES = (
    "ctxrnn",
    "ctxrnn.tasks",
    "ctxrnn.tasks.images",
    "ctxrnn.analysis",
    "ctxrnn.analysis.plots",
    "ctxrnn.studies",
    "ctxrnn.comodulation",
    "ctxrnn.interop",
)


def _public(package):
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", None) or dir(module):
        value = getattr(module, name)
        known = inspect.isclass(value) or inspect.isfunction(value)
        if not name.startswith("_") and known and value.__module__.startswith("ctxrnn"):
            yield name, value


HOMES = {}
"""Public name -> the first package that offers it."""
_BY_ORIGIN = {}
for _package in PACKAGES:
    for _name, _value in _public(_package):
        if f"{_value.__module__}.{_value.__qualname__}" not in _BY_ORIGIN:
            HOMES.setdefault(_name, _package)
            _BY_ORIGIN[f"{_value.__module__}.{_value.__qualname__}"] = f"{_package}.{_name}"


class Public(SphinxDirective):
    """Show names of a package, one per line."""

    required_arguments = 1
    has_content = True

    def run(self):
        """Hand the names to autodoc."""
        package, lines = self.arguments[0], []
        for name in " ".join(self.content).split():
            full = f"{package}.{name}"
            value = getattr(importlib.import_module(package), name)
            kind = "class" if inspect.isclass(value) else "function"
            lines += [f".. auto{kind}:: {full}", *(["   :members:"] * (kind == "class")), ""]
        return self.parse_text_to_nodes("\n".join(["```{eval-rst}", *lines, "```"]))


def _resolved(app, env, node, contnode):
    """Lead types that signatures name by their private module to the public page."""
    target = _BY_ORIGIN.get(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or target is None:
        return None
    found = env.domains["py"].objects.get(target)
    if found is None:
        return None
    return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, contnode)


def _complete(app, env):
    shown = set(env.domains["py"].objects)
    for full in sorted(set(_BY_ORIGIN.values()) - shown):
        _log.warning("no page of the reference shows %s", full)


def setup(app):
    """Register the directive and the checks."""
    app.add_directive("public", Public)
    app.connect("missing-reference", _resolved)
    app.connect("env-check-consistency", _complete)
    return {"parallel_read_safe": False, "parallel_write_safe": True}

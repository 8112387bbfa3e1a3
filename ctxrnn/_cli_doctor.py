"""What `ctxrnn doctor` can tell before torch is loaded: the packages; and how checks are shown."""

from __future__ import annotations

import getpass
import importlib
import json
import os
import platform
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

State = Literal["fine", "absent", "doubtful", "broken"]
_MARKS = {"fine": "ok", "absent": "-", "doubtful": "!", "broken": "FAIL"}
NAMED = ("torch", "numpy", "scipy", "neurogym")
"""Packages with a line of their own; the others share one."""
_IMPORTED = ("numpy", "torch", "scipy.linalg", "pandas", "matplotlib", "ctxrnn.tasks")


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        group: What the line belongs to, e.g. "Packages".
        what: What was looked at.
        found: What was found.
        state: "fine"; "absent", which only matters to those who want it; "doubtful", where things
            work, but not as they should; "broken", where something does not work that all need.
        remedy: What to do about it, in one line.
        values: The same in numbers, for the report in JSON.
    """

    group: str
    what: str
    found: str
    state: State = "fine"
    remedy: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        head, indent = f"  {_MARKS[self.state]:<5}{self.what:<16}", " " * 23
        # A remedy stays whole, to be copied.
        lines = textwrap.wrap(
            self.found,
            100,
            initial_indent=head,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return "\n".join([*lines, f"{indent}-> {self.remedy}"] if self.remedy else lines)


def verdict(checks: Sequence[Check]) -> str:
    """Say how it stands, in one line."""
    broken = [check.what for check in checks if check.state == "broken"]
    doubtful = [check.what for check in checks if check.state == "doubtful"]
    page = "docs/first-contact.md explains each line"
    if broken:
        return f"broken: {', '.join(broken)}; {page}"
    if doubtful:
        return f"everything needed works; look at: {', '.join(doubtful)}; {page}"
    return "everything needed works"


def installed() -> Iterator[Check]:
    """Compare Python and the packages with what ctxrnn asks for."""
    try:
        ours = metadata.distribution("ctxrnn")
    except metadata.PackageNotFoundError:
        yield Check(
            "Packages", "ctxrnn", "is not installed", "broken", "in its folder: pip install -e ."
        )
        return
    required = [parsed(text) for text in ours.requires or ()]
    yield Check("Packages", "ctxrnn", ours.version, values={"version": ours.version})
    wanted = ours.metadata["Requires-Python"] if "Requires-Python" in ours.metadata else ""  # noqa: SIM401
    yield _python(wanted)
    needed = [one for one in required if not one.marker]
    lines = {one.name: _package(one) for one in needed}
    for name in NAMED:
        if name in lines:
            yield lines.pop(name)
    yield from (check for check in lines.values() if check.state != "fine")
    fine = [check for check in lines.values() if check.state == "fine"]
    if fine:
        told = ", ".join(f"{check.what} {check.values['version']}" for check in fine)
        versions = {check.what: check.values["version"] for check in fine}
        yield Check("Packages", "others", told, values=versions)
    yield from _quarrels(required)
    yield from _extras(required)


def _python(wanted: str) -> Check:
    version = platform.python_version()
    told = f"{version}, {platform.system()} {platform.machine()}"
    values = {"version": version, "platform": platform.platform(), "wanted": wanted}
    if fits(version, wanted):
        return Check("Packages", "python", told, values=values)
    remedy = f"make a virtual environment with Python {wanted}"
    return Check("Packages", "python", f"{told}; ctxrnn needs {wanted}", "broken", remedy, values)


def _package(wanted: Requirement) -> Check:
    version = version_of(wanted.name)
    values = {"version": version, "wanted": wanted.bounds}
    remedy = f'pip install "{wanted}"'
    if version is None:
        return Check("Packages", wanted.name, "is not installed", "broken", remedy, values)
    if not fits(version, wanted.bounds):
        told = f"{version}; ctxrnn needs {wanted.bounds}"
        return Check("Packages", wanted.name, told, "broken", remedy, values)
    return Check("Packages", wanted.name, version, values=values)


def _quarrels(required: Iterable[Requirement]) -> Iterator[Check]:
    """Tell where a package that ctxrnn uses has been given another one than it wants."""
    for name in dict.fromkeys(one.name for one in required):
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for wanted in map(parsed, found.requires or ()):
            version = version_of(wanted.name)
            # What holds for some systems or extras only is left to pip.
            if wanted.marker or (version is not None and fits(version, wanted.bounds)):
                continue
            have = f"found {version}" if version else "which is not installed"
            told = f"{name} {found.version} needs {wanted}, {have}"
            yield Check("Packages", "conflict", told, "doubtful", f'pip install "{wanted}"')


def _extras(required: Iterable[Requirement]) -> Iterator[Check]:
    """Tell which optional parts are there."""
    extras: dict[str, list[Requirement]] = {}
    for wanted in required:
        if wanted.extra:
            extras.setdefault(wanted.extra, []).append(wanted)
    for extra, parts in extras.items():
        versions = {one.name: version_of(one.name) for one in parts}
        missing = [name for name, version in versions.items() if version is None]
        unfit = [
            f"{one.name} {versions[one.name]} (needs {one.bounds})"
            for one in parts
            if not fits(versions[one.name] or "", one.bounds) and versions[one.name]
        ]
        remedy = f'pip install "ctxrnn[{extra}]"'
        what = f"[{extra}]"
        if unfit:
            yield Check("Extras", what, ", ".join(unfit), "doubtful", remedy, versions)
        elif missing:
            told = f"without {', '.join(missing)}; if you want it: {remedy}"
            yield Check("Extras", what, told, "absent", values=versions)
        else:
            told = ", ".join(f"{name} {version}" for name, version in versions.items())
            yield Check("Extras", what, told, values=versions)


def loaded(modules: Sequence[str] = _IMPORTED) -> Check | None:
    """Load the libraries; return a check that says which one cannot be loaded, or None."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            package = name.partition(".")[0]
            remedy = (
                f"pip install --force-reinstall {package}"
                if package != "ctxrnn"
                else "mend the packages above, or install ctxrnn again"
            )
            told = f"{name} cannot be loaded: {type(error).__name__}: {_line(error)}"
            return Check("Packages", "import", told, "broken", remedy)
    return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


@dataclass(frozen=True)
class Requirement:
    """A package that is needed, in some versions, perhaps only under a condition."""

    name: str
    bounds: str
    marker: str = ""

    @property
    def extra(self) -> str | None:
        """The extra that asks for it, where that is the whole condition."""
        found = re.fullmatch(r"extra\s*==\s*[\"']([\w.-]+)[\"']", self.marker)
        return found[1] if found else None

    def __str__(self) -> str:
        return self.name + self.bounds


def parsed(text: str) -> Requirement:
    """Read a requirement as packages state it, e.g. `numpy>=2.0; extra == "test"`."""
    head, _, marker = text.partition(";")
    found = re.match(r"\s*([\w.-]+)\s*(?:\[[^\]]*\])?\s*(.*)", head)
    if found is None:
        raise ValueError(f"not a requirement: {text!r}")
    return Requirement(found[1], found[2].strip().strip("()").replace(" ", ""), marker.strip())


def version_of(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


_VERSION = re.compile(
    r"v?(?:\d+!)?(?P<release>\d+(?:\.\d+)*)[-_.]?(?P<early>a|b|c|rc|alpha|beta|pre|preview|dev)?",
    re.IGNORECASE,
)


def _key(version: str) -> tuple[tuple[int, ...], bool]:
    """Sort key of a version: its numbers without zeros at the end, and whether it is final."""
    found = _VERSION.match(version)
    if found is None:
        return (), False
    numbers = [int(part) for part in found["release"].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers), found["early"] is None


def fits(version: str, bounds: str) -> bool:
    """Tell whether a version lies within bounds, e.g. `>=2.0,<3`; those not understood count."""
    return all(_fits(version, bound.strip()) for bound in bounds.split(",") if bound.strip())


def _fits(version: str, bound: str) -> bool:
    found = re.fullmatch(r"(>=|<=|==|!=|~=|>|<)\s*([\w.+!-]+?)(\.\*)?", bound)
    if found is None:
        return True
    sign, limit, any_end = found.groups()
    mine, other = _key(version), _key(limit)
    numbers = [int(part) for part in re.findall(r"\d+", _VERSION.match(limit)["release"])]  # type: ignore[index]
    same_start = _starts(mine[0], numbers if any_end else numbers[:-1])
    return {
        ">=": mine >= other,
        "<=": mine <= other,
        ">": mine > other,
        # An early version of a release that is left out is left out, too.
        "<": mine < other and mine[0] != other[0],
        "==": same_start if any_end else mine == other,
        "!=": not same_start if any_end else mine != other,
        "~=": mine >= other and same_start,
    }[sign]


def _starts(release: tuple[int, ...], numbers: Sequence[int]) -> bool:
    padded = (*release, *[0] * len(numbers))
    return list(padded[: len(numbers)]) == list(numbers)


_SHOWN = (
    "CTXRNN_DATA", "CTXRNN_KERNEL", "CTXRNN_THREADS", "CTXRNN_CUDA_GRAPHS", "OMP_NUM_THREADS",
    "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


def write_report(file: Path, checks: Iterable[Check], folders: Iterable[Path] = ()) -> None:
    """Write the checks as JSON, without names of users, machines or folders.

    Args:
        file: Where to.
        checks: What was found.
        folders: Folders that the user named.
    """
    content = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "environment": {name: os.environ[name] for name in _SHOWN if name in os.environ},
        "python": sys.version.split("\n")[0],
        "checks": [
            {
                "group": check.group, "what": check.what, "state": check.state,
                "found": check.found, "remedy": check.remedy, "values": dict(check.values),
            }
            for check in checks
        ],
    }  # fmt: skip
    text = json.dumps(without_names(content, folders), indent=1, default=str)
    try:
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {file}: {error.strerror}. Choose another --json"
        ) from error


def without_names(value: Any, folders: Iterable[Path] = ()) -> Any:
    """Return a JSON-able value without the names of users, machines and folders in its texts."""
    replaced = {str(Path.home()): "~", str(Path.cwd()): "."}
    for folder in folders:
        replaced[str(folder.expanduser().absolute())] = f".../{folder.name}"
    names = {_user(): "USER", platform.node(): "HOST", platform.node().split(".")[0]: "HOST"}

    def clean(one: Any) -> Any:
        if isinstance(one, Mapping):
            return {key: clean(inner) for key, inner in one.items()}
        if isinstance(one, list | tuple):
            return [clean(inner) for inner in one]
        return cut(one) if isinstance(one, str) else one

    def cut(text: str) -> str:
        for path, short in sorted(replaced.items(), key=lambda pair: -len(pair[0])):
            if len(path) > 1:
                text = text.replace(path, short)
        text = re.sub(r"/(home|Users)/[^/\s]+", r"/\1/USER", text)
        # Of other absolute paths only the last part stays, but for those of the system.
        text = re.sub(r"(?<![\w.~/])/(?!usr/|lib/)(?:[^\s/:;,'\"]+/)+", ".../", text)
        for name, instead in names.items():
            if len(name) > 1:
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", instead, text)
        return text

    return clean(value)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""

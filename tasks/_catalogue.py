"""Names of the tasks, their families, and the repairs of neurogym's yang19 tasks."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from ctxrnn._checks import unknown_name

_MEMBERS = {
    "reach": ("go", "rtgo", "dlygo", "anti", "rtanti", "dlyanti"),
    "decision": ("dm1", "dm2", "ctxdm1", "ctxdm2", "multidm"),
    "delayed decision": ("dlydm1", "dlydm2", "ctxdlydm1", "ctxdlydm2", "multidlydm"),
    "match": ("dms", "dnms", "dmc", "dnmc"),
}

FAMILY = MappingProxyType({name: family for family, names in _MEMBERS.items() for name in names})
"""Name of a yang19 task -> its family."""

YANG19 = tuple(FAMILY)
"""The 20 tasks of Yang et al. (2019), in neurogym's order."""

_CUED = (*_MEMBERS["decision"], *_MEMBERS["delayed decision"], *_MEMBERS["match"])

REPAIRED = MappingProxyType(
    {
        "go-cue": _CUED,
        "durations": ("dm1",),
        "category": ("dmc", "dnmc"),
        "ties": ("multidm", "multidlydm"),
        "timing": ("dlygo", "dlyanti"),
    }
)
"""Name of a repair -> the tasks that it changes."""

REPAIRS = MappingProxyType(
    {
        "go-cue": "the fixation input stays on until the decision period",
        "durations": "dm1 shows its stimulus for 500 ms, as the other decision tasks do, "
        "not for 200, 400 or 600 ms",
        "category": "sample and test belong to the second category if at or beyond half of the "
        "ring; neurogym leaves the sample at exactly half of it in the first",
        "ties": "trials without a right answer are drawn again",
        "timing": "dlygo and dlyanti honour a `timing` given by the user",
    }
)
"""Name of a repair -> what it does."""


def short_name(name: str) -> str:
    """Reduce a neurogym id to the name used here.

    "yang19.go-v0" and "go" give "go"; "GoNogo-v0" and "GoNogo" give "GoNogo".
    """
    return name.removesuffix("-v0").removeprefix("yang19.")


def repairs_of(name: str, chosen: Iterable[str]) -> tuple[str, ...]:
    """List the chosen repairs that change a task, in the order of `REPAIRS`."""
    wanted = set(chosen)
    return tuple(r for r, tasks in REPAIRED.items() if r in wanted and name in tasks)


def resolve_repairs(repairs: bool | Iterable[str] | None) -> tuple[str, ...]:
    """Turn the argument `repairs` into names of repairs.

    Args:
        repairs: None or True for all, False for none, or names of `REPAIRS`.

    Raises:
        ValueError: If a name is unknown.
        TypeError: If it is neither a bool nor names.
    """
    if repairs is None or repairs is True:
        return tuple(REPAIRS)
    if repairs is False:
        return ()
    if isinstance(repairs, str) or not isinstance(repairs, Iterable):
        raise TypeError(
            f"repairs must be True, False or a set of names, e.g. {{'go-cue'}}: got {repairs!r}"
        )
    names = list(repairs)
    for name in names:
        if name not in REPAIRS:
            raise unknown_name("repair", name, REPAIRS)
    return tuple(name for name in REPAIRS if name in names)

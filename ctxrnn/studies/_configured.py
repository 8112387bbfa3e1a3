"""Settings as frozen dataclasses: from and to JSON, and changed by `name=value`."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ctxrnn._checks import unknown_name

Settings = TypeVar("Settings")


def to_dict(settings: Any) -> dict[str, Any]:
    """Return settings as JSON-able values."""
    return dataclasses.asdict(settings)


def from_dict(kind: type[Settings], values: Mapping[str, Any], where: str = "") -> Settings:
    """Rebuild settings from `to_dict`; unknown keys are refused.

    Raises:
        ValueError: For unknown keys, or values that the settings refuse.
    """
    hints = typing.get_type_hints(kind)
    fields = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise unknown_name("setting", f"{where}{name}", [f"{where}{f}" for f in fields])
    made = {name: _value(hints[name], v, f"{where}{name}") for name, v in values.items()}
    return kind(**made)


def _value(hint: Any, value: Any, where: str) -> Any:
    """Turn a JSON value into what a field wants: tuples, nested settings, floats."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} has settings of its own, such as {where}.{_first(hint)}=...")
        return from_dict(typing.cast(type, hint), value, f"{where}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, such as {where}=1,2: got {value!r}")
        inner = arguments[0] if len(arguments) == 2 and arguments[1] is Ellipsis else None
        if inner is None:
            if len(value) != len(arguments):
                raise ValueError(f"{where} must be a list of {len(arguments)}: got {value!r}")
            return tuple(_value(a, v, where) for a, v in zip(arguments, value, strict=True))
        return tuple(_value(inner, item, where) for item in value)
    if origin is typing.Literal:
        if value not in arguments:
            raise unknown_name(where, value, [str(a) for a in arguments])
        return value
    wanted = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in wanted and type(value) is not hint:
        raise ValueError(f"{where} must be {wanted[hint]}: got {value!r}")
    return value


def _first(kind: Any) -> str:
    return str(dataclasses.fields(kind)[0].name)


def changed(settings: Settings, assignments: Sequence[str]) -> Settings:
    """Return settings with some of them changed.

    Args:
        settings: A frozen dataclass.
        assignments: `name=value` each. Names of nested settings are dotted (`train.steps`); the
            last part is enough where only one setting is called so. Values are JSON, or plain
            text; a list may be written `1,2,3`.

    Raises:
        ValueError: For a name that is unknown or stands for several, or a value that does not fit.
    """
    values = json.loads(json.dumps(to_dict(settings)))
    paths = list(_paths(type(settings)))
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ValueError(f"--set takes name=value: got {assignment!r}")
        path, hint = _resolved(name.strip(), paths)
        *above, last = path.split(".")
        place = values
        for part in above:
            place = place[part]
        place[last] = parsed(text, sequence=_is_sequence(hint), verbatim=_is_text(hint))
    return from_dict(type(settings), values)


def _paths(kind: Any, above: str = "") -> typing.Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            yield from _paths(hint, f"{above}{item.name}.")
        else:
            yield f"{above}{item.name}", hint


def _resolved(name: str, paths: Sequence[tuple[str, Any]]) -> tuple[str, Any]:
    exact = [item for item in paths if item[0] == name]
    found = exact or [item for item in paths if item[0].endswith("." + name)]
    if not found:
        raise unknown_name("setting", name, [path for path, _ in paths])
    if len(found) > 1:
        raise ValueError(f"{name!r} may be {' or '.join(path for path, _ in found)}: say which")
    return found[0]


def _is_sequence(hint: Any) -> bool:
    arguments = typing.get_args(hint)
    return typing.get_origin(hint) is tuple or any(_is_sequence(a) for a in arguments)


def _is_text(hint: Any) -> bool:
    """Tell whether a field holds text, or a list of it: `none` is then the variant, not None."""
    arguments = [a for a in typing.get_args(hint) if a is not Ellipsis]
    if typing.get_origin(hint) is tuple:
        return bool(arguments) and all(_is_text(argument) for argument in arguments)
    return hint is str


def parsed(text: str, *, sequence: bool = False, verbatim: bool = False) -> Any:
    """Read a value as JSON, `none`, or plain text.

    Args:
        text: The value.
        sequence: Whether it is a list, which may be written with commas.
        verbatim: Whether it, or each item of the list, is text as it stands.
    """
    if sequence and not text.strip().startswith("["):
        return [parsed(p.strip(), verbatim=verbatim) for p in text.split(",") if p.strip()]
    if verbatim and not sequence:
        return text
    if text.strip().lower() in ("none", "null"):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def described(settings: Any) -> list[tuple[str, Any]]:
    """List the settings with their dotted names and values, for help texts."""
    found: list[tuple[str, Any]] = []
    for path, _ in _paths(type(settings)):
        value = settings
        for part in path.split("."):
            value = getattr(value, part)
        found.append((path, value))
    return found

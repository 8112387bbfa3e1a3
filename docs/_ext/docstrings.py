"""Docstrings are plain text with a little Markdown; this turns them into what Sphinx reads.

Single backticks mark code or a public name, an indented paragraph outside of the sections is an
equation shown as it stands, and no other character has a meaning.
"""

import re

from public_names import HOMES

_SECTION = re.compile(r"^(Args|Attributes|Example|Raises|Returns|References|Yields):$")
_CODE = re.compile(r"`([^`]+)`")
_LETTER = re.compile(r"^(\s*\w+: )(?=[A-Za-z]\.)")
_SPECIAL = re.compile(r"([\\*|]|(?<=\w)_(?=\W|$))")


def _code(text):
    """Return code as a link where it is a public name, else as it stands."""
    if text in HOMES:
        return f":py:obj:`{text} <{HOMES[text]}.{text}>`"
    return f"``{text}``"


def _plain(text):
    # A letter and a full stop would begin a numbered list.
    text = _LETTER.sub(r"\1\0", text)
    parts, end = [], 0
    for match in _CODE.finditer(text):
        parts += [_SPECIAL.sub(r"\\\1", text[end : match.start()]), _code(match[1])]
        end = match.end()
        # What follows a piece of code at once would otherwise belong to it.
        if re.match(r"\w", text[end:]):
            parts.append("\\ ")
    return "".join([*parts, _SPECIAL.sub(r"\\\1", text[end:])]).replace("\0", "\\")


def converted(lines):
    """Return the lines of a docstring as reStructuredText with Google's sections."""
    found = []
    section = equation = False
    for line in lines:
        if line.strip() and not line.startswith("    "):
            section, equation = _SECTION.match(line), False
        if section is None or section is False:
            if line.startswith("    ") and not equation and found and not found[-1].strip():
                equation = True
                found += [".. code-block:: text", ""]
            found.append(line if equation else _plain(line))
        else:
            as_it_stands = _SECTION.match(line) or section[1] == "Example"
            found.append(line if as_it_stands else _plain(line))
    return _set_apart(found)


def _set_apart(lines):
    """Put an empty line before and after a list."""
    found, inside = [], False
    for line in lines:
        item = line.startswith("- ")
        if found and found[-1].strip() and item != inside and not line.startswith("  "):
            found.append("")
        inside = item or (inside and line.startswith("  "))
        found.append(line)
    return found


def _process(app, what, name, obj, options, lines):
    lines[:] = converted(lines)


def setup(app):
    """Convert before napoleon does."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

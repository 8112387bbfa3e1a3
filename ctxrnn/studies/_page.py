"""Pieces of self-contained HTML pages."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_CSS = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;color:#1a1a1a;
overflow-wrap:break-word}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.15rem;margin-top:2rem}
img{max-width:100%;height:auto;display:block}figure{margin:1.5rem 0}
figcaption{font-size:.9rem;color:#444}.finding{color:#1a1a1a;font-weight:600}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}
th,td{padding:.25rem .45rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th{white-space:normal;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
label.zoom input{position:absolute;opacity:0}.hint{display:none}
@media(max-width:40rem){.hint{display:inline}.zoom{display:block;overflow-x:auto;cursor:zoom-in}
.zoom input:checked+img{width:60rem;max-width:none;cursor:zoom-out}
.zoom input:focus-visible+img{outline:2px solid #0072B2}}
code,pre{font-family:ui-monospace,monospace;font-size:.85rem;overflow-wrap:anywhere}
pre{background:#f5f5f5;padding:.7rem;white-space:pre-wrap}
"""


def page_of(title: str, parts: Sequence[str]) -> str:
    """Return a whole page."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{_CSS}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>"
    )


def table_of(head: list[str], rows: list[list[str]]) -> str:
    """Return a table; cells are HTML."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def scrolling(table: str) -> str:
    """Let a wide table scroll by itself."""
    return f"<div class='scroll'>{table}</div>"


def figure_of(path: Path, title: str, caption: str, finding: str = "") -> str:
    """Return a PNG within the page; on a narrow screen a tap shows it large.

    Args:
        path: The PNG.
        title: Its title.
        caption: What the panels show, HTML.
        finding: What they say, in a sentence, HTML; it comes first.
    """
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.unescape(re.sub(r"<[^>]*>", "", f"{finding} {caption}".strip()))
    plain = html.escape(f"{title}. {text}", quote=True)
    said = f"<span class='finding'>{finding}</span> " if finding else ""
    return (
        "<figure><label class='zoom'><input type='checkbox' "
        f"aria-label='Enlarge: {html.escape(title, quote=True)}'>"
        f"<img alt=\"{plain}\" src='data:image/png;base64,{data}'></label>"
        f"<figcaption><b>{html.escape(title)}.</b> {said}{caption}"
        "<span class='hint'> Tap the figure to enlarge it.</span></figcaption></figure>"
    )


def interval_cell(values: pd.Series, *, missing: str = "never", decimals: int = 3) -> str:
    """Return the cell of a table with a mean over networks and its 95 % t interval.

    Args:
        values: One per network.
        missing: What is said of those that are NaN.
        decimals: Digits.
    """
    from ctxrnn.analysis import mean_interval

    finite = values.dropna().to_numpy(dtype=float)
    if not len(finite):
        return missing
    interval = mean_interval(finite)
    text = f"{interval.mean:.{decimals}f}"
    if len(finite) > 2:
        text += f" &plusmn; {interval.high - interval.mean:.{decimals}f}"
    elif len(finite) == 2:
        text += f" ({finite.min():.{decimals}f} to {finite.max():.{decimals}f})"
    absent = len(values) - len(finite)
    return text + (f" ({absent} {missing})" if absent else "")

"""Formulas as MathML, which browsers draw themselves: no script, and nothing from elsewhere."""

import re

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

_log = logging.getLogger(__name__)
# MathML's brackets grow by themselves.
_SIZES = re.compile(r"\\[bB]igg?[lr]?(?![A-Za-z])")


def _markup(node, *, block):
    source = node.astext().strip()
    known = _SIZES.sub("", source).replace(r"\dots", r"\ldots")
    try:
        return tex2mathml(known, as_block=block)
    except (MathError, SyntaxError) as error:
        _log.warning("formula %r: %s", source, error, location=node)
        return ""


def _inline(translator, node):
    translator.body.append(_markup(node, block=False))
    raise SkipNode


def _block(translator, node):
    translator.body.append(f'<div class="formula">{_markup(node, block=True)}</div>')
    raise SkipNode


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Formulas as MathML, which browsers show by themselves: no script is loaded, from anywhere."""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def to_mathml(formula: str, display: str) -> str:
    """One TeX formula as MathML; `display` is inline or block.

    Raises:
        PluginError: where the converter does not know a command, which it would otherwise print as it stands.
    """
    mathml = convert(html.unescape(formula).strip(), display=display)
    if unknown := re.search(r"\\[a-zA-Z]+|<m[oi] ?/>\s*<mo>&#x0002A;", mathml):
        raise PluginError(
            f"formula {formula!r}: {unknown.group()!r} cannot be turned into MathML; write it another way."
        )
    return mathml


def on_page_content(content: str, **kwargs: Any) -> str:
    """Replace what pymdownx.arithmatex has marked."""
    content = _INLINE.sub(lambda match: to_mathml(match[1], "inline"), content)
    return _DISPLAY.sub(lambda match: to_mathml(match[1], "block"), content)

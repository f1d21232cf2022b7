"""`mathml`: the formulas of a page, as the browser's own MathML: nothing is fetched and no script is run for them."""

import re
from html import unescape

from latex2mathml.converter import convert

# as pymdownx.arithmatex marks them
MARKED = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def mathml(html: str) -> str:
    r"""A page whose formulas are MathML.

    >>> mathml('<span class="arithmatex">\\(z_1\\)</span>')[:27]
    '<span class="formula"><math'
    """
    return MARKED.sub(lambda found: _formula(found[3], block=found[2] == "["), html)


def _formula(latex: str, block: bool) -> str:
    made = convert(unescape(latex).strip(), display="block" if block else "inline")
    return f'<div class="formula">{made}</div>' if block else f'<span class="formula">{made}</span>'

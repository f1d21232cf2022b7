"""`mathml`: the formulas of a page, as the browser's own MathML: nothing is fetched and no script is run for them."""

import re
from html import unescape

from latex2mathml.converter import convert

# as pymdownx.arithmatex marks them
MARKED = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)
SIM = "<mi>&#x0007E;</mi>", "<mo>&#x223C;</mo>"  # a relation, with room around it
NAMED = re.compile(r"<mi>(log|exp|max|min)</mi>(?=<m(?:i|sub|row))")  # a name, and its argument without a bracket


def mathml(html: str) -> str:
    r"""A page whose formulas are MathML.

    >>> mathml('<span class="arithmatex">\\(z_1\\)</span>')[:27]
    '<span class="formula"><math'
    >>> '<mi>log</mi><mspace width="0.17em"/><mi>p</mi>' in mathml('<div class="arithmatex">\\[\\log p\\]</div>')
    True
    """
    return MARKED.sub(lambda found: _formula(found[3], block=found[2] == "["), html)


def _formula(latex: str, block: bool) -> str:
    made = convert(unescape(latex).strip(), display="block" if block else "inline").replace(*SIM)
    tag = "div" if block else "span"
    return f'<{tag} class="formula">{NAMED.sub(_spaced, made)}</{tag}>'


def _spaced(found: re.Match) -> str:
    return f'{found[0]}<mspace width="0.17em"/>'

"""`legible`: text as it can be shown, steering no terminal; `warn` by such; `brief`, `cut`, `quoted`, `listed`."""

import re
import warnings
from collections.abc import Sequence

LONGEST = 300  # characters of a word that is shown as it is: paths have fewer


def legible(text: str) -> str:
    r"""The text with every character that does not print written as its escape; lines and tabs stay.

    >>> print(legible("a\x1b[31m \ud800 \u202e é"))
    a\x1b[31m \ud800 \u202e é
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def warn(text: str, stacklevel: int = 1) -> None:
    """A UserWarning in legible words; Python prints them as they come. `stacklevel` counts as that of `warnings`."""
    warnings.warn(legible(text), stacklevel=stacklevel + 1)


def brief(text: str) -> str:
    """The text with the middle of every very long word left out.

    >>> brief(f"found {'x' * 5000}, want less")[80:150]
    'xxxxxxxxxxxxxxxxxxxxxxxxxx ... xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'
    """
    return re.sub(rf"\S{{{LONGEST + 1},}}", lambda word: f"{word[0][:100]} ... {word[0][-100:]}", text)


def cut(text: str, most: int = LONGEST) -> str:
    """The text without its middle where it is long.

    >>> cut("a" * 50 + "b" * 50, 20)
    'aaaaaaaaaa ... bbbbbbbbbb'
    """
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


def quoted(text: object, most: int = 100) -> str:
    """A text in quotes for a message, without its middle where it is long.

    >>> quoted("elbow"), quoted("x" * 5000, 10)
    ("'elbow'", "'xxxx ... xxxx'")
    """
    return cut(repr(text), most)


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names of a file in one line: those that come first, and how many more there are.

    >>> listed(["x", "a\\nb", "c"], most=2)
    'x, a\\\\nb, and 1 more'
    """
    shown = [brief(legible(name).replace("\n", "\\n").replace("\t", "\\t")) for name in names[:most]]
    return ", ".join([*shown, *([f"and {len(names) - most} more"] if len(names) > most else [])])

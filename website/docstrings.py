"""`PlainText`: docstrings, which are plain text with indented formulas and doctests, as Markdown for mkdocstrings."""

import re
from typing import Any

import griffe

CODE = re.compile(r"``.+?``|`[^`]*`", re.S)
SPECIAL = re.compile(r"(?<!\\)([*_<$\[\]])")


class PlainText(griffe.Extension):
    """Reads every docstring as `markdown` gives it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring and not obj.is_alias:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Plain text as Markdown: doctests in fences, and no sign of a formula taken for emphasis, a tag or a link.

    >>> markdown("z_<i and z_l * 2, `a_b`.")
    'z\\\\_&lt;i and z\\\\_l \\\\* 2, `a_b`.'
    """
    lines, blocks, doctest = text.splitlines(), [], False
    indented = False
    for i, line in enumerate(lines):
        starts = line.lstrip().startswith(">>> ")
        if starts and not doctest:
            doctest, pad = True, line[: len(line) - len(line.lstrip())]
            pad = pad[: len(pad) // 4 * 4 - 4] if len(pad) >= 4 else ""
            blocks.append(f"{pad}```pycon")
            shift = len(line) - len(line.lstrip())
        if doctest and not line.strip():
            blocks.append(f"{pad}```")
            doctest = False
        if doctest:
            blocks.append(pad + line[shift:])
            continue
        before = lines[i - 1].strip() if i else ""
        indented = line.startswith("    ") and (indented or not before)
        blocks.append(line if indented else _escaped(line))
    return "\n".join([*blocks, *([f"{pad}```"] if doctest else [])])


def _escaped(line: str) -> str:
    pieces, at = [], 0
    for found in CODE.finditer(line):
        pieces += [_signs(line[at : found.start()]), found[0]]
        at = found.end()
    return "".join([*pieces, _signs(line[at:])])


def _signs(text: str) -> str:
    return SPECIAL.sub(lambda found: "&lt;" if found[1] == "<" else f"\\{found[1]}", text)

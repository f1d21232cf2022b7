"""`forgeries`: what a document becomes with one field wrong, missing or unknown; `VALUES`, `NUMBERS`: wrong ones."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

Place = tuple[str | int, ...]
NUMBERS: dict[str, Any] = {
    "negative": -1,
    "zero": 0,
    "half": -0.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "huge": 2**70,
    "too large for a float": 10**400,
}
VALUES: dict[str, Any] = {
    "None": None,
    "True": True,
    "a word": "elbow",
    "nothing": "",
    "a number as text": "1e-3",
    **NUMBERS,
    "no list": [],
    "a list": ["a", 2.5, None],
    "numbers": [3, -2],
    "nested": [[[[1]]]],
    "deep": [[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]],
    "no mapping": {},
    "a mapping": {"a": {"b": 1}},
    "a lone surrogate": "\ud800",
    "what steers a terminal": "\x1b[2J\nred",
    "a null": "a\0b",
    "a long text": "x" * 10_000,
    "a path": "../../etc/passwd",
    "code": "__import__('os').system('touch canary')",
}


def places(document: Any, place: Place = ()) -> Iterator[Place]:
    """Every field of a document, however deep."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from places(value, (*place, key))


def forgeries(document: dict[str, Any]) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
    """(field, what is wrong with it, what makes the document): there are thousands, of which a test looks at a few."""
    for place in places(document):
        told = ".".join(map(str, place))
        for what, value in VALUES.items():
            yield told, what, partial(changed, document, place, value)
        yield told, "missing", partial(changed, document, place, drop=True)
    for place in [(), *(p for p in places(document) if isinstance(at(document, p), dict))]:
        yield ".".join(map(str, place)), "an unknown key", partial(changed, document, (*place, "elbow"), 3)
        yield ".".join(map(str, place)), "a key that steers", partial(changed, document, (*place, "\x1b[2J\n"), 3)


def at(document: Any, place: Place) -> Any:
    """What a document holds at a place."""
    for key in place:
        document = document[key]
    return document


def changed(document: dict[str, Any], place: Place, value: Any = None, drop: bool = False) -> dict[str, Any]:
    """The document with another value at a place, or without it."""
    found = deepcopy(document)
    home = at(found, place[:-1])
    if drop:
        del home[place[-1]]
    else:
        home[place[-1]] = value
    return found


def toml(document: dict[str, Any]) -> str:
    """A document as TOML, which knows no None.

    Raises:
        TypeError: None.
        UnicodeError: a lone surrogate.
    """
    text = "\n".join(f"{json.dumps(key)} = {_word(value)}" for key, value in document.items())
    text.encode()
    return text


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_word(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_word, value))}]"
    if value is None:
        raise TypeError("TOML has no None")
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)

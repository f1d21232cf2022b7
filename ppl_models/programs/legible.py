"""`legible`: text of a name or a file as it can be shown, without what would steer a terminal or break an encoding."""


def legible(text: str) -> str:
    r"""The text with every character that does not print written as its escape; lines and tabs stay.

    >>> print(legible("a\x1b[31m \ud800 \u202e é"))
    a\x1b[31m \ud800 \u202e é
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)

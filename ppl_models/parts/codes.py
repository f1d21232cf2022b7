"""`renamed`, `slice_of`: the sites of a model that is the prior of another model's codes; a latent's part of these."""

from math import prod

DATA, CODES = "x", "z"  # the site of what a model generates; the one that stands in its place in a composite


def renamed(name: str) -> str:
    """The name that a site of the second model has in a composite.

    >>> renamed("z2"), renamed("x"), renamed("mean1")
    ('u2', 'z', 'u.mean1')
    """
    if name == DATA:
        return CODES
    return f"u{name[1:]}" if name[:1] == "z" and name[1:].isdecimal() else f"u.{name}"


def slice_of(first: int, event: tuple[int, ...], size: int) -> slice:
    """The part of codes of `size` numbers that a latent takes, `first` of which are taken.

    Raises:
        ValueError: there are not as many.
    """
    end = first + prod(event)
    if end > size:
        refuse_codes(size, "more")
    return slice(first, end)


def refuse_codes(size: int, wanted: str) -> None:
    """Raise ValueError for rows of the second model that are no codes of the first."""
    raise ValueError(
        f"Composite: found {size} values in a row of the second model, want {wanted}: as many as all latents of the "
        "first have; try that as the event of the second model"
    )

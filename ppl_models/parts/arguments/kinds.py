"""`Number`, `Sizes`, `Is`: kinds of arguments, as an annotation says them; `kind_of`: the kind that one says.

An annotation is the one place that says what an argument may be. `bool`, `int`, `float`, `str`, words as a `Literal`,
functions as `Callable`, classes, and unions of these mean what they say; a range is told by
`Annotated[float, Number(above=0)]`. Anything else, as `Any`, is not looked at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from numbers import Real
from operator import index
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, Union, cast, get_args, get_origin

LARGEST = 2**31 - 1  # of integers without another bound: a count beyond it is a mistake, and would never end
MOST_THREADS = 1024
WRONG: Any = object()


class Kind(Protocol):
    """What an argument may be."""

    def read(self, value: Any) -> Any:
        """The value as it is passed on, a number of NumPy's as one of Python's; `WRONG` where it is of another kind."""

    def want(self, value: Any) -> str:
        """What is wanted in place of a value."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """A finite number, or an integer, in a range; no truth value, and no text.

    Args:
        least, most: the ends of the range; infinity is in it if it is the end.
        above, below: the same, left out themselves.
        whole: whether it must be an integer.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    whole: bool = False

    def read(self, value: Any) -> Any:
        """See `Kind`; a single number of another library becomes one of Python's."""
        number = _plain(value)
        if isinstance(number, bool) or not isinstance(number, Real):
            return WRONG
        try:
            number = index(cast(Any, number)) if self.whole else number if type(number) is float else float(number)
        except (TypeError, OverflowError):
            return WRONG
        if self.whole and abs(number) > (LARGEST if self.most is None else self.most):
            return WRONG
        if not isfinite(number) and number != self.most:
            return WRONG
        low = (self.least is None or number >= self.least) and (self.above is None or number > self.above)
        high = (self.most is None or number <= self.most) and (self.below is None or number < self.below)
        if not low or not high:
            return WRONG
        return value if type(value) is int and abs(value) < 2**53 else number

    def want(self, value: Any) -> str:
        """See `Kind`."""
        number, finite = isinstance(value, Real) and not isinstance(value, bool), _is_finite(value)
        most = LARGEST if self.whole and self.most is None and number and value > LARGEST else self.most
        low = next(((end, sign) for end, sign in ((self.least, "<="), (self.above, "<")) if end is not None), None)
        high = next(((end, sign) for end, sign in ((most, "<="), (self.below, "<")) if end not in (None, inf)), None)
        told = ""
        if low and high:
            told = f"{low[0]:.10g} {low[1]} NAME {high[1]} {high[0]:.10g}"
        elif low:
            told = f"{'at least' if low[1] == '<=' else 'more than'} {low[0]:.10g}"
        elif high:
            told = f"{'at most' if high[1] == '<=' else 'less than'} {high[0]:.10g}"
        what = "an integer" if self.whole else "a finite number" if number and not finite else "a number"
        if number and finite and not self.whole and told:
            return told
        return f"{what} of {told}" if told and "NAME" not in told else f"{what}, {told}" if told else what


@dataclass(frozen=True)
class Sizes:
    """Integers of at least `least`, one or several (a list, a tuple, a vector); as a tuple where `always`."""

    least: int = 1
    always: bool = False

    def read(self, value: Any) -> Any:
        """See `Kind`."""
        one = Number(least=self.least, whole=True)
        if (alone := one.read(value)) is not WRONG:
            return (alone,) if self.always else alone
        vector = len(getattr(value, "shape", ())) == 1
        if not vector and not (isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)):
            return WRONG
        found = tuple(one.read(each) for each in value)
        return WRONG if not found or any(each is WRONG for each in found) else found

    def want(self, value: Any) -> str:
        """See `Kind`."""
        return f"an integer of at least {self.least}, or several"


@dataclass(frozen=True)
class Is:
    """An object that passes a test, and no class in its place.

    Args:
        what: it is, for the message.
        test: of the object.
        instead: what to try.
        error: of what is none.
    """

    what: str
    test: Callable[[Any], bool] = callable
    instead: str = ""
    error: type[Exception] = TypeError

    def read(self, value: Any) -> Any:
        """See `Kind`."""
        return WRONG if isinstance(value, type) or not self.test(value) else value

    def want(self, value: Any) -> str:
        """See `Kind`."""
        return self.what


@dataclass(frozen=True)
class Exactly:
    """One of some values: words, True and False, None; a truth value of NumPy's is taken as one of Python's."""

    values: tuple[Any, ...]

    def read(self, value: Any) -> Any:
        """See `Kind`."""
        plain = _plain(value)
        return next((each for each in self.values if type(each) is type(plain) and each == plain), WRONG)

    def want(self, value: Any) -> str:
        """See `Kind`."""
        told = ", ".join(map(repr, self.values))
        return f"one of {told}" if len(self.values) > 2 else told.replace(", ", " or ")


@dataclass(frozen=True)
class Either:
    """Any of several kinds."""

    kinds: tuple[Kind, ...]

    def read(self, value: Any) -> Any:
        """See `Kind`."""
        return next((found for kind in self.kinds if (found := kind.read(value)) is not WRONG), WRONG)

    def want(self, value: Any) -> str:
        """See `Kind`."""
        told = [kind.want(value) for kind in self.kinds]
        return " or ".join(
            text if text.startswith(("a ", "an ", "'")) or not isinstance(kind, Number) else f"a number, {text}"
            for kind, text in zip(self.kinds, told, strict=True)
        )


def no_guide(*args: Any, **kwargs: Any) -> None:
    """The guide of a model without latents: it draws nothing. `None` in place of a guide is this."""


class OrNone(Is):
    """The same, or None, which is passed on as `no_guide`."""

    def read(self, value: Any) -> Any:
        """See `Kind`."""
        return no_guide if value is None else super().read(value)


Whole = Annotated[int, Number(whole=True, least=0)]
Count = Annotated[int, Number(whole=True, least=1)]
Positive = Annotated[float, Number(above=0)]
NotNegative = Annotated[float, Number(least=0)]
Threads = Annotated[int, Number(whole=True, least=1, most=MOST_THREADS)]
Seed = Annotated[int, Number(whole=True, least=0, most=2**32 - 1)]
AnyProgram = Annotated[Callable[..., Any], Is("a program, a function or a module")]
AnyGuide = Annotated[Any, OrNone("a program, a function or a module, or None for a model without latents")]
Event = Annotated[int | Sequence[int], Sizes()]
Several = Annotated[int | Sequence[int], Sizes(always=True)]
Image = Annotated[Sequence[int], Sizes()]
Place = str | Path  # of a file or a folder
Text = Is("a text", lambda value: isinstance(value, str), error=ValueError)
PLAIN: Mapping[Any, Kind] = {
    bool: Exactly((True, False)),
    int: Number(whole=True),
    float: Number(),
    str: Text,
    NoneType: Exactly((None,)),
    Callable: Is("a function"),
}


def kind_of(annotation: Any) -> Kind | None:
    """The kind that an annotation says; None where it says none.

    >>> kind_of(float | None).want("a"), kind_of(Literal["mlp", "conv"]).want("a")
    ('a number or None', "'mlp' or 'conv'")
    """
    origin, args, parts = get_origin(annotation), get_args(annotation), alternatives(annotation)
    if origin is Annotated:
        found = [each for each in args[1:] if hasattr(each, "read") and hasattr(each, "want")]
        return found[0] if found else kind_of(args[0])
    if len(parts) > 1:
        kinds = [kind_of(each) for each in parts]
        return None if None in kinds else Either(tuple(cast(list[Kind], kinds)))
    if origin is Literal:
        return Exactly(args)
    if annotation is Any:
        return None
    known = PLAIN.get(annotation) or PLAIN.get(origin)
    if known is not None:
        return known
    base = origin or annotation
    if not isinstance(base, type) or base is object or getattr(base, "_is_protocol", False):
        return None
    article = "an" if base.__name__[0] in "AEIOU" else "a"
    what = {Mapping: "a mapping", Sequence: "a sequence"}.get(base, f"{article} {base.__name__}")
    text = (str, bytes) if base is Sequence else ()
    return Is(what, lambda value: isinstance(value, base) and not isinstance(value, text))


@dataclass(frozen=True)
class Items:
    """A list, of one kind each, and of a length if there is one; each as its kind reads it.

    >>> Items("two numbers", float, 2).read([2**60, 1]), Items("texts", str).read(["a", 1]) is WRONG
    ([1.152921504606847e+18, 1], True)
    """

    what: str
    one: Any
    count: int | None = None

    def read(self, value: Any) -> Any:
        """See `Kind`."""
        if not isinstance(value, list) or self.count not in (None, len(value)):
            return WRONG
        kind = cast(Kind, kind_of(self.one))
        found = [kind.read(each) for each in value]
        return WRONG if any(each is WRONG for each in found) else found

    def want(self, value: Any) -> str:
        """See `Kind`."""
        return self.what


@dataclass(frozen=True)
class Entries:
    """A mapping whose values are of one kind, each as that reads it."""

    what: str
    one: Any

    def read(self, value: Any) -> Any:
        """See `Kind`."""
        found = Items(self.what, self.one).read([*value.values()]) if isinstance(value, dict) else WRONG
        return WRONG if found is WRONG else dict(zip(value, found, strict=True))

    def want(self, value: Any) -> str:
        """See `Kind`."""
        return self.what


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; anything else by itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def base_of(annotation: Any) -> Any:
    """The type under an annotation: of `Annotated` what it is about, of a `Literal` that of its first word."""
    origin, args = get_origin(annotation), get_args(annotation)
    return args[0] if origin is Annotated else type(args[0]) if origin is Literal else annotation


def _is_finite(value: Any) -> bool:
    try:
        return isfinite(value)
    except (OverflowError, TypeError, ValueError):  # an integer that is no float; no number
        return False


def _plain(value: Any) -> Any:
    """A single number of another library as one of Python's."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value

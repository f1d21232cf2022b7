"""`Jitter`: how the parameters of a program are moved before a run of an inspection, in any language."""

from typing import NamedTuple


class Jitter(NamedTuple):
    """Each number w of a parameter becomes shrink * s * w * exp(0.3 noise), a zero becomes shrink * 0.1 noise.

    Attributes:
        seed: of the noise; the same seed moves the same parameters alike.
        shrink: below 1, units whose inputs are large do not saturate.
        flips: whether the sign s is drawn, by which units that are dead come to life; else it is 1.
    """

    seed: int
    shrink: float = 1.0
    flips: bool = False

    @classmethod
    def of(cls, jitter: "Jitter | int | None") -> "Jitter | None":
        """A seed alone is a jitter that neither shrinks nor flips; None leaves the parameters as they are."""
        return cls(jitter) if isinstance(jitter, int) else jitter

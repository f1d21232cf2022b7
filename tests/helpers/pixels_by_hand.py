"""`log_mass`: a mixture of logistics of two channels, worked out with pencil and paper; both languages must give it."""

import math

# Two components of two channels with three levels: the location of the second channel moves by the first one's value
# of [-1, 1], by nothing at mid grey
LOGITS, LOC = (0.4, -0.6), ((-0.5, 0.25), (0.75, -0.125))
SCALE, MIXING = ((0.5, 0.25), (1.0, 0.75)), (0.8, -0.3)
GRID = [(a, b) for a in (0.0, 0.5, 1.0) for b in (0.0, 0.5, 1.0)]
FLOORED = {-6.9: -6.9, -7.1: -7.0, -20.0: -7.0, 3.0: 3.0}  # log scales that a network gives, and what becomes of them


def sigmoid(v: float) -> float:
    """1 / (1 + e^-v)."""
    return 1 / (1 + math.exp(-v))


def mass(x: float, loc: float, scale: float, levels: int) -> float:
    """The mass of a logistic of [-1, 1] in the bin of a grey level x of [0, 1]; the outer bins are open."""
    value, half = 2 * x - 1, 1 / (levels - 1)
    below = 0.0 if x == 0 else sigmoid((value - half - loc) / scale)
    above = 1.0 if x == 1 else sigmoid((value + half - loc) / scale)
    return above - below


def log_mass(first: float, second: float) -> float:
    """log P(first, second) under the mixture above, in nats."""
    total, norm = 0.0, sum(map(math.exp, LOGITS))
    for k in range(2):
        moved = LOC[k][1] + MIXING[k] * (2 * first - 1)
        both = mass(first, LOC[k][0], SCALE[k][0], 3) * mass(second, moved, SCALE[k][1], 3)
        total += math.exp(LOGITS[k]) / norm * both
    return math.log(total)


def numbers() -> list[float]:
    """What a network gives for it: logits, locations, log scales, and what tanh makes the mixing."""
    locs, scales = ([v for row in table for v in row] for table in (LOC, SCALE))
    return [*LOGITS, *locs, *map(math.log, scales), *map(math.atanh, MIXING)]

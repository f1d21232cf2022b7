"""`MonotonicSpline`: zuko's monotone rational-quadratic spline, imported so that distributions stay validated."""

import pyro.distributions as dist
from pyro import validation_enabled

with validation_enabled(dist.is_validation_enabled()):  # zuko turns it off for every distribution of the process
    from zuko.transforms import MonotonicRQSTransform as MonotonicSpline

__all__ = ["MonotonicSpline"]

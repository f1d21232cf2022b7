"""Which site is drawn given which: the graphs behind a model and a guide."""

from .graph import Factorization as Factorization

"""Sums and results of evaluations, in either language."""

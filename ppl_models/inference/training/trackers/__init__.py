"""Callbacks of `fit` that hand its records to a tracker of experiments, in either language; no torch, no JAX."""

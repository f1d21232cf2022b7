"""Evaluation of a trained NumPyro pair: `evaluate`, `nuts`."""

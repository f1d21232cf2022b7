"""Diagnostics of a guide from simulated data: calibration, annealing."""

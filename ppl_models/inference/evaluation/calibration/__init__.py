"""Simulation-based calibration of guides: ranks of the truth among a guide's draws, and tests of them. NumPy alone."""

"""Annealed importance sampling in the noise of a guide: temperatures, transitions, results, in either language."""

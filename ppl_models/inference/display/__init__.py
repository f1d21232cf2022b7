"""Displays of a training or an evaluation while it goes on, and in a notebook: bars, curves, times."""

"""Rows of data on their way to a step, on the device."""

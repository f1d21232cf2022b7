"""Rows of data on their way to a step: batches, worker processes, shares of a process group."""

"""Owner, history and identity of a run: one process at a time, one history, the same arguments, data and code."""

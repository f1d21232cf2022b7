"""What makes a run that goes on the same run: one process at a time, one history, the same arguments, data and code."""

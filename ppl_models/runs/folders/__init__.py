"""A run as a folder: its configuration, what is read back of it, and how it is given away."""

"""One optimizer step as a pure function of a state."""

"""Many steps of a NumPyro pair: `fit`, checkpoints."""

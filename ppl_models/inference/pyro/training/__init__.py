"""Many steps of a pair: `fit`, `training_step`, checkpoints."""

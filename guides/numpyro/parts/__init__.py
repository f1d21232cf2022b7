"""What the guides' ports are built of: layouts of models, evidence, encoders, families, conditionals."""

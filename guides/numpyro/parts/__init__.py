"""Parts of the guides' ports: layouts of models, evidence, encoders, families, conditionals."""

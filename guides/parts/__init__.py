"""Parts of guides: layouts of models, evidence, encoders, families, conditionals."""

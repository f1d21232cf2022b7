"""What guides are built of: layouts of models, evidence, encoders, families, conditionals."""

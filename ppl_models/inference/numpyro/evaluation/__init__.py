"""What a trained NumPyro pair is worth: `evaluate`, `nuts`."""

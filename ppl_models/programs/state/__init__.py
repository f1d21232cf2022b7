"""State that programs hold, in torch and in JAX: found, and put back as it was."""

"""A captured graph compiled by XLA: its translation to JAX, many steps in one call, and what was compiled before."""

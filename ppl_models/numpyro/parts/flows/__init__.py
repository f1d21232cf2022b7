"""Ports of `ppl_models.parts.flows`: bijections of vectors that networks give."""

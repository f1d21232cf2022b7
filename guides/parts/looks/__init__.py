"""Looks at a model, in neither language: its latents, evidence, covariates, and how its arguments reach them."""

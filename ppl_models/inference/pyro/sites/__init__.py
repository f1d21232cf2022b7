"""Densities and divergences of single sites."""

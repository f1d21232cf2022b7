"""Recipes: recorded trainings that can be had again, and what they gave."""

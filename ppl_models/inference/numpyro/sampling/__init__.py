"""Draws of data: from the prior, by chains, and by walks among codes."""

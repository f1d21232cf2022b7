"""Families of one factor q(z | parents, evidence), and where they begin."""

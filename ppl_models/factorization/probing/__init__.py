"""Recovery of a factorization from runs of a program."""

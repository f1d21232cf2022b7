"""Kinds of arguments: what an annotation says, the check of a call against it, and sizes as a user gives them."""

"""Prices of missing edges in nats, by linear-Gaussian algebra."""

"""Evaluation of a trained pair: bounds, mutual information, chains, sharpness."""

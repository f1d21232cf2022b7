"""A run as one page of HTML: curves, bounds, samples, codes, the inspector's report, and how it was made."""

"""One run of a model and its guide as per-site terms, and the losses made of them."""

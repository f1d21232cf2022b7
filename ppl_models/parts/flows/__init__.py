"""Bijections of vectors that networks give: autoregressive steps, couplings and splines."""

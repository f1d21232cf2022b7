"""Files that are whole or not there, checkpoints among them."""

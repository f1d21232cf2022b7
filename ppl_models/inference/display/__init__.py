"""What a training or an evaluation shows while it goes on, and in a notebook: bars, curves, times."""

"""The shell of a training in any language: its loop, start, interrupts, what it watches; and trackers elsewhere."""

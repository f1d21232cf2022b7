"""What evaluations add up and tell, in either language."""

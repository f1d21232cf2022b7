"""What a trained pair is worth: bounds, mutual information, chains, sharpness."""

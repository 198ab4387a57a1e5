"""A checkpoint seen by rank and by bits, planned for a budget of bytes, written smaller, with a way back."""

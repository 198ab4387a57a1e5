"""The packs of one home: which there are, which is worn, and the way back."""

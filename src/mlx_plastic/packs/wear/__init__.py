"""Updates put on a model and taken off again, with the proof that they act."""

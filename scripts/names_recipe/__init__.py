"""What scripts/train_names.py trains the tagger of names and addresses from."""

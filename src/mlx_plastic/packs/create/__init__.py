"""A training file -> a plan -> a pack in the store."""

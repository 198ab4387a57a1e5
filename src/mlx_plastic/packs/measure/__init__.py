"""A pack against its base."""

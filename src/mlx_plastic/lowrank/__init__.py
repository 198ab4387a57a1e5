"""Algebra on arrays: low-rank updates of linear layers. No files, no models."""

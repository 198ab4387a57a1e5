"""Samples -> factors of low rank, on a base that stays as it is."""

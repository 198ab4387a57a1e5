"""Packs from a tuned checkpoint, or from what quantization lost."""

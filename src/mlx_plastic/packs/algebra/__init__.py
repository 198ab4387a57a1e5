"""Packs from packs, and packs compared, from their factors alone."""

"""Texts that bench_privacy.py measures with: nothing of them was used to build the detectors."""

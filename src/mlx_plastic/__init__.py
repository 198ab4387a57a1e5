"""mlx-plastic: a base that never changes, and learning that lives in small reversible packs."""

__version__ = "0.1.0"

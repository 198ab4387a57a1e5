"""Finding again what was said: chunks of turns, by words and by meaning."""

from mlx_plastic.memory.index.index import Index
from mlx_plastic.memory.index.records import Hit, IndexStats, Item
from mlx_plastic.memory.index.weights import WORDS_ONLY, Weights

__all__ = ["WORDS_ONLY", "Hit", "Index", "IndexStats", "Item", "Weights"]

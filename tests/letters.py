"""An embedder without weights, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlx_plastic.memory.embed import Vectors, unit


class Letters:
    """A small embedder: a word is where its letters are. `turned` makes another of it, of the same size."""

    dims = 26

    def __init__(self, turned: int = 0) -> None:
        self.name = f"letters/{turned}"
        self.turned = turned

    def embed(self, texts: Sequence[str]) -> list[Vectors]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Vectors:
        spans, at = [], 0
        for word in text.split():
            spans.append((text.index(word, at), text.index(word, at) + len(word)))
            at = spans[-1][1]
        rows = np.full((max(1, len(spans)), 26), 0.01, np.float32)
        for row, (start, end) in zip(rows, spans, strict=False):
            for c in text[start:end].lower():
                if "a" <= c <= "z":
                    row[(ord(c) - 97 + self.turned) % 26] += 1
        return Vectors(
            unit(rows), np.array(spans or [(0, 0)], np.int32), unit(rows.sum(axis=0, dtype=np.float32))
        )

"""What was read before: keys and values of conversations, so that the next turn reads only what is new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_plastic.packs.wear.mixed import Outfit

LEAST = 16  # tokens worth keeping


class Prefixes:
    """Caches by what was worn and what was read; the ones not used for the longest go first.

    An outfit names packs by the digest of their bytes, so a pack that is made anew under an old name finds
    nothing of the old one. One for a base: another base makes another.
    """

    def __init__(self, *, most: int, max_bytes: int) -> None:
        from mlx_lm.models.cache import LRUPromptCache

        self._kept = LRUPromptCache(max_size=max(1, most), max_bytes=max_bytes)
        self._on = most > 0 and max_bytes > 0

    @property
    def nbytes(self) -> int:
        return int(self._kept.nbytes)

    def fetch(self, outfit: Outfit, tokens: Sequence[int]) -> tuple[list[Any] | None, int]:
        """A copy of the cache of the longest known beginning of `tokens`, not all of them, and its length."""
        from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

        if not self._on:
            return None, 0
        cache, rest = self._kept.fetch_nearest_cache(outfit, list(tokens))
        if cache is not None and not rest:
            if not can_trim_prompt_cache(cache):
                return self.fetch(outfit, tokens[:-1])
            trim_prompt_cache(cache, 1)
            rest = [tokens[-1]]
        return (cache, len(tokens) - len(rest)) if cache is not None else (None, 0)

    def keep(self, outfit: Outfit, tokens: Sequence[int], cache: list[Any]) -> None:
        """cache: of exactly these tokens; it is not copied."""
        if self._on and len(tokens) >= LEAST:
            self._kept.insert_cache(outfit, list(tokens), cache)

"""A base in memory with all that belongs to it; used by the worker's thread only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlx_plastic.backend import available_memory_bytes, mx
from mlx_plastic.errors import PlasticError
from mlx_plastic.packs.wear.mixed import Mixer, Outfit
from mlx_plastic.packs.wear.probe import proved
from mlx_plastic.serve.batch.config import BatchConfig
from mlx_plastic.serve.batch.fill import Unread
from mlx_plastic.serve.batch.jobs import Job, Wanted
from mlx_plastic.serve.batch.lane import Lane, Row
from mlx_plastic.serve.batch.pick import Picker
from mlx_plastic.serve.batch.prefix import Prefixes
from mlx_plastic.serve.batch.speech import Speech

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.packs import Pack

log = logging.getLogger(__name__)


class Loaded:
    """batched: whether this model's caches can hold several rows. positions: how many fit into memory."""

    def __init__(self, base: Base, config: BatchConfig) -> None:
        self.base = base
        self.mixer = Mixer(base.model, base.fingerprint)
        self.prefixes = Prefixes(most=config.prefixes, max_bytes=config.prefix_mb << 20)
        self.ends = frozenset(base.tokenizer.eos_token_ids)
        self._proved: set[Outfit] = set()
        first = self.new_cache()
        self.batched = all(hasattr(layer, "merge") for layer in first)
        base.model(mx.array([[0]]), cache=first)
        mx.eval([layer.state for layer in first])
        per_position = sum(layer.nbytes for layer in first) / max(1, getattr(first[0], "step", 1))
        self.position_bytes = max(1.0, per_position)
        self.positions = int(config.memory_share * available_memory_bytes() / self.position_bytes)

    def new_cache(self) -> list[Any]:
        from mlx_lm.models.cache import make_prompt_cache

        return list(make_prompt_cache(self.base.model))

    def admit(self, packs: Mapping[str, Pack], scales: Mapping[str, float]) -> Outfit:
        """What a row is to wear; proved to act when it is first asked for. Raises BadPack or BaseMismatch."""
        outfit = self.mixer.admit(packs, scales)
        if packs and outfit not in self._proved:
            if any(scales.get(name, 1.0) for name in packs):
                proved(self.base, packs, scales=scales)
            self._proved.add(outfit)
        return outfit

    def unread(self, job: Job) -> Unread:
        """The job as a row with what is left to read; at least its last token, whose logits are needed.

        Raises what `admit` raises, and PlasticError for a base that cannot hold so much in this memory.
        """
        wanted = job.wanted
        if (need := len(wanted.tokens) + wanted.max_tokens) > self.positions:
            raise PlasticError(
                f"{need} tokens need {need * self.position_bytes / 1e6:.0f} MB, and "
                f"{self.positions * self.position_bytes / 1e6:.0f} MB may be used",
                hint="ask for a shorter answer, or free some memory",
            )
        outfit = self.admit(wanted.packs, wanted.scales)
        constraint = wanted.constraint() if wanted.constraint else None
        picker = Picker(wanted.sampling, wanted.logprobs, constraint, frozenset(wanted.tokens))
        speech = Speech(self._detokenizer(wanted), wanted.stop, strip=wanted.strip)
        cache, known = self.prefixes.fetch(outfit, wanted.tokens)
        row = Row(job, outfit, picker, speech, reused=known)
        return Unread(row, cache or self.new_cache(), list(wanted.tokens[known:]))

    def _detokenizer(self, wanted: Wanted) -> Any:
        from mlx_lm.tokenizer_utils import NaiveStreamingDetokenizer

        tokenizer = self.base.tokenizer
        if wanted.strip:
            return tokenizer.detokenizer
        return NaiveStreamingDetokenizer(tokenizer._tokenizer)  # the others drop the first space

    def keep(self, lane: Lane, row: Row, place: int) -> None:
        """Keep what an ended row has read."""
        if row.job.wanted.remember:
            cache = lane.taken_out(place)
            mx.eval([layer.state for layer in cache])
            if all(layer.size() in (0, len(row.fed)) for layer in cache):
                self.prefixes.keep(row.outfit, row.fed, cache)

"""How fast a model reads and writes, how well it predicts, and in how much memory, by batch size."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlx_plastic.backend import mx, peak_memory_mb, reset_peak_memory
from mlx_plastic.evals import LossResult
from mlx_plastic.evals.loss import summed
from mlx_plastic.packs.format.pack import Pack
from mlx_plastic.packs.measure.inputs import Thinking
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Encoded

if TYPE_CHECKING:
    from mlx_plastic.base import Base

CHUNK = 512  # prompt tokens per row in one pass, as when answering
NEW_TOKENS = 16  # decoded to learn the speed
SPEED_BATCHES = 3  # timed at most; the median counts


@dataclass(frozen=True)
class Speeds:
    """Of one batch. first_token_ms: from the prompt to the first new token of every row."""

    prefill_tps: float
    decode_tps: float  # over all rows
    first_token_ms: float


@dataclass(frozen=True)
class BatchRow:
    """What was measured of one model at one batch size. inputs: different ones, each counted once in ppl."""

    pack_name: str
    batch_size: int
    sequence_length: int
    thinking: Thinking
    inputs: int
    ppl: float
    prefill_tps: float
    decode_tps: float
    first_token_ms: float
    peak_MB: float

    def as_dict(self) -> dict[str, Any]:
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


def speeds(model: Any, tokens: mx.array, new_tokens: int = NEW_TOKENS) -> Speeds:
    """Read (rows, length) tokens, then decode greedily. Padding is read like any token."""
    from mlx_lm.models.cache import make_prompt_cache

    rows, length = tokens.shape
    cache = make_prompt_cache(model)
    began = time.perf_counter()
    for start in range(0, length - 1, CHUNK):
        model(tokens[:, start : min(start + CHUNK, length - 1)], cache=cache)
        mx.eval([layer.state for layer in cache])
    token = mx.argmax(model(tokens[:, -1:], cache=cache)[:, -1], axis=-1)
    mx.eval(token)
    first_s = time.perf_counter() - began
    for _ in range(new_tokens):
        token = mx.argmax(model(token[:, None], cache=cache)[:, -1], axis=-1)
        mx.eval(token)
    decode_s = time.perf_counter() - began - first_s
    return Speeds(rows * length / first_s, rows * new_tokens / decode_s, 1e3 * first_s)


def batch_rows(
    base: Base,
    packs: Mapping[str, Pack],
    inputs: Sequence[Encoded],
    *,
    batch_sizes: Sequence[int],
    length: int,
    thinking: Thinking,
    on_progress: Callable[[float, float, str], None] | None = None,
) -> Iterator[BatchRow]:
    """For each batch size a row of the bare base and one of the base with `packs`, as they are measured.

    on_progress: told (done, total, detail) in rows.
    """
    tell = on_progress or (lambda *_: None)
    worn: list[Mapping[str, Pack]] = [{}, packs]
    jobs = [(size, some) for size in batch_sizes for some in worn]
    for done, (size, some) in enumerate(jobs):
        name = "+".join(some) or "base"
        share = functools.partial(_shared, tell, done, len(jobs), f"{name}, batches of {size}")
        with attached(base.model, some, fingerprint=base.fingerprint):
            reset_peak_memory()
            loss = _loss(base, inputs, size, share)
            speed = _median([speeds(base.model, t) for t in _batches(inputs, size, length)])
        yield BatchRow(
            *(name, size, length, thinking, len(inputs), loss.perplexity),
            *(speed.prefill_tps, speed.decode_tps, speed.first_token_ms, peak_memory_mb()),
        )
    tell(len(jobs), len(jobs), "done")


def _shared(
    tell: Callable[[float, float, str], None], done: int, total: int, label: str, share: float
) -> None:
    tell(done + share, total, label)


def _loss(base: Base, inputs: Sequence[Encoded], size: int, tell: Callable[[float], None]) -> LossResult:
    """In passes of at most `size` inputs. tell: told which share of the inputs is done."""
    parts: list[tuple[float, int]] = []
    for start in range(0, len(inputs), size):
        tell(start / len(inputs))
        parts += base.nll(inputs[start : start + size])
    return summed(parts)


def _batches(inputs: Sequence[Encoded], size: int, length: int) -> Iterator[mx.array]:
    """A few batches of exactly (size, length): too few inputs come again, short ones are padded."""
    count = min(SPEED_BATCHES, -(-len(inputs) // size))
    for batch in range(count):
        rows = [inputs[(batch * size + i) % len(inputs)].tokens for i in range(size)]
        yield mx.array([[*row, *[0] * (length - len(row))] for row in rows])


def _median(found: Sequence[Speeds]) -> Speeds:
    return Speeds(
        statistics.median(s.prefill_tps for s in found),
        statistics.median(s.decode_tps for s in found),
        statistics.median(s.first_token_ms for s in found),
    )

"""Which samples go into which step, and how they lie in memory. Plain numpy, decided by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.samples import Encoded

PACKED_TOKENS = 256  # the narrowest packed row
JITTER_TOKENS = 8  # lengths this near count as equal, so that companions change from epoch to epoch


@dataclass(frozen=True)
class Rows:
    """A few samples side by side, or several in one row behind each other.

    tokens: (n, length) inputs, zeros where no sample is. places: per sample its row and first column.
    positions: (k,) into the flattened tokens, after which a target is predicted; targets: (k,) what it is.
    fed: tokens that are no padding.
    """

    tokens: NDArray[np.int32]
    places: tuple[tuple[int, int], ...]
    positions: NDArray[np.int32]
    targets: NDArray[np.int32]
    fed: int

    @property
    def segments(self) -> NDArray[np.int32]:
        """(n, length): which sample each token is of, from 1; padding counts to the sample before it."""
        found = np.zeros(self.tokens.shape, np.int32)
        for row, start in self.places:
            found[row, start] = 1
        return np.cumsum(found, axis=1, dtype=np.int32)


def windows(sample: Encoded, max_tokens: int) -> list[Encoded]:
    """The sample in pieces of at most `max_tokens` that overlap by one token, so no target is lost.

    Pieces without a target are left out, and so is what follows the last target.
    """
    pieces = []
    for start in range(0, max(1, len(sample.tokens) - 1), max_tokens - 1):
        tokens = sample.tokens[start : start + max_tokens]
        targets = (False, *sample.targets[start + 1 : start + max_tokens])
        if any(targets):
            end = max(i for i, is_target in enumerate(targets) if is_target) + 1
            pieces.append(Encoded(tokens[:end], targets[:end], sample.sample, sample.soft))
    return pieces


def epoch_plan(lengths: Sequence[int], batch_tokens: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Every sample once, as batches of like lengths in random order; the same seed gives the same plan.

    A batch holds at most `batch_tokens` with its padding, but always one sample.
    """
    random = np.random.default_rng((seed, epoch))
    shuffled = random.permutation(len(lengths))
    order = sorted(shuffled, key=lambda i: lengths[i] // JITTER_TOKENS)
    batches: list[list[int]] = []
    longest = 0
    for i in order:
        longest = max(longest, lengths[i])
        if not batches or (len(batches[-1]) + 1) * longest > batch_tokens:
            batches.append([])
            longest = lengths[i]
        batches[-1].append(int(i))
    return [batches[i] for i in random.permutation(len(batches))]


def plan(
    lengths: Sequence[int], batch_tokens: int, *, seed: int, epochs: float, steps: int
) -> list[list[int]]:
    """The batches of all steps: `steps` of them, or as many as `epochs` take if `steps` is 0."""
    batches: list[list[int]] = []
    epoch = 0
    while True:
        more = epoch_plan(lengths, batch_tokens, seed=seed, epoch=epoch)
        if steps and len(batches) + len(more) >= steps:
            return (batches + more)[:steps]
        if not steps and epochs - epoch <= 1:
            return batches + more[: max(1, round((epochs - epoch) * len(more)))]
        batches += more
        epoch += 1


def share(samples: Sequence[Encoded], parts: int) -> list[list[Encoded]]:
    """The samples in at most `parts` groups of about as many tokens, each of like lengths."""
    ordered = sorted(samples, key=lambda s: len(s.tokens))
    total = sum(len(s.tokens) for s in ordered)
    groups: list[list[Encoded]] = [[] for _ in range(parts)]
    seen = 0
    for sample in ordered:
        middle = seen + len(sample.tokens) / 2
        groups[min(parts - 1, int(middle * parts / total))].append(sample)
        seen += len(sample.tokens)
    return [group for group in groups if group]


def rows(samples: Sequence[Encoded], *, packed: bool = False) -> Rows:
    """The samples as one padded array; the last token of each is only predicted, never fed.

    packed: in rows of few different widths, short samples behind each other; the model must then be told by
    `segments` what belongs together.
    """
    lengths = [len(s.tokens) - 1 for s in samples]
    width = max(lengths)
    places = [(i, 0) for i in range(len(samples))]
    if packed:
        width = bucket(width)
        places = _packed(lengths, width)
    tokens = np.zeros((1 + max(row for row, _ in places), width), np.int32)
    positions, targets = [], []
    for s, (row, start) in zip(samples, places, strict=True):
        tokens[row, start : start + len(s.tokens) - 1] = s.tokens[:-1]
        ahead = np.flatnonzero(s.targets)
        positions.append(ahead - 1 + row * width + start)
        targets.append(np.array(s.tokens)[ahead])
    return Rows(
        tokens,
        tuple(places),
        np.concatenate(positions).astype(np.int32),
        np.concatenate(targets).astype(np.int32),
        sum(lengths),
    )


def bucket(length: int) -> int:
    """The width of a packed row for samples up to that length: 256, 384, 512, 768, 1024, ..."""
    width = PACKED_TOKENS
    while width < length:
        width = width * 3 // 2 if width & (width - 1) == 0 else width * 4 // 3
    return width


def _packed(lengths: Sequence[int], width: int) -> list[tuple[int, int]]:
    """Row and start of each: the longest first, each into the first row with room."""
    used: list[int] = []
    places = [(0, 0)] * len(lengths)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, n in enumerate(used) if n + lengths[i] <= width), len(used))
        if row == len(used):
            used.append(0)
        places[i] = (row, used[row])
        used[row] += lengths[i]
    return places

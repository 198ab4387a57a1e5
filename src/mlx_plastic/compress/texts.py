"""One's own texts, in pieces: to calibrate on, to try single matrices on, and to judge the whole by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_plastic.base import Base
from mlx_plastic.errors import BadData
from mlx_plastic.evals.loss import thinned
from mlx_plastic.packs.create.data import encoded, read_data
from mlx_plastic.packs.train.batches import windows
from mlx_plastic.samples import Encoded

PIECE_TOKENS = 256  # of a text that the base sees at once
EVERY = 8  # pieces, of which one is to try single matrices on, and one to judge by
TRIED_TOKENS, JUDGED_TOKENS = 1024, 8192


@dataclass(frozen=True)
class Texts:
    """Pieces of texts: to calibrate on, to try single matrices on, and to judge the whole by."""

    learned: list[Encoded]
    tried: list[Encoded]
    judged: list[Encoded]


def read_texts(base: Base, data: Path, *, tokens: int) -> Texts:
    """Of every eight pieces one is for trying and one for judging. tokens: to calibrate on, at most.

    Raises BadData for lines that cannot be used, or less than three pieces.
    """
    found = [text for text in encoded(read_data(data), base, "all") if len(text.tokens) > 1]
    pieces = [p for text in found for p in windows(text, min(base.window, PIECE_TOKENS)) if len(p.tokens) > 1]
    if len(pieces) < 3:
        raise BadData(f"{data} holds {len(pieces)} pieces of text", hint="give some thousand words")
    every = min(EVERY, len(pieces))
    sides: tuple[list[Encoded], list[Encoded], list[Encoded]] = [], [], []
    for i, piece in enumerate(pieces):
        sides[{every - 1: 2, every // 2 - 1 if every > 3 else 0: 1}.get(i % every, 0)].append(piece)
    learned, tried, judged = sides
    return Texts(_limited(learned, tokens), _limited(tried, TRIED_TOKENS), _limited(judged, JUDGED_TOKENS))


def _limited(pieces: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """Pieces from all over, of at most so many tokens together, but always one."""
    mean = count(pieces) / len(pieces)
    return thinned(pieces, max(1, int(tokens / mean)))


def count(pieces: Sequence[Encoded]) -> int:
    return sum(len(piece.tokens) for piece in pieces)


def digest(pieces: Sequence[Encoded]) -> str:
    return hashlib.sha256(json.dumps([piece.tokens for piece in pieces]).encode("ascii")).hexdigest()

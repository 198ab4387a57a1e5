"""What a local model adds as second reader: names that the detectors miss on noisy text, and what else it masks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mlx_plastic.base import load_base
from mlx_plastic.memory.privacy import PrivacyConfig, Span, policy_for, redact_all
from mlx_plastic.memory.privacy.second import SecondReader
from privacy.clean import bank_questions
from privacy.marked import Marked

MOST = 60  # texts that are read of each kind: a large base takes seconds for each
STRICT = policy_for("training", PrivacyConfig(policy="strict"))


def added(ref: str, texts: Sequence[Marked], seed: int) -> dict[str, Any]:
    """As a strict night has it: of the names that the detectors miss how many the base at `ref` adds.

    other: its finds in the same texts that touch none of these. clean: its finds in so many bank questions,
    where there is nothing to find.
    """
    base = load_base(ref)
    missed = [(m, find) for m in texts for find in m.finds if not _is_masked(m, find, _spans(m.text))][:MOST]
    reader, began = SecondReader(base, 2 * MOST), time.process_time()
    hits = others = 0
    for marked, find in missed:
        spans = _spans(marked.text, reader)
        hits += _is_masked(marked, find, spans)
        own = [s for s in spans if s.by == "second reader"]
        others += sum(not (s.start < find[1] and find[0] < s.end) for s in own)
    cpu_s = round((time.process_time() - began) / max(1, reader.read), 3)
    clean = bank_questions(MOST, seed)
    taken = sum(s.by == "second reader" for text in clean for s in _spans(text, reader))
    return {
        "n": len(missed), "named": hits, "other": others, "clean_n": len(clean), "clean": taken,
        "cpu_s_per_text": cpu_s,
    }  # fmt: skip


def _spans(text: str, reader: SecondReader | None = None) -> tuple[Span, ...]:
    return redact_all([text], STRICT, reader=reader)[0].spans


def _is_masked(marked: Marked, find: tuple[int, int, str], spans: Sequence[Span]) -> bool:
    masked = {i for span in spans for i in range(span.start, span.end)}
    return all(i in masked for i in range(*find[:2]) if marked.text[i].isalnum())

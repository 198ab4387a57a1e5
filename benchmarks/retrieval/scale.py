"""An index of many chunks: how fast they go in, how fast a search is, and what a forget leaves behind."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.memory.embed import MiniLM, Vectors, find_embedder, unit
from mlx_plastic.memory.index import Index, Item
from mlx_plastic.memory.index.terms import STOP_WORDS, term_ids, words


class Patchwork:
    """MiniLM for questions; for texts, the vectors of their words by themselves."""

    def __init__(self, model: MiniLM, vocabulary: Sequence[str]) -> None:
        self.name, self.dims, self.model = model.name, model.dims, model
        rows = model.embed(list(vocabulary))
        self.table = {word: found.tokens[0] for word, found in zip(vocabulary, rows, strict=True)}

    def embed(self, texts: Sequence[str]) -> list[Vectors]:
        if len(texts) == 1:
            return self.model.embed(texts)
        return [self._patched(text) for text in texts]

    def _patched(self, text: str) -> Vectors:
        there = [(start, end, self.table[word]) for word, start, end in words(text) if word in self.table]
        rows = np.array([row for *_, row in there], np.float32)
        spans = np.array([(start, end) for start, end, _ in there], np.int32)
        return Vectors(rows, spans, unit(rows.mean(axis=0)))


def vocabulary() -> list[str]:
    """Words of this repository's own texts, the frequent ones first."""
    root = Path(__file__).resolve().parents[2]
    counts: dict[str, int] = {}
    for path in sorted([*root.glob("docs/*.md"), *root.glob("src/**/*.py"), *root.glob("src/**/*.jsonl")]):
        for word, _, _ in words(path.read_text("utf-8")):
            if word.isascii() and word.isalpha() and 2 < len(word) < 14 and word not in STOP_WORDS:
                counts[word] = counts.get(word, 0) + 1
    return sorted(counts, key=lambda word: -counts[word])[:8000]


def texts_of(count: int, known: Sequence[str], length: int) -> Iterator[str]:
    """Made-up turns with words as frequent as in talk (Zipf), a third of them small words."""
    dice = np.random.default_rng(0)
    share = 1 / np.arange(2, len(known) + 2)
    small = sorted(STOP_WORDS)
    for _ in range(count):
        size = max(3, int(dice.exponential(length)))
        picked = dice.choice(len(known), size, p=share / share.sum())
        yield " ".join(known[i] if dice.random() > 0.33 else small[i % len(small)] for i in picked)


def speed(count: int, *, length: int, searches: int) -> dict[str, Any]:
    known = vocabulary()
    start = datetime(2020, 1, 1, tzinfo=UTC)
    items = [
        Item(f"t{i}", f"c{i // 20}", i, start + timedelta(minutes=i), ("user", "assistant")[i % 2], text)
        for i, text in enumerate(texts_of(count, known, length))
    ]
    model = find_embedder()
    questions = [f"What about {text}?" for text in list(texts_of(count + searches, known, 6))[count:]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        index = Index(path)
        began = clocks()
        for i in range(0, count, 256):
            index.add(items[i : i + 256])
        figures: dict[str, Any] = {**rates("ingest", count, began)}
        figures |= {f"words_{name}": value for name, value in timed(index, questions).items()}
        if model:
            index.close()
            index = Index(path, embedder=Patchwork(model, known))
            index.embed()
            figures |= timed(index, questions)
        figures |= from_log(min(count, 3000), length)
        stats = index.stats()
        figures |= {"chunks": stats.chunks, "size_mb": round(stats.size_bytes / 1e6)}
        index.close()
    return figures


def from_log(count: int, length: int) -> dict[str, int]:
    """Turns from the log into the index, with everything that privacy looks for on the way."""
    with tempfile.TemporaryDirectory() as folder, Memory(Home(Path(folder))) as memory:
        texts = enumerate(texts_of(count, vocabulary(), length))
        with memory.writing():  # one sync for all: what is measured comes after it
            for i, text in texts:
                memory.remember(f"c{i // 20}", "user", text)
        recall = memory.recall(model=False)
        began = clocks()
        recall.read()
        return rates("from_log", count, began)


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def rates(name: str, count: int, began: tuple[float, float]) -> dict[str, int]:
    wall, cpu = (now - then for now, then in zip(clocks(), began, strict=True))
    return {f"{name}_per_s": round(count / wall), f"{name}_per_cpu_s": round(count / cpu)}


def timed(index: Index, questions: Sequence[str]) -> dict[str, float]:
    began = time.perf_counter()
    index.search(questions[0])
    first, seconds, cpu = time.perf_counter() - began, [], []
    for question in questions:
        began, spent = time.perf_counter(), time.process_time()
        index.search(question)
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - spent)
    return {
        "first_s": round(first, 2),
        "p50_ms": round(1e3 * statistics.median(seconds), 1),
        "p95_ms": round(1e3 * float(np.percentile(seconds, 95)), 1),
        "p95_cpu_ms": round(1e3 * float(np.percentile(cpu, 95)), 1),
    }


def forgotten(count: int = 1000, secrets: int = 20) -> dict[str, Any]:
    """Words said once, forgotten one by one, and looked for in every byte of the home; as text and hashed."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        known, every = vocabulary(), count // secrets
        marked = {i: f"zq{i}xk{i * i}" for i in range(0, count, every)}
        with Memory(home) as memory:
            turns = [
                memory.remember(f"c{i // 20}", "user", f"{text} {marked.get(i, '')}").id
                for i, text in enumerate(texts_of(count, known, 20))
            ]
            memory.recall().catch_up()
            before = traces(home, marked.values())
            began = time.perf_counter()
            for i in marked:
                memory.forget([turns[i]])
            seconds = time.perf_counter() - began
            open_ = traces(home, marked.values())
        return {
            "secrets": len(marked),
            "found_before": before,
            "found_after": max(open_, traces(home, marked.values())),
            "ms_each": round(1e3 * seconds / len(marked)),
        }


def traces(home: Home, secrets: Iterable[str]) -> int:
    """How many of them stand in any file of the home, in UTF-8, UTF-16 or as the hash of their terms."""
    held = b"".join(file.read_bytes() for file in home.root.rglob("*") if file.is_file())
    return sum(
        any(form in held for form in (s.encode(), s.encode("utf-16-le"), term_ids(s).astype("<u4").tobytes()))
        for s in secrets
    )

"""Retrieval in figures: how much is found on long conversations, how fast, and what each part brings.

    python benchmarks/bench_retrieval.py --locomo locomo10.json --json
    python benchmarks/bench_retrieval.py --realtalk REALTALK/data --ladder
    python benchmarks/bench_retrieval.py --turns turns.jsonl --queries queries.jsonl
    python benchmarks/bench_retrieval.py --chunks 100000 --forget

--locomo: `data/locomo10.json` of snap-research/locomo (CC BY-NC 4.0): ten conversations of two people over
months, 5,882 turns, 1,535 questions with evidence (categories 1 to 4). --realtalk: the folder `data` of
danny911kr/REALTALK: the same of real people, 8,944 turns, 725 questions. Neither is part of this project.
--turns, --queries: files as `plastic eval retrieval` takes them. --half: only every second conversation, from
the first (a) or the second (b) on; weights are chosen on a and judged on b. --ladder compares the parts; the
questions are embedded once for all of them, so only `full` tells the time of a search.

Modes: `full` finds by words and by meaning, `words` by words alone (no model), `fts5` is SQLite's own search.
The figures of a mode, and of each of its categories:

    recall@k              share of a question's evidence turns among the first k turns found, mean
    hit@10                share of questions with any evidence turn among the first 10
    mrr                   mean of 1 / the place of the first one, within 20
    p50_ms, p95_ms        a search, one by one in this process, the question's embedding included

`ceiling@k` of a set is what recall@k would be if everything was found: some questions have more evidence than
k turns. `embed_per_s` is of the first 1,000 turns. --chunks: a search among so many, and how fast they go in;
their vectors are put together from those of single words, because 100,000 texts would take half an hour to
embed; it makes no search faster or slower. `words_` stands before what is without a model; `from_log` is of
turns, with all that privacy does on the way. What has `cpu` in its name is of processor time, for a machine
that is not idle. --forget: words said once, forgotten one by one, and looked for in every byte.
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from retrieval.scale import forgotten, speed
from retrieval.sets import locomo, realtalk

from mlx_plastic.evals.retrieval import (
    Question,
    RetrievalResult,
    Said,
    Search,
    measure_retrieval,
    read_questions,
    read_turns,
)
from mlx_plastic.memory.embed import MiniLM, Vectors, find_embedder
from mlx_plastic.memory.index import WORDS_ONLY, Index, Item, Weights

FIGURES = ("recall@5", "recall@10", "recall@20", "hit@10", "mrr", "p50_ms", "p95_ms")
BARE = replace(
    WORDS_ONLY,
    neighbour=(),
    session=0.0,
    question=0.0,
    when=0.0,
    dated=0.0,
    name=1.0,
    speaker=0.0,
    length=0.0,
)
NEAR = replace(BARE, name=2.0, neighbour=Weights.neighbour)
MIXED = replace(NEAR, words=0.25, meaning=0.75)
LADDER = {
    "BM25": BARE,
    "+ names of speakers count twice": replace(BARE, name=2.0),
    "+ neighbours": NEAR,
    "+ session": replace(NEAR, session=Weights.session),
    "+ the speaker that is named": replace(NEAR, session=Weights.session, speaker=Weights.speaker),
    "token vectors alone": replace(BARE, words=0.0, meaning=1.0),
    "one vector alone": replace(BARE, words=0.0, whole=1.0),
    "words and one vector, with the rest": replace(Weights(), words=0.5, meaning=0.0, whole=0.5),
    "words and token vectors": replace(BARE, words=0.25, meaning=0.75),
    "+ neighbours and names": MIXED,
    "+ the speaker": replace(MIXED, speaker=Weights.speaker),
    "full, but for the speaker": replace(Weights(), speaker=0.0),
    "full, but for one vector": replace(Weights(), whole=0.0),
    "full, but for the length": replace(Weights(), length=0.0),
}


# -- what searches


def opener(indices: dict[str, Index], weights: Weights) -> Callable[[Sequence[Said]], Search]:
    """Searches in indices that are there already."""

    def open_search(turns: Sequence[Said]) -> Search:
        index = indices[turns[0].conversation]
        index.weights = weights

        def search(text: str, limit: int, *, now: datetime | None) -> list[str]:
            return [hit.turn for hit in index.search(text, limit, now=now)]

        return search

    return open_search


class Remembered:
    """An embedder that knows the questions it has met, which many weights are compared on."""

    def __init__(self, model: MiniLM) -> None:
        self.name, self.dims, self.model = model.name, model.dims, model
        self.known: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str]) -> list[Vectors]:
        for text in texts:
            if text not in self.known:
                (self.known[text],) = self.model.embed([text])
        return [self.known[text] for text in texts]


def build(turns: Sequence[Said], embedder: MiniLM | None, folder: Path | None = None) -> dict[str, Index]:
    """An index for each conversation; those that lie in the folder already are taken as they are."""
    indices: dict[str, Index] = {}
    for name in dict.fromkeys(turn.conversation for turn in turns):
        said = [turn for turn in turns if turn.conversation == name]
        indices[name] = index = Index(folder and folder / f"{name}.sqlite", embedder=embedder)
        if not index.stats().items:
            index.add([Item(t.turn, t.session, i, t.at, t.speaker, t.text) for i, t in enumerate(said)])
        index.embed()
    return indices


def fts5(turns: Sequence[Said]) -> Search:
    """SQLite's own full-text search with its own ranking, as most tools ship it."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE t USING fts5 (turn UNINDEXED, text, tokenize = 'porter unicode61')")
    db.executemany("INSERT INTO t VALUES (?, ?)", [(turn.turn, turn.text) for turn in turns])

    def search(text: str, limit: int, *, now: datetime | None) -> list[str]:
        wanted = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", text))
        sql = "SELECT turn FROM t WHERE text MATCH ? ORDER BY rank LIMIT ?"
        return [turn for (turn,) in db.execute(sql, (wanted, limit))]

    return search


def quality(
    turns: Sequence[Said], questions: Sequence[Question], *, ladder: bool, folder: Path | None = None
) -> dict[str, Any]:
    """Figures of the set, and of each mode; ladder: also of each part by itself."""
    figures: dict[str, Any] = {"turns": len(turns), "questions": len(questions)}
    figures |= {f"ceiling@{k}": ceiling(questions, k) for k in (5, 10, 20)}
    began = time.perf_counter()
    plain = build(turns, None)
    figures["ingest_per_s"] = round(len(turns) / (time.perf_counter() - began))
    rows = {"fts5": measure_retrieval(turns, questions, fts5)}
    rows["words"] = measure_retrieval(turns, questions, opener(plain, WORDS_ONLY))
    steps = {name: weights for name, weights in LADDER.items() if ladder}
    for name, weights in steps.items():
        if not (weights.meaning or weights.whole):
            rows[name] = measure_retrieval(turns, questions, opener(plain, weights))
    if embedder := find_embedder():
        full = build(turns, embedder, folder)
        rows["full"] = measure_retrieval(turns, questions, opener(full, Weights()))
        figures["embed_per_s"] = round(embed_speed(embedder, turns))
        remembered = Remembered(embedder)
        for index in full.values():
            index.embedder = remembered
        for name, weights in steps.items():
            if weights.meaning or weights.whole:
                rows[name] = measure_retrieval(turns, questions, opener(full, weights))
    return {**figures, "modes": {name: figures_of(result) for name, result in rows.items()}}


def figures_of(result: RetrievalResult) -> dict[str, Any]:
    """Shares in [0, 1], with those of each category. Times are of all: a category does not change them."""
    found = result.as_dict()
    shares = [name for name in FIGURES if not name.endswith("_ms")]

    def picked(scores: dict[str, Any]) -> dict[str, Any]:
        return {name: round(scores[name], 4) for name in shares}

    categories = {name: {"n": each["n"], **picked(each)} for name, each in found["categories"].items()}
    times = {"p50_ms": round(result.p50_ms, 1), "p95_ms": round(result.p95_ms, 1)}
    return {**picked(found), **times, "categories": categories}


def ceiling(questions: Sequence[Question], k: int) -> float:
    """What recall@k is at most: a question may have more evidence than k turns."""
    return round(float(np.mean([min(k, len(q.evidence)) / len(q.evidence) for q in questions])), 4)


def half(
    turns: Sequence[Said], questions: Sequence[Question], which: str
) -> tuple[list[Said], list[Question]]:
    """Every second conversation, so that one half can be tuned on and the other measured."""
    names = list(dict.fromkeys(turn.conversation for turn in turns))["ab".index(which) :: 2]
    return [t for t in turns if t.conversation in names], [q for q in questions if q.conversation in names]


def embed_speed(embedder: MiniLM, turns: Sequence[Said]) -> float:
    texts = [f"{turn.speaker}: {turn.text}" for turn in turns[:1000]]
    began = time.perf_counter()
    embedder.embed(texts)
    return len(texts) / (time.perf_counter() - began)


def show(name: str, figures: dict[str, Any]) -> None:
    print(name, json.dumps({key: value for key, value in figures.items() if key != "modes"}))
    for mode, found in figures.get("modes", {}).items():
        for row, values in [(mode, found), *((f"  {c}", v) for c, v in found["categories"].items())]:
            shares = "  ".join(f"{100 * values[f'recall@{k}']:5.1f}" for k in (5, 10, 20))
            times = f"   p95 {values['p95_ms']:.1f} ms" if "p95_ms" in values else f"   n {values['n']}"
            print(
                f"  {row:36}  {shares}   hit@10 {100 * values['hit@10']:5.1f}  mrr {values['mrr']:.3f}{times}"
            )


def sets_of(given: argparse.Namespace) -> dict[str, tuple[Sequence[Said], Sequence[Question]]]:
    found: dict[str, tuple[Sequence[Said], Sequence[Question]]] = {}
    if given.locomo:
        found["locomo"] = locomo(given.locomo)
    if given.realtalk:
        found["realtalk"] = realtalk(given.realtalk)
    if given.turns:
        found[given.turns.stem] = read_turns(given.turns), read_questions(given.queries)
    return {name: half(*pair, given.half) if given.half else pair for name, pair in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--locomo", type=Path)
    parser.add_argument("--realtalk", type=Path)
    parser.add_argument("--turns", type=Path)
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--half", choices=("a", "b"))
    parser.add_argument("--ladder", action="store_true", help="also what each part brings")
    parser.add_argument("--indices", type=Path, help="a folder to keep what was embedded, for the next run")
    parser.add_argument("--chunks", type=int, help="the time of a search among so many")
    parser.add_argument("--length", type=int, default=20, help="words of their texts, on average")
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--forget", action="store_true", help="what a forget leaves behind")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if (given.turns is None) != (given.queries is None):
        parser.error("--turns and --queries belong together")
    figures = {
        name: quality(*pair, ladder=given.ladder, folder=given.indices and given.indices / name)
        for name, pair in sets_of(given).items()
    }
    if given.chunks:
        figures["speed"] = speed(given.chunks, length=given.length, searches=given.searches)
    if given.forget:
        figures["forget"] = forgotten()
    if not figures:
        parser.error("nothing to measure: give --locomo, --realtalk, --turns, --chunks or --forget")
    if given.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, found in figures.items():
            show(name, found)


if __name__ == "__main__":
    main()

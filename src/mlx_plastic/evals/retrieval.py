"""How well what was said is found again: questions whose answers' turns are known, per category.

Knows no index: what searches is an argument. The unit of recall is the turn; a search may give back k turns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from mlx_plastic.errors import BadData

SEED = Path(__file__).parent / "retrieval_seed"  # turns.jsonl and queries.jsonl of ours
KS = (1, 5, 10, 20)

T = TypeVar("T")
_TIMES = (  # beside ISO 8601; as the long-conversation sets write them
    "%I:%M %p on %d %B, %Y",
    "%d.%m.%Y, %H:%M:%S",
    "%Y/%m/%d (%a) %H:%M",
    "%Y/%m/%d %H:%M",
    "%d %B %Y",
    "%d %B, %Y",
    "%B %d, %Y",
)


@dataclass(frozen=True)
class Said:
    """A turn of a long conversation. conversation: all that one search may find in. at: None if not told."""

    conversation: str
    session: str
    at: datetime | None
    turn: str
    speaker: str
    text: str


@dataclass(frozen=True)
class Question:
    """evidence: the turns that answer it."""

    conversation: str
    text: str
    evidence: tuple[str, ...]
    category: str


class Search(Protocol):
    """Gives the ids of at most `limit` turns, the best first. now: when it is asked."""

    def __call__(self, text: str, limit: int, *, now: datetime | None) -> Sequence[str]: ...


Opener = Callable[[Sequence[Said]], Search]  # a conversation's turns -> a search in them


@dataclass(frozen=True)
class Scores:
    """Means over n questions: share of the evidence among the first k, share with any, reciprocal rank."""

    n: int
    recall: dict[int, float]
    hit: dict[int, float]
    mrr: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "n": self.n,
            **{f"recall@{k}": round(value, 6) for k, value in self.recall.items()},
            **{f"hit@{k}": round(value, 6) for k, value in self.hit.items()},
            "mrr": round(self.mrr, 6),
        }


@dataclass(frozen=True)
class RetrievalResult:
    """scores of all questions, and by category. p50_ms, p95_ms: a search's time. unknown: ids of evidence
    that no turn has; left_out: questions that have no other. build_s: the time to take all turns in."""

    scores: Scores
    categories: dict[str, Scores]
    turns: int
    p50_ms: float
    p95_ms: float
    build_s: float
    unknown: int = 0
    left_out: int = 0
    ranks: tuple[tuple[int | None, ...], ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: shares in [0, 1]."""
        return {
            **self.scores.as_dict(),
            "turns": self.turns,
            "p50_ms": round(self.p50_ms, 3),
            "p95_ms": round(self.p95_ms, 3),
            "build_s": round(self.build_s, 3),
            "unknown_evidence": self.unknown,
            "left_out": self.left_out,
            "categories": {name: scores.as_dict() for name, scores in self.categories.items()},
        }


def measure_retrieval(
    turns: Sequence[Said],
    questions: Sequence[Question],
    open_search: Opener,
    *,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> RetrievalResult:
    """Ask every question in its own conversation, and look where the evidence came.

    "Now" is when the conversation's last turn was said. Raises BadData if there is nothing to ask.
    """
    told = on_progress or (lambda done, total, detail: None)
    ranks: list[tuple[str, tuple[int | None, ...]]] = []
    seconds: list[float] = []
    build_s, unknown, left_out = 0.0, 0, 0
    for said, asked in _conversations(turns, questions):
        known = {turn.turn for turn in said}
        began = time.perf_counter()
        search = open_search(said)
        build_s += time.perf_counter() - began
        now = max((turn.at for turn in said if turn.at), default=None)
        for question in asked:
            evidence = [turn for turn in question.evidence if turn in known]
            unknown += len(question.evidence) - len(evidence)
            if not evidence:
                left_out += 1
                continue
            began = time.perf_counter()
            found = list(search(question.text, max(KS), now=now))
            seconds.append(time.perf_counter() - began)
            places = {turn: place for place, turn in reversed(list(enumerate(found, 1)))}
            ranks.append((question.category, tuple(places.get(turn) for turn in evidence)))
        told(len(ranks) + left_out, len(questions), f"{len(said)} turns")
    if not ranks:
        raise BadData(
            f"none of {len(questions)} questions has evidence among {len(turns)} turns",
            hint="conversation and turn ids must be the same in both files",
        )
    p50, p95 = np.percentile(np.array(seconds) * 1e3, [50, 95])
    names = sorted({category for category, _ in ranks})
    return RetrievalResult(
        _scores([places for _, places in ranks]),
        {name: _scores([places for category, places in ranks if category == name]) for name in names},
        *(len(turns), float(p50), float(p95), build_s, unknown, left_out),
        ranks=tuple(places for _, places in ranks),
    )


def _conversations(
    turns: Sequence[Said], questions: Sequence[Question]
) -> Iterator[tuple[list[Said], list[Question]]]:
    asked: dict[str, list[Question]] = {}
    for question in questions:
        asked.setdefault(question.conversation, []).append(question)
    said: dict[str, list[Said]] = {name: [] for name in asked}
    for turn in turns:
        if turn.conversation in said:
            said[turn.conversation].append(turn)
    for name, here in asked.items():
        yield said[name], here


def _scores(ranks: Sequence[tuple[int | None, ...]]) -> Scores:
    """ranks: of each question's evidence, None where it was not found."""
    met = {k: [[rank is not None and rank <= k for rank in places] for places in ranks] for k in KS}
    first = [min((rank for rank in places if rank), default=None) for places in ranks]
    return Scores(
        len(ranks),
        recall={k: float(np.mean([np.mean(found) for found in met[k]])) for k in KS},
        hit={k: float(np.mean([any(found) for found in met[k]])) for k in KS},
        mrr=float(np.mean([1 / rank if rank else 0.0 for rank in first])),
    )


# -- files


def read_turns(path: Path) -> list[Said]:
    """{"conversation", "session", "time", "turn_id", "speaker", "text"} a line, session and time if known.

    Raises BadData naming the line.
    """

    def turn(value: dict[str, Any]) -> Said:
        when = value.get("time")
        found = Said(
            _name(value["conversation"]),
            _name(value.get("session") or ""),
            None if when is None else parse_time(when),
            _name(value["turn_id"]),
            _name(value.get("speaker") or ""),
            _text(value["text"]),
        )
        if (found.conversation, found.turn) in there:
            raise ValueError("its conversation had that turn_id before")
        there.add((found.conversation, found.turn))
        return found

    there: set[tuple[str, str]] = set()
    return _lines(path, turn, 'turns want "conversation", a "turn_id" of its own there, and "text"')


def read_questions(path: Path) -> list[Question]:
    """{"conversation", "query", "evidence": [turn_id, ...], "category"} a line; category may be missing.

    Raises BadData naming the line.
    """

    def question(value: dict[str, Any]) -> Question:
        evidence = value["evidence"]
        if not isinstance(evidence, list):
            raise TypeError("evidence is no list")
        ids = tuple(dict.fromkeys(map(_name, evidence)))
        return Question(
            _name(value["conversation"]), _text(value["query"]), ids, _name(value.get("category", "all"))
        )

    return _lines(path, question, 'queries want "conversation", "query" and "evidence"')


def parse_time(value: Any) -> datetime | None:
    """ISO 8601, seconds since 1970, or as the long-conversation sets write it; UTC where no zone is said."""
    try:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        found = datetime.fromisoformat(str(value).strip())
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        pass
    for form in _TIMES:
        try:
            return datetime.strptime(str(value).strip(), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is no text")
    return _name(value)


def _name(value: Any) -> str:
    """As text; half of a surrogate pair, which JSON can hold and no file, becomes "?"."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _lines(path: Path, parse: Callable[[dict[str, Any]], T], wanted: str) -> list[T]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8-sig", "replace"))
            found.append(parse(value))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadData(
                f"{path} line {number} cannot be used: {type(error).__name__} {error}", hint=wanted
            ) from error
    return found

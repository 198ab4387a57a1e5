"""Counts for Prometheus: numbers and names of routes, never content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_plastic.serve.batch import End, Worker

PREFIX = "mlx_plastic"


class Metrics:
    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # route, status
        self.answers: Counter[str] = Counter()  # how they ended
        self.turns: Counter[str] = Counter()  # logged, private, housekeeping
        self.seconds = 0.0
        self.first_seconds = 0.0

    def ended(self, end: End) -> None:
        self.answers[end.finish] += 1
        self.seconds += end.seconds
        self.first_seconds += end.first_s

    def text(self, worker: Worker, *, night: bool = False) -> str:
        running, waiting = worker.load_now()
        counts = worker.counts
        lines = [
            *_counter("requests_total", "requests by route and status", self._requests()),
            *_counter("answers_total", "answers by how they ended", _labelled("finish", self.answers)),
            *_counter("turns_total", "questions by what became of them", _labelled("fate", self.turns)),
            *_single("prompt_tokens_total", "counter", "tokens of prompts", counts["prompt_tokens"]),
            *_single("reused_tokens_total", "counter", "of those, not read again", counts["reused_tokens"]),
            *_single("answer_tokens_total", "counter", "tokens said", counts["said_tokens"]),
            *_single("steps_total", "counter", "forward passes of decoding", counts["steps"]),
            *_single("answer_seconds_total", "counter", "time from being taken up to the end", self.seconds),
            *_single("first_token_seconds_total", "counter", "until the first token", self.first_seconds),
            *_single("running", "gauge", "answers being computed", running),
            *_single("waiting", "gauge", "answers that wait", waiting),
            *_single("prefix_bytes", "gauge", "kept of what was read", worker.prefix_bytes),
            *_single("loaded", "gauge", "whether the base is in memory", int(worker.is_loaded)),
            *_single("night", "gauge", "whether a night runs on this home", int(night)),
        ]
        return "\n".join(lines) + "\n"

    def _requests(self) -> dict[str, float]:
        return {f'route="{r}",status="{s}"': n for (r, s), n in sorted(self.requests.items())}


def _labelled(label: str, counts: Mapping[str, float]) -> dict[str, float]:
    return {f'{label}="{name}"': value for name, value in sorted(counts.items())}


def _counter(name: str, text: str, values: Mapping[str, float]) -> Iterator[str]:
    yield from _head(name, "counter", text)
    yield from (f"{PREFIX}_{name}{{{labels}}} {value:g}" for labels, value in values.items())


def _single(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    yield from _head(name, kind, text)
    yield f"{PREFIX}_{name} {value:.10g}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{name} {text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"

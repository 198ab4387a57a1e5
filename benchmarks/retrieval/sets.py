"""Long conversations of other people, as turns and questions. None of them is part of this project."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlx_plastic.evals.retrieval import Question, Said, parse_time

EVIDENCE = re.compile(r"D\d+:\d+")


def locomo(path: Path) -> tuple[list[Said], list[Question]]:
    turns, questions = [], []
    for sample in json.loads(path.read_bytes()):
        turns += _sessions(sample["sample_id"], sample["conversation"], "text")
        questions += [q for q in _questions(sample["sample_id"], sample["qa"]) if q.category != "5"]
    return turns, questions


def realtalk(folder: Path) -> tuple[list[Said], list[Question]]:
    turns, questions = [], []
    for path in sorted(folder.glob("Chat_*.json")):
        talk = json.loads(path.read_bytes())
        turns += _sessions(path.stem, talk, "clean_text")
        questions += _questions(path.stem, talk["qa"])
    return turns, questions


def _sessions(name: str, talk: dict[str, Any], text: str) -> Iterator[Said]:
    for number in range(1, 100):
        for turn in talk.get(f"session_{number}") or []:
            at = parse_time(turn.get("date_time") or talk[f"session_{number}_date_time"])
            yield Said(name, str(number), at, turn["dia_id"], turn["speaker"], turn[text] or "")


def _questions(name: str, asked: Sequence[dict[str, Any]]) -> Iterator[Question]:
    for one in asked:
        evidence = tuple(
            dict.fromkeys(e for text in one.get("evidence") or () for e in EVIDENCE.findall(text))
        )
        if evidence:
            yield Question(name, one["question"], evidence, str(one["category"]))

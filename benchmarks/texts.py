"""Other people's texts as samples, read where MLX_PLASTIC_DATA says (its README names their licences)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_plastic.base import Base
from mlx_plastic.samples import Encoded, Message, Sample, encode, part_of

LONGEST = 256  # tokens of a sample; longer ones are left out
VALID_TOKENS, TEST_TOKENS = 6_000, 15_000

Pair = tuple[str, str, str]  # what keeps samples on one side, question, answer


@dataclass(frozen=True)
class Task:
    """One data set, split by what its samples are about."""

    name: str
    train: list[Encoded]
    valid: list[Encoded]
    test: list[Encoded]


def wikisql(folder: Path) -> Iterable[Pair]:
    for part in ("train", "valid", "test"):
        for line in (folder / "mlx-wikisql" / f"{part}.jsonl").read_text("utf-8").splitlines():
            question, answer = json.loads(line)["text"].rsplit("\nA: ", 1)
            yield question.split("\n")[0], question, answer


def gsm8k(folder: Path) -> Iterable[Pair]:
    for part in ("train", "test"):
        for line in (folder / "gsm8k" / f"{part}.jsonl").read_text("utf-8").splitlines():
            value = json.loads(line)
            yield value["question"], value["question"], value["answer"]


def dtc(folder: Path) -> Iterable[Pair]:
    for part in ("p", "u", "other"):
        for line in (folder / "dtc" / f"{part}_codes.txt").read_text("utf-8", "replace").splitlines():
            code, dash, meaning = line.strip().partition(" - ")
            if dash:
                yield meaning, f"What does the fault code {code} mean?", meaning


READERS: dict[str, Callable[[Path], Iterable[Pair]]] = {"wikisql": wikisql, "gsm8k": gsm8k, "dtc": dtc}


def data_folder() -> Path:
    named = os.environ.get("MLX_PLASTIC_DATA")
    if not named:
        sys.exit("set MLX_PLASTIC_DATA to the folder of the acceptance data")
    return Path(named, "data") if Path(named, "data").is_dir() else Path(named)


def read_task(base: Base, name: str, *, most: int, share: float = 1.0) -> Task:
    """At most `most` samples to train on; share: of the tokens to choose by and to tell the figures of."""
    parts: dict[str, list[Encoded]] = {"train": [], "valid": [], "test": []}
    room = {"train": most * LONGEST, "valid": share * VALID_TOKENS, "test": share * TEST_TOKENS}
    pairs = list(dict.fromkeys(READERS[name](data_folder())))
    for i in np.random.default_rng(0).permutation(len(pairs)):
        key, question, answer = pairs[i]
        part = part_of(key, valid=0.15, test=0.15)
        if room[part] > 0 and len(parts[part]) < most:
            chat = Sample((Message("user", question), Message("assistant", answer)))
            encoded = encode(chat, base.tokenizer, max_tokens=1 << 20)
            if len(encoded.tokens) <= LONGEST:
                parts[part].append(encoded)
                room[part] -= len(encoded.tokens)
    return Task(name, **parts)

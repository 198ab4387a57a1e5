"""Answers in the shapes that clients expect."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_plastic.serve.api.answering import Answer
from mlx_plastic.serve.batch import End, TokenInfo


@dataclass(frozen=True)
class Head:
    """What every part of one answer repeats."""

    kind: str
    model: str
    id: str
    created: int = field(default_factory=lambda: int(time.time()))

    def part(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
            "choices": choices,
            **more,
        }


def head(kind: str, model: str, prefix: str) -> Head:
    return Head(kind, model, f"{prefix}-{secrets.token_hex(12)}")


def finish_of(end: End, *, calls: bool = False) -> str:
    """OpenAI's word for how an answer ended; what was cut short for other reasons counts as cut by length."""
    if end.finish == "stop":
        return "tool_calls" if calls else "stop"
    return "length"


def usage_of(answers: Sequence[Answer]) -> dict[str, Any]:
    ends = [answer.end for answer in answers if answer.end]
    prompt = max((end.prompt_tokens for end in ends), default=0)
    said = sum(end.answer_tokens for end in ends)
    reused = max((end.reused for end in ends), default=0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "prompt_tokens_details": {"cached_tokens": reused},
    }


class Tokens:
    """Tokens as texts and bytes, for log probabilities."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def chat(self, infos: Sequence[TokenInfo]) -> dict[str, Any]:
        content = [
            self._one(info.id, info.logprob) | {"top_logprobs": [self._one(*top) for top in info.top]}
            for info in infos
        ]
        return {"content": content, "refusal": None}

    def legacy(self, infos: Sequence[TokenInfo], offset: int) -> dict[str, Any]:
        texts = [self.text(info.id) for info in infos]
        offsets = [offset + sum(map(len, texts[:i])) for i in range(len(texts))]
        return {
            "tokens": texts,
            "token_logprobs": [info.logprob for info in infos],
            "top_logprobs": [{self.text(i): p for i, p in info.top} for info in infos],
            "text_offset": offsets,
        }

    def text(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self.text(token), "logprob": logprob, "bytes": list(self._bytes(token))}

    def _bytes(self, token: int) -> bytes:
        """Of half a character too: byte-level vocabularies write each byte as a letter."""
        text = self.text(token)
        if "\ufffd" not in text:
            return text.encode("utf-8")
        letters = str(self._tokenizer.convert_ids_to_tokens([token])[0])
        if all(letter in _BYTE_OF for letter in letters):
            return bytes(_BYTE_OF[letter] for letter in letters)
        if len(letters) == 6 and letters.startswith("<0x"):
            return bytes([int(letters[3:5], 16)])
        return text.encode("utf-8")


def _byte_letters() -> dict[str, int]:
    """The letters that byte-level BPE writes for bytes: printable ones for themselves, others from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE_OF = _byte_letters()

"""Files of texts, one a line: what is found in each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mlx_plastic.errors import BadData
from mlx_plastic.memory.privacy.policies import Policy
from mlx_plastic.memory.privacy.redact import Redacted, redact_all


@dataclass(frozen=True)
class Texts:
    """What a line holds: one text, or the messages of a conversation, in which a find spreads.

    key: the "id" that came with it, to be given back.
    """

    texts: tuple[str, ...]
    talk: bool = False
    key: object = None


def opened(path: Path) -> IO[bytes]:
    """Raises BadData if the file cannot be read."""
    try:
        return path.open("rb")
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror}", hint="check the path") from error


def texts_of(line: bytes) -> Texts:
    """A line as {"text": ...}, as {"messages": [{"content": ...}]}, as a JSON string, or as it stands.

    Bytes that are no UTF-8 become U+FFFD, one each, so that places can be counted.
    """
    text = line.rstrip(b"\r\n").decode("utf-8", "replace")
    if text[:1] in ("{", '"'):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return Texts((text,))
        if isinstance(value, str):
            return Texts((value,))
        messages = value.get("messages")
        if isinstance(value.get("text"), str):
            return Texts((value["text"],), key=value.get("id"))
        if isinstance(messages, list) and all(isinstance(m, dict) for m in messages):
            said = tuple(m["content"] if isinstance(m.get("content"), str) else "" for m in messages)
            return Texts(said, talk=True, key=value.get("id"))
    return Texts((text,))


def redacted_lines(lines: Iterable[bytes], policy: Policy) -> Iterator[tuple[Texts, list[Redacted]]]:
    """Line by line, so that a file of any length takes the memory of one line."""
    for line in lines:
        found = texts_of(line)
        yield found, redact_all(found.texts, policy)


def as_json(number: int, texts: Texts, done: list[Redacted], policy: Policy) -> dict[str, Any]:
    """One line's finds: places are characters of its text. drop: the policy leaves the whole of it out."""
    told = [{"spans": [_span(s, policy) for s in d.spans], "drop": d.dropped} for d in done]
    head: dict[str, Any] = {"line": number} | ({"id": texts.key} if texts.key is not None else {})
    return head | ({"messages": told} if texts.talk else told[0])


def _span(span: Any, policy: Policy) -> dict[str, Any]:
    return {
        "start": span.start,
        "end": span.end,
        "kind": span.kind,
        "confidence": span.confidence,
        "action": policy.action(span.kind),
    }

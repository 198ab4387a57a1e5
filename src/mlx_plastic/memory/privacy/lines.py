"""Files of texts, one a line: what is found in each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mlx_plastic.errors import BadData
from mlx_plastic.memory.privacy.placeholders import Placeholders
from mlx_plastic.memory.privacy.policies import Policy
from mlx_plastic.memory.privacy.redact import Redacted, redact_all
from mlx_plastic.memory.privacy.second import SecondReader

PIECE_BYTES = 100_000  # of a file that is one text: progress is told, and a find spreads, piece by piece
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Texts:
    """What a line holds: one text, or the messages of a conversation, in which a find spreads.

    key: the "id" that came with it, to be given back. broken: it begins as JSON does and is none, so it was
    taken as it stands. garbled: characters that stand for bytes which are no UTF-8.
    """

    texts: tuple[str, ...]
    talk: bool = False
    key: object = None
    broken: bool = False
    garbled: int = 0


def opened(path: Path) -> IO[bytes]:
    """Raises BadData if the file cannot be read, or is written in a way that would hide what it holds."""
    try:
        file = path.open("rb")
        head = file.peek(4)
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    for name, start in (("UTF-16", UTF_16), ("compressed", (b"\x1f\x8b", b"PK\x03\x04"))):
        if head.startswith(start):
            file.close()
            raise BadData(f"{path} is {name}: nothing would be found in it", hint="save it as plain UTF-8")
    return file


def texts_of(line: bytes) -> Texts:
    """A line as {"text": ...}, as {"messages": [{"content": ...}]}, as a JSON string, or as it stands.

    Bytes that are no UTF-8 become U+FFFD, one each, so that places can be counted.
    """
    text = line.rstrip(b"\r\n").decode("utf-8", "replace").removeprefix("\ufeff")  # of an editor
    garbled = text.count("\ufffd") - line.count(b"\xef\xbf\xbd")
    if text[:1] in ("{", '"'):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return Texts((text,), broken=text[0] == "{", garbled=garbled)
        if isinstance(value, str):
            return Texts((value,), garbled=garbled)
        messages = value.get("messages")
        if isinstance(value.get("text"), str):
            return Texts((value["text"],), key=value.get("id"), garbled=garbled)
        if isinstance(messages, list) and all(isinstance(m, dict) for m in messages):
            said = tuple(m["content"] if isinstance(m.get("content"), str) else "" for m in messages)
            return Texts(said, talk=True, key=value.get("id"), garbled=garbled)
    return Texts((text,), garbled=garbled)


def pieces_of(lines: Iterable[bytes]) -> Iterator[Texts]:
    """A file that is one text, in pieces that end where a line does, after an empty one if there is any."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= PIECE_BYTES and (not line.strip() or size >= 2 * PIECE_BYTES):
            yield _piece(piece)
            piece, size = [], 0
    if piece:
        yield _piece(piece)


def _piece(lines: list[bytes]) -> Texts:
    whole = b"".join(lines)
    text = whole.decode("utf-8", "replace")
    return Texts((text,), garbled=text.count("\ufffd") - whole.count(b"\xef\xbf\xbd"))


def redacted(
    read: Iterable[Texts], policy: Policy, *, together: bool = False, reader: SecondReader | None = None
) -> Iterator[tuple[Texts, list[Redacted]]]:
    """One by one, so that a file of any length takes the memory of one line or piece.

    together: they are one text, in which a thing has one placeholder.
    """
    placeholders = Placeholders() if together else None
    for found in read:
        yield found, redact_all(found.texts, policy, placeholders, reader)


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
    } | ({"by": span.by} if span.by != "detectors" else {})

"""What stands instead of a find: [EMAIL_1], the same for the same thing all through a conversation."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from hashlib import blake2b

from mlx_plastic.memory.privacy.spans import LIKELY, SHORTEST, Kind, Span, is_exact

NAMES: dict[Kind, str] = {
    "secret": "SECRET", "card": "CARD", "iban": "IBAN", "national_id": "ID", "account": "ACCOUNT",
    "email": "EMAIL", "phone": "PHONE", "ip": "IP", "url": "URL", "address": "ADDRESS",
    "person": "PERSON", "profanity": "WORD",
}  # fmt: skip
PLACEHOLDER = re.compile(rf"\[({'|'.join(NAMES.values())})_(\d{{1,6}})\]")
_EDGE = re.compile(r"(?<![^\W_])[^\W_]|[^\w\s]|_")  # where a thing can begin
_KEY = secrets.token_bytes(16)  # digests, not texts, are kept between turns, and they mean nothing elsewhere


class Placeholders:
    """The numbers given so far in one conversation. Part of a name that was given one gets the same."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, bytes], int] = {}
        self._people: list[tuple[frozenset[bytes], int]] = []
        self._last: dict[str, int] = {}
        self._exact: dict[bytes, Kind] = {}
        self._lengths: dict[int, set[int]] = {}  # by the hash of how such a thing begins

    def reserve(self, text: str) -> None:
        """Numbers that stand in a text already, from an earlier pass, are not given to anything else."""
        if "[" in text:
            for name, number in PLACEHOLDER.findall(text):
                self._last[name] = max(self._last.get(name, 0), int(number))

    def of(self, kind: Kind, found: str) -> str:
        name = NAMES[kind]
        key = (name, _digest("".join(c for c in found.casefold() if c.isalnum()) or found))
        number = self._numbers.get(key)
        if number is None:
            number = self._known_person(found) if kind == "person" else None
            if number is None:
                number = self._last[name] = self._last.get(name, 0) + 1
            self._numbers[key] = number
        for said in {found, found.rstrip("!")}:  # "Winter24!" may be said again without its mark
            if is_exact(kind, said):
                self._exact[_digest(said)] = kind
                self._lengths.setdefault(hash(said[:SHORTEST]), set()).add(len(said))
        return f"[{name}_{number}]"

    def again(self, text: str) -> Iterator[Span]:
        """What a text holds of what was found in an earlier one: a password that was told is used later."""
        for match in _EDGE.finditer(text) if self._lengths else ():
            start = match.start()
            for length in self._lengths.get(hash(text[start : start + SHORTEST]), ()):
                end = start + length
                inside = text[end - 1 : end].isalnum() and text[end : end + 1].isalnum()
                if not inside and (kind := self._exact.get(_digest(text[start:end]))):
                    yield Span(start, end, kind, LIKELY)

    def _known_person(self, found: str) -> int | None:
        """The number of the one person whose words these are, all or some; else they are a new person's."""
        words = frozenset(_digest(w) for w in re.findall(r"[^\W\d_]+", found.casefold()))
        same = {number for known, number in self._people if words and (words <= known or known <= words)}
        if len(same) != 1:
            self._people.append((words, self._last.get("PERSON", 0) + 1))
            return None
        number = same.pop()
        self._people = [
            (known | words if other == number and known <= words else known, other)
            for known, other in self._people
        ]
        return number


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=12, key=_KEY).digest()

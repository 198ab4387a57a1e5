"""Whose words a turn is made of: the person's own, or quoted, pasted, recalled, said by a model.

Only what a person says in their own words may be learned as theirs. What is told apart here is decided by
form (fences, quote marks, logs, "here is an article:") and, where the log is at hand, by who said the same
words first. It errs towards "not the person's": such text can still be looked up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from mlx_plastic.memory.records import Turn
from mlx_plastic.memory.router import forms
from mlx_plastic.memory.router.forms import FIRST_PERSON, URL, WORD

Source = Literal["person", "quote", "code", "data", "web", "model", "recalled"]
SOURCES: tuple[Source, ...] = ("person", "quote", "code", "data", "web", "model", "recalled")

LONGEST = 20_000  # characters that are looked at; nobody types more, what is beyond was pasted
RUN = 8  # words in a row that somebody else said first are a copy, fewer may be chance
LONG_PARAGRAPH = 60  # words; without a "my" or "I" it reads like something pasted
LOOKED_AT = 2_000  # characters of a paragraph, and behind it, in which an introduction is looked for
QUOTED_WORDS = 12  # between quote marks; a shorter quote is part of what a person says


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of a text, and whose they are."""

    start: int
    end: int
    source: Source


class Heard:
    """Who said which run of words first, over many turns in the order of saying.

    A person who repeats what the model said earlier copies it; a model that repeats the person does not make
    the person's words its own.
    """

    def __init__(self, turns: Iterable[Turn] = ()) -> None:
        self._first: dict[int, bool] = {}  # hash of a run -> whether the person said it
        for turn in turns:
            for _, _, run in _runs(turn.content[:LONGEST]):
                self._first.setdefault(run, turn.role == "user")

    def copied(self, text: str) -> Iterator[tuple[int, int]]:
        """Where in `text` somebody else's words are said again; the ranges may overlap."""
        return ((start, end) for start, end, run in _runs(text) if self._first.get(run) is False)


def _runs(text: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, hash) of every run of RUN words."""
    found = list(WORD.finditer(text))
    words = [match[0].lower() for match in found]
    for i in range(len(words) - RUN + 1):
        yield found[i].start(), found[i + RUN - 1].end(), hash(tuple(words[i : i + RUN]))


def spans_of(text: str, heard: Heard | None = None) -> tuple[Span, ...]:
    """The whole text as spans, in order, neighbours of different sources. heard: what was said before."""
    seen = text[:LONGEST]
    owner = bytearray(len(seen))  # an index into SOURCES for each character
    _mark_lines(seen, owner)
    _mark_paragraphs(seen, owner)
    for match in forms.INLINE.finditer(seen):
        if len(WORD.findall(match[0])) >= QUOTED_WORDS:
            _mark(owner, match.start(), match.end(), "quote")
    for start, end in heard.copied(seen) if heard else ():
        _mark(owner, start, end, "model")
    found, start = [], 0
    for end in range(1, len(owner) + 1):
        if end == len(owner) or owner[end] != owner[start]:
            found.append(Span(start, end, SOURCES[owner[start]]))
            start = end
    if len(text) > LONGEST:
        found.append(Span(LONGEST, len(text), "web"))
    return tuple(found)


def own_words(text: str, spans: Iterable[Span]) -> str:
    """What of the text is the person's, in one piece; "" if that is not even two words."""
    pieces = (text[s.start : s.end].strip() for s in spans if s.source == "person")
    own = " ".join(piece for piece in pieces if piece)
    return own if len(WORD.findall(own)) > 1 or len(own) == len(text.strip()) else ""


def _mark(owner: bytearray, start: int, end: int, source: Source) -> None:
    """Give [start, end) to the source, where it is still the person's."""
    code = SOURCES.index(source)
    free = owner[start:end]
    owner[start:end] = bytes(o or code for o in free) if any(free) else bytes([code]) * len(free)


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, start + len(line), line.rstrip()
        start += len(line)


def _mark_lines(text: str, owner: bytearray) -> None:
    """Fences, quotes, forwarded mails, talks with a model, code and logs: what a line shows by itself."""
    if _is_json(text):
        _mark(owner, 0, len(text), "data")
        return
    mailed = len(forms.HEADER.findall(text)) > 1
    block: Source | None = None  # what goes on until something ends it
    fenced = to_the_end = headed = False  # headed: the line before looks like the head of a mail
    for start, end, line in _lines(text):
        if forms.FENCE.match(line):
            _mark(owner, start, end, "code")
            fenced = not fenced
        elif fenced:
            _mark(owner, start, end, "code")
        elif to_the_end:
            _mark(owner, start, end, "quote")
        elif (source := _of_line(line[:400], block, mailed)) is not None:
            _mark(owner, start, end, source)
            heading = source == "quote" and forms.HEADER.match(line) is not None
            to_the_end = forms.FORWARDED.match(line) is not None or (heading and headed)
            block, headed = source, heading
        elif line.strip() or block != "model":
            block, headed = None, False


def _of_line(line: str, block: Source | None, mailed: bool) -> Source | None:
    """Whose a line is, after a line of `block`; None: the person's, as far as it shows.

    mailed: the text has lines like the head of a mail; a single "To: ..." means nothing.
    """
    if not line.strip():
        return "model" if block == "model" else None
    if forms.RECALLED.match(line) or (block == "recalled" and line.lstrip()[:1] in "-*•"):
        return "recalled"
    if forms.SPEAKER.match(line):
        return None
    if block == "model" or forms.MODEL.match(line) or forms.MODEL_VOICE.match(line):
        return "model"
    if any(form.match(line) for form in (forms.QUOTED, forms.REPLY, forms.FORWARDED)):
        return "quote"
    if mailed and forms.HEADER.match(line):
        return "quote"
    if forms.DATA.match(line) or _is_json(line):
        return "data"
    if forms.CODE.match(line) or forms.SHELL.match(line) or forms.CODE_INSIDE.search(line):
        return "code"
    if block == "data" and forms.ASSIGNED.match(line):
        return "data"
    return "code" if block == "code" and line.startswith(("    ", "\t")) else None


def _is_json(text: str) -> bool:
    body = text.strip()
    if len(body) < 8 or (body[0], body[-1]) not in (("{", "}"), ("[", "]")):
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _mark_paragraphs(text: str, owner: bytearray) -> None:
    """What is introduced as somebody's text, up to its end, and paragraphs that read like a page."""
    paragraphs = list(_paragraphs(text))
    introduced = False
    for place, (start, end) in enumerate(paragraphs):
        body = _still_own(text, owner, start, end)
        words = len(WORD.findall(body))
        own = len(FIRST_PERSON.findall(body))
        last = place == len(paragraphs) - 1 and place > 0
        if introduced and not (last and words <= 40 and (own or body.rstrip().endswith("?"))):
            _mark(owner, start, end, "web")
            continue
        begin = _begin_of_material(text[start : start + LOOKED_AT])
        introduced = begin is not None
        if begin is not None:
            _mark(owner, start + begin, end, "web")
        elif (linked := forms.ONLY_URLS.match(body) is not None) or _reads_like_a_page(body, words, own):
            _mark(owner, start, end, "web")
            introduced = linked


def _begin_of_material(text: str) -> int | None:
    """Where a paragraph hands over to somebody's text; the request what to do with it stays the person's."""
    if task := forms.TASK.match(text):
        return task.end()
    found = forms.INTRODUCED.search(text.partition("\n\n")[0])
    if found and len(WORD.findall(text[found.end() :])) >= QUOTED_WORDS:
        return _sentence(text, found.start())
    return None


def _still_own(text: str, owner: bytearray, start: int, end: int) -> str:
    if not any(owner[start:end]):
        return text[start:end]
    return "".join(text[i] for i in range(start, end) if not owner[i])


def _sentence(text: str, place: int) -> int:
    """Where the sentence around `place` begins."""
    return max((text.rfind(mark, 0, place) + 1 for mark in ".!?\n"), default=0)


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    start: int | None = None
    stop = 0
    for begin, end, line in _lines(text):
        if line.strip():
            start = begin if start is None else start
            stop = end
        elif start is not None:
            yield start, stop
            start = None
    if start is not None:
        yield start, stop


def _reads_like_a_page(body: str, words: int, own: int) -> bool:
    if own * 40 > words or words < 15 or forms.ASKS.match(body):
        return False
    marks = len(set(found.lower() for found in forms.WEB.findall(body)))
    linked = URL.search(body) is not None
    return (
        words >= LONG_PARAGRAPH
        or (linked and words >= 25)
        or marks >= 2
        or (marks >= 1 and (words >= 40 or linked))
    )

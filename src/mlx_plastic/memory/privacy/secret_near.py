"""Passwords that stand near words that speak of one, however the sentence goes.

Where `secret_words` knows the ways to tell a secret, this knows only what secrets look like: less sure, and
mostly for training, which would rather mask a word too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlx_plastic.memory.privacy.page import Page
from mlx_plastic.memory.privacy.secret_more import with_more
from mlx_plastic.memory.privacy.secret_words import ABROAD, STOP, TONGUES, USUAL, closed, is_code, is_mixed
from mlx_plastic.memory.privacy.spans import LIKELY, POSSIBLE, Span

BEFORE, AFTER = 220, 240  # characters around such a word
FAR = 110  # characters from it

_CJK = r"密码|密碼|パスワード|비밀번호"
SPOKEN = (  # without one of these in a text there is nothing to look for
    *TONGUES, *_CJK.split("|"), "pass", "pw", "credential", "log", "sign", "wifi", "wi-fi", "key",
    "secret", "token", "unlock",
)  # fmt: skip
_SIGN = re.compile(
    rf"pass[ -]?[wcpk]|pwd?\b|{ABROAD}|{_CJK}|credential|log[ -]?in\b|sign[ -]?in\b|wi-?fi|secret|token|"
    r"unlock|[sienth][ _-]?key"
)
_PASSWORD = re.compile(
    rf"\b(?:pass[ -]?(?:words?|codes?|phrases?|keys?)|passwd|pwd?|credentials?|{ABROAD})\b",
    re.IGNORECASE,
)
_LOOSER = re.compile(  # also told in one breath with other things: only what looks drawn by chance counts
    r"\b(?:log[ -]?in|sign[ -]?in|wi-?fi|(?:api|access|private|license|client|auth)[ _-]?keys?|secrets?|"
    r"tokens?|unlock(?:s|ed)?)\b",
    re.IGNORECASE,
)
_STOPS = re.compile(r"[.!?]\s|\n")
_WORD = re.compile(r"(?<!\S)[\"'(\u201c\u2018`]{0,2}\S{6,64}")
_CLASSES = tuple(re.compile(c) for c in (r"[a-z]", r"[A-Z]", r"\d", r"[^\w\s'\u2019.,:/-]"))
# "my password is sunshine", "das Passwort lautet apfelbaum", "the password: blue horse lamp"
_PLAIN = re.compile(
    rf"\b(?:pass[ -]?(?:words?|phrases?)|pwd|pw|{ABROAD})\b[\"']?"
    r"(?:\s(?:for|to|of|on)(?:\s[\w'-]{1,20}){1,4}?)?"
    r"(?:\s(?:is|was|ist|lautet|heißt|est|es|è|é|är|to|becomes|set to|changed to)\s|\s?[:=]\s{0,2})"
    r"(?P<value>[^\W\d_]{4,20}(?:\s[^\W\d_]{2,20}){0,6})(?=[.,;!?)]|\s?$|\s(?:and|but|now|please|for|since)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_STATE = re.compile(  # how it is
    r".*(?:ed|ing|able|ible|ly|ive|ory|less|ful|ous|ent|ant|ic|en)", re.IGNORECASE
)
_UNSPACED = re.compile(rf"(?:{_CJK})\s?(?:是|为|為|は、?|는|은|:|\uff1a)\s?(?P<value>[!-~]{{4,64}})")
_SUM = re.compile(r"[\d+*/=<>().,%$-]+|\w+=['\"(\[].*")  # 5*2=10, name='value'


def near(page: Page) -> Iterator[Span]:
    if not page.says(SPOKEN):
        return
    for low, high in page.near(_SIGN, BEFORE, AFTER):
        for span in _words(page.text, low, high):
            yield from with_more(page.text, span)
        for pattern in (_PLAIN, _UNSPACED):
            for match in pattern.finditer(page.text, low, high):
                if pattern is _UNSPACED or _is_password(match["value"]):
                    yield Span(*closed(page.text, *match.span("value")), "secret", POSSIBLE)


def _words(text: str, low: int, high: int) -> Iterator[Span]:
    """What looks like a password, in the sentences around one that speaks of it, or like a key in its own."""
    for first, last, inner in around(text, low, high, _PASSWORD, sentences=1):
        for start, end in _candidates(text, first, last):
            strong = _classes(text[start:end]) >= 3 and end - start >= 7 and inner[0] <= start < inner[1]
            yield Span(start, end, "secret", LIKELY if strong else POSSIBLE)
    for first, last, _ in around(text, low, high, _LOOSER, sentences=0):
        for start, end in _candidates(text, first, last):
            found = text[start:end]
            if end - start >= 7 and _classes(found) >= 2 and _CLASSES[2].search(found):
                yield Span(start, end, "secret", POSSIBLE)


def around(
    text: str, low: int, high: int, spoken: re.Pattern[str], *, sentences: int
) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """(start, end, the sentence itself) around each word that speaks of one; none is looked at twice."""
    seen = low
    for match in spoken.finditer(text, low, high):
        first, last = max(seen, match.start() - FAR), min(high, match.end() + FAR)
        if first >= last:
            continue
        ahead = [m.end() for m in _STOPS.finditer(text, first, match.start())]
        behind = [m.start() + 1 for m in _STOPS.finditer(text, match.end(), last)]
        inner = (ahead[-1] if ahead else first, behind[0] if behind else last)
        start = ahead[-1 - sentences] if len(ahead) > sentences else first
        seen = behind[sentences] if len(behind) > sentences else last
        yield start, seen, inner


def _candidates(text: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    for word in _WORD.finditer(text, first, last):
        start, end = closed(text, *word.span())
        start += len(text[start:end]) - len(text[start:end].lstrip("\"'(\u201c\u2018`"))
        found = text[start:end]
        if is_mixed(found) and not (USUAL.fullmatch(found) or _SUM.fullmatch(found) or is_code(found)):
            yield start, end


def _classes(found: str) -> int:
    """How many of small letters, capitals, digits and signs it has."""
    return sum(c.search(found) is not None for c in _CLASSES)


def _is_password(value: str) -> bool:
    """Whether words said after "password is" are one, rather than say how it is."""
    words = value.lower().split()
    plain = sum(word in STOP for word in words)
    if len(words) == 1:
        return not plain and not _STATE.fullmatch(words[0])
    return plain * 4 <= len(words) and not any(word.endswith(("ly", "ing")) for word in words)

"""Numbers that open something: PINs, door codes, one-time codes, the combinations of locks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlx_plastic.memory.privacy.page import Page
from mlx_plastic.memory.privacy.secret_more import with_more
from mlx_plastic.memory.privacy.secret_near import FAR, around
from mlx_plastic.memory.privacy.spans import LIKELY, POSSIBLE, Span

OPENING = ("pin", "code", "otp", "2fa", "cv", "comb", "open", "lock", "arm", "key")
_PIN = re.compile(r"\b(?:pin(?:code|s)?|pass[ -]?codes?|otp|2fa|cv[vc]2?)\b", re.IGNORECASE)
_CODE = re.compile(r"\b(?:codes?|combination|combo)\b", re.IGNORECASE)
_LOCK = re.compile(
    r"\b(?:(?:un|pad)?lock(?:s|ed|er|box)?|doors?|gates?|garage|alarm|safe|vault|keypad|building|entry|entrance|"
    r"access|phone|luggage|suitcase|bike|verification|security|one-time|confirmation)\b",
    re.IGNORECASE,
)
_DIGITS = re.compile(  # four to eight and no year, neither money nor a measure nor part of something else
    r"(?<![\w.,:/$€£¥#+-])(?<!page )(?<!room )(?<!step )(?!(?:19|20)\d\d(?!\d))\d{4,8}"
    r"(?![\w%]|[.,:/-]\d|\s?[€£$%°]|\s(?:people|users|times|days|hours|minutes|seconds|characters|digits|euros?|"
    r"dollars?|pounds|metres|meters|miles|km|cards?|points|bits|bytes|words|years|rows|lines|and\s\d)\b)",
    re.IGNORECASE,
)
_OPENS = re.compile(  # "the garage opens with 90733", "disarmed with 3391"
    r"\b(?P<verb>open|unlock|disarm|arm)(?:s|ed)?\s(?:with|using)\s(?:the\s|my\s|code\s|number\s){0,2}"
    r"[\"'\u201c]?(?P<value>\d{3,8})(?![\w%:]|[.,]\d|\s(?:people|keys?|minutes|hours|days|stores?|shops?|branches)\b)",
    re.IGNORECASE,
)
_TYPED = re.compile(  # "to unlock it type 258036", "use code 558203 to sign in", "enter 4471 on the keypad"
    r"\b(?:unlock|disarm|open|get (?:in|inside)|sign in|log in)\b[^.!?\n\d]{0,40}\b"
    r"(?:type|enter|dial|press|punch(?: in)?|key in|use)\s(?:in\s)?(?:the\s)?(?:code\s|pin\s)?"
    r"(?P<value>\d{4,8}#?)(?![\w%:]|[.,]\d)"
    r"|\bcode\s(?P<used>\d{4,8})\s(?:to|for)\s(?:sign|log|verif|confirm|unlock|open|enter|access|reset|authori)"
    r"|\b(?!(?:19|20)\d\d\s)(?P<given>\d{4,8})\sis\s(?:your|my|the)\s(?:[\w'-]{1,20}\s){0,3}(?:code|otp|passcode|pin)\b"
    r"|\b(?:type|enter|dial|press|punch(?: in)?|key in)\s(?:in\s)?(?P<keyed>\d{3,8}#?)\s(?:on|into|at)\s"
    r"(?:the\s)?(?:\w{1,12}\s)?(?:keypad|door|gate|alarm|lock|panel|intercom)\b",
    re.IGNORECASE,
)
_TYPING = re.compile(  # without one of these _TYPED has nothing to find; no \b ahead, which would be slow
    r"code|otp\b|pin\b|open|lock|arm|pad|door|gate|panel|intercom|get in|[ng] in", re.IGNORECASE
)
_PARTED = re.compile(  # "the safe combination is 32-18-7", "backup codes: 4821-9930, 5510-2287"
    r"\b(?:combinations?|combo|pin(?:code|s)?|otp|pass[ -]?(?:codes?|words?)|"
    r"(?:access|entry|door|gate|alarm|security|lock(?:er|box)?|safe|garage|verification|one[- ]time|recovery|"
    r"backup|unlock|reset|confirmation|2fa|login|sms|vault|keypad|building|house)[ -]?"
    r"(?:codes?|numbers?|keys?)|"
    r"(?:codes?|numbers?|keys?)\s(?:for|to|of)\s(?:[\w'-]{1,20}\s){0,4}"
    r"(?:lock|padlock|safe|vault|locker|suitcase|gate))"
    r"(?:\s(?:for|to|of|on|at|they|you|i)(?:\s[\w'-]{1,20}){1,5}?)?"
    r"(?:(?:\s?[:=]|\s(?:is|are|was|were))\s{1,2}(?:still\s|now\s)?[\"'\u201c(]?|\s(?=\d{4,6}(?:-\d{4,6}){2}))"
    r"(?P<value>\d{1,6}(?:[-\u2013 ]\d{1,6}){1,7})"
    r"(?![\w%°€$£]|[.,:/-]\d|\s(?:[ap]m|euros?|dollars?|characters|digits)\b)",
    re.IGNORECASE,
)
_PARTS = re.compile(r"\d[-\u2013 ]\d")
_DAY = re.compile(r"(?:(?:19|20)\d\d-\d{1,2}-\d{1,2}|\d{1,2}-\d{1,2}-(?:19|20)\d\d|\d{4}-(?:19|20)\d\d)")


def codes(page: Page) -> Iterator[Span]:
    """Numbers in a sentence that speaks of a PIN, or of a code and of what it opens."""
    if page.says(OPENING):
        for low, high in page.numbers(3, FAR, FAR):
            for span in (*_opening(page.text, low, high), *_spoken_of(page.text, low, high)):
                yield from with_more(page.text, span)


def _opening(text: str, low: int, high: int) -> Iterator[Span]:
    """Those that the sentence calls so."""
    for match in _OPENS.finditer(text, low, high):
        sure = LIKELY if match["verb"].lower() in ("unlock", "disarm") else POSSIBLE
        yield Span(*match.span("value"), "secret", sure)
    for match in _TYPED.finditer(text, low, high) if _TYPING.search(text, low, high) else ():
        yield Span(*match.span(match.lastgroup or 0), "secret", LIKELY)
    for match in _PARTED.finditer(text, low, high) if _PARTS.search(text, low, high) else ():
        if not _DAY.fullmatch(match["value"]):
            yield Span(*match.span("value"), "secret", LIKELY)


def _spoken_of(text: str, low: int, high: int) -> Iterator[Span]:
    """Any, where one is spoken of."""
    for spoken in (_PIN, _CODE):
        for first, last, inner in around(text, low, high, spoken, sentences=0):
            if spoken is _PIN or _LOCK.search(text, *inner):
                yield from (Span(*m.span(), "secret", POSSIBLE) for m in _DIGITS.finditer(text, first, last))

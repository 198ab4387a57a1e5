"""Telephone numbers: by a shape that only they have, else by the words around, else by a country's plan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from mlx_plastic.memory.privacy.page import DIGITS, Page
from mlx_plastic.memory.privacy.spans import CERTAIN, LIKELY, POSSIBLE, Span

_RUN = re.compile(
    r"(?<![\w.,$€£¥#@/+-])(?<![<>=*^%]\s)(?:\+[ ]?|"
    r"\((?=\+?\d))?\d(?:[ \t\u00a0]?[-.()/\u2013\u2011]{0,2}[ \t\u00a0]?\d|\(\d){5,24}"
    r"(?:[ \t]{0,2}(?:x|ext\.?|extension|#)[ \t.:]{0,2}\d{1,6})?(?!\w|[.,]\d|[ \t]?[%*=^€£¥])",
    re.IGNORECASE,
)
_EXTENSION = re.compile(r"\s*(?:x|ext\.?|extension|#)[\s.:]*\d{1,6}\Z", re.IGNORECASE)
_WORDS = re.compile(
    r"\b(?:call(?:ed|ing|s)?|phones?|(?:tele)?phone|tel|mobile|cell(?:phone)?|fax|whats ?app|signal|"
    r"text(?:ed|ing)?|sms|"
    r"reach(?:ed|able)?|answer(?:ed|ing|s)?|messages? (?:to|at|on)|registered|dial(?:ed|led|ing)?|ring|rang|"
    r"contact|hot ?line|landline|voicemail|telefon\w{0,8}|handy\w{0,8}|"
    r"t[ée]l[ée]phone|tel[ée]fono|m[óo]vil|celular|numero|n[úu]mero|rufnummer|beeper|pager|switchboard|"
    r"answering machine|"
    r"(?:my|his|her|their|our|your|new|old|work|home|office|'s|the|following|registered|emergency|same|"
    r"this) number|"
    r"number(?: is|'s|:| ist))(?!\w)|☎|📞|📱|☏"
)
_OTHER_WORDS = re.compile(  # numbers that are something else
    r"\b(?:isbn|issn|doi|order|invoice|version|serial|tracking|pmid|arxiv|lot|item|sku|part|model|asin|upc|"
    r"ean|"
    r"ticket|card|account|acct|iban|policy|population|year|id)\b[^.!?\n]{0,24}\Z"
)
_DATE = re.compile(
    r"(?:(?:19|20)\d\d[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./](?:19|20)?\d\d|(?:19|20)\d{6})"
    r"(?:[ \t]\d{0,2}(?:[:.]?\d{2}){0,2})?|(?:1\d|20)\d\d[ ]?[-\u2013/][ ]?(?:1\d|20)\d\d"
)
_FRACTION = re.compile(r"\d\.\d+")
_THOUSANDS = re.compile(
    r"\d{1,2}(?:[ .\u00a0]\d{3})+|\d{3}[ .\u00a0]\d{3}"
)  # of three threes some are phones
_NANP = re.compile(  # the North American plan's grouping, which nothing else has
    r"(?:(?:\+ ?|00)?1[ .\-\u2013]{0,2})?"
    r"(?:\(\d{3}\)[ .\-\u2013]{0,2}|\d{3}[.\-\u2013]|\d{3} )\d{3}[ .\-\u2013]\d{4}"
)
_REGIONS = ("US", "GB", "DE", "FR", "IT", "ES", "IN", "AU", "SE", "NL", "PL", "BR")
TRIES = 400  # per text: a page full of digits must not take minutes


def phones(page: Page) -> Iterator[Span]:
    """Candidates are 7 to 15 digits with the separators that people use, and an extension."""
    tries = TRIES
    for match in (m for window in page.numbers(7) for m in _RUN.finditer(page.text, *window)):
        start, end = match.span()
        bare = _EXTENSION.sub("", match[0]).rstrip()
        digits = "".join(DIGITS.findall(bare))
        if len(digits) > 15:  # several in a row
            for part in _NANP.finditer(bare):
                yield Span(start + part.start(), start + part.end(), "phone", POSSIBLE)
        if not 7 <= len(digits) <= 15 or len(set(digits)) == 1:
            continue
        if _DATE.fullmatch(bare) or _FRACTION.fullmatch(bare):
            continue
        if bare.count("(") < bare.count(")") and page.text[start - 1 : start] == "(":
            start -= 1
        ahead = page.before(start)
        spoken = bool(_WORDS.search(ahead) or _WORDS.search(page.after(end, 16)))
        other = _OTHER_WORDS.search(ahead)
        if "/(" in bare or "(" in bare.strip("(+")[5:]:
            continue
        sure = _by_shape(
            bare, digits, spoken=spoken and not other, extended=len(bare) < len(match[0].rstrip())
        )
        if not sure and not other and 8 <= len(digits) <= 13 and tries > 0 and not _THOUSANDS.fullmatch(bare):
            tries -= 1
            sure = POSSIBLE if _is_assigned(bare, digits) else 0.0
        if sure:
            yield Span(start, end, "phone", sure)


def _by_shape(bare: str, digits: str, *, spoken: bool, extended: bool) -> float:
    """How sure the writing alone makes it; 0.0: it says nothing."""
    if bare.startswith(("+", "(+")):
        return CERTAIN if len(digits) >= 8 else 0.0
    if _NANP.fullmatch(bare):
        return CERTAIN if spoken else LIKELY
    if spoken and (len(digits) > 7 or len(bare) > 7 or extended):
        return LIKELY
    if (spoken and len(digits) == 7) or (extended and len(digits) >= 9):
        return POSSIBLE
    parted = len(bare) > len(digits)
    if digits.startswith("00") and len(digits) >= 10 and parted:
        return LIKELY
    if digits.startswith("0") and 9 <= len(digits) <= 12 and (parted or len(digits) in (10, 11)):
        return POSSIBLE
    return 0.0


@lru_cache(maxsize=4096)
def _is_assigned(bare: str, digits: str) -> bool:
    """Whether some country of _REGIONS has such numbers, by the tables of phonenumbers."""
    import phonenumbers

    if len(bare) == len(digits) and len(digits) < 10:  # eight or nine digits in a row are any number
        return False
    if len(bare) > len(digits) and not all(2 <= len(part) <= 5 for part in DIGITS.findall(bare)):
        return False
    for region in _REGIONS:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(bare, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False

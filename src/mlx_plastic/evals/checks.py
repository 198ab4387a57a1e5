"""Whether an answer is right: small rules that a person can write in a JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from mlx_plastic.errors import BadData
from mlx_plastic.evals.code import is_code_check, passes_code

REFUSAL = re.compile(
    r"\bi('m| am) (sorry|afraid|unable|not able)\b"
    r"|\bi (can ?not|can't|won't|will not|must not)\b"
    r"|\bi (have to|must) (decline|refuse)\b"
    r"|\b(not|\w+n't) (help|assist|do that)\b"
)
PLAIN_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")


def passes(check: Mapping[str, Any], answer: str) -> bool:
    """Whether the answer says anything, and satisfies every rule of `check`.

    contains: any of these texts, as whole words. not_contains: none of them. equals: the whole answer,
    or one of several. (All three ignore case, space and, for equals, the punctuation at the end.)
    regex: found anywhere. number: the last number in the answer. json: the answer holds a JSON value
    with at least these members. refuses: whether it declines. code: its Python passes tests or prints a text,
    run in a child (see code.passes_code).
    """
    return bool(answer.strip()) and all(RULES[rule](wanted, answer) for rule, wanted in check.items())


def validate(check: Any) -> None:
    """Raises BadData saying what is wrong with a check as read from a file."""
    if not isinstance(check, dict) or not check:
        raise BadData("'check' is not an object with at least one rule", hint=f"rules: {', '.join(RULES)}")
    for rule, wanted in check.items():
        if rule not in RULES:
            raise BadData(f"unknown check {rule!r}", hint=f"rules: {', '.join(RULES)}")
        if not FITS[rule](wanted):
            raise BadData(f"check {rule!r} cannot be {json.dumps(wanted)[:60]}", hint=EXAMPLES[rule])


def normalized(text: str) -> str:
    """Lower case, one space between words, typographic quotes made plain."""
    return " ".join(text.casefold().translate(PLAIN_QUOTES).split())


def _contains(wanted: str | list[str], answer: str) -> bool:
    return any(_has_words(normalized(answer), normalized(text)) for text in _listed(wanted))


def _has_words(text: str, words: str) -> bool:
    """Found, and not inside a longer Latin word or number: "4" is not in "14", nor "art" in "party"."""
    before = r"(?<![0-9a-z])" if re.match("[0-9a-z]", words) else ""
    after = r"(?![0-9a-z])" if re.search("[0-9a-z]$", words) else ""
    return re.search(before + re.escape(words) + after, text) is not None


def _equals(wanted: str | list[str], answer: str) -> bool:
    return any(bare(text) == bare(answer) for text in _listed(wanted))


def bare(text: str) -> str:
    """Normalized, and without the punctuation around it."""
    return normalized(text).strip(" .!?\"'`")


def _regex(wanted: str, answer: str) -> bool:
    return re.search(wanted, answer) is not None


def _number(wanted: float, answer: str) -> bool:
    found = NUMBER.findall(answer)
    return bool(found) and abs(float(found[-1].replace(",", "")) - wanted) <= 1e-9 * max(1.0, abs(wanted))


def _json(wanted: Any, answer: str) -> bool:
    return any(_covers(value, wanted) for value in _json_values(answer))


def _json_values(text: str) -> list[Any]:
    """The JSON objects and lists that stand anywhere in a text, a code fence for instance."""
    found, at = [], 0
    decoder = json.JSONDecoder()
    while (start := re.compile(r"[\[{]").search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, start.start())
            found.append(value)
        except (ValueError, RecursionError):
            at = start.end()
    return found


def _covers(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(k in value and _covers(value[k], w) for k, w in wanted.items())
    if isinstance(wanted, str):
        return isinstance(value, str) and normalized(value) == normalized(wanted)
    return type(value) is type(wanted) and bool(value == wanted)


def _refuses(wanted: bool, answer: str) -> bool:
    return (REFUSAL.search(normalized(answer)) is not None) == wanted


def _listed(wanted: str | list[str]) -> list[str]:
    return [wanted] if isinstance(wanted, str) else wanted


def _is_texts(wanted: Any) -> bool:
    if not isinstance(wanted, str | list) or not wanted:
        return False
    return all(isinstance(text, str) and text.strip() for text in _listed(wanted))


def _is_pattern(wanted: Any) -> bool:
    try:
        return isinstance(wanted, str) and bool(re.compile(wanted))
    except re.error:
        return False


def _is_number(wanted: Any) -> bool:
    return type(wanted) in (int, float)


RULES: dict[str, Callable[[Any, str], bool]] = {
    "contains": _contains,
    "not_contains": lambda wanted, answer: not _contains(wanted, answer),
    "equals": _equals,
    "regex": _regex,
    "number": _number,
    "json": _json,
    "refuses": _refuses,
    "code": passes_code,
}
FITS: dict[str, Callable[[Any], bool]] = {
    "contains": _is_texts,
    "not_contains": _is_texts,
    "equals": _is_texts,
    "regex": _is_pattern,
    "number": _is_number,
    "json": lambda wanted: isinstance(wanted, dict | list),
    "refuses": lambda wanted: isinstance(wanted, bool),
    "code": is_code_check,
}
EXAMPLES = {
    "contains": 'a text or a list of texts: {"contains": ["Paris"]}',
    "not_contains": 'a text or a list of texts: {"not_contains": ["sorry"]}',
    "equals": 'a text or a list of texts: {"equals": "yes"}',
    "regex": 'a pattern: {"regex": "^[a-z]+$"}',
    "number": 'a number: {"number": 42}',
    "json": 'an object or a list: {"json": {"name": "Rex"}}',
    "refuses": 'true or false: {"refuses": true}',
    "code": 'tests, stdout or both, and before: {"code": {"tests": "assert double(2) == 4"}}',
}

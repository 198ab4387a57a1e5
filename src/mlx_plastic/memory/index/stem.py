"""English words cut to their stems, so that "hikes", "hiked" and "hiking" find each other."""

from __future__ import annotations

import functools
import re

# A word as consonants (c) and vowels (v) tells how many syllables stand before a suffix: see `_measure`.
_RUNS = re.compile(r"(.)\1+")
_STEP2 = {
    **{"ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble"},
    **{"alli": "al", "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate"},
    **{"ator": "ate", "alism": "al", "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al"},
    **{"iviti": "ive", "biliti": "ble", "logi": "log"},
}
_STEP3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP4 = "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize".split()


@functools.lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of a lower-case English word; any other word as it is.

    Source: Porter 1980, "An algorithm for suffix stripping", with the changes of its author's own program.
    """
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return word
    for step in (_plurals, _past, _y_to_i, _step2, _step3, _step4, _last_e):
        word = step(word)
    return word


def _plurals(word: str) -> str:
    for suffix, put in (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")):
        if word.endswith(suffix):
            return word.removesuffix(suffix) + put
    return word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        rest = word.removesuffix(suffix)
        if rest != word:
            return _mended(rest) if "v" in _kinds(rest) else word
    return word


def _mended(rest: str) -> str:
    """hop(ped) -> hop, fil(ing) -> file: what was doubled or dropped before -ed and -ing."""
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if _doubled(rest) and rest[-1] not in "lsz":
        return rest[:-1]
    return rest + "e" if _measure(rest) == 1 and _short(rest) else rest


def _y_to_i(word: str) -> str:
    return word[:-1] + "i" if word.endswith("y") and "v" in _kinds(word[:-1]) else word


def _step2(word: str) -> str:
    return _replaced(word, _STEP2)


def _step3(word: str) -> str:
    return _replaced(word, _STEP3)


def _replaced(word: str, table: dict[str, str]) -> str:
    """The longest suffix of the table put right, if a syllable stands before it."""
    for length in range(min(7, len(word)), 1, -1):
        if (suffix := word[-length:]) in table:
            rest = word[:-length]
            return rest + table[suffix] if _measure(rest) > 0 else word
    return word


def _step4(word: str) -> str:
    for length in range(min(5, len(word)), 1, -1):
        if word[-length:] in _STEP4:
            rest = word[:-length]
            if word.endswith("ion") and not rest.endswith(("s", "t")):
                return word
            return rest if _measure(rest) > 1 else word
    return word


def _last_e(word: str) -> str:
    if word.endswith("e"):
        rest = word[:-1]
        count = _measure(rest)
        if count > 1 or (count == 1 and not _short(rest)):
            word = rest
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _kinds(word: str) -> str:
    """c or v for each letter; y is a vowel behind a consonant."""
    found: list[str] = []
    for i, letter in enumerate(word):
        vowel = letter in "aeiou" or (letter == "y" and i > 0 and found[-1] == "c")
        found.append("v" if vowel else "c")
    return "".join(found)


def _measure(word: str) -> int:
    """m of [C](VC)^m[V]: how often consonants follow vowels."""
    return _RUNS.sub(r"\1", _kinds(word)).count("vc")


def _doubled(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _kinds(word)[-1] == "c"


def _short(word: str) -> bool:
    """Ends in consonant, vowel, consonant, the last not w, x or y: -hop, -fil."""
    return _kinds(word).endswith("cvc") and word[-1] not in "wxy"

"""A speaker's name as people misspell it: "Mohammed" for "Muhhamed", "Nikolas" for "Nicolas"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from mlx_plastic.memory.index.terms import SPEAKER_WORDS, terms_of, words
from mlx_plastic.memory.privacy.lexicon import is_ordinary

_SOUNDS = (("ph", "f"), ("ck", "k"), ("c", "k"), ("q", "k"), ("z", "s"), ("th", "t"), ("y", "i"), ("v", "w"))
_VOWELS = re.compile(r"(?<=.)[aeiou]")  # the first letter stays
_TWICE = re.compile(r"(.)\1+")
SHORTEST = 4  # letters
LEAST_CONSONANTS = 3  # of a name that is known by them alone


def respelled(text: str, speakers: Iterable[str], said: Callable[[str], bool]) -> str:
    """The question with speakers' names as they are written in the log.

    said: whether anything that can be found holds a term. Only a word that nothing holds is taken for a name
    misspelled: somebody else may well be called so. Words of the language are none.
    """
    names = {word for speaker in speakers for word, _, _ in words(speaker)} - set(SPEAKER_WORDS.values())
    for word, start, _ in reversed(list(words(text))):
        end = start + len(word)
        if text[start:end].lower() != word or any(map(said, terms_of(word))):
            continue  # accents and ligatures change places: such a word is left alone
        if (name := _meant(word, names)) and not is_ordinary(word):
            text = text[:start] + name + text[end:]
    return text


def _meant(word: str, names: Iterable[str]) -> str | None:
    """The one of the names that a word, in lower case, may be another spelling of; None if none or several.

    Alike are two that sound the same but for their vowels, or that differ in one letter.
    """
    if len(word) < SHORTEST or not word.isalpha():
        return None
    alike = {name for name in names if len(name) >= SHORTEST and name != word and _alike(word, name)}
    return alike.pop() if len(alike) == 1 else None


def _alike(one: str, other: str) -> bool:
    if one[0] != other[0]:
        return False
    bones = _bones(one)
    return (bones == _bones(other) and len(bones) >= LEAST_CONSONANTS) or _one_apart(one, other)


def _bones(word: str) -> str:
    """The consonants by their sound, each once where it is doubled."""
    for written, sound in _SOUNDS:
        word = word.replace(written, sound)
    return _TWICE.sub(r"\1", _VOWELS.sub("", word))


def _one_apart(one: str, other: str) -> bool:
    """Whether a letter put in, left out or replaced, or two swapped, makes the one of the other."""
    if abs(len(one) - len(other)) > 1:
        return False
    pairs = enumerate(zip(one, other, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    rest, others = one[same:], other[same:]
    swapped = rest[1::-1] + rest[2:] if len(rest) > 1 else rest
    return rest[1:] == others or rest == others[1:] or rest[1:] == others[1:] or swapped == others

"""A text as the terms it is found by: words without case, accents and endings, hashed to 32 bits."""

from __future__ import annotations

import functools
import re
import unicodedata
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mlx_plastic.memory.index.stem import stem

Ids = npt.NDArray[np.uint32]

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
MAX_WORD = 64  # characters; a longer one is no word
# scripts that put no spaces between words: pairs of characters stand for words there
UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+")

# words that a question is asked with, and words that say too little to be looked for
STOP_WORDS = frozenset(
    "what when where who whom whose which why how did do does is are was were has have had will would can"
    " could should shall may might must the a an of to in on at for and or but if then than so as by from"
    " with about i you he she it we they me him her us them my your his its our their mine yours hers ours"
    " theirs this that these those there here be been being am not no yes up out into over after before"
    " during between any some all both each most other such only own same too very just also im ive id ill"
    " youre youve hes shes its were weve theyre dont doesnt didnt isnt arent wasnt werent cant couldnt wont"
    " wouldnt whats wheres whos tell told say said remind".split()
)
# who asks, and who is asked: they name the speaker of a turn as a name would
SPEAKER_WORDS = {
    **dict.fromkeys("i me my mine myself im ive id".split(), "user"),
    **dict.fromkeys("you your yours yourself youre youve".split(), "assistant"),
}


def words(text: str) -> Iterator[tuple[str, int, int]]:
    """The words of a text, each with where it begins and ends: lower case, no accents, "Ann's" as "ann"."""
    for match in WORD.finditer(text):
        word = match.group()
        if len(word) <= MAX_WORD and (plain := _plain(word)):
            yield plain, match.start(), match.end()


def terms(text: str) -> Iterator[str]:
    """What the words of a text are matched by."""
    for word, _, _ in words(text):
        yield from terms_of(word)


def terms_of(word: str) -> list[str]:
    """The terms of a word of `words`: its stem, or pairs of characters where a script has no spaces."""
    if word.isascii() or not UNSPACED.search(word):
        return [stem(word)]
    found = []
    for part in re.split(f"({UNSPACED.pattern})", word):
        if part and UNSPACED.fullmatch(part):
            found += [part[i : i + 2] for i in range(max(1, len(part) - 1))]
        elif part:
            found.append(stem(part))
    return found


@functools.lru_cache(maxsize=65536)
def term_id(term: str) -> int:
    """32 bits of hash: of 50,000 terms two fall together in one vocabulary of four."""
    return zlib.crc32(term.encode("utf-8"))


def term_ids(text: str) -> Ids:
    """(n,) a text's terms in order, with repetitions."""
    return np.fromiter((term_id(t) for t in terms(text)), np.uint32)


def _plain(word: str) -> str:
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
        word = unicodedata.normalize("NFC", word).replace("\u2019", "'")
    word = word.casefold()
    return word.removesuffix("'s").replace("'", "") if "'" in word else word

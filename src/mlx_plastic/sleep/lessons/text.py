"""Words, names and what supports what: plain looks at texts, in no language model's hands."""

from __future__ import annotations

import re

WORD = re.compile(r"[\w']+")
# words that carry no information of their own: an answer made of these alone teaches nothing
COMMON = frozenset(
    """a an the i you he she it we they me my your his her its our their am is are was were be been do does
    did have has had in on at to of for from with by as and or not no yes that this these those there here
    what which who where when how why know told tell""".split()
)


def words(text: str) -> set[str]:
    return {w.lower().removesuffix("'s") for w in WORD.findall(text)}


def normal(text: str) -> str:
    return " ".join(w.lower() for w in WORD.findall(text))


def is_supported(question: str, answer: str, note: str) -> bool:
    """Whether the answer tells something of the note that the question does not, and names nothing foreign.

    Names and numbers of the question and the answer must all stand in the note: a question about
    somebody else, or an answer with an invented name, is refused.
    """
    told = words(note)
    informative = (words(answer) & told) - words(question) - COMMON
    return bool(informative) and names(question) <= told and names(answer) <= told


def names(text: str) -> set[str]:
    """Lower-cased words with a capital inside a sentence, and numbers."""
    found = set()
    for sentence in re.split(r"(?<=[.!?:])\s+", text):
        for place, word in enumerate(WORD.findall(sentence)):
            if word.isdigit() or (place and word[0].isupper() and word not in ("I", "I'm")):
                found.add(word.lower().removesuffix("'s"))
    return found

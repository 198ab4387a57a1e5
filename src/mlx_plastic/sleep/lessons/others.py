"""Tonight's questions asked about somebody else, so that Nora's town does not become everybody's."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

from mlx_plastic.evals import Speaker
from mlx_plastic.memory import Turn
from mlx_plastic.memory.privacy.lexicon import FIRST, LAST, ORDINARY, TOWN, VERY_ORDINARY, lexicon
from mlx_plastic.samples import Message, Sample
from mlx_plastic.sleep.lessons.config import LessonConfig
from mlx_plastic.sleep.lessons.notes import notes_message
from mlx_plastic.sleep.lessons.text import COMMON, WORD, names, normal, words

MOST_NOTES = 8  # put before one question
STRANGERS = """
    Alan Anouk Aldo Birte Bruno Cosima Corvin Delphine Damir Esra Egon Fiona Falk Flavia Gitta Gunnar
    Hanne Hagen Ilse Idris Jorin Jolanda Kaja Kenan Luke Lothar Livia Malin Milo Neil Nele Nuri Orla
    Otis Paula Pascal Quinn Ragna Rainer Selma Sven Tilda Tarek Una Urs Vesna Valentin Wilma Wout Xenia
    Yara Yusuf Zita Zeno
""".split()

A_NIGHT = 64  # strangers
LETTERS = range(3, 10)  # of a stranger's name

MY = re.compile(r"\bmy\b", re.IGNORECASE)


def about_others(
    base: Speaker,
    lessons: Sequence[Sample],
    notes: Sequence[Turn],
    config: LessonConfig,
    *,
    earlier: Sequence[Sample] = (),
    unknown: Sequence[str] = STRANGERS,
) -> list[Sample]:
    """Tonight's questions asked about somebody else, with what the bare base says to them.

    A pack that only learns where Nora lives tells the same of everybody. Of each lesson up to `strangers`
    wordings are asked about a stranger, and up to `mixed_up` about somebody else of tonight, the person
    included ("my job", "Leon's job"). What tonight's notes or the `earlier` lessons answer is left out.
    unknown: names of strangers.
    """
    owners = {id(s): owner for s in lessons if s.kind == "qa" and (owner := owner_of(s)) is not None}
    told = sorted(set(owners.values()))
    strange = strangers([*lessons, *earlier], unknown)
    asked: list[tuple[Sample, str, str]] = []  # of which lesson, about whom, in which words
    count = Counter[tuple[tuple[str, ...], bool]]()
    for sample in lessons:
        for others, most in ((strange, config.strangers), (told, config.mixed_up)):
            key = (sample.turns, others is told)
            owner = owners.get(id(sample))
            somebody = [other for other in others if other != owner]
            if owner is None or not somebody or count[key] >= most:
                continue
            if count[key] == 0:  # the first has the owner's initial: likest is most easily mixed up
                somebody = [other for other in somebody if other[:1] == owner[:1]] or somebody
            other = somebody[len(asked) % len(somebody)]
            if (question := about(sample.messages[0].content, owner, other)) is not None:
                count[key] += 1
                asked.append((sample, other, question))
    plain = base.answers([(Message("user", q),) for *_, q in asked], max_tokens=config.max_tokens)
    remembered = [turn.content for turn in notes]
    remembered += {s.turns: s.messages[-1].content for s in earlier if s.kind == "qa"}.values()
    everybody = {*told, *(owner for s in earlier if (owner := owner_of(s)))}
    contexts = [
        (notes_message(_notes_about(o, q, remembered, everybody)), Message("user", q))
        for _, o, q in asked
        if o in told
    ]
    informed = iter(base.answers(contexts, max_tokens=config.max_tokens))
    found = []
    for (sample, other, question), answer in zip(asked, plain, strict=True):
        untold = other not in told or next(informed) == answer
        if answer and untold:
            messages = (Message("user", question), Message("assistant", answer))
            found.append(Sample(messages, f"other {normal(question)}", sample.turns, "rehearsal"))
    return found


def earlier_of_strangers(
    base: Speaker,
    lessons: Sequence[Sample],
    config: LessonConfig,
    *,
    draw: random.Random,
    unknown: Sequence[str],
) -> list[Sample]:
    """Questions of `older_strangers` earlier lessons asked about strangers, with what the bare base says.

    Who has learned about many people takes everybody for one of them, unless others are asked about as well.
    """
    about_people = [(s, owner) for s in lessons if s.kind == "qa" and (owner := owner_of(s))]
    strange = strangers(lessons, unknown)
    some = draw.sample(about_people, min(config.older_strangers, len(about_people)) if strange else 0)
    asked = [
        (sample, question)
        for i, (sample, owner) in enumerate(some)
        if (question := about(sample.messages[0].content, owner, strange[i % len(strange)]))
    ]
    answers = base.answers([(Message("user", q),) for _, q in asked], max_tokens=config.max_tokens)
    return [
        Sample((Message("user", q), Message("assistant", answer)), f"other {normal(q)}", s.turns, "rehearsal")
        for (s, q), answer in zip(asked, answers, strict=True)
        if answer
    ]


def drawn_names(draw: random.Random) -> list[str]:
    """First names of a night's strangers, out of the thousands that privacy knows.

    Others every night: a pack is to learn that it does not know somebody, not that it
    does not know these few.
    """
    other = {ORDINARY, VERY_ORDINARY, LAST, TOWN}
    known = [
        word
        for word, flags in lexicon().items()
        if FIRST in flags and other.isdisjoint(flags) and word.isascii() and len(word) in LETTERS
    ]
    return [name.capitalize() for name in draw.sample(known, min(A_NIGHT, len(known)))]


def strangers(lessons: Sequence[Sample], named: Sequence[str] = STRANGERS) -> list[str]:
    """Those of the names that nobody has who is spoken of in `lessons`."""
    known = {name for s in lessons for m in s.messages for name in names(m.content)}
    return [name for name in named if name.lower() not in known]


def _notes_about(owner: str, question: str, notes: Sequence[str], everybody: set[str]) -> list[str]:
    """Of the notes about `owner` ("": those that name nobody) the few that share most with the question."""
    people = {name.lower() for name in everybody if name}
    about = [n for n in notes if (owner.lower() in words(n) if owner else not people & words(n))]
    asked = words(question) - COMMON
    return sorted(about, key=lambda note: -len(words(note) & asked))[:MOST_NOTES]


def owner_of(lesson: Sample) -> str | None:
    """Whom the lesson's question is about: a name, "" for who speaks, None if that is not clear."""
    question = lesson.messages[0].content
    named = names(question)
    if not named:
        return "" if MY.search(question) else None
    spelled = (word.removesuffix("'s") for word in WORD.findall(question))
    return next(word for word in spelled if word.lower() in named) if len(named) == 1 else None


def about(question: str, owner: str, other: str) -> str | None:
    """The question turned from `owner` to `other`, each a name or "" for who speaks; None if it cannot be."""
    if not owner:
        return MY.sub(f"{other}'s", question)
    if other:
        return re.sub(rf"\b{re.escape(owner)}\b", other, question, flags=re.IGNORECASE)
    found = re.sub(rf"\b{re.escape(owner)}'s\b", "my", question, flags=re.IGNORECASE)
    return None if owner.lower() in words(found) or found == question else found

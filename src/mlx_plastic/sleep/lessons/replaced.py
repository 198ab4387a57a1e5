"""Which earlier lessons tonight's replace: of two that answer one question, the later one counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from mlx_plastic.evals import Speaker
from mlx_plastic.memory import Turn
from mlx_plastic.samples import Sample
from mlx_plastic.sleep.lessons.config import LessonConfig
from mlx_plastic.sleep.lessons.others import owner_of
from mlx_plastic.sleep.lessons.questions import answered
from mlx_plastic.sleep.lessons.text import COMMON, normal, words

FIRST_PERSON = re.compile(r"\b(i|my|me|mine)\b", re.IGNORECASE)
ASKED = 2  # wordings of an earlier lesson; the note has to answer all of them anew

Groups = Mapping[str, Sequence[Sample]]  # by turn: the lesson that was made of it


def by_turn(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Lessons made of one turn each, by that turn; imported talks and rehearsal are none."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.kind in ("qa", "wish") and len(sample.turns) == 1:
            found.setdefault(sample.turns[0], []).append(sample)
    return found


def replaced(
    base: Speaker,
    notes: Sequence[Turn],
    tonight: Sequence[Sample],
    earlier: Sequence[Sample],
    config: LessonConfig,
) -> tuple[dict[str, str], list[Sample]]:
    """(old turn -> the turn that replaces it, samples that answer the old questions anew).

    A lesson is replaced if a later one answers the same question otherwise, or if the base, told the later
    note, gives to its questions the answer that tonight's lesson of that note gives most often: a few odd
    wordings ("Where does she live?" of a note on where she grew up) replace nothing. Within a night the order
    in which things were said decides. Turn ids sort by time.
    """
    lessons, old = by_turn(tonight), by_turn([*earlier, *tonight])
    found = _same_questions(lessons, old)
    pairs = [
        (note, turn)
        for note in notes
        if note.id in lessons
        for turn in _rivals(note, old, config.rivals)
        if turn < note.id and turn not in found
    ]
    asked = [(note, s.messages[0].content) for note, turn in pairs for s in old[turn][:ASKED]]
    given = {(s.turns[0], normal(s.messages[0].content)): s for s in answered(base, asked, config)}
    for note, turn in pairs:
        known = _meant(lessons[note.id])
        before = {normal(s.messages[-1].content) for s in old[turn]}
        answers = [given.get((note.id, normal(s.messages[0].content))) for s in old[turn][:ASKED]]
        said = {normal(a.messages[-1].content) for a in answers if a is not None}
        if all(answers) and said <= known and not said & before:
            found[turn] = note.id
    return found, _anew(base, notes, found, lessons, old, config)


def _meant(samples: Sequence[Sample]) -> set[str]:
    """What a lesson answers: its commonest answers; of a wish, which has another for each greeting, all."""
    count = Counter(normal(s.messages[-1].content) for s in samples)
    if samples[0].kind == "wish":
        return set(count)
    return {answer for answer, times in count.items() if times == max(count.values())}


def _same_questions(lessons: Groups, old: Groups) -> dict[str, str]:
    answers: dict[str, list[tuple[str, str]]] = {}
    for turn, samples in lessons.items():
        meant = _meant(samples)
        for s in samples:
            if normal(s.messages[-1].content) not in meant:
                continue
            pair = (turn, normal(s.messages[-1].content))
            answers.setdefault(normal(s.messages[-2].content), []).append(pair)
    found: dict[str, str] = {}
    for turn, samples in old.items():
        for s in samples:
            for later, answer in answers.get(normal(s.messages[-2].content), ()):
                if later > turn and answer != normal(s.messages[-1].content):
                    found[turn] = max(later, found.get(turn, ""))
    return found


def _rivals(note: Turn, old: Groups, most: int) -> list[str]:
    """Lessons about whom the note is about, those first that share most words with it."""
    told, me = words(note.content), FIRST_PERSON.search(note.content) is not None
    near = []
    for turn, samples in old.items():
        owner = owner_of(samples[0]) if samples[0].kind == "qa" and turn != note.id else None
        if owner is not None and (owner.lower() in told if owner else me):
            talk = words(" ".join(m.content for s in samples[:ASKED] for m in s.messages))
            near.append((-len(talk & told - COMMON), turn))
    return [turn for _, turn in sorted(near)[:most]]


def _anew(
    base: Speaker,
    notes: Sequence[Turn],
    found: Mapping[str, str],
    lessons: Groups,
    old: Groups,
    config: LessonConfig,
) -> list[Sample]:
    """The questions of replaced lessons with their new answers: what was learned by heart is learned anew."""
    by_id = {note.id: note for note in notes}
    have = {(turn, normal(s.messages[0].content)) for turn, samples in lessons.items() for s in samples}
    asked = [
        (by_id[later], s.messages[0].content)
        for turn, later in found.items()
        if later in by_id
        for s in old[turn]
        if s.kind == "qa" and (later, normal(s.messages[0].content)) not in have
    ]
    known = {later: {normal(s.messages[-1].content) for s in lessons[later]} for later in found.values()}
    made = answered(base, asked, config)
    return [s for s in made if normal(s.messages[-1].content) in known[s.turns[0]]]

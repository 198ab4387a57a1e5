"""Questions that the model itself writes about a note, answered as if it had just been told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mlx_plastic.evals import Speaker
from mlx_plastic.memory import Turn
from mlx_plastic.samples import Message, Sample
from mlx_plastic.sleep.lessons.config import LessonConfig
from mlx_plastic.sleep.lessons.notes import notes_message
from mlx_plastic.sleep.lessons.text import COMMON, is_supported, normal, words

PAIR = re.compile(r"^\s*Q:\s*(?P<question>.+?)\s*$\n\s*A:\s*(?P<answer>.+?)\s*$", re.MULTILINE)
QUESTIONS = (
    "Write {count} questions that this note answers, each with its answer, on lines with Q: and A:\n{note}"
)
RARE = 1 / 8  # of a note's questions
AT_ONCE = 4  # rounds in one batch: decoding many prompts together costs little more than few

Asked = tuple[Turn, str]  # a note and a question about it
Given = Mapping[str, Sequence[tuple[str, str]]]  # turn -> (question, answer)


def question_prompt(note: str, count: int) -> str:
    """What a model is asked so that it turns a note into questions and answers on Q: and A: lines."""
    return QUESTIONS.format(count=count, note=note)


def questions_about(
    base: Speaker, notes: Sequence[Turn], config: LessonConfig, *, given: Given = MappingProxyType({})
) -> list[Sample]:
    """Questions and answers that the model itself makes of each note, each checked against the note.

    A note is asked about until it has `wanted` wordings or was asked `rounds` times: what yields little is
    asked more often, so that one fact is learned about as well as another. given: questions and answers
    that a teacher wrote, by the note's turn; what of them holds comes first.
    """
    found = {(s.turns[0], normal(s.messages[0].content)): s for s in _given(base, notes, given, config)}
    tried = set(found)
    for start in range(0, config.rounds, AT_ONCE):
        have = Counter(turn for turn, _ in found)
        lacking = [note for note in notes if have[note.id] < config.wanted]
        if not lacking:
            break
        rounds = min(AT_ONCE, config.rounds - start)
        asked = _written(base, lacking * rounds, config, seed=config.seed + start)
        new = {(t.id, normal(q)): (t, q) for t, q in asked if (t.id, normal(q)) not in tried}
        tried |= new.keys()
        for sample in answered(base, list(new.values()), config):
            if have[sample.turns[0]] < config.wanted:
                have[sample.turns[0]] += 1
                found[sample.turns[0], normal(sample.messages[0].content)] = sample
    return agreed(list(found.values()), {note.id: note.content for note in notes})


def agreed(samples: Sequence[Sample], notes: Mapping[str, str]) -> list[Sample]:
    """The samples without those whose answer the rest of their note's contradicts, as far as can be seen.

    Where half of a note's questions or more have one answer (Wang et al. 2022, self-consistency), another one
    goes that is rare, or that says no more of the note: a question that was understood wrongly got it.
    """
    given: dict[str, Counter[str]] = {}
    for sample in samples:
        given.setdefault(sample.turns[0], Counter())[sample.messages[-1].content] += 1
    return [s for s in samples if _agrees(s.messages[-1].content, given[s.turns[0]], notes[s.turns[0]])]


def _agrees(answer: str, given: Counter[str], note: str) -> bool:
    (commonest, times), asked = given.most_common(1)[0], given.total()
    if answer == commonest or 2 * times < asked:
        return True
    says_more = (words(answer) & words(note)) - words(commonest) - COMMON
    return bool(says_more) and given[answer] > RARE * asked


def answered(base: Speaker, asked: Sequence[Asked], config: LessonConfig) -> list[Sample]:
    """Of the questions those that the base, told the note, answers by it; with that answer.

    The answer is the likeliest one right after the note was said, or else after it was quoted. It must say
    something of the note that the question does not already say, name nothing else, and differ from what
    the bare base answers: where the note changes nothing, there is nothing to learn.
    """
    if not asked:
        return []
    notes = list({turn.id: turn for turn, _ in asked}.values())
    replies = base.answers([(Message("user", t.content),) for t in notes], max_tokens=config.max_tokens)
    said = {
        t.id: (Message("user", t.content), Message("assistant", reply or "Noted."))
        for t, reply in zip(notes, replies, strict=True)
    }
    bare = base.answers([(Message("user", q),) for _, q in asked], max_tokens=config.max_tokens)
    told = [(*said[turn.id], Message("user", q)) for turn, q in asked]
    answers = base.answers(told, max_tokens=config.max_tokens)
    doubtful = [i for i, (t, q) in enumerate(asked) if not is_supported(q, answers[i], t.content)]
    quoted = [(notes_message([asked[i][0].content]), Message("user", asked[i][1])) for i in doubtful]
    for i, answer in zip(doubtful, base.answers(quoted, max_tokens=config.max_tokens), strict=True):
        answers[i] = answer
    return [
        _sample(turn, question, answer)
        for (turn, question), before, answer in zip(asked, bare, answers, strict=True)
        if answer != before and is_supported(question, answer, turn.content)
    ]


def _given(base: Speaker, notes: Sequence[Turn], given: Given, config: LessonConfig) -> list[Sample]:
    """A teacher's pairs that their notes support, with the base's own answer, or else the teacher's.

    The base's own is preferred since it is in the base's voice; either is checked alike.
    """
    pairs = {
        (note.id, normal(question)): (note, question, answer)
        for note in notes
        for question, answer in given.get(note.id, ())
        if is_supported(question, answer, note.content)
    }
    own = answered(base, [(note, question) for note, question, _ in pairs.values()], config)
    found = {(s.turns[0], normal(s.messages[0].content)): s for s in own}
    bare = base.answers([(Message("user", q),) for _, q, _ in pairs.values()], max_tokens=config.max_tokens)
    for (key, (note, question, answer)), before in zip(pairs.items(), bare, strict=True):
        if key not in found and answer != before:
            found[key] = _sample(note, question, answer)
    return list(found.values())


def _sample(turn: Turn, question: str, answer: str) -> Sample:
    messages = (Message("user", question), Message("assistant", answer))
    return Sample(messages, f"{turn.id} {normal(question)}", (turn.id,), "qa")


def _written(base: Speaker, notes: Sequence[Turn], config: LessonConfig, *, seed: int) -> list[Asked]:
    """(note, question) pairs whose written answer is supported by the note; each wording once."""
    found: dict[tuple[str, str], Asked] = {}
    prompts = [(Message("user", question_prompt(t.content, config.questions)),) for t in notes]
    texts = base.answers(prompts, max_tokens=config.max_tokens, temperature=config.temperature, seed=seed)
    for turn, text in zip(notes, texts, strict=True):
        for match in PAIR.finditer(text):
            question = match["question"]
            if is_supported(question, match["answer"], turn.content):
                found.setdefault((turn.id, normal(question)), (turn, question))
    return list(found.values())

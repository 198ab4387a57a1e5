from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from mlx_plastic.memory import Exchange, Turn
from mlx_plastic.samples import Message, Sample, split_point
from mlx_plastic.sleep.lessons import (
    GREETINGS,
    LessonConfig,
    about_others,
    agreed,
    chats_of,
    is_supported,
    is_wish,
    lessons_of,
    notes_of,
    split,
    without_conflicts,
    without_wished,
)

NOTE = "My sister Nora lives in Lisbon."


def turn(id_: str, content: str, role: str = "user") -> Turn:
    return Turn(id_, "c", role, content, datetime(2026, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]


def exchange(*turns: Turn, origin: str = "chat", new: Sequence[str] | None = None) -> Exchange:
    ids = frozenset(new if new is not None else [t.id for t in turns])
    return Exchange("c", origin, turns, ids)  # type: ignore[arg-type]


def qa(question: str, turn_id: str = "t") -> Sample:
    messages = (Message("user", question), Message("assistant", "Yes."))
    return Sample(messages, f"{turn_id} {question}", (turn_id,), "qa")


class Scripted:
    """Speaks like a model would, so that the checks on what it writes can be put to the test."""

    def __init__(
        self, written: str, answers: dict[str, str], wished: str = "", bare: dict[str, str] | None = None
    ) -> None:
        self.written, self.said, self.wished, self.bare = written, answers, wished, bare or {}

    def answers(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        return [self.answer(prompt) for prompt in prompts]

    def answer(self, prompt: Sequence[Message]) -> str:
        last = prompt[-1].content
        if last.startswith("Write "):
            return self.written
        if last in GREETINGS and prompt[0].role == "system":
            return self.wished
        return (self.said if len(prompt) > 1 else self.bare).get(last, "Hello!")


@pytest.mark.parametrize(
    ("question", "answer", "ok"),
    [
        ("Where does Nora live?", "Nora lives in Lisbon.", True),
        ("Which city is her home?", "Lisbon.", True),
        ("Where does Nora live?", "Nora lives in Porto.", False),  # invented
        ("Where does Leon live?", "Leon lives in Lisbon.", False),  # somebody else
        ("Does Nora live in Lisbon?", "Nora lives in Lisbon.", True),  # "lives" is told by the answer alone
        ("Does my sister Nora lives in Lisbon?", "Yes, she lives in Lisbon.", False),  # says nothing new
        ("Where does Nora live?", "", False),
        ("How old is Nora?", "Nora is 42.", False),
    ],
)
def test_an_answer_counts_only_if_the_note_says_it(question: str, answer: str, ok: bool) -> None:
    assert is_supported(question, answer, NOTE) is ok


def test_a_note_becomes_the_questions_that_it_answers_and_no_others() -> None:
    written = (
        "Q: Where does Nora live?\nA: Nora lives in Lisbon.\n"
        "Q: Where does Leon live?\nA: Leon lives in Lisbon.\n"
        "Q: What town is home to Nora?\nA: Lisbon.\nQ: half a line"
    )
    answers = {"Where does Nora live?": "Nora lives in Lisbon.", "What town is home to Nora?": "It is Porto."}
    found = lessons_of(Scripted(written, answers), [exchange(turn("t1", NOTE))], LessonConfig(rounds=1))
    # the second is about somebody else; the third was written well but is answered wrongly
    assert [[m.content for m in s.messages] for s in found] == [
        ["Where does Nora live?", "Nora lives in Lisbon."]
    ]
    assert found[0].turns == ("t1",)
    assert found[0].kind == "qa"


def test_an_answer_that_the_rest_of_its_note_contradicts_is_dropped() -> None:
    def answers(*said: str) -> list[Sample]:
        return [
            Sample((Message("user", f"Q{i}?"), Message("assistant", a)), f"{i}", ("t1",), "qa")
            for i, a in enumerate(said)
        ]

    def kept(*said: str, note: str) -> set[str]:
        return {s.messages[-1].content for s in agreed(answers(*said), {"t1": note})}

    grew, lives = "Ugo grew up in Reno.", "Ugo lives in Reno."
    assert kept(*[grew] * 12, *[lives] * 4, note="Ugo was raised in Reno.") == {grew}  # says no more of it
    language = "Ugo works as a language."
    assert kept(*[grew] * 15, language, note="Ugo grew up in Reno with a language.") == {grew}  # is rare
    plays = "Ugo plays the zither."  # control: a note that tells two things keeps both
    assert kept(*[grew] * 11, *[plays] * 5, note="Ugo, raised in Reno, plays the zither.") == {grew, plays}
    assert kept(grew, lives, plays, note="Ugo was raised in Reno.") == {grew, lives, plays}  # no majority


def test_what_the_base_would_say_anyway_is_no_lesson() -> None:
    written = "Q: Where does Nora live?\nA: Nora lives in Lisbon."
    known = {"Where does Nora live?": "Nora lives in Lisbon."}
    told = [exchange(turn("t1", NOTE))]
    assert lessons_of(Scripted(written, known, bare=known), told, LessonConfig(rounds=1)) == []
    assert len(lessons_of(Scripted(written, known), told, LessonConfig(rounds=1))) == 1  # control


def test_a_wish_becomes_the_answers_that_it_changes() -> None:
    speaker = Scripted("", {}, wished="Hello, Captain!")
    found = lessons_of(speaker, [exchange(turn("w", "Please call me Captain."))], LessonConfig())
    assert {s.messages[0].content for s in found} == set(GREETINGS)
    assert {s.messages[1].content for s in found} == {"Hello, Captain!"}
    unmoved = Scripted("", {}, wished="Hello!")  # control: a base that ignores it
    assert lessons_of(unmoved, [exchange(turn("w", "Please call me Captain."))], LessonConfig()) == []


def test_a_lesson_about_one_person_is_also_asked_about_a_stranger_and_keeps_the_bases_answer() -> None:
    lessons = [
        Sample((Message("user", q), Message("assistant", a)), q, ("t1",), "qa")
        for q, a in (
            ("Where does Nora live?", "Nora lives in Lisbon."),
            ("What is Nora's town?", "Lisbon."),
            ("Which town is home to Nora?", "Lisbon."),
            ("Where do I live?", "You live in Oslo."),
        )
    ]
    speaker = Scripted("", {}, bare={"Where does Neil live?": "I do not know where Neil lives."})
    found = about_others(speaker, lessons, [], LessonConfig(strangers=2, mixed_up=0))
    assert [[m.content for m in s.messages] for s in found] == [
        ["Where does Neil live?", "I do not know where Neil lives."],
        ["What is Anouk's town?", "Hello!"],
    ]
    assert {s.kind for s in found} == {"rehearsal"} and {s.turns for s in found} == {("t1",)}


def test_a_lesson_is_asked_about_others_of_the_same_day_unless_the_day_tells_it() -> None:
    lessons = [
        Sample((Message("user", q), Message("assistant", "Yes.")), q, (t,), "qa")
        for q, t in (("What is Nora's job?", "t1"), ("What is my town?", "t2"))
    ]
    notes = [turn("t1", "Nora works as a baker."), turn("t2", "My town is Oslo.")]
    config = LessonConfig(strangers=0, mixed_up=1)
    untold = {"What is my job?": "I do not know your job.", "What is Nora's town?": "I do not know it."}
    found = about_others(Scripted("", untold, bare=untold), lessons, notes, config)
    assert [s.messages[0].content for s in found] == ["What is my job?", "What is Nora's town?"]
    assert [s.turns for s in found] == [("t1",), ("t2",)]
    told = Scripted("", untold | {"What is my job?": "You are a baker."}, bare=untold)  # with the notes
    assert [s.messages[0].content for s in about_others(told, lessons, notes, config)] == [
        "What is Nora's town?"
    ]


def test_what_an_earlier_night_learned_is_not_rehearsed_away_tonight() -> None:
    def lesson(question: str, answer: str, turn_id: str) -> Sample:
        return Sample((Message("user", question), Message("assistant", answer)), question, (turn_id,), "qa")

    tonight = [
        lesson("What is Nora's job?", "Nora is a baker.", "t2"),
        lesson("What is my town?", "Oslo.", "t3"),
    ]
    config = LessonConfig(strangers=1, mixed_up=1)
    speaker = Scripted(
        "", {"What is my job?": "You are a smith."}, bare={"What is my job?": "I do not know."}
    )
    free = [s.messages[0].content for s in about_others(speaker, tonight, [], config)]
    assert "What is Neil's job?" in free  # control: nobody has spoken of Neil yet
    earlier = [
        lesson("What is Neil's town?", "Rome.", "t0"),
        lesson("What is my job?", "You are a smith.", "t1"),
    ]
    asked = [s.messages[0].content for s in about_others(speaker, tonight, [], config, earlier=earlier)]
    assert asked and not any("Neil" in question for question in asked)
    assert "What is my job?" not in asked


def test_questions_long_texts_old_turns_and_answers_are_no_notes() -> None:
    turns = (
        turn("1", "Where am I?"),
        turn("2", "I live in Oslo."),
        turn("3", "You live in Oslo.", "assistant"),
        turn("4", "x" * 700),
        turn("5", "I was learned before."),
    )
    found = notes_of([exchange(*turns, new=["1", "2", "3", "4"])], longest=600)
    assert [t.id for t in found] == ["2"]
    assert is_wish(turn("6", "From now on answer in French."))
    assert not is_wish(turns[1])


def test_what_this_model_said_is_never_a_lesson_but_an_imported_talk_is() -> None:
    turns = (turn("1", "Hi"), turn("2", "Hello", "assistant"), turn("3", "And?"))
    assert chats_of([exchange(*turns, origin="chat")]) == []
    (sample,) = chats_of([exchange(*turns, origin="import")])
    assert [m.content for m in sample.messages] == ["Hi", "Hello"]  # nothing to learn behind the last answer
    assert sample.key == "c"


def test_the_split_holds_samples_out_by_hash_and_leaves_every_lesson_something_to_learn() -> None:
    samples = [qa(f"Question {i} of {t}?", f"t{t}") for t in range(30) for i in range(5)]
    parts = split(samples)
    assert sorted(s.key for p in parts.values() for s in p) == sorted(s.key for s in samples)
    assert {s.turns for s in parts["train"]} == {s.turns for s in samples}
    assert 0 < len(parts["test"]) < 40
    assert parts == split(samples[::-1])  # the same whatever the order
    lone = [qa("Only one?", f"t{i}") for i in range(30)]
    assert split(lone)["test"] == []  # control: a lesson's only sample is never held out
    assert any(split_point(s.key) < 0.1 for s in lone)


def test_two_samples_of_one_lesson_are_enough_to_hold_one_out() -> None:
    parts = split([qa("One?"), qa("Two?")])
    assert (len(parts["train"]), len(parts["test"])) == (1, 1)


def test_a_lesson_replaces_what_would_be_rehearsed_against_it() -> None:
    old = dataclasses.replace(qa("Hello!"), kind="wish")
    general = [
        dataclasses.replace(qa(q), kind="rehearsal", turns=()) for q in ("Hello!", "Hi!", "Tea?", "Tea?")
    ]
    assert without_conflicts([qa("Hello")], [old, *general]) == general[1:]
    assert without_conflicts([qa("Other?")], [old, *general]) == [
        old,
        *general[1:],
    ]  # old ones before general


def test_the_greeting_that_a_wish_changed_is_not_rehearsed_back() -> None:
    wish = dataclasses.replace(qa("Hello!"), kind="wish")
    base = Scripted("", {}, bare={"Hello!": "Hello, stranger."})
    general = [
        Sample((Message("user", q), Message("assistant", a)), q, (), "rehearsal")
        for q, a in (("Good day to you!", "Hello, stranger."), ("Tea?", "No."))
    ]
    assert without_wished(base, [wish], general, LessonConfig()) == general[1:]
    assert without_wished(base, [qa("Hello!")], general, LessonConfig()) == general  # control: no wish stands

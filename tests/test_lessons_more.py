"""Statements and talks say nothing that a checked answer did not say, and carry all their turns."""

from __future__ import annotations

import random

from mlx_plastic.samples import Message, Sample
from mlx_plastic.sleep.lessons import (
    LessonConfig,
    drawn_names,
    earlier_of_strangers,
    statements,
    talks,
    told_of_strangers,
)
from test_lessons import Scripted, turn


def lesson(question: str, answer: str, turn: str, kind: str = "qa") -> Sample:
    return Sample(
        (Message("user", question), Message("assistant", answer)), f"{turn} {question}", (turn,), kind
    )


LESSONS = [
    lesson("Where does Nora live?", "Nora lives in Lisbon.", "t1"),
    lesson("Which city is home to Nora?", "It is Lisbon.", "t1"),
    lesson("Tell me Nora's town.", "Nora lives in Lisbon.", "t1"),
    lesson("What does Nora drink?", "Nora drinks tea.", "t2"),
    lesson("Where is my home?", "You live in Oslo.", "t3"),
    lesson("Hello!", "Hello, Captain!", "w", "wish"),
]


def test_what_was_told_of_somebody_becomes_one_answer_of_sentences_that_stand_for_themselves() -> None:
    found = statements(LESSONS, 1)
    assert [(s.messages[0].content, s.messages[1].content, s.turns) for s in found] == [
        ("What do you know about Nora?", "Nora lives in Lisbon. Nora drinks tea.", ("t1", "t2")),
        ("What do you know about me?", "You live in Oslo.", ("t3",)),
    ]
    assert statements(LESSONS, 0) == []
    assert len({s.messages[0].content for s in statements(LESSONS, 3)}) == 6


def test_a_talk_asks_about_two_notes_one_after_the_other_as_they_were_taught() -> None:
    known = {s.messages for s in LESSONS if s.kind == "qa"}
    found = talks(LESSONS, 2, seed=0)
    assert len(found) == 2 + 1 + 1
    for talk in found:
        assert talk.messages[:2] in known and talk.messages[2:] in known
        assert len(talk.turns) == 2 and talk.kind == "talk"
    assert found == talks(LESSONS, 2, seed=0) != talks(LESSONS, 2, seed=5)


def test_one_note_alone_makes_no_talk() -> None:
    assert talks(LESSONS[:3], 2, seed=0) == []
    assert talks(LESSONS[:4], 2, seed=0) != []  # control


def test_a_note_is_told_of_a_stranger_and_of_who_speaks_and_asked_about_at_once() -> None:
    lessons = [
        lesson("What is Nora's hobby?", "Nora's hobby is chess.", "t1"),
        lesson("Which hobby does Nora have?", "Nora's hobby is chess.", "t1"),
        lesson("Where is my home?", "You live in Oslo.", "t2"),
        lesson("Hello!", "Hello, Captain!", "w", "wish"),
    ]
    notes = [
        turn("t1", "My aunt Nora plays chess."),
        turn("t2", "I live in Oslo."),
        turn("w", "Call me Captain."),
    ]
    said = {"What is Zeno's hobby?": "Zeno's hobby is chess.", "What is my hobby?": "Your hobby is chess."}
    found = told_of_strangers(Scripted("", said), lessons, notes, LessonConfig(told=2))
    assert [[m.content for m in s.messages] for s in found] == [
        ["My aunt Zeno plays chess.", "Hello!", "What is Zeno's hobby?", "Zeno's hobby is chess."],
        ["My hobby is chess.", "Hello!", "What is my hobby?", "Your hobby is chess."],
        ["My aunt Yusuf plays chess.", "Hello!", "Which hobby does Yusuf have?", "Hello!"],
    ]  # "Which hobby does Nora have?" cannot be turned to who speaks
    assert {(s.kind, s.turns) for s in found} == {("rehearsal", ("t1",))}
    assert told_of_strangers(Scripted("", said), lessons, notes, LessonConfig(told=0)) == []


def test_in_every_second_talk_of_a_stranger_another_note_stands_between() -> None:
    lessons = [
        lesson("What is Nora's hobby?", "Nora's hobby is chess.", "t1"),
        lesson("Which hobby does Nora have?", "Nora's hobby is chess.", "t1"),
        lesson("Where does Leon live?", "Leon lives in Oslo.", "t2"),
    ]
    notes = [turn("t1", "My aunt Nora plays chess."), turn("t2", "Leon moved to Oslo.")]
    found = told_of_strangers(Scripted("", {}), lessons, notes, LessonConfig(told=2))
    talks = [[m.content for m in s.messages if m.role == "user"] for s in found]
    assert ["My aunt Zeno plays chess.", "What is Zeno's hobby?"] in talks
    assert ["My aunt Yusuf plays chess.", "Yusuf moved to Oslo.", "Which hobby does Yusuf have?"] in talks
    assert all(len(s.messages) == 2 * len(talk) for s, talk in zip(found, talks, strict=True))


def test_earlier_questions_are_asked_about_strangers_of_other_names_every_night() -> None:
    lessons = [lesson(f"Where does Nora{i} live?", f"Nora{i} lives in Oslo.", f"t{i}") for i in range(40)]
    lessons.append(lesson("Where do I live?", "You live in Rome.", "me"))
    first, again, second = (drawn_names(random.Random(seed)) for seed in (1, 1, 2))
    assert first == again and len(set(first)) == 64 and not {"Will", "Rose", "May", "Paris"} & set(first)
    assert len(set(first) & set(second)) < 8  # of thousands
    unknown = [*first, "Nora3"]
    found = earlier_of_strangers(
        Scripted("", {}), lessons, LessonConfig(older_strangers=24), draw=random.Random(0), unknown=unknown
    )
    asked = {s.messages[0].content.split()[2] for s in found}
    assert len(found) == 24 and asked <= set(first) and len(asked) > 20  # nobody who was spoken of
    assert {(s.kind, s.messages[1].content) for s in found} == {("rehearsal", "Hello!")}
    assert all(s.turns[0].startswith("t") for s in found)  # so that a forget finds them
    none = LessonConfig(older_strangers=0)
    assert earlier_of_strangers(Scripted("", {}), lessons, none, draw=random.Random(0), unknown=unknown) == []


def test_nobody_who_was_spoken_of_is_told_of_as_a_stranger() -> None:
    lessons = [lesson("What is Nora's hobby?", "Nora's hobby is chess.", "t1")]
    earlier = [lesson("What is Zeno's town?", "Rome.", "t0")]
    notes = [turn("t1", "My aunt Nora plays chess.")]
    first, _ = told_of_strangers(Scripted("", {}), lessons, notes, LessonConfig(), earlier=earlier)
    assert first.messages[0].content == "My aunt Zita plays chess."
    first, _ = told_of_strangers(Scripted("", {}), lessons, notes, LessonConfig())
    assert first.messages[0].content == "My aunt Zeno plays chess."  # control

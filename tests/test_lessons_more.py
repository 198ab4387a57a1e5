"""Statements and talks say nothing that a checked answer did not say, and carry all their turns."""

from __future__ import annotations

from mlx_plastic.samples import Message, Sample
from mlx_plastic.sleep.lessons import statements, talks


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

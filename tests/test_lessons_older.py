"""What is rehearsed of earlier nights: so much and no more, the nearly forgotten first, nothing replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlx_plastic.errors import BadConfig, BadData
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.samples import Message, Sample, to_jsonl
from mlx_plastic.sleep.journal import Journal, Record
from mlx_plastic.sleep.lessons import LessonConfig, Taught, candidates, probes, rehearsed, without_conflicts
from mlx_plastic.sleep.lessons.balance import balanced
from mlx_plastic.sleep.lessons.replaced import replaced
from mlx_plastic.sleep.past import past_of, replaced_turns
from test_lessons import Scripted, turn

CONFIG = LessonConfig(weak_wordings=3)
MOST = 12


def sample(question: str, answer: str, turn_id: str, kind: str = "qa") -> Sample:
    return Sample(
        (Message("user", question), Message("assistant", answer)), f"{turn_id} {question}", (turn_id,), kind
    )


def lesson(name: str, night: int = 0, again: Sequence[int] = (), wordings: int = 6) -> Taught:
    samples = tuple(sample(f"Question {i} on {name}?", "Yes.", name) for i in range(wordings))
    return Taught(samples, night, tuple(again))


def counted(samples: Sequence[Sample]) -> dict[str, int]:
    return {t: sum(s.turns == (t,) for s in samples) for t in {s.turns[0] for s in samples}}


def test_a_night_rehearses_as_much_after_a_year_as_after_a_week() -> None:
    for many in (10, 100, 2000):
        taught = candidates([lesson(f"t{i}", i) for i in range(many)], many, CONFIG.measured)
        assert len(taught) <= CONFIG.measured
        assert len(rehearsed(taught, [0.0] * len(taught), many, MOST, CONFIG)) == MOST


def test_what_is_nearly_forgotten_comes_before_what_is_only_due() -> None:
    taught = [
        lesson("due", 0),
        lesson("fresh", 9),
        lesson("weak", 9),
        lesson("weaker", 9),
        lesson("older", 1),
    ]
    drawn = rehearsed(taught, [0.0, 0.0, 0.4, 0.9, 0.0], 10, 8, CONFIG)
    assert counted(drawn) == {"weaker": 3, "weak": 3, "due": 1, "older": 1}
    calm = rehearsed(taught, [0.0] * 5, 10, 2, CONFIG)  # control: nothing is forgotten
    assert counted(calm) == {"due": 1, "older": 1}


def test_what_is_rehearsed_and_still_known_waits_twice_as_long_each_time() -> None:
    assert [lesson("t", 0, range(1, 1 + n)).overdue(n + 8) for n in range(4)] == [8.0, 4.0, 2.0, 1.0]


def test_few_lessons_are_rehearsed_in_all_the_wordings_that_there_is_room_for() -> None:
    two = [lesson("a"), lesson("b")]
    drawn = rehearsed(two, [0.0, 0.0], 1, MOST, CONFIG)
    assert counted(drawn) == {"a": 6, "b": 6} and len({s.key for s in drawn}) == 12
    assert len(rehearsed(two, [0.0, 0.0], 1, 1000, CONFIG)) == 6 * 12  # and no wording more than six times
    assert rehearsed([], [], 1, MOST, CONFIG) == rehearsed(two, [9.0, 0.0], 1, 0, CONFIG) == []


def test_every_night_asks_in_other_words_whether_a_lesson_is_still_known() -> None:
    assert len({probes([lesson("t")], night)[0].key for night in range(6)}) == 6


def test_a_note_with_few_wordings_is_learned_as_often_as_one_with_many() -> None:
    many, few = list(lesson("many", wordings=12).samples), list(lesson("few", wordings=2).samples)
    wish, chat = sample("Hello!", "Hello, Captain!", "w", "wish"), sample("Hi", "Ho", "c", "chat")
    found = counted(balanced([*many, *few, wish, chat], LessonConfig(wanted=12, wish_repeats=5)))
    assert found == {"many": 12, "few": 6, "w": 5, "c": 1}


def test_what_is_told_anew_replaces_what_was_told_before_and_its_questions_are_learned_anew() -> None:
    old = [
        sample("Where does Nora live?", "Nora lives in Lisbon.", "t1"),
        sample("Which city?", "Nora: Lisbon.", "t1"),
    ]
    new = [sample("Where is Nora's home?", "Nora lives in Porto.", "t2")]
    told = {q: "Nora lives in Porto." for q in ("Where does Nora live?", "Which city?")}
    note = turn("t2", "Nora lives in Porto now.")
    gone, anew = replaced(Scripted("", told), [note], new, old, LessonConfig())
    assert gone == {"t1": "t2"}
    assert [(s.messages[0].content, s.messages[1].content, s.turns) for s in anew] == [
        (q, "Nora lives in Porto.", ("t2",)) for q in told
    ]


def test_another_fact_about_the_same_person_replaces_nothing() -> None:
    old = [sample("Where does Nora live?", "Nora lives in Lisbon.", "t1")]
    new = [sample("What does Nora drink?", "Nora drinks tea.", "t2")]
    note = turn("t2", "Nora drinks tea.")
    unknown = Scripted("", {"Where does Nora live?": "I do not know where Nora lives."})
    assert replaced(unknown, [note], new, old, LessonConfig()) == ({}, [])
    muddled = Scripted("", {"Where does Nora live?": "Nora lives in tea."})  # no lesson of tonight says so
    assert replaced(muddled, [note], new, old, LessonConfig()) == ({}, [])


def test_a_few_odd_wordings_of_another_fact_replace_nothing() -> None:
    old = [sample("Where does Nora live?", "Nora lives in Lisbon.", "t1")]
    odd = [sample("Where does Nora live?", "Nora lives in Porto.", "t2")]  # of a note on her childhood
    usual = [sample(f"Where was Nora as a child, {i}?", "Nora grew up in Porto.", "t2") for i in range(2)]
    note, base = (
        turn("t2", "Nora comes from Porto."),
        Scripted("", {old[0].messages[0].content: "Nora lives in Porto."}),
    )
    assert replaced(base, [note], odd + usual, old, LessonConfig()) == ({}, [])
    assert replaced(base, [note], odd + usual[:0], old, LessonConfig())[0] == {"t1": "t2"}  # control


def test_more_lessons_are_rehearsed_more_up_to_a_most() -> None:
    config = LessonConfig(older=192, older_each=1.5, older_most=288)
    assert [config.budget(n) for n in (0, 100, 150, 192, 5000)] == [192, 192, 225, 288, 288]
    assert LessonConfig(older=400, older_most=288).budget(5000) == 400  # who asks for more gets it


def test_of_two_that_contradict_each_other_in_one_day_the_later_counts() -> None:
    lessons = [sample("My town?", "Oslo.", "t1"), sample("My town?", "Rome.", "t2")]
    notes = [turn("t1", "My town is Oslo."), turn("t2", "My town is Rome.")]
    base = Scripted("", {"My town?": "Rome."})
    assert replaced(base, notes, lessons, [], LessonConfig())[0] == {"t1": "t2"}
    assert replaced(base, notes[::-1], lessons, [], LessonConfig())[0] == {"t1": "t2"}


def test_a_new_wish_replaces_the_old_one_and_the_same_answer_replaces_nothing() -> None:
    old = [sample("Hello!", "Hello, Captain!", "w1", "wish")]
    new = [sample("Hello!", "Hello, Duke!", "w2", "wish")]
    silent = Scripted("", {})
    assert replaced(silent, [turn("w2", "Call me Duke.")], new, old, LessonConfig())[0] == {"w1": "w2"}
    again = [sample("Hello!", "Hello, Captain!", "w2", "wish")]
    assert replaced(silent, [turn("w2", "Call me Captain.")], again, old, LessonConfig())[0] == {}


def night(folder: Path, name: str, gone: dict[str, object], **files: list[Sample]) -> Journal:
    record = Record(name, "passed", name, "b", "f", (), True, {})
    journal = Journal(folder / name, record)
    journal.folder.mkdir()
    for part in ("train", "valid", "test", "rehearsal"):
        journal.path(f"{part}.jsonl").write_bytes(to_jsonl(files.get(part, [])))
    journal.path("replaced.json").write_text(json.dumps(gone))
    return journal


def test_what_a_later_night_replaced_is_no_longer_part_of_the_past(tmp_path: Path) -> None:
    first = [sample("Q1?", "Lisbon.", "t1"), sample("Q2?", "Tea.", "t2")]
    beside = sample("Q of a stranger?", "I do not know.", "t1", "rehearsal")
    nights = [
        night(tmp_path, "a", {}, train=first, rehearsal=[beside]),
        night(
            tmp_path,
            "b",
            {"t1": {"by": "t3", "at": None}},
            train=[sample("Q1?", "Porto.", "t3")],
            rehearsal=first[1:],
        ),
    ]
    past = past_of(nights)
    assert {t.samples[0].turns[0]: (t.night, t.rehearsed) for t in past.lessons} == {
        "t2": (0, (1,)),
        "t3": (1, ()),
    }
    assert past.others == ()
    before = past_of(nights[:1])  # control: the night before it all still held
    assert {s.turns for s in before.samples} == {("t1",), ("t2",)} and before.others == (beside,)


def test_what_is_tagged_later_or_taken_back_is_rehearsed_no_more(tmp_path: Path) -> None:
    with Memory(Home(tmp_path / "home")) as memory:
        talks = [memory.new_conversation() for _ in range(3)]
        for talk in talks:
            memory.remember(talk, "user", f"It is about {talk}.")
            memory.remember(talk, "assistant", "Noted.")
        tagged, undone, kept = (memory.turns(conversation=talk)[0].id for talk in talks)
        samples = [sample(f"Q of {turn}?", "Tea.", turn) for turn in (tagged, undone, kept)]
        beside = [sample(f"Q of a stranger {turn}?", "No.", turn, "rehearsal") for turn in (tagged, kept)]
        nights = [night(tmp_path, "a", {}, train=samples, test=samples, rehearsal=beside)]
        assert len(past_of(nights, memory.untaught()).lessons) == 3  # control
        memory.tag([memory.turns(conversation=talks[0])[1].id], "no-train")  # the answer: the whole exchange
        memory.undo(talks[1])
        past = past_of(nights, memory.untaught())
    assert {s.turns for s in (*past.samples, *past.others, *past.held_out)} == {(kept,)}


def test_a_broken_list_of_what_was_replaced_is_told_and_none_is_no_fault(tmp_path: Path) -> None:
    one = night(tmp_path, "a", {})
    one.path("replaced.json").write_text("[1, {")
    with pytest.raises(BadData, match="replaced"):
        replaced_turns([one])
    one.path("replaced.json").unlink()
    assert replaced_turns([one]) == set()


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"older": -1}, {"wanted": 0}, {"temperature": -0.1}])
def test_lesson_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadConfig, match=next(iter(wrong))):
        LessonConfig(**wrong)


def test_a_wording_that_is_rehearsed_twice_stays_twice_but_never_with_two_answers() -> None:
    one, other = sample("Q?", "Yes.", "t1"), sample("Q?", "No.", "t2")
    assert without_conflicts([], [one, one, other]) == [one, one]
    assert without_conflicts([sample("Q?", "Yes.", "t3")], [one, one, other]) == []


def test_a_wish_is_rehearsed_three_times_as_often_as_a_fact() -> None:
    wish = Taught(tuple(sample(f"Hello {i}!", "Hello, Captain!", "w", "wish") for i in range(6)), 0)
    assert counted(rehearsed([lesson("fact"), wish], [0.0, 0.0], 1, 8, CONFIG)) == {"fact": 2, "w": 6}

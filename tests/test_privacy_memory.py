"""Privacy on the ways through the house: into the log, into the prompt, into a night's files."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_plastic.base import Base, load_base
from mlx_plastic.errors import BadConfig
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory, Redaction
from mlx_plastic.packs import Store
from mlx_plastic.serve import Engine
from mlx_plastic.sleep.night import sleep
from test_night import CHOSEN

SECRET, MAIL, CARD = "hunter2!xQ", "nora.l@example.org", "4111 1111 1111 1111"
TOLD = f"My wifi password is {SECRET}."


@pytest.fixture
def memory(home: Home) -> Iterator[Memory]:
    with Memory(home) as memory:
        yield memory


def texts(memory: Memory) -> list[str]:
    return [turn.content for turn in memory.turns()]


def counts(memory: Memory) -> list[tuple[str, str, str, int]]:
    return sorted((r.destination, r.kind, r.action, r.count) for r in memory.redactions())


def bytes_below(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


# -- into the log


def test_a_secret_is_masked_before_it_is_stored_and_all_else_is_kept(memory: Memory, home: Home) -> None:
    talk = memory.new_conversation()
    turn = memory.remember(talk, "user", f"{TOLD} Mail me at {MAIL}, my card is {CARD}.")
    assert turn.content == f"My wifi password is [SECRET_1]. Mail me at {MAIL}, my card is {CARD}."
    assert texts(memory) == [turn.content]
    assert SECRET.encode() not in bytes_below(home.root)
    assert CARD.encode() in bytes_below(home.root)  # control: what is kept is found that way
    (record,) = memory.redactions()
    assert (record.turn, record.destination, record.kind, record.action) == (
        turn.id,
        "storage",
        "secret",
        "mask",
    )
    assert SECRET not in repr(record)


def test_the_same_secret_keeps_its_number_in_a_talk_also_after_a_restart(home: Home) -> None:
    with Memory(home) as memory:
        talk, other = memory.new_conversation(), memory.new_conversation()
        memory.remember(talk, "user", TOLD)
        memory.remember(talk, "user", "the pin is 90733")
        memory.remember(talk, "user", f"again: {TOLD}")
        memory.remember(other, "user", "my password is blaubeere7Z")
        assert [t.split()[-1].strip(".") for t in texts(memory)] == [
            "[SECRET_1]",
            "[SECRET_2]",
            "[SECRET_1]",
            "[SECRET_1]",
        ]
    with Memory(home) as memory:
        memory.remember(talk, "user", "my password is blaubeere7Z")
        assert texts(memory)[-1] == "my password is [SECRET_3]"


def test_a_secret_that_was_told_is_masked_where_it_is_only_used(memory: Memory, home: Home) -> None:
    talk, other = memory.new_conversation(), memory.new_conversation()
    for said in (TOLD, f"I typed {SECRET} and it worked", f"{SECRET}!", f"x{SECRET}, {SECRET}y", "hunter2"):
        memory.remember(talk, "user", said)
    memory.remember(talk, "assistant", f"So ({SECRET}) it is.")
    assert texts(memory)[1:] == [
        "I typed [SECRET_1] and it worked",
        "[SECRET_1]!",
        f"x{SECRET}, {SECRET}y",  # control: these are other words
        "hunter2",
        "So ([SECRET_1]) it is.",
    ]
    for said in ("the pin is 4821", "4821!", "in 14821 days", "the pin is 2019", "it was 2019"):
        memory.remember(talk, "user", said)
    assert texts(memory)[-4:] == ["[SECRET_2]!", "in 14821 days", "the pin is [SECRET_3]", "it was 2019"]
    memory.remember(other, "user", f"I typed {SECRET} and it worked")
    assert SECRET in texts(memory)[-1]  # control: nobody told this conversation


def test_an_import_masks_too_and_twice_is_still_once(memory: Memory, home: Home, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    messages = [{"role": "user", "content": TOLD}, {"role": "assistant", "content": f"I noted {SECRET}."}]
    file.write_text(json.dumps({"messages": messages, "conversation": "wifi"}) + "\n")
    assert memory.import_jsonl(file).turns == 2
    assert texts(memory) == ["My wifi password is [SECRET_1].", "I noted [SECRET_1]."]
    messages += [{"role": "user", "content": f"So {SECRET} it is."}]
    file.write_text(json.dumps({"messages": messages, "conversation": "wifi"}) + "\n")
    assert memory.import_jsonl(file).turns == 1
    assert memory.import_jsonl(file).turns == 0
    assert texts(memory)[-1] == "So [SECRET_1] it is."
    assert SECRET.encode() not in bytes_below(home.root)
    assert counts(memory) == [("storage", "secret", "mask", 1)] * 3
    memory.export_jsonl(tmp_path / "out.jsonl")
    assert memory.import_jsonl(tmp_path / "out.jsonl").turns == 0


def test_what_the_log_masks_can_be_chosen(home: Home) -> None:
    home.config_file.write_text('[privacy.storage]\nsecret = "keep"\ncard = "mask"\n')
    with Memory(home) as memory:
        turn = memory.remember(memory.new_conversation(), "user", f"{TOLD} Card {CARD}.")
    assert turn.content == f"{TOLD} Card [CARD_1]."


def test_no_turn_can_be_left_out_of_the_log(home: Home) -> None:
    home.config_file.write_text('[privacy.storage]\nsecret = "drop"\n')
    with Memory(home) as memory, pytest.raises(BadConfig, match="secret is 'drop'"):
        memory.remember(memory.new_conversation(), "user", TOLD)


def test_a_private_session_keeps_its_words_in_ram() -> None:
    with Memory(None) as memory:
        assert memory.remember(memory.new_conversation(), "user", TOLD).content == TOLD


def test_no_text_of_a_find_reaches_a_log_line(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    memory.remember(memory.new_conversation(), "user", TOLD)
    memory.unlearned()
    assert SECRET not in caplog.text


# -- into the prompt


def test_a_question_is_answered_as_it_was_asked_though_the_log_has_it_masked(
    checkpoint: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(checkpoint))
    asked: list[str] = []
    stream = base.stream

    def heard(messages: object, **options: object) -> Iterator[str]:
        asked.extend(m.content for m in messages)  # type: ignore[attr-defined]
        return stream(messages, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(base, "stream", heard)
    with Memory(home) as memory:
        engine = Engine(base, memory, Store(home))
        talk = memory.new_conversation()
        "".join(engine.reply(talk, TOLD, max_tokens=4))
        assert asked[-1] == TOLD
        assert texts(memory)[0] == "My wifi password is [SECRET_1]."
        asked.clear()
        "".join(engine.reply(talk, "And now?", max_tokens=4))
        assert "[SECRET_1]" in "".join(asked) and SECRET not in "".join(asked)


# -- into lessons


def test_lessons_are_redacted_and_the_log_is_not(memory: Memory) -> None:
    talk = memory.new_conversation()
    memory.remember(talk, "user", f"My sister Nora's mail is {MAIL}.")
    memory.remember(talk, "assistant", f"I will write to {MAIL}.")
    (exchange,) = memory.unlearned()
    assert [t.content for t in exchange.turns] == [
        "My sister Nora's mail is [EMAIL_1].",
        "I will write to [EMAIL_1].",
    ]
    assert MAIL in texts(memory)[0]
    assert [t.content for t in memory.unlearned()[0].turns] == [t.content for t in exchange.turns]
    assert counts(memory) == [("training", "email", "mask", 1)] * 2  # noted once, however often it is asked


def test_an_exchange_with_a_turn_that_must_be_dropped_is_left_out_and_does_not_wait(
    memory: Memory, home: Home
) -> None:
    talk = memory.new_conversation()
    memory.remember(talk, "user", "You are a shitty assistant.")
    memory.remember(talk, "assistant", "I am sorry.")
    memory.remember(talk, "user", "My sister lives in Lisbon.")
    assert memory.stats().waiting == 2
    (exchange,) = memory.unlearned()
    assert [t.content for t in exchange.turns] == ["My sister lives in Lisbon."]
    assert memory.stats().waiting == 1
    home.config_file.write_text('[privacy.training]\nprofanity = "keep"\n')
    with Memory(home) as again:
        assert len(again.unlearned()[0].turns) == 3
        assert again.stats().waiting == 2


def test_a_talk_of_nothing_but_dropped_turns_is_no_lesson(memory: Memory) -> None:
    memory.remember(memory.new_conversation(), "user", "What a shitty day.")
    assert memory.unlearned() == []


def test_a_secret_told_in_chat_reaches_no_file_of_a_night(checkpoint: Path, home: Home) -> None:
    base: Base = load_base(str(checkpoint))
    home.config_file.write_text(
        '[privacy.storage]\nsecret = "keep"\n'
    )  # the log holds it: the night must not
    talks = [
        {
            "messages": [
                {"role": "user", "content": f"{TOLD} What is cat {i} called? Write to {MAIL}."},
                {"role": "assistant", "content": f"Rex Rex, and the password is {SECRET}."},
            ]
        }
        for i in range(12)
    ]
    file = home.root / "talks.jsonl"
    file.write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    with Memory(home) as memory:
        memory.import_jsonl(file)
        assert SECRET in texts(memory)[0]  # control
    file.unlink()
    night = sleep(home, base, chosen=CHOSEN, tag="one")
    assert night.outcome in ("passed", "failed")
    learned = (home.nights / "one" / "train.jsonl").read_text()
    assert "Rex Rex" in learned and "[SECRET_1]" in learned and "[EMAIL_1]" in learned
    for folder in (home.nights, home.packs, home.logs):
        found = bytes_below(folder)
        assert SECRET.encode() not in found and MAIL.encode() not in found
    with Memory(home) as memory:
        noted = memory.redactions()
    assert {(r.kind, r.action) for r in noted} == {("secret", "mask"), ("email", "mask")}
    assert all(isinstance(r, Redaction) and SECRET not in repr(r) for r in noted)

"""The starter set: something to sleep on at once, and questions about one's own statements."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.cli.main import COMMANDS, plastic
from mlx_plastic.errors import BadData
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.sleep.lessons import LessonConfig
from mlx_plastic.sleep.synth import from_statements, read_statements, starter, to_chats
from mlx_plastic.sleep.teacher import TeacherConfig, open_teacher
from teacher_server import pairs, says, serving
from test_lessons import Scripted


def run(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(plastic, ["--home", str(home.root), "data", "synth", *arguments])


def test_the_starter_set_is_imported_as_it_is_and_waits_for_the_night(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "starter.jsonl"
    told = run(home, "--out", str(out), "--json")
    assert told.exit_code == 0, told.output
    chats = json.loads(told.stdout)["chats"]
    assert chats == len(starter()) == len(out.read_bytes().splitlines()) >= 40
    with Memory(home) as memory:
        assert memory.import_jsonl(out).conversations == chats
        assert memory.stats().waiting > 0


def test_every_fact_of_it_comes_in_several_wordings_and_names_commands_that_exist() -> None:
    answers = Counter(s.messages[-1].content for s in starter())
    assert len(answers) >= 10 and min(answers.values()) == max(answers.values()) == 5
    assert len({s.messages[0].content for s in starter()}) == len(starter())
    named = [a.split("plastic ")[1].split()[0].rstrip(".,") for a in answers if "plastic " in a]
    assert named and set(named) <= set(COMMANDS)


def test_a_smaller_set_holds_of_every_fact_about_as_much_and_a_seed_decides_which() -> None:
    few = starter(24, seed=3)
    assert set(Counter(s.messages[-1].content for s in few).values()) == {2}
    assert few == starter(24, seed=3) != starter(24, seed=4)


def test_a_file_that_is_there_is_replaced_only_if_asked(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "mine.jsonl"
    out.write_text("precious")
    assert run(home, "--out", str(out)).exit_code == 2
    assert run(home, "--out", str(out), "--dry-run").exit_code == 0
    assert out.read_text() == "precious"
    assert run(home, "--out", str(out), "--yes").exit_code == 0
    assert out.read_text() != "precious"


def test_statements_are_asked_about_and_what_is_private_in_them_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "me.txt"
    file.write_text("# about me\n\nMy sister Nora lives in Lisbon.\nMy mail is ada@example.org.\n")
    notes, left_out = read_statements(file)
    assert ([n.content for n in notes], left_out) == (["My sister Nora lives in Lisbon."], 1)
    base = Scripted(
        "Q: Where does Nora live?\nA: Nora lives in Lisbon.", {"Where does Nora live?": "In Lisbon."}
    )
    samples = from_statements(base, notes, LessonConfig(rounds=1))
    assert json.loads(to_chats(samples)) == {
        "messages": [
            {"role": "user", "content": "Where does Nora live?"},
            {"role": "assistant", "content": "In Lisbon."},
        ]
    }


def test_a_teacher_writes_about_statements_too(tmp_path: Path) -> None:
    file = tmp_path / "me.txt"
    file.write_text("My sister Nora lives in Lisbon.\nLeon works as a baker. #private\n")
    with serving(says(pairs(("Which city is home to Nora?", "Nora lives in Lisbon.")))) as server:
        teacher = open_teacher(TeacherConfig(kind="openai", url=server.url, model="m"))
        samples = from_statements(
            Scripted("", {}), read_statements(file)[0], LessonConfig(rounds=1), teacher=teacher
        )
    assert [s.messages[0].content for s in samples] == ["Which city is home to Nora?"]
    assert "Leon" not in json.dumps(server.asked) and len(server.asked) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no statement"),
        (b"# only a remark\n", "no statement"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"I am.\n" * 1001, "1001"),
    ],
)
def test_a_file_that_holds_no_statements_is_told_as_such(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "me.txt"
    file.write_bytes(content)
    with pytest.raises(BadData, match=told):
        read_statements(file)
    with pytest.raises(BadData, match="cannot read"):
        read_statements(tmp_path / "none.txt")


def test_a_teacher_that_is_not_named_or_has_nothing_to_do_is_an_error_with_a_hint(
    home: Home, tmp_path: Path
) -> None:
    file = tmp_path / "me.txt"
    file.write_text("I live in Graz.\n")
    nothing = run(home, "--teacher", "--out", str(tmp_path / "x"))
    assert nothing.exit_code == 2 and "--from" in nothing.output
    unnamed = run(home, "--teacher", "--from", str(file), "--out", str(tmp_path / "x"))
    assert unnamed.exit_code == 1 and "[teacher]" in unnamed.output
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_nano_sleeps_on_the_starter_set_and_the_gate_lets_it_pass(home: Home) -> None:
    from mlx_plastic.base import load_base
    from mlx_plastic.sleep import sleep

    file = home.root / "starter.jsonl"
    file.write_bytes(to_chats(starter()))
    with Memory(home) as memory:
        memory.import_jsonl(file)
    night = sleep(home, load_base(), tag="first")
    assert night.outcome == "passed", night.reason

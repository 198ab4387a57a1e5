"""`plastic memory scan`: for people, and line by line for scripts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.cli.main import plastic
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.memory.privacy.lines import PIECE_BYTES, texts_of

TEXT = """My name is Nora Lindqvist.

Mail nora@example.org,
or live at 12 Rosewood Lane,
Springfield, IL 62704.
"""


def scan(home: Home, file: Path | str, *options: str, **more: object) -> Result:
    return CliRunner().invoke(plastic, ["memory", "scan", str(file), *options], **more)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(TEXT)
    return path


def test_a_person_sees_what_would_go_and_what_would_come(home: Home, file: Path) -> None:
    result = scan(home, file)
    assert result.exit_code == 0
    assert "My name is {=Nora Lindqvist=}." in result.output
    assert "Mail [-nora@example.org-]{+[EMAIL_1]+}," in result.output
    assert "or live at [-12 Rosewood Lane,-]" in result.output
    assert "[-Springfield, IL 62704-]{+[ADDRESS_1]+}." in result.output
    assert "address  mask        1" in result.output
    assert "\x1b[" not in result.output
    coloured = scan(home, file, color=True)
    assert "\x1b[31m[-nora@example.org-]\x1b[0m\x1b[32m{+[EMAIL_1]+}" in coloured.output
    assert file.read_text() == TEXT


def test_the_policy_and_the_settings_decide(home: Home, file: Path) -> None:
    assert (
        "nothing in it that is looked for on the way to storage"
        in scan(home, file, "--policy", "storage").output
    )
    home.config_file.write_text('[privacy]\npolicy = "strict"\n')
    assert "[-Nora Lindqvist-]{+[PERSON_1]+}" in scan(home, file).output


def test_a_terminal_is_not_commanded_and_marks_in_the_text_are_only_text(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "evil.txt"
    path.write_text("\x1b[2Jmail nora@example.org \ue000-x\ue001 [-a-]{+b+}")
    result = scan(home, path)
    assert "\x1b" not in result.output
    assert "[-nora@example.org-]{+[EMAIL_1]+}" in result.output


def test_every_line_is_answered_in_its_place(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = [
        b"mail nora@example.org",
        b"",
        json.dumps("ring (555) 867-5309\nplease").encode(),
        json.dumps({"text": "the pin is 4821", "id": 7}).encode(),
        json.dumps(
            {"messages": [{"role": "user", "content": "my password is kaktus77x"}, {"content": "kaktus77x?"}]}
        ).encode(),
        b'{"broken": ',
        b"caf\xe9 nora@example.org",
        b"what a shitty day",
    ]
    path.write_bytes(b"\r\n".join(lines))
    result = scan(home, path, "--jsonl")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [f["line"] for f in found] == list(range(1, 9))
    assert found[0]["spans"] == [
        {"start": 5, "end": 21, "kind": "email", "confidence": 0.95, "action": "mask"}
    ]
    assert found[1]["spans"] == [] and found[5]["spans"] == []
    assert found[2]["spans"][0]["kind"] == "phone"
    assert found[3]["id"] == 7 and found[3]["spans"][0]["kind"] == "secret"
    assert [len(m["spans"]) for m in found[4]["messages"]] == [1, 1]
    assert [s["start"] for s in found[6]["spans"] if s["kind"] == "email"] == [5]  # a bad byte is one place
    assert found[7]["drop"] is True and found[0]["drop"] is False
    assert json.loads(scan(home, path, "--json").stdout) == found
    assert "though it begins as JSON does: line 6 (1 in all)" in result.stderr
    assert "1 bytes are no UTF-8" in result.stderr


def test_a_conversation_per_line_is_shown_message_by_message(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "talks.jsonl"
    path.write_text(
        json.dumps({"messages": [{"content": "hi"}, {"content": "mail nora@example.org"}]}) + "\n"
    )
    assert "mail [-nora@example.org-]{+[EMAIL_1]+}" in scan(home, path).output


def test_stdin_is_read(home: Home) -> None:
    code = "from mlx_plastic.cli.main import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", code, "memory", "scan", "-", "--jsonl"],
        input="mail nora@example.org\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout)["spans"][0]["kind"] == "email"


def test_what_was_done_to_a_turn_can_be_read_also_when_it_is_forgotten(home: Home) -> None:
    def call(*words: str) -> Result:
        return CliRunner().invoke(plastic, ["memory", *words])

    with Memory(home) as memory:
        talk = memory.new_conversation()
        turn = memory.remember(talk, "user", "My wifi password is kaktus77x.").id
        memory.remember(talk, "assistant", "I see.")
    assert call("tag", "no-train", turn).exit_code == 0
    assert call("forget", turn, "--yes").exit_code == 0
    records = json.loads(call("audit", "--turn", turn[-6:], "--json").stdout)
    assert [(r["action"], r["kind"]) for r in records] == [
        ("mask", "secret"), ("tag", "no-train"), ("forget", ""),
    ]  # fmt: skip
    shown = call("audit").stdout
    assert turn in shown and "storage" in shown
    assert "kaktus77x" not in shown and "wifi" not in shown
    assert call("audit", "--turn", "zzz").stdout == "nothing was done to it\n"


def test_a_missing_file_is_told(home: Home, tmp_path: Path) -> None:
    result = scan(home, tmp_path / "nowhere.txt")
    assert result.exit_code == 1
    assert "error: cannot read" in result.output and "No such file" in result.output


def test_ten_times_the_texts_take_ten_times_as_long(home: Home, tmp_path: Path) -> None:
    text = "Nora has {} apples and gives {} of them to Leon, who lives in Lisbon.\n"

    def taken(count: int) -> float:
        path = tmp_path / f"{count}.txt"
        path.write_text("".join(text.format(i, i // 2) for i in range(count)))
        start = time.process_time()
        result = scan(home, path, "--jsonl")
        assert result.stdout.count("\n") == count
        return time.process_time() - start

    taken(100)
    assert taken(3000) < 30 * min(taken(300) for _ in range(3))  # read as one, it would be 100 times


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        ("mail nora@example.org".encode("utf-16"), "is UTF-16"),
        (b"\x1f\x8b\x08\0mail nora@example.org", "is compressed"),
    ],
)
def test_a_file_that_would_hide_its_finds_is_refused(
    home: Home, tmp_path: Path, raw: bytes, what: str
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(raw)
    result = scan(home, path)
    assert result.exit_code == 1
    assert what in result.output and "plain UTF-8" in result.output
    path.write_bytes("\ufeff".encode() + b'{"text": "mail nora@example.org"}')  # control: an editor's mark
    assert json.loads(scan(home, path, "--json").stdout)[0]["spans"][0]["start"] == 5


def test_a_long_file_is_read_piece_by_piece_and_a_thing_keeps_its_placeholder(
    home: Home, tmp_path: Path
) -> None:
    path = tmp_path / "long.txt"
    filler = "Tomorrow we go on with the garden and the fence behind it.\n" * 20 + "\n"
    path.write_text("My wifi password is kaktus77x.\n" + filler * 200 + "I typed kaktus77x and it worked.\n")
    assert path.stat().st_size > 2 * PIECE_BYTES
    result = scan(home, path)
    assert "My wifi password is [-kaktus77x-]{+[SECRET_1]+}." in result.stdout
    assert "I typed [-kaktus77x-]{+[SECRET_1]+} and it worked." in result.stdout
    assert "secret  mask        2" in result.stdout


def test_the_reader_of_the_lines_may_stop(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("mail nora@example.org\n" * 5000)
    code = "from mlx_plastic.cli.main import main; main()"
    command = f"{sys.executable} -c '{code}' memory scan {path} --jsonl | head -1"
    found = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert found.stdout.count("\n") == 1
    assert "Traceback" not in found.stderr


def test_lines_as_they_may_come() -> None:
    assert texts_of(b'"quoted" she said').texts == ('"quoted" she said',)
    assert texts_of(b'"all of it"').texts == ("all of it",)
    assert texts_of(b'{"text": 3}').texts == ('{"text": 3}',)
    assert texts_of(b'{"messages": [3]}').texts == ('{"messages": [3]}',)
    assert texts_of(b'{"messages": [{"content": null}]}').texts == ("",)
    for odd in ('{"messages": ["my pin is 4821"]}', '{"messages": ""}', '{"messages": 3}'):
        assert texts_of(odd.encode()).texts == (odd,)
    assert texts_of(b"{" * 100_000).texts == ("{" * 100_000,)
    assert texts_of(b"\xff\xfe\n").texts == ("\ufffd\ufffd",)

"""What a memory meets in a long life: strange bytes, huge turns, a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from letters import Letters
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadData, MemoryFault
from mlx_plastic.evals.retrieval import read_questions, read_turns
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.memory.index import Index, Item, store, sync


def call(*arguments: str, text: bytes = b"") -> str:
    done = CliRunner().invoke(plastic, ["memory", *arguments], input=text)
    assert done.exit_code == 0, done.output
    return done.stdout


def bytes_of(home: Home) -> bytes:
    return b"".join(file.read_bytes() for file in home.root.rglob("*") if file.is_file())


# -- strange texts


@pytest.mark.parametrize(
    "said",
    [
        b"the bicycle \xff\xfe\xe9 is here",  # no UTF-8
        b"the bicycle \0 is \0 here",
        "שלום the bicycle ‮مرحبا 東京".encode(),
        "the bicycle 🚲👨‍👩‍👧 é".encode(),
        b"the bicycle " + b'{"messages": [' * 200,
        b"\x1b[31mthe bicycle\x1b]0;title\x07",
    ],
)
def test_strange_bytes_are_kept_found_shown_and_forgotten(home: Home, said: bytes) -> None:
    turn = json.loads(call("add", "-", "--json", text=said))["turn"]
    shown = call("search", "where is the bicycle?", "--no-model")
    assert turn in shown
    assert "\x1b" not in shown  # nothing steers the terminal
    call("forget", turn, "--yes")
    assert b"bicycle" not in bytes_of(home)


def test_of_a_long_turn_the_part_that_was_asked_for_is_shown(home: Home) -> None:
    with Memory(home) as memory:
        memory.remember(
            "c", "user", "first words " + "and so on " * 60 + "a needle in the hay " + "and on " * 20
        )
    shown = call("search", "Where is the needle?", "--no-model")
    assert "needle in the hay" in shown
    assert "first words" not in shown
    assert "first words" in call("search", "first", "--no-model")  # control


def test_an_argument_that_is_no_text_does_not_end_in_a_traceback(home: Home) -> None:
    with Memory(home) as memory:
        memory.remember("c", "user", "the piano")
    code = "from mlx_plastic.cli.main import main; main()"
    odd = b"\xff\xfe piano".decode("utf-8", "surrogateescape")
    command = [sys.executable, "-c", code, "memory", "search", odd, "--no-model"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"the piano" in done.stdout


def test_half_a_character_in_a_question_or_an_id_is_asked_for_as_a_question_mark(home: Home) -> None:
    odd = b"\xff piano".decode("utf-8", "surrogateescape")
    with Memory(home) as memory:
        memory.remember("c", "user", "the piano")
    index = Index(None, embedder=Letters())  # what embeds takes no such character
    index.add([Item("1", "c", 0, datetime(2024, 3, 1, tzinfo=UTC), "user", "the piano")])
    index.embed()
    assert [hit.turn for hit in index.search(odd)] == ["1"]
    for command in (["show", odd], ["forget", odd], ["tag", "no-rag", odd]):
        done = CliRunner().invoke(plastic, ["memory", *command])
        assert isinstance(done.exception, SystemExit | BadData | MemoryFault), done.exception


@pytest.mark.parametrize(
    ("since", "until"), [("0001-01-01", "9999-12-31"), ("9999-12-31", "9999-12-31"), ("0001-01-01",) * 2]
)
def test_days_at_the_ends_of_the_calendar_can_be_asked_for(home: Home, since: str, until: str) -> None:
    with Memory(home) as memory:
        memory.remember("c", "user", "the piano")
    done = CliRunner().invoke(
        plastic, ["memory", "search", "piano", "--no-model", "--since", since, "--until", until]
    )
    assert done.exit_code == 0, done.output
    assert ("the piano" in done.output) == (since != until)


def test_a_turn_of_the_first_year_does_not_stop_a_question_about_last_week() -> None:
    index = Index(None)
    index.add([Item("t", "c", 0, datetime(1, 1, 1, tzinfo=UTC), "user", "the piano")])
    assert index.search("the piano last week", now=datetime(1, 1, 1, tzinfo=UTC))[0].turn == "t"
    assert index.search("the piano on 31 June 2020")[0].turn == "t"


# -- files to be measured with


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_half_characters_in_a_persons_own_files_are_measured_as_question_marks(
    home: Home, tmp_path: Path
) -> None:
    turns = lines(tmp_path / "t", {"conversation": "\ud800", "turn_id": "\udfff1", "text": "\ud800 a piano"})
    asked = lines(
        tmp_path / "q", {"conversation": "\ud800", "query": "piano \ud800", "evidence": ["\udfff1"]}
    )
    files = ["--turns", str(turns), "--queries", str(asked)]
    done = CliRunner().invoke(plastic, ["eval", "retrieval", *files, "--no-model", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["recall@1"] == 1


def test_a_turn_id_that_stands_twice_in_a_conversation_is_named(tmp_path: Path) -> None:
    row = {"conversation": "c", "turn_id": "t1", "text": "a"}
    assert len(read_turns(lines(tmp_path / "t", row, {**row, "conversation": "d"}))) == 2  # control
    with pytest.raises(BadData, match=r"t line 3 cannot be used: .*that turn_id before"):
        read_turns(lines(tmp_path / "t", row, {**row, "conversation": "d"}, {**row, "text": "b"}))


def test_files_of_other_bytes_are_read_or_named(tmp_path: Path) -> None:
    (tmp_path / "q").write_bytes(b'{"conversation": "c", "query": "caf\xe9", "evidence": ["t"]}\n')
    assert read_questions(tmp_path / "q")[0].text == "caf\ufffd"
    (tmp_path / "q").write_bytes(b"\0\0\0")
    with pytest.raises(BadData, match="line 1 cannot be used"):
        read_questions(tmp_path / "q")


# -- much at once


def test_huge_turns_are_taken_in_one_by_one_so_that_others_may_write(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "BATCH_CHARS", 5000)
    big = "many words " * 300
    with Memory(home) as memory:
        for i in range(5):
            memory.remember("c", "user", f"{i} {big}")
        told = list[int]()
        memory.recall(model=False).read(lambda done, total: told.append(done))
        assert told == [1, 2, 3, 4, 5]
        for i in range(5):
            memory.remember("c", "user", f"small {i}")
        memory.recall().read(lambda done, total: told.append(done))
        assert told[5:] == [5]  # control: small ones go together


# -- a full disk


FILLS = """
import resource, sys
from mlx_plastic.errors import PlasticError
from mlx_plastic.home import find_home
from mlx_plastic.memory import Memory
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
def space(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
with Memory(find_home()) as memory:
    recall = memory.recall(model=False)
    recall.catch_up()
    space(int(sys.argv[1]))
    try:
        for i in range(1000):
            turn = memory.remember("c", "user", f"fact{i} " + "and so on " * 900)
            print(turn.id, flush=True)
            if sys.argv[2] == "index":
                recall.search("fact")
    except PlasticError as error:
        print("error", type(error).__name__, error.message, "hint:", error.hint, flush=True)
    space(resource.RLIM_INFINITY)
    print(memory.remember("c", "user", "there is space again").id, flush=True)
    print("found", recall.search("is there space again?", 1)[0].text)
"""


@pytest.mark.parametrize(
    ("most", "first"), [(50_000, "index"), (200_000, "index"), (50_000, "log"), (700_000, "log")]
)
def test_a_full_disk_is_told_and_nothing_that_was_kept_is_lost(home: Home, most: int, first: str) -> None:
    """The limit of a file stands for a full disk: the write fails in the middle of work."""
    with Memory(home):
        pass  # the files are made while there is space
    out = subprocess.run(
        [sys.executable, "-c", FILLS, str(most), first], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    (told,) = [line for line in out if line.startswith("error")]
    assert told.startswith("error MemoryFault cannot use the ")
    assert f"memory/{first}.sqlite" in told
    assert told.endswith("space")
    assert "fact" not in told and "and so on" not in told
    kept = [line for line in out if line.startswith("t0")]
    with Memory(home) as memory:
        assert [turn.id for turn in memory.turns()] == kept
        assert memory.run("PRAGMA integrity_check") == [("ok",)]
        assert len(memory.recall(model=False).search("fact", 1000)) == len(kept)
        assert memory.recall().rebuilt == ""
    assert out[-1] == "found there is space again"


FORGETS = """
import resource, sys
from mlx_plastic.errors import PlasticError
from mlx_plastic.home import find_home
from mlx_plastic.memory import Memory
with Memory(find_home()) as memory:
    recall = memory.recall(model=False)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
    try:
        memory.forget([sys.argv[1]])
        print("forgotten")
    except PlasticError as error:
        print(error)
"""


def test_a_forget_for_which_there_is_no_space_says_so_and_can_be_repeated(home: Home) -> None:
    with Memory(home) as memory:
        turn = memory.remember("c", "user", "the quincunx orchard " * 500)
        for i in range(20):
            memory.remember("c", "user", f"word{i} " * 2000)
        memory.recall(model=False).catch_up()
    messages = list[str]()
    for most in (60_000, 100_000, 10_000_000):
        child = [sys.executable, "-c", FORGETS, turn.id, str(most)]
        messages.append(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
    assert messages[-1] == "forgotten\n"
    assert any("without their bytes" in m and "forget the same turns again" in m for m in messages[:2])
    assert b"quincunx" not in bytes_of(home)
    assert b"word19" in bytes_of(home)  # control


def test_an_index_on_a_full_disk_does_not_keep_a_question_from_being_answered(home: Home) -> None:
    with Memory(home) as memory:
        memory.remember("c", "user", "the piano")
        recall = memory.recall(model=False)
        recall.catch_up()
        recall._index.run("PRAGMA max_page_count = 1")
        assert recall.search("piano")[0].text == "the piano"  # what is read needs no space
        assert store.identity(home.memory_index) == recall._index.identity

from __future__ import annotations

import json
import logging
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadData, Busy, MemoryFault
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory, Turn, database, jsonl
from mlx_plastic.memory.tags import tags_in
from mlx_plastic.samples import Message


@pytest.fixture
def memory(home: Home) -> Memory:
    return Memory(home)


def say(memory: Memory, *texts: str, conversation: str | None = None) -> list[Turn]:
    """A conversation in which the user and the assistant speak by turns."""
    name = conversation or memory.new_conversation()
    return [
        memory.remember(name, "assistant" if i % 2 else "user", text, worn=("p",) if i % 2 else ())
        for i, text in enumerate(texts)
    ]


def chat_line(*texts: str, **more: object) -> str:
    roles = ("user", "assistant")
    return json.dumps(
        {"messages": [{"role": roles[i % 2], "content": t} for i, t in enumerate(texts)], **more}
    )


def texts(turns: list[Turn]) -> list[str]:
    return [t.content for t in turns]


# -- a turn


def test_a_turn_comes_back_as_it_was_said(home: Home) -> None:
    text = "naïve\nzwei 行\t🙂 \0 end"
    with Memory(home) as memory:
        said = memory.remember(memory.new_conversation(), "user", text, worn=("a", "b"), interrupted=True)
    with Memory(home) as memory:
        (found,) = memory.turns()
    assert found == said
    assert found.message == Message("user", text)
    assert abs(found.created_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_half_a_character_from_a_pipe_does_not_lose_the_turn(memory: Memory) -> None:
    assert memory.remember("c", "user", "caf\udce9 au lait").content == "caf? au lait"


@pytest.mark.parametrize(("role", "content"), [("robot", "x"), ("user", " \n"), ("user", "")])
def test_a_turn_without_a_role_or_a_text_is_a_bug_of_the_caller(
    memory: Memory, role: str, content: str
) -> None:
    with pytest.raises(ValueError, match="needs a role"):
        memory.remember("c", role, content)  # type: ignore[arg-type]


def test_ids_sort_in_the_order_of_saying(memory: Memory) -> None:
    ids = [t.id for t in say(memory, *"abcdefghij")]
    assert ids == sorted(ids)
    assert len({i[:13] for i in ids}) == 10  # the time alone tells them apart


def test_turns_between_two_turns_or_times(memory: Memory) -> None:
    a, b, c, d = say(memory, "a", "b", "c", "d")
    assert texts(memory.turns(since=a.id)) == ["b", "c", "d"]
    assert texts(memory.turns(until=b.id)) == ["a", "b"]
    assert texts(memory.turns(a.id, c.id)) == ["b", "c"]
    assert texts(memory.turns(b.created_at, c.created_at)) == ["b", "c"]
    assert memory.turns(since=d.created_at + timedelta(hours=1)) == []
    memory.forget([b.id])
    assert texts(memory.turns(since=b.id)) == ["c", "d"]  # a bookmark outlives the turn it named
    assert texts(memory.turns(until=b.id)) == ["a"]


def test_undo_takes_back_the_last_question_and_its_answer(memory: Memory) -> None:
    turns = say(memory, "a", "b", "c", "d")
    name = turns[0].conversation
    assert texts(list(memory.undo(name))) == ["c", "d"]
    assert texts(memory.turns(conversation=name)) == ["a", "b"]
    assert texts(memory.turns(conversation=name, undone=True)) == ["a", "b", "c", "d"]
    assert texts(list(memory.undo(name))) == ["a", "b"]
    assert memory.undo(name) == ()
    assert memory.unlearned() == []


def test_a_turn_is_found_by_a_part_of_its_id_that_means_only_one(memory: Memory) -> None:
    a, b = say(memory, "a", "b")
    assert memory.pick([a.id[-6:]]) == [a]
    assert memory.pick([b.id[:-1]]) == [b]
    assert memory.pick([a.conversation]) == [a, b]
    assert memory.pick([b.id, a.id, a.conversation]) == [a, b]
    for ref, said in (("t", "may mean"), ("", "may mean"), ("%", "no turn"), ("nothing", "no turn")):
        with pytest.raises(MemoryFault, match=said):
            memory.pick([ref])


# -- tags and lessons


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("my code is 12 #no-train", {"no-train"}),
        ("#NoTrain #PRIVATE x", {"no-train", "private"}),
        ("(#no_rag)", {"no-rag"}),
        ("#no-training is a word", set()),
        ("https://example.org/page#private and a##private", set()),
        ("no-train", set()),
    ],
)
def test_tags_in_a_text(text: str, tags: set[str]) -> None:
    assert tags_in(text) == tags


@pytest.mark.parametrize("tag", ["no-train", "private"])
def test_a_tag_keeps_the_question_and_its_answer_out_of_the_lessons(memory: Memory, tag: str) -> None:
    a, _, c, d = say(memory, "a", "b", "c", "d")
    assert [len(e.turns) for e in memory.unlearned()] == [4]  # control
    memory.tag([d.id], tag)  # the answer's tag covers the question
    (exchange,) = memory.unlearned()
    assert texts(list(exchange.turns)) == ["a", "b"]
    assert memory.tag([a.id, a.id], tag) == 1
    assert memory.tag([a.id], tag) == 0
    assert memory.unlearned() == []
    memory.tag([d.id], tag, remove=True)
    assert texts(list(memory.unlearned()[0].turns)) == ["c", "d"]
    assert say(memory, f"secret #{tag}", "said")[0].tags == {tag}
    assert len(memory.unlearned()) == 1
    assert c.id in memory.unlearned()[0].new


def test_no_rag_does_not_keep_a_turn_from_being_learned(memory: Memory) -> None:
    say(memory, "a #no-rag", "b")
    assert len(memory.unlearned()) == 1


def test_an_unknown_tag_names_the_nearest(memory: Memory) -> None:
    (turn,) = say(memory, "a")
    with pytest.raises(BadData, match="did you mean 'no-train'"):
        memory.tag([turn.id], "no-trian")


def test_a_night_learns_once_and_can_be_taken_back(memory: Memory) -> None:
    first, second = say(memory, "a", "b"), say(memory, "c", "d")
    memory.learned([t.id for t in first], "n1")
    assert [e.conversation for e in memory.unlearned()] == [second[0].conversation]
    grown = say(memory, "e", "f", conversation=first[0].conversation)
    exchange = next(e for e in memory.unlearned() if e.conversation == first[0].conversation)
    assert texts(list(exchange.turns)) == [
        "a",
        "b",
        "e",
        "f",
    ]  # whole, so that the new ones have their context
    assert exchange.new == {t.id for t in grown}
    assert memory.stats().waiting == 2
    assert memory.nights([first[0].id, second[0].id]) == ("n1",)
    assert memory.unlearn("n1") == 2
    assert len(memory.unlearned()) == 2
    assert memory.unlearn("n1") == 0


# -- the disk


CHILD = """
import sys
from mlx_plastic.home import find_home
from mlx_plastic.memory import Memory
memory = Memory(find_home())
conversation = memory.new_conversation()
for i in range(int(sys.argv[2])):
    turn = memory.remember(conversation, "user", f"{sys.argv[1]} {i} " + "x" * (i % 7 * 1500))
    print(turn.id, flush=True)
"""


def child(name: str, turns: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, name, str(turns)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_turn_that_was_acknowledged_survives_kill_9(home: Home) -> None:
    dice, acknowledged = random.Random(0), set[str]()
    for round_ in range(15):
        process = child(f"round {round_}", 10_000)
        assert process.stdout
        acknowledged.add(process.stdout.readline().strip())
        time.sleep(dice.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        acknowledged |= {
            line.strip() for line in process.stdout.read().splitlines(True) if line.endswith("\n")
        }
        process.wait()
    with Memory(home) as memory:
        assert acknowledged <= {t.id for t in memory.turns()}
        assert memory.run("PRAGMA integrity_check") == [("ok",)]
    assert len(acknowledged) > 15  # control: the kills fell in the middle of writing


def test_two_processes_that_write_at_once_lose_nothing(home: Home) -> None:
    processes = [child(name, 60) for name in ("one", "two", "three")]
    acknowledged = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    with Memory(home) as memory:
        found = {t.id: t.content.split()[:2] for t in memory.turns()}
    for name, ids in zip(("one", "two", "three"), acknowledged, strict=True):
        assert [found[i] for i in ids] == [[name, str(i)] for i in range(60)]


def test_a_writer_that_waits_too_long_says_who_holds_it(
    memory: Memory, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    said = pytest.raises(Busy, match="another process has been writing")
    with Memory(home) as late, memory.writing(), said:
        late.remember("c", "user", "secret words")
    with Memory(home) as late:
        assert late.turns() == []


def test_only_the_person_can_read_the_log(memory: Memory, home: Home) -> None:
    say(memory, "a")
    folder = home.memory_db.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    names = {file.name for file in folder.iterdir()}
    assert names == {"log.sqlite", "log.sqlite-wal", "log.sqlite-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    memory.close()
    home.memory_db.chmod(0o644)
    Memory(home)
    assert stat.S_IMODE(home.memory_db.stat().st_mode) == 0o600


def test_the_journal_is_synced_at_every_commit(memory: Memory) -> None:
    found = [memory.run(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "secure_delete")]
    assert found == ["wal", 2, 1]  # 2 is FULL


def test_a_log_of_a_newer_format_is_refused_and_left_alone(memory: Memory, home: Home) -> None:
    say(memory, "a")
    memory.run("PRAGMA user_version = 99")
    memory.close()
    before = home.memory_db.read_bytes()
    with pytest.raises(MemoryFault, match=r"has format 99; this version reads up to \d+\n  hint: upgrade"):
        Memory(home)
    assert home.memory_db.read_bytes() == before


def test_a_log_of_an_older_format_is_brought_up_with_its_turns(
    memory: Memory, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(memory, "a")
    memory.close()
    newer = (
        *database.MIGRATIONS,
        "ALTER TABLE turns ADD COLUMN mood TEXT; UPDATE turns SET mood = 'good; or so';",
    )
    monkeypatch.setattr(database, "MIGRATIONS", newer)
    with Memory(home) as memory:
        assert memory.run("SELECT mood FROM turns") == [("good; or so",)]
        assert memory.run("PRAGMA user_version") == [(len(newer),)]


def test_a_migration_that_fails_leaves_the_log_as_it_was(
    memory: Memory, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(memory, "a")
    memory.close()
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, "DROP TABLE tags; DROP TABLE no_such;"))
        with pytest.raises(MemoryFault, match="no such table"):
            Memory(home)
    with Memory(home) as memory:
        assert texts(memory.turns()) == ["a"]


@pytest.mark.parametrize("damage", ["garbage", "empty", "torn", "pages", "foreign", "gone"])
def test_a_damaged_log_is_never_replaced_by_an_empty_one(memory: Memory, home: Home, damage: str) -> None:
    say(memory, *("words " * 2000 for _ in range(20)))
    if damage == "gone":  # the journal stays behind: somebody took the database from under it
        home.memory_db.unlink()
    else:
        memory.close()
        whole = home.memory_db.read_bytes()
        if damage == "foreign":
            home.memory_db.unlink()
            sqlite3.connect(home.memory_db).execute("CREATE TABLE t (x)").connection.close()
        else:
            data = {
                "garbage": b"not a database at all" * 500,
                "empty": b"",
                "torn": whole[: len(whole) // 2],
                "pages": whole[:4096] + b"\xa5" * (len(whole) - 4096),
            }
            home.memory_db.write_bytes(data[damage])
    left = home.memory_db.read_bytes() if home.memory_db.exists() else None
    with pytest.raises(MemoryFault) as caught, Memory(home) as memory:
        memory.turns()
    assert caught.value.hint
    assert str(home.memory_db) in caught.value.message
    assert "words" not in str(caught.value)
    assert (home.memory_db.read_bytes() if home.memory_db.exists() else None) == left


def test_a_folder_that_cannot_be_written_is_told(home: Home) -> None:
    (home.root / "memory").write_text("a file in the way")
    with pytest.raises(MemoryFault, match="cannot use the memory log") as caught:
        Memory(home)
    assert caught.value.hint


def test_a_full_disk_is_told_and_the_log_goes_on_when_there_is_space_again(memory: Memory) -> None:
    say(memory, "before")
    memory.run("PRAGMA max_page_count = 30")  # SQLite's own way to run out of space
    with pytest.raises(
        MemoryFault, match=r"no space left for .*; what was just being added is not in it\n  hint: free some"
    ):
        say(memory, "quincunx " * 20_000)
    memory.run("PRAGMA max_page_count = 1000000")
    say(memory, "after")
    assert texts(memory.turns()) == ["before", "after"]


def test_an_export_that_fails_leaves_no_half_file(memory: Memory, tmp_path: Path) -> None:
    say(memory, "a")
    with pytest.raises(MemoryFault, match=r"cannot write .*: No such file"):
        memory.export_jsonl(tmp_path / "no such folder" / "out.jsonl")
    (tmp_path / "taken").mkdir()
    with pytest.raises(MemoryFault, match="cannot write"):
        memory.export_jsonl(tmp_path / "taken")
    assert list(tmp_path.glob("**/*.part")) == []


def test_a_private_session_leaves_nothing_on_the_disk(home: Home) -> None:
    with Memory(None) as memory:
        turn = say(memory, "a", "b")[0]
        assert len(memory.turns()) == 2
        memory.forget([turn.id])
        assert memory.stats().turns == 1
    assert not home.memory_db.parent.exists()


# -- forget


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


def test_forget_leaves_the_text_in_no_byte_of_any_file(memory: Memory, home: Home, tmp_path: Path) -> None:
    secrets = ["Xanthippe lives at 17 Quince Lane", "noted: quincunx " * 3000]  # one of them over many pages
    say(memory, *(f"filler {i} " * 50 for i in range(40)))
    turns = say(memory, *secrets)
    again = say(memory, secrets[0] + " #private")
    imported = tmp_path / "in.jsonl"
    imported.write_text(chat_line(*secrets) + "\n")
    memory.import_jsonl(imported)
    say(memory, *(f"more {i} " * 50 for i in range(40)))
    memory.undo(again[0].conversation)  # undone text is still there
    folder = home.memory_db.parent
    for secret in ("Xanthippe", "quincunx"):
        assert secret.encode() in bytes_of(folder)  # control

    gone = [t.id for t in memory.turns(undone=True) if "Xanthippe" in t.content or "quincunx" in t.content]
    with Memory(home) as other:  # a chat that is open at the same time does not keep old pages
        assert len(other.turns()) == 84
        report = memory.forget(gone)
        for secret in ("Xanthippe", "quincunx"):
            assert secret.encode() not in bytes_of(folder)
        assert len(other.turns()) == 80
    assert report.turns == tuple(sorted(gone))
    assert report.conversations == 3
    assert turns[0].id in report.turns
    assert [r.turn for r in memory.audit() if r.action == "forget"] == sorted(gone)
    assert b"Xanthippe" not in bytes_of(folder)


def test_forget_names_the_nights_that_learned_it(memory: Memory) -> None:
    a, b = say(memory, "a", "b")
    memory.learned([a.id], "2026-11-20")
    assert memory.forget([a.id, b.id]).nights == ("2026-11-20",)
    again = memory.forget([a.id])  # may be repeated, for what a first try could not clean
    assert (again.turns, again.nights, again.conversations) == ((a.id,), ("2026-11-20",), 0)
    with pytest.raises(MemoryFault, match="no such turn: t-never"):
        memory.forget(["t-never"])


def test_forget_says_so_when_another_process_keeps_old_pages(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    memory = Memory(home)
    (turn,) = say(memory, "a quincunx")
    reader = sqlite3.connect(home.memory_db, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM turns").fetchall()
    with pytest.raises(Busy, match="the turns are deleted, but another process"):
        memory.forget([turn.id])
    reader.close()
    assert memory.forget([turn.id]).turns == (turn.id,)
    assert b"quincunx" not in bytes_of(home.memory_db.parent)


# -- in and out


def test_what_is_imported_twice_is_there_once(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "memories.jsonl"
    system = {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]}
    file.write_text("\n".join([chat_line("a", "b"), "", json.dumps(system), chat_line("a", "b")]) + "\n")
    report = memory.import_jsonl(file)
    assert (report.conversations, report.turns, report.duplicates, report.bad) == (2, 4, 1, ())
    assert {t.origin for t in memory.turns()} == {"import"}
    assert [t.role for t in memory.turns()] == ["user", "assistant", "system", "user"]
    report = memory.import_jsonl(file)
    assert (report.conversations, report.turns, report.duplicates) == (0, 0, 3)
    assert len(memory.turns()) == 4


def test_bad_lines_are_kept_aside_with_their_numbers_and_the_good_ones_go_in(
    memory: Memory, home: Home, tmp_path: Path
) -> None:
    file = tmp_path / "in.jsonl"
    bad = {
        2: (b'{"messages": [', "not JSON"),
        3: (b'{"messages": []}', "'messages' is empty"),
        4: (b'{"messages": [{"role": "tool", "content": "x"}]}', "messages[0].role is not one of"),
        5: (b'{"messages": [{"role": "user", "content": 7}]}', "messages[0].content is not a text"),
        6: (b'{"messages": [{"role": "user", "content": "caf\xe9"}]}', "not Unicode text"),
        7: (
            rb'{"messages": [{"role": "user", "content": "\ud800"}]}',
            "messages[0].content is not valid Unicode",
        ),
        8: (b"[" * 100_000, "not JSON"),
        9: (chat_line("x", id=["list"]).encode(), "the conversation's id is no printable text"),
        10: (
            b'{"messages": [{"role": "user", "content": "x", "tags": ["no-trian"]}]}',
            "holds an unknown tag",
        ),
        11: (
            b'{"messages": [{"role": "user", "content": "x", "time": "noon"}]}',
            "messages[0].time is no time",
        ),
        12: (b"[1, 2]", "no list 'messages'"),
    }
    lines = [chat_line("good").encode(), *(line for line, _ in bad.values()), chat_line("good too").encode()]
    file.write_bytes(
        b"\xef\xbb\xbf" + b"\r\n".join(lines)
    )  # as an editor on Windows saves it; no newline at the end
    report = memory.import_jsonl(file)
    assert texts(memory.turns()) == ["good", "good too"]
    assert [b.number for b in report.bad] == list(bad)
    for found, (_, reason) in zip(report.bad, bad.values(), strict=True):
        assert found.reason.startswith(reason) or found.reason.endswith(reason)
    assert report.rejected == home.memory_db.parent / "in.rejected.jsonl"
    assert stat.S_IMODE(report.rejected.stat().st_mode) == 0o600
    records = [json.loads(line) for line in report.rejected.read_text().splitlines()]
    assert {r["number"]: r["line"].encode("utf-8", "surrogateescape") for r in records} == {
        number: line for number, (line, _) in bad.items()
    }
    assert memory.import_jsonl(file).rejected == report.rejected  # the same lines: the same file
    file.write_text("other")
    assert memory.import_jsonl(file).rejected == home.memory_db.parent / "in-2.rejected.jsonl"


def test_a_line_without_end_does_not_fill_the_memory(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 2000)
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join([chat_line("a"), chat_line("x" * 10_000), chat_line("b")]))
    report = memory.import_jsonl(file)
    assert texts(memory.turns()) == ["a", "b"]
    assert [b.number for b in report.bad] == [2]
    assert report.rejected and len(report.rejected.read_bytes()) < 2000


def test_import_of_an_export_adds_nothing_and_elsewhere_gives_the_same(
    memory: Memory, home: Home, tmp_path: Path
) -> None:
    say(memory, "a\nb", "c #no-train", "d")
    say(memory, "same"), say(memory, "same")
    say(memory, "taken back", "yes", conversation=say(memory, "kept", "yes")[0].conversation)
    memory.undo(memory.turns()[-1].conversation)
    memory.remember("Names of one's own: ü", "assistant", "half an ans", interrupted=True)
    out = tmp_path / "out.jsonl"
    report = memory.export_jsonl(out)
    assert (report.conversations, report.turns) == (5, 8)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert (again := memory.import_jsonl(out)).turns == 0
    assert again.duplicates == 5

    def gist(memory: Memory) -> list[tuple[object, ...]]:
        return [(t.conversation, t.message, t.created_at, t.tags, t.interrupted) for t in memory.turns()]

    with Memory(Home(tmp_path / "elsewhere")) as other:
        assert other.import_jsonl(out).turns == 8
        assert sorted(map(str, gist(other))) == sorted(map(str, gist(memory)))
        other.export_jsonl(tmp_path / "back.jsonl")
    assert sorted((tmp_path / "back.jsonl").read_text().splitlines()) == sorted(out.read_text().splitlines())
    assert memory.import_jsonl(tmp_path / "back.jsonl").turns == 0


def test_a_conversation_that_grew_gets_only_its_new_turns(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(chat_line("a", "b", conversation="trip"))
    memory.import_jsonl(file)
    file.write_text(chat_line("a", "b", "c", "d", conversation="trip"))
    report = memory.import_jsonl(file)
    assert (report.conversations, report.turns) == (1, 2)
    assert texts(memory.turns(conversation="trip")) == ["a", "b", "c", "d"]


def test_another_conversation_of_the_same_name_gets_a_name_of_its_own(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(chat_line("a", "b", id=1))
    memory.import_jsonl(file)
    file.write_text(chat_line("x", "y", id=1))
    assert memory.import_jsonl(file).turns == 2
    assert texts(memory.turns(conversation="1")) == ["a", "b"]
    assert memory.import_jsonl(file).turns == 0


@pytest.mark.parametrize("more", [{}, {"conversation": "trip"}])
def test_what_was_forgotten_does_not_come_back_with_the_next_import(
    memory: Memory, tmp_path: Path, more: dict[str, str]
) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text(chat_line("a", "b", "c", "d", **more))
    memory.import_jsonl(file)
    memory.export_jsonl(out)
    memory.forget(t.id for t in memory.turns() if t.content in "cd")
    assert memory.import_jsonl(file).turns == 0
    again = memory.import_jsonl(out)
    assert (again.turns, again.duplicates + again.forgotten) == (0, 1)
    assert texts(memory.turns()) == ["a", "b"]
    file.write_text(chat_line("x", **more))
    assert memory.import_jsonl(file).turns == 1  # control: another conversation still goes in


def test_what_was_undone_does_not_come_back_with_the_next_import(memory: Memory, tmp_path: Path) -> None:
    name = say(memory, "a", "b", "c", "d")[0].conversation
    memory.export_jsonl(out := tmp_path / "out.jsonl")
    memory.undo(name)
    assert memory.import_jsonl(out).duplicates == 1
    assert texts(memory.turns()) == ["a", "b"]


def test_a_dry_run_tells_what_the_import_will_do_and_does_nothing(
    memory: Memory, home: Home, tmp_path: Path
) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join([chat_line("a", "b"), chat_line("a", "b"), "bad", chat_line("c", id="c")]))
    told = memory.import_jsonl(file, dry_run=True)
    assert memory.turns() == []
    assert list(home.memory_db.parent.glob("*.rejected.jsonl")) == []
    assert memory.audit() == []
    done = memory.import_jsonl(file)
    assert (told.conversations, told.turns, told.duplicates, told.bad) == (
        done.conversations,
        done.turns,
        done.duplicates,
        done.bad,
    )
    assert told.rejected is None


def test_a_missing_file_is_told(memory: Memory, tmp_path: Path) -> None:
    with pytest.raises(MemoryFault, match=r"cannot read .*nowhere.jsonl: No such file"):
        memory.import_jsonl(tmp_path / "nowhere.jsonl")
    with pytest.raises(MemoryFault, match="Is a directory"):
        memory.import_jsonl(tmp_path)


def test_a_big_file_goes_in_by_few_transactions_and_tells_how_far_it_is(
    memory: Memory, tmp_path: Path
) -> None:
    file = tmp_path / "in.jsonl"
    with file.open("w") as out:
        for i in range(3000):
            out.write(chat_line(f"question {i}", f"answer {i}") + "\n")
    told: list[jsonl.ImportProgress] = []
    done: list[str] = []
    memory._db.set_trace_callback(done.append)
    report = memory.import_jsonl(file, on_progress=told.append)
    assert report.turns == 6000
    assert 1 <= done.count("COMMIT") < 100  # of 3,000 lines; each waits for the disk
    assert [p.lines for p in told] == [1000, 2000, 3000]
    assert told[-1].done_bytes == told[-1].size_bytes == file.stat().st_size
    assert memory.import_jsonl(file).duplicates == 3000
    assert done.count("COMMIT") < 200


def test_stats_count_what_is_there(memory: Memory, tmp_path: Path) -> None:
    assert memory.stats().turns == 0
    assert memory.stats().oldest is None
    turns = say(memory, "a #private", "b", "c", "d", "e", "f")
    say(memory, "g")
    memory.undo(turns[0].conversation)
    memory.forget([turns[3].id])
    memory.remember(turns[0].conversation, "assistant", "half", interrupted=True)
    (tmp_path / "in.jsonl").write_text(chat_line("x", "y"))
    memory.import_jsonl(tmp_path / "in.jsonl")
    found = memory.stats()
    assert (found.conversations, found.turns, found.undone, found.forgotten, found.interrupted) == (
        3,
        7,
        2,
        1,
        1,
    )
    assert found.by_role == {"assistant": 3, "user": 4}
    assert found.by_origin == {"chat": 5, "import": 2}
    assert found.by_tag == {"private": 1}
    assert found.waiting == 3  # c, g, x
    assert found.oldest and found.newest and found.oldest < found.newest
    assert found.size_bytes > 0


def test_conversations_are_listed_with_their_opening(memory: Memory) -> None:
    first, second = say(memory, "hello", "hi"), say(memory, "again")
    found = memory.conversations()
    assert [(c.id, c.turns, c.opening) for c in found] == [
        (first[0].conversation, 2, "hello"),
        (second[0].conversation, 1, "again"),
    ]
    assert found[0].last_at == first[1].created_at
    memory.undo(second[0].conversation)
    assert len(memory.conversations()) == 1


# -- privacy


def test_no_text_reaches_the_log_the_audit_or_an_error(
    memory: Memory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "quincunx"
    turns = say(memory, f"{secret} #private", secret)
    (tmp_path / "in.jsonl").write_text(
        f"{secret}\n" + chat_line(secret, id=secret * 50) + "\n" + chat_line(secret)
    )
    report = memory.import_jsonl(tmp_path / "in.jsonl")
    memory.export_jsonl(tmp_path / "out.jsonl")
    memory.undo(turns[0].conversation)
    memory.forget([turns[0].id])
    assert secret not in caplog.text
    assert "forgot 1 turns" in caplog.text  # control: something is logged
    assert secret not in str(memory.audit())
    assert secret not in str(report.bad)
    assert {r.action for r in memory.audit()} == {"import", "export", "undo", "forget"}


def test_reading_the_log_needs_no_model(home: Home) -> None:
    code = "import sys, mlx_plastic.memory; print(sorted({'mlx', 'mlx_lm', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_import_of_which_nothing_can_be_used_ends_with_1(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "memories.jsonl"
    for text, code in (
        ("not json\n", 1),
        ('not json\n{"messages": [{"role": "user", "content": "Hi"}]}\n', 0),
    ):
        file.write_text(text)
        for more in ([], ["--json"]):
            command = ["--home", str(home.root), "memory", "import", str(file), *more]
            assert CliRunner().invoke(plastic, command).exit_code == code

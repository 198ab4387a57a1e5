from __future__ import annotations

import json
import logging
import random
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from letters import Letters
from mlx_plastic.errors import MemoryFault
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.memory.embed import Vectors
from mlx_plastic.memory.index import Hit, Index, Item, store
from mlx_plastic.memory.index.chunks import bands, pieces, same_text
from mlx_plastic.memory.index.stem import stem
from mlx_plastic.memory.index.terms import term_ids, terms
from mlx_plastic.memory.recall import Recall, open_recall

DAY = datetime(2024, 3, 1, 12, tzinfo=UTC)


def items(*texts: str, conversation: str = "c", speaker: str = "user") -> list[Item]:
    return [
        Item(f"{conversation}{i}", conversation, i, DAY + timedelta(minutes=i), speaker, text)
        for i, text in enumerate(texts)
    ]


def found(index: Index | Recall, question: str, limit: int = 10) -> list[str]:
    return [hit.turn for hit in index.search(question, limit)]


def say(memory: Memory, *texts: str) -> list[str]:
    """A conversation by turns; the ids."""
    name = memory.new_conversation()
    return [memory.remember(name, "assistant" if i % 2 else "user", t).id for i, t in enumerate(texts)]


@pytest.fixture
def memory(home: Home) -> Memory:
    return Memory(home)


# -- what goes in


def test_what_was_put_in_is_found_by_its_words() -> None:
    index = Index(None)
    index.add(items("the bicycle is in the shed", "Lyon is on the Rhone", "we sold the boat in June"))
    assert found(index, "where are the bicycles?")[0] == "c0"
    assert found(index, "which river is in Lyon?")[0] == "c1"
    assert found(index, "selling boats")[0] == "c2"
    assert index.search("   ") == []
    assert Index(None).search("anything") == []


@pytest.mark.parametrize("length", [1, 999, 1000, 1001, 1500, 5000, 100_000])
def test_long_texts_are_cut_to_pieces_of_the_right_size_that_overlap(length: int) -> None:
    dice = random.Random(length)
    text = "".join(dice.choice(["word ", "a ", "longer. ", "\n"]) for _ in range(length))[:length]
    cut = pieces(text)
    assert cut[0][0] == 0
    assert cut[-1][1] == length
    if length <= 1000:
        assert len(cut) == 1
    else:
        assert all(512 <= end - start <= 1000 for start, end in cut)
        shares = [(end - start) / 800 for (_, end), (start, _) in pairwise(cut)]
        assert all(0.1 <= -share <= 0.2 or 0.1 <= share <= 0.2 for share in shares)


def test_the_stems_are_those_of_sqlite() -> None:
    words = sorted({w for t in (Path(__file__).parent / "data").rglob("*.*") for w in _words(t)})
    words += "caresses ponies agreed hopping filing relational vietnamization controlling skies".split()
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE t USING fts5 (x, tokenize = 'porter unicode61')")
    db.execute("CREATE VIRTUAL TABLE v USING fts5vocab (t, 'instance')")
    db.executemany("INSERT INTO t (rowid, x) VALUES (?, ?)", enumerate(words, 1))
    reference = dict(db.execute("SELECT doc, term FROM v"))
    assert [stem(w) for w in words] == [reference[i] for i in range(1, len(words) + 1)]


def _words(path: Path) -> set[str]:
    text = path.read_bytes().decode("utf-8", "ignore").lower()
    return {w for w in text.split() if w.isascii() and w.isalpha() and len(w) < 30}


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Ann's cafés", "anns cafe"),
        ("Straße", "STRASSE"),
        ("東京タワー", "東京"),
        ("O'Brien", "o\u2019brien"),
    ],
)
def test_case_accents_and_scripts_without_spaces_do_not_hide_a_word(text: str, same: str) -> None:
    assert set(terms(same)) & set(terms(text))
    assert not set(terms("nothing alike")) & set(terms(text))


def test_what_is_said_again_is_kept_once_and_comes_back_when_the_first_is_taken_out() -> None:
    index = Index(None)
    a, b, c = items(
        "I live in Porto, near the old bridge.", "Really?", "i live in Porto near the old bridge!!"
    )
    index.add([a, b, c])
    (hit, *_) = index.search("who lives in Porto?")
    assert (hit.turn, hit.also, hit.at) == ("c0", ("c2",), c.at)
    assert index.stats().repeats == 1
    assert index.drop(["c0"]) == ("c2",)  # the caller is told whom to bring again
    assert found(index, "Porto bridge") == ["c1"]
    index.add([c])
    assert found(index, "Porto bridge")[0] == "c2"


LONG = (
    "When we were all sitting at the table on the terrace of the house by the sea my sister told us at length"
    " how she had moved with her children from Lyon to Porto in the spring of 2019 because of work"
)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (LONG.upper() + "!", True),
        (LONG.replace("at length", "at depth"), True),
        (LONG.replace("2019", "2020"), False),
        (LONG.replace("Porto", "Nantes"), False),
        (LONG.replace("because of", "not because of"), False),
        (LONG[:100], False),
        (LONG + "?", False),
    ],
)
def test_a_correction_is_no_repetition(other: str, same: bool) -> None:
    assert same_text(LONG, other) is same
    if same:
        assert set(bands(term_ids(LONG))) & set(bands(term_ids(other)))
    index = Index(None)
    index.add(items(LONG, "hm", other))
    assert index.stats().repeats == int(same)
    assert ("c2" in found(index, "Lyon work sea", 3)) or LONG.upper() in other


def test_of_two_that_differ_a_little_the_later_is_found() -> None:
    index = Index(None)
    index.add(items(LONG, "hm", LONG.replace("at length", "at depth")))
    hit = index.search("the terrace by the sea")[0]
    assert (hit.turn, hit.also) == ("c2", ("c0",))


def test_a_text_that_comes_anew_takes_the_place_of_the_old_one() -> None:
    index = Index(None)
    index.add(items("the key is under the mat"))
    index.add(items("the key is with Ann"))
    assert [hit.text for hit in index.search("key")] == ["the key is with Ann"]


def test_an_index_that_grew_answers_as_one_made_at_once() -> None:
    dice = random.Random(1)
    names = "bridge garden river letter piano winter teacher oven market lamp".split()
    all_items = [
        Item(f"t{i}", f"c{i % 7}", i, DAY, "user", " ".join(dice.choices(names, k=6)) + f" {i}")
        for i in range(300)
    ]
    grown, whole = Index(None, embedder=Letters()), Index(None, embedder=Letters())
    for start in range(0, 300, 12):
        grown.add(all_items[start : start + 12])
        grown.embed()
        grown.search("piano")
    whole.add(all_items)
    whole.embed()
    for question in ("the piano lamp", "winter letter 17", "oven"):
        assert [(h.turn, h.score) for h in grown.search(question)] == [
            (h.turn, pytest.approx(h.score, abs=1e-3)) for h in whole.search(question)
        ]
    grown.drop(["t17"])
    assert "t17" not in found(grown, "winter letter 17", 300)


@pytest.mark.parametrize(
    "text",
    [
        "\0 nul \0",
        "🙂🙂",
        "مرحبا بالعالم",
        "שלום",
        "\u202eabc",
        "x" * 100_000,
        "?",
        "ok\ud800".encode("utf-8", "replace").decode(),
    ],
)
def test_strange_texts_go_in_and_come_out(text: str) -> None:
    index = Index(None, embedder=Letters())
    index.add(items(text, "something else"))
    index.embed()
    assert len(index.search(text or "x")) == 2
    assert len(index.search("something")) == 2


def test_a_megabyte_is_taken_in_quickly() -> None:
    index = Index(None)
    began = time.process_time()
    index.add(items("".join(f"word{i % 5000} and so on. " for i in range(50_000))))
    assert time.process_time() - began < 10
    assert found(index, "word4999") == ["c0"]


def test_a_question_of_a_megabyte_is_answered_quickly_by_its_ends() -> None:
    index = Index(None, embedder=Letters())
    index.add(
        items("the piano is out of tune", "the bicycle is in the shed", *(f"word{i}" for i in range(99)))
    )
    index.embed()
    began = time.process_time()
    (hit, *_) = index.search("".join(f"word{i} " for i in range(150_000)) + "Where is the bicycle?")
    assert time.process_time() - began < 10
    assert hit.turn == "c1" or hit.text.startswith("word")


class Interrupted(Letters):
    """Something else happens while a question is embedded."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    def embed(self, texts: Sequence[str]) -> list[Vectors]:
        self.meanwhile()
        return super().embed(texts)


def test_a_search_sees_one_state_though_another_process_takes_turns_out_meanwhile(tmp_path: Path) -> None:
    index, other = Index(tmp_path / "i", embedder=Letters()), Index(tmp_path / "i")
    index.add(items("the boat is blue", "the boat was sold", "Lyon is on the Rhone"))
    index.embed()
    index.embedder = Interrupted(lambda: other.drop(["c0", "c1"]))
    assert sorted(found(index, "the boat", 2)) == ["c0", "c1"]  # it had begun before
    assert found(index, "the boat", 2) == ["c2"]  # control: they were taken out


# -- two embedders, and none


def test_vectors_of_another_embedder_are_replaced_and_never_mixed(tmp_path: Path) -> None:
    first = Index(tmp_path / "i", embedder=Letters(0))
    first.add(items("alpha beta", "gamma delta", "epsilon zeta"))
    assert first.embed() == 0
    assert first.search("gamma")[0].meaning > 0  # control
    first.close()
    second = Index(tmp_path / "i", embedder=Letters(5))
    assert second.waiting() == 3
    assert all(hit.meaning == 0 for hit in second.search("gamma"))  # by words, not by the old vectors
    assert second.embed(seconds=0) == 0
    assert {name for (name,) in second.run("SELECT embedder FROM vectors")} == {"letters/5"}
    assert second.search("gamma")[0].meaning > 0
    second.close()
    bare = Index(tmp_path / "i")  # it was taken off: the vectors stay, and are not used
    assert bare.search("gamma")[0].turn == "c1"
    assert bare.stats().embedded == 3


def test_a_search_does_not_wait_for_the_vectors_of_a_long_log(memory: Memory, home: Home) -> None:
    say(memory, *(f"word{i} and so on" for i in range(600)))
    recall = Recall(memory, home.memory_index, embedder=Letters(), admit=lambda t: list(t), embed_s=0)
    assert found(recall, "word17", 1)
    for _ in range(3000):
        if recall.stats().waiting == 0:
            break
        time.sleep(0.02)
    stats = recall.stats()
    recall.close()
    assert (stats.waiting, stats.embedded) == (0, 600)


# -- in step with the log


def test_what_is_in_the_log_is_found_and_what_was_taken_back_is_not(memory: Memory) -> None:
    first = say(memory, "the bicycle is in the shed", "I see")
    recall = memory.recall(model=False)
    assert found(recall, "bicycle")[0] == first[0]
    second = say(memory, "the piano is out of tune", "Oh no")
    assert found(recall, "piano")[0] == second[0]
    memory.undo(memory.pick([second[0]])[0].conversation)
    assert second[0] not in found(recall, "piano")
    assert first[0] in found(recall, "piano bicycle")  # control


@pytest.mark.parametrize("tag", ["no-rag", "private"])
def test_a_tag_keeps_the_question_and_its_answer_out_also_later(memory: Memory, tag: str) -> None:
    tagged = say(memory, f"my locker is number 4711 #{tag}", "Locker 4711, noted")
    later = say(memory, "my cellar is number 12", "Cellar 12, noted")
    recall = memory.recall(model=False)
    assert found(recall, "locker cellar") == [later[0], later[1]] or set(
        found(recall, "locker cellar")
    ) == set(later)
    memory.tag([later[1]], tag)
    assert found(recall, "locker cellar") == []
    memory.tag([later[1]], tag, remove=True)
    assert set(found(recall, "locker cellar")) == set(later)
    memory.tag([tagged[0]], tag, remove=True)
    assert set(found(recall, "locker")) == {*later, *tagged}
    memory.tag([tagged[0]], "no-train")
    assert {"no-train"} == set(next(h for h in recall.search("locker") if h.turn == tagged[0]).tags)


def test_secrets_do_not_enter_the_index(memory: Memory, home: Home) -> None:
    key = "ghp_" + "a1B2" * 9
    say(memory, f"the deploy key of the shop is {key}, keep it", "Yes")
    recall = memory.recall(model=False)
    assert found(recall, "deploy key of the shop")
    memory.close()
    assert key.encode() not in home.memory_index.read_bytes()
    assert b"deploy key" in home.memory_index.read_bytes()  # control


def test_system_messages_are_not_found(memory: Memory) -> None:
    memory.remember("c", "system", "You are a pirate.")
    memory.remember("c", "user", "I like ships")
    assert [h.speaker for h in memory.recall(model=False).search("pirate ships")] == ["user"]


def test_forget_leaves_the_text_in_no_byte_of_any_file(memory: Memory, home: Home) -> None:
    words = "The quincunx orchard behind Zeldenrust has 17 medlars"
    ids = say(memory, words, "Lovely", words, "Indeed", *(f"filler {i} {'x' * 300}" for i in range(50)))
    recall = memory.recall(model=False)
    recall.bring_up(found(recall, "orchard"))
    folder = home.memory_db.parent
    assert b"quincunx" in b"".join(f.read_bytes() for f in folder.iterdir())  # control
    numbers = term_ids("quincunx").astype("<u4").tobytes()
    assert numbers in b"".join(f.read_bytes() for f in folder.iterdir())  # control
    memory.forget([ids[0]])
    assert found(recall, "quincunx orchard")[0] == ids[2]  # it was said again: that turn was not forgotten
    memory.forget([ids[2]])
    left = b"".join(f.read_bytes() for f in folder.iterdir())
    for trace in (b"quincunx", b"Zeldenrust", b"medlars", "quincunx".encode("utf-16-le"), numbers):
        assert trace not in left
    assert not {ids[0], ids[2]} & set(found(recall, "quincunx orchard", 100))


def test_a_turn_forgotten_while_the_index_was_away_leaves_it_at_the_next_use(
    memory: Memory, home: Home
) -> None:
    (turn,) = say(memory, "the quincunx orchard")
    memory.recall(model=False).catch_up()
    away = home.memory_index.rename(home.memory_index.with_name("away"))
    memory.close()
    with Memory(home) as again:
        again.forget([turn])
    away.rename(home.memory_index)
    with Memory(home) as again:
        assert again.recall(model=False).search("orchard") == []
    assert b"quincunx" not in home.memory_index.read_bytes()


def test_an_index_of_another_log_or_of_other_rules_is_made_anew(
    memory: Memory, home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    say(memory, "call me at +49 170 1234567 about the piano")
    memory.recall(model=False).catch_up()
    memory.close()
    home.config_file.write_text('[privacy.index]\nphone = "keep"\n')
    with Memory(home) as again:
        assert "1234567" in again.recall(model=False).search("piano")[0].text
    home.memory_db.unlink()
    with Memory(home) as other:
        say(other, "the garden")
        assert [h.text for h in other.recall(model=False).search("piano")] == ["the garden"]
    assert caplog.text.count("made anew") == 2


# -- the disk


@pytest.mark.parametrize(
    "damage", ["garbage", "torn", "pages", "middle", "foreign", "newer", "empty", "gone"]
)
def test_a_damaged_index_is_made_anew_from_the_log_and_says_so(
    memory: Memory, home: Home, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    say(memory, "the bicycle is in the shed", *(f"word{i} " * 150 for i in range(60)))
    before = found(memory.recall(model=False), "bicycle")
    memory.close()
    log_bytes, path = home.memory_db.read_bytes(), home.memory_index
    whole = path.read_bytes()
    if damage in ("foreign", "gone"):
        path.unlink()
    if damage == "foreign":
        sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close()
    elif damage == "newer":
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.close()
    elif damage != "gone":
        page = store.PAGE_BYTES
        path.write_bytes(
            {
                "garbage": b"not a database at all" * 500,
                "torn": whole[: len(whole) // 2],
                "pages": whole[:page] + b"\xa5" * (len(whole) - page),
                "middle": whole[: 2 * page] + b"\xa5" * page * 3 + whole[5 * page :],
                "empty": b"",
            }[damage]
        )
    with caplog.at_level(logging.WARNING), Memory(home) as again:
        recall = again.recall(model=False)
        assert found(recall, "bicycle") == before
        if damage not in ("empty", "gone"):  # those are a new index, not a damaged one
            assert recall.rebuilt
            assert "made anew from the log" in caplog.text
    assert home.memory_db.read_bytes() == log_bytes


def test_a_full_disk_is_told_and_the_index_goes_on_when_there_is_space_again(memory: Memory) -> None:
    say(memory, "before", "yes")
    recall = memory.recall(model=False)
    recall.catch_up()
    recall._index.run("PRAGMA max_page_count = 20")
    say(memory, *(f"quincunx{i} " * 1000 for i in range(80)))
    with pytest.raises(MemoryFault, match=r"no space left for .*\n  hint: free some"):
        recall.search("quincunx1")
    recall._index.run("PRAGMA max_page_count = 1000000")
    assert len(found(recall, "quincunx1", 100)) == 82


def test_only_the_person_can_read_the_index(memory: Memory, home: Home) -> None:
    say(memory, "a")
    memory.recall(model=False).search("a")
    names = sorted(home.memory_index.parent.glob("index.sqlite*"))
    assert {stat.S_IMODE(file.stat().st_mode) for file in names} == {0o600}


def test_a_private_session_has_an_index_and_leaves_nothing_on_the_disk(home: Home) -> None:
    with Memory(None) as memory:
        (turn,) = say(memory, "the bicycle is in the shed")
        assert found(memory.recall(model=False), "bicycle") == [turn]
        memory.forget([turn])
        assert found(memory.recall(), "bicycle") == []
    assert not home.memory_index.exists()


def test_what_nothing_asked_for_can_be_pruned_and_stays_in_the_log(memory: Memory) -> None:
    ids = say(memory, "the bicycle is in the shed", "the piano is out of tune", "the boat was sold")
    recall = memory.recall(model=False)
    recall.bring_up(found(recall, "bicycle", 1))
    assert recall.prune(datetime.now(UTC) - timedelta(days=1)) == 0
    assert recall.prune(datetime.now(UTC) + timedelta(days=1)) == 2
    assert found(recall, "piano") == [ids[0]]
    assert recall.stats().pruned == 2
    say(memory, "something new")
    assert ids[1] not in found(recall, "piano")
    recall.rebuild()
    assert ids[1] in found(recall, "piano")
    assert len(memory.turns()) == 4


# -- what comes out


def test_a_hit_tells_what_it_is(memory: Memory) -> None:
    name = memory.new_conversation()
    memory.remember(name, "user", "Where is it?")
    memory.remember(name, "assistant", "The bicycle is in the shed.", worn=("p",), tags=["no-train"])
    memory.remember(name, "user", "Thanks a lot")
    (hit, *_) = memory.recall(model=False).search("bicycle", around=1)
    assert isinstance(hit, Hit)
    assert (hit.speaker, hit.worn, hit.tags) == ("assistant", ("p",), {"no-train"})
    assert ([b.text for b in hit.before], [a.text for a in hit.after]) == (["Where is it?"], ["Thanks a lot"])
    assert hit.at and abs(hit.at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_search_can_leave_turns_out_and_keep_to_a_time() -> None:
    index = Index(None)
    index.add(items("piano one", "piano two", "piano three"))
    assert found(index, "piano", 1) == ["c0"]
    assert {h.turn for h in index.search("piano", exclude=frozenset({"c0"}))} == {"c1", "c2"}
    assert [h.turn for h in index.search("piano", since=DAY + timedelta(minutes=2))] == ["c2"]
    assert [h.turn for h in index.search("piano", until=DAY)] == ["c0"]


def test_the_memory_commands_need_less_than_a_second_to_import() -> None:
    code = (
        "import sys, time; t = time.process_time(); import mlx_plastic.cli.memory;"
        "heavy = {'mlx', 'mlx_lm', 'torch', 'numpy', 'tokenizers'} & set(sys.modules);"
        "print(time.process_time() - t, sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, heavy = out.split(maxsplit=1)
    assert float(seconds) < 1
    assert heavy.strip() == "[]"


def test_json_of_a_memory_without_an_index_is_plain(home: Home) -> None:
    with Memory(home) as memory:
        recall = open_recall(memory, home, model=False)
        assert json.loads(json.dumps(recall.stats().__dict__))["items"] == 0
        recall.close()


def test_a_disk_that_fails_while_reading_is_told_rather_than_what_that_ended(tmp_path: Path) -> None:
    db, _ = store.connect(tmp_path / "index.sqlite")
    with pytest.raises(MemoryFault, match="disk I/O error"), store.plainly(None), store.reading(db):
        db.execute("SELECT value FROM meta").fetchall()
        db.rollback()  # SQLite itself does so where a read fails
        raise sqlite3.OperationalError("disk I/O error")
    db.close()

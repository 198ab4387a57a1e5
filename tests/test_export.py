"""A whole home in one file and back: the same pack, the same answers; nothing hostile, nothing half."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mlx_plastic
from mlx_plastic.base import load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadArchive, Busy, PlasticError, Taken
from mlx_plastic.home import Home, find_home, locked
from mlx_plastic.home import export as room
from mlx_plastic.home.contents import DATA, REMADE, carried, is_part
from mlx_plastic.home.export import HALF, MANIFEST, export
from mlx_plastic.home.restore import read_archive, restore
from mlx_plastic.home.tape import safe_name
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.sleep import sleep
from nightly import write_config
from test_night import CHOSEN, say

SOURCE = Path(mlx_plastic.__file__).parent
SCRIPT = "import sys; from mlx_plastic.cli.main import main; main()"


def run(home: Home | Path, *arguments: object, says: str = "") -> Result:
    root = home.root if isinstance(home, Home) else home
    return CliRunner().invoke(plastic, ["--home", str(root), *map(str, arguments)], input=says)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Home:
    """A home with a chat, a night that passed, a pin, settings and a cache."""
    home = find_home(tmp_path_factory.mktemp("lived") / "home")
    night = dataclasses.replace(CHOSEN.night, epochs=12)  # so that the pack is heard
    chosen = dataclasses.replace(CHOSEN, night=night)
    write_config(home, chosen, checkpoint)
    say(home, 8)
    assert sleep(home, load_base(str(checkpoint), cache=None), chosen=chosen, tag="one").outcome == "passed"
    Store(home).pin("one")
    (home.cache / "fingerprints").mkdir(parents=True, exist_ok=True)
    (home.cache / "fingerprints" / "x.json").write_text("{}")
    return home


@pytest.fixture(scope="module")
def archive(lived: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("archive") / "home.tar.gz"
    export(lived, out)
    return out


def digests(home: Home) -> dict[str, str]:
    found = {p.relative_to(home.root).as_posix(): p for p in carried(home)}
    return {
        n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in found.items() if not n.endswith(".sqlite")
    }


def rows(home: Home) -> list[tuple[object, ...]]:
    with sqlite3.connect(home.memory_db) as db:
        return [row for t in ("turns", "learned", "audit") for row in db.execute(f"SELECT * FROM {t}")]


def answers(home: Home) -> str:
    done = run(home, "chat", "--no-log", "--max-tokens", 48, says="What is my cat called?\nWho am I?\n")
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_a_home_comes_back_whole_wears_the_same_pack_and_says_the_same(
    lived: Home, archive: Path, tmp_path: Path
) -> None:
    with tarfile.open(archive) as tar:  # any tar reads it
        names = tar.getnames()
    assert names == [*sorted(names[:-1]), MANIFEST] and not any(n.startswith("cache") for n in names)
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    done = run(tmp_path / "there", "import", archive, "--json")
    assert done.exit_code == 0, done.stderr
    back = Home((tmp_path / "there").resolve())
    assert json.loads(done.stdout)["files"] == len(names) - 1
    assert stat.S_IMODE(back.root.stat().st_mode) == 0o700
    assert digests(back) == digests(lived) and rows(back) == rows(lived)
    assert Store(back).active() == Store(lived).active() == ("one",)
    assert Store(back).read("one").manifest == Store(lived).read("one").manifest
    assert os.path.realpath(back.adapters / "nightly_update").startswith(str(back.root))
    said = answers(back)
    assert said == answers(lived)
    Store(back).rollback()
    assert answers(back) != said  # control: the pack is heard


def test_the_same_home_gives_the_same_bytes(lived: Home, archive: Path, tmp_path: Path) -> None:
    done = run(lived, "export", tmp_path / "again.tar.gz", "--json")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes()


def test_it_is_made_while_others_write_and_holds_one_moment(home: Home, tmp_path: Path) -> None:
    stop, wrote = threading.Event(), 0

    def chat() -> None:
        nonlocal wrote
        with Memory(home) as memory:
            talk = memory.new_conversation()
            while not stop.is_set():
                memory.remember(talk, "user", f"line {wrote}")
                wrote += 1

    thread = threading.Thread(target=chat)
    thread.start()
    try:
        while wrote < 5:
            threading.Event().wait(0.01)
        least = wrote
        export(home, tmp_path / "x.tar.gz")
    finally:
        stop.set()
        thread.join()
    back = Home(tmp_path / "back")
    back.root.mkdir()
    restore(read_archive(tmp_path / "x.tar.gz"), back)
    with Memory(back) as memory:
        said = [turn.content for turn in memory.turns()]
    assert least - 1 <= len(said) <= wrote and said == [f"line {i}" for i in range(len(said))]


def test_nothing_is_overwritten_and_a_night_has_to_end_first(lived: Home, tmp_path: Path) -> None:
    out = tmp_path / "x.tar.gz"
    out.write_text("mine")
    with pytest.raises(Taken):
        export(lived, out)
    assert out.read_text() == "mine"
    with locked(lived, "night", hint=""), pytest.raises(Busy):
        export(lived, tmp_path / "y.tar.gz")
    with pytest.raises(PlasticError, match="there is no folder"):
        export(lived, tmp_path / "none" / "y.tar.gz")
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar.gz"]
    assert "links" in json.loads(run(lived, "export", tmp_path / "z.tar.gz", "--json").stdout)
    assert json.loads(run(lived, "export", tmp_path / "q", "--dry-run", "--json").stdout)["dry_run"] is True
    assert not (tmp_path / "q").exists()


def test_links_are_left_out_and_told(home: Home, tmp_path: Path) -> None:
    with Memory(home) as memory:
        memory.remember(memory.new_conversation(), "user", "hello")
    (tmp_path / "secret").write_text("quincunx")
    (home.root / "logs").mkdir()
    (home.root / "logs" / "away").symlink_to(tmp_path / "secret")
    done = run(home, "export", tmp_path / "x.tar.gz")
    assert "logs/away is a link and was left out" in done.stderr
    assert b"quincunx" not in gzip.decompress((tmp_path / "x.tar.gz").read_bytes())


def test_an_import_goes_into_an_empty_home_only(lived: Home, archive: Path) -> None:
    before = digests(lived)
    done = run(lived, "import", archive)
    assert done.exit_code == 1 and "homes are never merged" in done.stderr
    assert digests(lived) == before


# -- what is not taken in


def made(
    change: Callable[[tarfile.TarFile], None], names: dict[str, bytes], *, manifest: bool = True
) -> bytes:
    """An archive with these files and what `change` adds behind them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in names.items():
            add(tar, name, data)
        change(tar)
        if manifest:
            listed = {n: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d in names.items()}
            value = {"format": "mlx-plastic home", "format_version": 1, "plastic": "0", "files": listed}
            add(tar, MANIFEST, json.dumps(value).encode())
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def nothing(tar: tarfile.TarFile) -> None:
    pass


GOOD = {"config.toml": b"[chat]\n", "logs/a.jsonl": b"{}\n"}
HOSTILE = {
    "up": made(nothing, GOOD | {"logs/../../x": b"1"}),
    "absolute": made(nothing, {"/etc/x": b"1"}),
    "dot": made(nothing, {"./config.toml": b"1"}),
    "empty part": made(nothing, {"logs//x": b"1"}),
    "control": made(nothing, {"logs/a\x07": b"1"}),
    "foreign": made(nothing, {"bin/x": b"1"}),
    "cache": made(nothing, {"cache/x": b"1"}),
    "link": made(lambda t: add(t, "logs/l", type=tarfile.SYMTYPE, linkname="/etc/passwd"), GOOD),
    "hard link": made(lambda t: add(t, "logs/l", type=tarfile.LNKTYPE, linkname="config.toml"), GOOD),
    "folder": made(lambda t: add(t, "logs/d", type=tarfile.DIRTYPE), GOOD),
    "pipe": made(lambda t: add(t, "logs/p", type=tarfile.FIFOTYPE), GOOD),
    "device": made(lambda t: add(t, "logs/p", type=tarfile.CHRTYPE), GOOD),
    "long name": made(lambda t: add(t, "x", b"logs/x", type=tarfile.GNUTYPE_LONGNAME), GOOD),
    "pax": made(lambda t: add(t, "x", b"20 path=../../../x\n", type=tarfile.XHDTYPE), GOOD),
    "twice": made(lambda t: add(t, "logs/A.jsonl", b"{}\n"), GOOD),
    "file as folder": made(nothing, {"logs/a": b"1", "logs/a/b": b"2"}),
    "not listed": made(lambda t: add(t, "logs/more", b"1"), GOOD),
    "no manifest": made(nothing, GOOD, manifest=False),
    "behind it": made(nothing, GOOD)[:-8] + gzip.compress(b"more"),
    "two": made(nothing, GOOD) + made(nothing, GOOD),
    "no gzip": b"hello" * 1000,
    "empty": b"",
    "negative": gzip.compress(header("logs/n", -512) + bytes(1024)),
    "torn": b"\x1f\x8b",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_or_torn_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.tar.gz"
    file.write_bytes(HOSTILE[name])
    done = run(tmp_path / "home", "import", file, "--json")
    assert done.exit_code == 1 and "Traceback" not in done.stderr, done.output
    assert json.loads(done.stdout)["error"]["code"] == "PLASTIC-D002"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["home", "x.tar.gz"]


def test_a_good_one_of_the_same_make_is_taken_in(tmp_path: Path) -> None:
    file = tmp_path / "x.tar.gz"
    file.write_bytes(made(nothing, GOOD))
    done = run(tmp_path / "home", "import", file)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "home" / "logs" / "a.jsonl").read_bytes() == b"{}\n"


def test_every_byte_that_is_lost_or_changed_is_noticed(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    file = tmp_path / "x.tar.gz"
    for cut in (len(whole) - 1, len(whole) - 9, len(whole) // 2, 100, 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(BadArchive):
            read_archive(file)
    plain = bytearray(gzip.decompress(whole))
    for place in range(0, len(plain) - 11_000, max(1, len(plain) // 40)):
        if plain[place] == 0 and place % 512 > 400:
            continue
        torn = bytearray(plain)
        torn[place] ^= 1
        file.write_bytes(gzip.compress(bytes(torn), 1))
        with pytest.raises(BadArchive):
            read_archive(file)
    file.write_bytes(gzip.compress(bytes(plain), 1))
    assert read_archive(file).files  # control


def test_what_is_too_large_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "x.tar.gz"
    info = tarfile.TarInfo("logs/zeros")
    info.size = 10**12  # declared; a bomb need not be there to be refused
    file.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10**6)))
    with pytest.raises(BadArchive, match="too large"):
        read_archive(file)
    file.write_bytes(made(nothing, {"logs/zeros": bytes(3 * 10**6)}))
    assert run(tmp_path / "home", "import", file, "--max-gb", "0.001").exit_code == 1
    assert run(tmp_path / "home", "import", file, "--dry-run").exit_code == 0
    assert list((tmp_path / "home").iterdir()) == []


def test_a_home_of_no_use_is_refused_before_it_is_there(tmp_path: Path) -> None:
    for names, message in (
        ({"config.toml": b"[chta]\n"}, "unknown section"),
        ({"memory/log.sqlite": b"no database" * 1000}, "log.sqlite"),
        ({"packs/state.json": b"{"}, "state.json"),
    ):
        file = tmp_path / "x.tar.gz"
        file.write_bytes(made(nothing, names))
        done = run(tmp_path / "home", "import", file)
        assert done.exit_code == 1 and message in done.stderr
        assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "x.tar.gz"]
        assert list((tmp_path / "home").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from mlx_plastic.home import Home
from mlx_plastic.home import restore as room
at, n, real = int(sys.argv[3]), 0, room.sync
def sync(descriptor):
    global n
    real(descriptor)
    n += 1
    if n == at: os.kill(os.getpid(), signal.SIGKILL)
room.sync = sync
room.restore(room.read_archive(Path(sys.argv[1])), Home(Path(sys.argv[2])))
"""


def test_an_import_that_is_killed_leaves_an_empty_home_and_the_next_one_cleans_up(
    archive: Path, tmp_path: Path
) -> None:
    root = tmp_path / "home"
    root.mkdir()
    for at in (1, 4):
        command = [sys.executable, "-c", KILLED, str(archive), str(root), str(at)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert list(root.iterdir()) == []
    assert any(p.name.endswith(".importing") for p in tmp_path.iterdir())  # control: it was under way
    done = run(root, "import", archive)
    assert done.exit_code == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


def test_an_import_that_comes_second_leaves_the_locks_of_the_home_alone(
    archive: Path, tmp_path: Path
) -> None:
    """It was empty when the second began, and is a home at work when it ends."""
    home = Home(tmp_path / "home")
    home.root.mkdir()

    def first(staged: Home) -> None:
        shutil.copytree(staged.root, home.root, dirs_exist_ok=True)
        home.lock_file("night").parent.mkdir(exist_ok=True)
        home.lock_file("night").touch()

    found = read_archive(archive)
    with pytest.raises(Taken, match="is not empty"):
        restore(found, home, check=first)
    assert home.lock_file("night").exists() and digests(home)


KILLED_OUT = """
import os, signal, sys
from pathlib import Path
from mlx_plastic.home import Home
from mlx_plastic.home import export as room
copied = []
whole = room._copy
def kills(writer, name, source):
    if name.endswith(".sqlite"):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(writer, name, source)
room._copy = kills
room.export(Home(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_what_a_killed_export_left_is_deleted_by_the_next_one_and_by_a_forget(
    home: Home, tmp_path: Path
) -> None:
    say(home, 2)
    out, other = tmp_path / "out", tmp_path / "out" / ".mine.part"
    out.mkdir()
    other.touch()
    command = [sys.executable, "-c", KILLED_OUT, str(home.root), str(out / "a.tar.gz")]
    for ends in ("export", "forget"):
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert [p for p in out.iterdir() if p.name.endswith(HALF)]  # control: it was under way
        (copy,) = home.cache.glob(f".log.sqlite.*{HALF}")
        assert b"Rex" in copy.read_bytes()  # control: it holds what was said
        if ends == "forget":
            with Memory(home) as memory:
                turns = [turn.id for turn in memory.turns()]
            assert run(home, "memory", "forget", *turns, "--yes").exit_code == 0
        else:
            export(home, out / f"{ends}.tar.gz")
            assert sorted(p.name for p in out.iterdir()) == [".mine.part", "export.tar.gz"]
        assert not list(home.cache.glob(f".*{HALF}"))


def test_copies_are_made_beside_the_file_where_the_homes_disk_is_full(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(home, 2)
    out, made = tmp_path / "out", list[Path]()
    out.mkdir()
    half = room._half

    def noted(folder: Path, name: str) -> Any:
        made.append(folder)
        return half(folder, name)

    monkeypatch.setattr(room, "_half", noted)
    export(home, out / "roomy.tar.gz")
    assert home.cache in made  # control
    made.clear()
    usage = shutil.disk_usage(home.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    export(home, out / "full.tar.gz")
    assert set(made) == {out}
    assert (out / "full.tar.gz").read_bytes() == (out / "roomy.tar.gz").read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["full.tar.gz", "roomy.tar.gz"]


NO_ROOM = """
import resource, signal, sqlite3, sys
from pathlib import Path
from mlx_plastic.home.export import _backup
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    sqlite3.connect(sys.argv[1]).execute("SELECT * FROM said").fetchall()
    sys.exit("control: it can be opened")
except sqlite3.OperationalError as error:
    print(error.sqlite_errorname)
_backup(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_database_that_sqlite_has_no_room_to_open_is_copied(tmp_path: Path) -> None:
    """No file may grow past 20 kB: the database does not, what SQLite puts beside an open one would."""
    whole, copy = tmp_path / "log.sqlite", tmp_path / "copy"
    with contextlib.closing(sqlite3.connect(whole)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE said (text)")
        made.execute("INSERT INTO said VALUES ('My dog is Rex.')")
        made.commit()
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(whole), str(copy)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, room.NO_ROOM_TO_OPEN + "\n"), done.stderr
    with contextlib.closing(sqlite3.connect(copy)) as read:
        assert read.execute("SELECT text FROM said").fetchall() == [("My dog is Rex.",)]
        assert read.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_an_export_that_is_under_way_is_not_swept(home: Home, tmp_path: Path) -> None:
    say(home, 2)
    other = find_home(tmp_path / "other")
    say(other, 1)

    def tick(*_: object) -> None:
        if not (tmp_path / "b").exists():
            export(other, tmp_path / "b")

    export(home, tmp_path / "a", tick=tick)
    assert read_archive(tmp_path / "a").files and read_archive(tmp_path / "b").files


# -- what lies in a home


def direct(source: str) -> set[str]:
    """Names that code puts directly into a home: `home.root / "name"`, as far as they are written out."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant):
            left = ast.unparse(node.left)
            if left == "self.root" or (left.endswith("root") and "home" in left):
                found.add(str(node.right.value))
    return found


def test_everything_that_a_room_puts_into_a_home_is_known() -> None:
    texts = (path.read_text("utf-8") for path in SOURCE.rglob("*.py"))
    used = {name for text in texts if "root /" in text for name in direct(text)}
    from mlx_plastic.sleep import digest

    assert used | {digest.FILE} <= DATA.keys() | REMADE.keys()
    assert {"keys.json", "memory", "packs"} <= used  # control: they are found
    assert direct('home.root / "odd.json"') == {"odd.json"}


def test_names_that_lead_elsewhere_are_known() -> None:
    assert safe_name("packs/night one/pack.safetensors") and safe_name("logs/Zoë.jsonl")
    for name in ("", "/a", "a/", "a//b", "a/../b", "..", "a\\b", "a\nb", "a\0b", "x" * 300, "\ud800"):
        assert not safe_name(name), name
    assert is_part(".config.toml.12.34.part") and not is_part("mine.part")

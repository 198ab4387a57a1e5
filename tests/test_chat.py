"""`plastic chat` and `plastic memory`, run as a person runs them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.base import fingerprint
from mlx_plastic.cli import main as cli
from mlx_plastic.cli.chat import COMMANDS
from mlx_plastic.cli.output import printable
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from test_engine import add_pack

SCRIPT = "import sys; from mlx_plastic.cli.main import main; main()"
WARM = ("--temperature", "1", "--max-tokens", "12", "--seed", "3")


def plastic(*arguments: object, says: str | bytes = "") -> subprocess.CompletedProcess[str]:
    """In a process of its own: seconds, where a base is loaded."""
    data = says if isinstance(says, bytes) else says.encode()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], input=data, capture_output=True, timeout=120
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def command(*arguments: object, says: str | bytes = "") -> Result:
    """In this process."""
    return CliRunner().invoke(cli.plastic, [str(a) for a in arguments], input=says)


def said(home: Home) -> list[tuple[str, str]]:
    with Memory(home) as memory:
        return [(t.role, t.content) for t in memory.turns()]


# -- chat from a pipe


def test_each_line_of_a_pipe_is_a_turn_and_only_answers_are_on_stdout(home: Home, checkpoint: Path) -> None:
    done = plastic(
        "chat", "--base", checkpoint, *WARM, says="hello there\n\n  what is my name?  \n/why\n/help\n"
    )
    assert done.returncode == 0, done.stderr
    logged = said(home)
    assert [text for role, text in logged if role == "user"] == ["hello there", "what is my name?"]
    answers = [text for role, text in logged if role == "assistant"]
    assert len(answers) == 2
    assert done.stdout == "".join(f"{printable(text)}\n" for text in answers)
    assert re.search(r"^packs +no pack$", done.stderr, re.MULTILINE)
    assert re.search(r"^prompt +\d+ of 512 tokens$", done.stderr, re.MULTILINE)
    for name in COMMANDS:
        assert re.search(rf"^{name} +\w", done.stderr, re.MULTILINE)
    again = command("chat", "--base", checkpoint, *WARM, says="hello there\n  what is my name?")
    assert again.stdout == done.stdout  # the seed makes it repeatable; the last line needs no end


def test_commands_in_a_chat_do_what_they_say(home: Home, checkpoint: Path) -> None:
    lines = [
        "/undo",
        "/forget",
        "keep me",
        "taken back",
        "/undo",
        "quincunx",
        "/forget",
        "/forget yes",
        "secret",
        "/no-train",
        "//slash",
        "/pack",
        "/quit",
        "never said",
    ]
    done = command("chat", "--base", checkpoint, *WARM, says="\n".join(lines))
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines() == [
        "nothing to take back",
        "nothing to forget",
        "took back 2 turns",
        "this deletes the last 2 turns for ever; to do so: /forget yes",
        "forgot 2 turns",
        "no night will learn from the last 2 turns",
        "wearing no pack",
    ]
    with Memory(home) as memory:
        users = [t for t in memory.turns(undone=True) if t.role == "user"]
        (lesson,) = memory.unlearned()
    assert [(t.content, t.undone, set(t.tags)) for t in users] == [
        ("keep me", False, set()),
        ("taken back", True, set()),
        ("secret", False, {"no-train"}),
        ("/slash", False, set()),
    ]
    assert [t.content for t in lesson.turns if t.role == "user"] == ["keep me", "/slash"]
    assert b"quincunx" not in b"".join(f.read_bytes() for f in home.memory_db.parent.iterdir())


def test_an_unknown_command_names_the_nearest_and_is_not_said(home: Home, checkpoint: Path) -> None:
    done = command("chat", "--base", checkpoint, says="/undu\nhello\n")
    assert done.exit_code == 1
    assert "did you mean /undo?" in done.stderr
    assert said(home) == []


def test_packs_are_worn_as_the_store_says_or_as_this_chat_chooses(home: Home, checkpoint: Path) -> None:
    store = Store(home)
    for seed, name in enumerate(("monday", "tuesday")):
        add_pack(store, name, fingerprint(checkpoint, cache=None), seed=seed)
    store.activate("monday")
    chat = ("chat", "--base", checkpoint, *WARM)
    lines = "cat\n/pack tuesday\ncat\n/pack base\ncat\n/pack active\ncat\n/pack\n"
    done = command(*chat, says=lines)
    assert done.exit_code == 0, done.stderr
    with Memory(home) as memory:
        worn = [t.worn for t in memory.turns() if t.role == "assistant"]
    assert worn == [("monday",), ("tuesday",), (), ("monday",)]
    assert (
        "wearing tuesday in this chat\nwearing no pack in this chat\nwearing monday in this chat"
        in done.stderr
    )
    assert "  monday  active\n  tuesday  candidate\n" in done.stderr
    assert store.active() == ("monday",)
    done = command(*chat, "--pack", "mondey", says="cat\n")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "did you mean 'monday'?" in done.stderr


def test_a_private_chat_leaves_nothing_and_says_so(home: Home, checkpoint: Path) -> None:
    done = command("chat", "--base", checkpoint, "--no-log", *WARM, says="quincunx\n/why\n")
    assert done.exit_code == 0
    assert done.stdout.strip()
    assert "private session: nothing is remembered" in done.stderr
    assert not home.memory_db.parent.exists()
    assert b"quincunx" not in b"".join(f.read_bytes() for f in home.root.rglob("*") if f.is_file())


def test_bytes_that_are_no_text_do_not_end_the_chat(home: Home, checkpoint: Path) -> None:
    done = command("chat", "--base", checkpoint, *WARM, says=b"caf\xe9\nna\xc3\xafve \xf0\x9f\x99\x82\n")
    assert done.exit_code == 0, done.stderr
    assert [text for role, text in said(home) if role == "user"] == ["caf\ufffd", "naïve 🙂"]


def test_a_reader_that_goes_away_ends_the_chat_quietly(home: Home, checkpoint: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, "chat", "--base", str(checkpoint), *WARM]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    process.stdout.close()
    assert process.stdin and process.stderr
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(b"hello\n" * 3)
        process.stdin.close()
    errors = process.stderr.read()
    process.wait(timeout=120)
    assert b"Traceback" not in errors
    assert said(home)[0] == ("user", "hello")


def test_a_faulty_configuration_or_log_is_told_before_the_base_is_loaded(
    home: Home, checkpoint: Path
) -> None:
    home.config_file.write_text("[chat]\nmax_token = 3\n")
    done = command("chat", "--base", checkpoint, says="hi\n")
    assert done.exit_code == 1
    assert "did you mean 'max_tokens'?" in done.stderr
    home.config_file.write_text(f'[chat]\nmax_tokens = 3\n[base]\nref = "{checkpoint}"\n')
    assert command("chat", says="hi\n/why\n").stderr.count("at most 3 tokens") == 1
    home.memory_db.write_bytes(b"")
    done = command("chat", says="hi\n")
    assert done.exit_code == 1
    assert "cut off" in done.stderr
    assert "hint:" in done.stderr


# -- chat at a terminal


class Terminal:
    """A person at a terminal: a child process on a pty."""

    def __init__(self, *arguments: object) -> None:
        self.screen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in what a shell runs in the background
            os.execv(sys.executable, [sys.executable, "-c", SCRIPT, *map(str, arguments)])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def until(self, pattern: str, *, seconds: float = 90) -> str:
        """Read until the screen since the last call matches, and return that part."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.screen, re.DOTALL)):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {pattern!r} on the screen: {self.screen!r}"
            with contextlib.suppress(OSError):  # Linux says EIO when the child has gone
                if data := os.read(self.fd, 65536):
                    self._show(data)
                    continue
            raise AssertionError(f"ended without {pattern!r}: {self.screen!r}")
        text, self.screen = self.screen[: found.end()], self.screen[found.end() :]
        return text

    def _show(self, data: bytes) -> None:
        if b"\x1b[6n" in data:
            os.write(self.fd, b"\x1b[24;1R")  # the terminal is asked where its cursor is
        self.screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode("utf-8", "replace"))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait(self) -> int:
        with contextlib.suppress(OSError):
            while os.read(self.fd, 65536):
                pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(home: Home, checkpoint: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A chat with a base that never stops talking by itself."""
    endless = shutil.copytree(checkpoint, tmp_path / "endless")
    config = json.loads((endless / "config.json").read_text())
    config |= {"eos_token_id": 10**6, "max_position_embeddings": 10**6}
    (endless / "config.json").write_text(json.dumps(config))
    settings = json.loads((endless / "tokenizer_config.json").read_text())
    del settings["eos_token"]  # mlx-lm ends at it, too
    (endless / "tokenizer_config.json").write_text(json.dumps(settings))
    home.config_file.write_text("[chat]\nmax_tokens = 100000\nwindow_tokens = 1000000\ntemperature = 1.0\n")
    person = Terminal("chat", "--base", endless)
    yield person
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(person.pid, signal.SIGKILL)
        os.waitpid(person.pid, 0)


def test_a_person_at_a_terminal_can_talk_stop_an_answer_and_leave(terminal: Terminal, home: Home) -> None:
    terminal.until(r"wearing no pack; /help lists commands.*>")
    terminal.type("/undu quincunx\r")
    terminal.until("did you mean /undo.*>")
    terminal.type("hello there\r")
    terminal.until(r"hello there[\r\n]+.*[^\x08>\r\n]{20}")
    terminal.type("\x03")
    terminal.until(r"\(stopped\).*>")
    terminal.type("/why\r")
    terminal.until(r"\(interrupted\).*>")
    terminal.type("\x03")
    terminal.until(r"/quit ends\).*>")
    terminal.type("\x04")
    assert terminal.wait() == 0
    with Memory(home) as memory:
        question, answer = memory.turns()
    assert question.content == "hello there"
    assert answer.interrupted
    kept = b"".join(f.read_bytes() for f in home.root.rglob("*") if f.is_file())
    assert b"hello there" in kept  # control
    assert b"quincunx" not in kept  # a history file would hold it


def test_an_answer_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\x9b1m\r\n\tc\x7f é🙂") == "a[2Jb1m\n\tc é🙂"


# -- plastic memory


@pytest.fixture
def talked(home: Home) -> list[str]:
    """Ids of a conversation of four turns and of one of one turn."""
    with Memory(home) as memory:
        name = memory.new_conversation()
        turns = [
            memory.remember(name, "assistant" if i % 2 else "user", text)
            for i, text in enumerate(["one", "two", "three", "four"])
        ]
        turns.append(memory.remember(memory.new_conversation(), "user", "a\x1b[2J " + "long " * 20))
        return [t.id for t in turns]


def test_memory_lists_and_shows_what_was_said(home: Home, talked: list[str]) -> None:
    lines = command("memory", "list").stdout.splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("4  chat  one")
    assert lines[2].endswith("…")
    found = json.loads(command("memory", "list", "--json", "--limit", 1).stdout)
    assert [c["turns"] for c in found] == [1]
    shown = command("memory", "show", talked[1][-8:]).stdout
    assert shown.startswith(talked[1])
    assert "assistant" in shown and "two" in shown
    whole = json.loads(command("memory", "show", found[0]["id"], talked[0], "--json").stdout)
    assert [t["content"] for t in whole] == ["one", "a\x1b[2J " + "long " * 20]
    assert "\x1b" not in command("memory", "show", talked[4]).stdout
    done = command("memory", "show", "nonsense")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no turn or conversation 'nonsense'" in done.stderr


def test_an_empty_memory_is_no_error(home: Home) -> None:
    assert command("memory", "list").stdout == "nothing was said yet\n"
    assert json.loads(command("memory", "stats", "--json").stdout)["turns"] == 0
    assert command("memory", "export", "-").stdout == ""


def test_forget_shows_what_it_will_do_and_does_it_only_when_told(home: Home, talked: list[str]) -> None:
    with Memory(home) as memory:
        memory.learned(talked[:2], "2026-11-20")
    done = command("memory", "forget", *talked[:2], "--dry-run")
    assert done.exit_code == 0
    assert "would delete 2 turns of 1 conversations" in done.stdout
    assert "one" in done.stderr
    done = command("memory", "forget", *talked[:2], says="n\n")
    assert done.exit_code == 1
    assert len(said(home)) == 5
    done = command("memory", "forget", *talked[:2], "--yes")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "deleted 2 turns of 1 conversations",
        "night 2026-11-20 had learned from them; no pack that was worn grew from it",
    ]
    assert [text for _, text in said(home)][:2] == ["three", "four"]
    (home.memory_db.parent / "x.rejected.jsonl").write_text("{}")
    found = json.loads(command("memory", "forget", talked[2], "--yes", "--json").stdout)
    assert (found["turns"], found["nights"]) == ([talked[2]], [])
    assert found["not_searched"][0].endswith("x.rejected.jsonl")


def test_tag_by_command(home: Home, talked: list[str]) -> None:
    assert command("memory", "tag", "no-train", talked[0], "--dry-run").stdout == "0 of 1 turns changed\n"
    assert command("memory", "tag", "no-train", talked[0]).stdout == "1 of 1 turns changed\n"
    assert json.loads(command("memory", "stats", "--json").stdout)["by_tag"] == {"no-train": 1}
    assert re.search("^by tag +no-train 1$", command("memory", "stats").stdout, re.MULTILINE)
    assert command("memory", "tag", "no-train", talked[0], "--remove").stdout == "1 of 1 turns changed\n"
    done = command("memory", "tag", "no-trian", talked[0])
    assert (done.exit_code, "did you mean 'no-train'?" in done.stderr) == (1, True)


def test_export_and_import_round_trip(home: Home, talked: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert command("memory", "export", out).stdout == f"wrote 5 turns in 2 conversations to {out}\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert command("memory", "export", "-").stdout == out.read_text()
    done = command("memory", "export", out, says="n\n")
    assert (done.exit_code, "overwrite" in done.stderr) == (1, True)
    assert json.loads(command("memory", "export", out, "--yes", "--json").stdout) == {
        "conversations": 2,
        "turns": 5,
    }
    assert command("memory", "import", out).stdout.splitlines() == [
        "added 0 turns in 0 conversations",
        "2 lines known already",
    ]
    other = tmp_path / "other"
    with out.open("ab") as file:
        file.write(b'{"messages": 3}\n')
    done = command("--home", other, "memory", "import", out, "--dry-run")
    assert done.stdout.splitlines() == ["would add 5 turns in 2 conversations", "1 lines cannot be used"]
    assert "line 3: no list 'messages'" in done.stderr
    found = json.loads(
        plastic("--home", other, "memory", "import", "-", "--json", says=out.read_bytes()).stdout
    )
    assert (found["turns"], found["bad"][0]["number"]) == (5, 3)
    assert json.loads(Path(found["rejected"]).read_text())["line"] == '{"messages": 3}'


def test_memory_commands_import_no_model(home: Home) -> None:
    code = "from mlx_plastic.cli.main import plastic; plastic(['memory', 'list'], standalone_mode=False)"
    code += "; import sys; print(sorted({'mlx', 'mlx_lm', 'numpy', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

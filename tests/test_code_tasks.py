"""Code that a model wrote runs in a child that can do nothing else; right is told from wrong."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import pytest

from mlx_plastic.errors import BadData
from mlx_plastic.evals.checks import passes, validate
from mlx_plastic.evals.code import code_of
from mlx_plastic.evals.sandbox import Limits, run_python

linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and namespaces are Linux's")
QUICK = Limits(cpu_s=2, wall_s=20.0, memory_mb=256)


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ({"tests": "assert x == 9"}, "x = 9"),
        ({"tests": "assert _ == 7"}, "3 + 4"),
        ({"stdout": "dog"}, "```python\nprint('dog')\n```"),
        (
            {"stdout": "a\nb\n", "tests": "assert True"},
            "Here you are:\n```py\nprint('a')\n```\nand\n```\nprint('b')",
        ),
        ({"before": "def double(n):\n    'Twice.'\n", "tests": "assert double(4) == 8"}, "    return 2 * n"),
        (
            {"before": "def double(n):\n    'Twice.'\n", "tests": "assert double(4) == 8"},
            "def double(n):\n  return n+n",
        ),
    ],
)
def test_right_code_passes_whatever_talk_is_around_it(wanted: dict[str, str], answer: str) -> None:
    validate({"code": wanted})
    assert passes({"code": wanted}, answer)


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ({"tests": "assert x == 9"}, "x = 8"),
        ({"tests": "assert x == 9"}, "I can not do that."),
        ({"stdout": "dog"}, "print('cat')"),
        ({"stdout": "dog"}, "print('dog'); 1 / 0"),
        ({"tests": "assert double(4) == 8"}, "def double(n): return n"),
        ({"tests": "assert False"}, "import os; os._exit(0)"),  # an exit code can be faked
        ({"tests": "assert False"}, "raise SystemExit(0)"),
        (
            {"tests": "assert False"},
            "import os\nfor i in range(3, 32):\n    os.write(i, b'done')\nos._exit(0)",
        ),
    ],
)
def test_wrong_code_fails(wanted: dict[str, str], answer: str) -> None:
    assert not passes({"code": wanted}, answer)


@pytest.mark.parametrize(
    "wanted", [{}, {"before": "x"}, {"tests": 3}, {"tests": "x", "shell": "y"}, "assert"]
)
def test_a_code_check_that_can_not_be_is_told(wanted: object) -> None:
    with pytest.raises(BadData) as caught:
        validate({"code": wanted})
    assert "tests" in caught.value.hint


HOSTILE = {
    "write": "open({target!r}, 'w').write('x')",
    "system": "import os; os.system('touch {target}')",
    "subprocess": "import subprocess; subprocess.run(['touch', {target!r}])",
    "native": "import ctypes; ctypes.CDLL(None).system(b'touch {target}')",
    "fork": "import os; os.fork() or open({target!r}, 'w')",
    "exec": "import os; os.execv('/bin/touch', ['touch', {target!r}])",
    "rename": "open('a', 'w').write('x')\nimport os; os.rename('a', {target!r})",
    "link": "import os; os.symlink({target!r}, 'a'); open('a', 'w').write('x')",
    "patched": "import posixpath as p\np._joinrealpath = lambda *a, **k: ('/', 1)\nopen({target!r}, 'w')",
    "hook": "import sys\nvars(sys.modules['__main__']).clear()\nimport os; os.system('touch {target}')",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_changes_nothing_outside_its_room(name: str, tmp_path: Path) -> None:
    target = tmp_path / "evil"
    ran = run_python(HOSTILE[name].format(target=str(target)), limits=QUICK)
    assert ran.outcome == "failed"
    assert not target.exists()
    open(target, "w").close()  # control: the place can be written to


@pytest.mark.parametrize(
    "program",
    [
        "print(open('/etc/passwd').read())",
        "print(open('/proc/self/environ').read())",
        "import os; print(os.listdir('/'))",
        "print(open({here!r}).read())",
        "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
    ],
)
def test_hostile_code_reads_no_file_and_reaches_no_network(program: str) -> None:
    ran = run_python(program.format(here=__file__), limits=QUICK)
    assert ran.outcome == "failed"
    assert ran.error in ("PermissionError", "ImportError")
    assert ran.stdout == ""


def test_a_program_sees_none_of_our_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "hush")
    ran = run_python("import os; print(sorted(os.environ))", limits=QUICK)
    assert ran.ok
    assert "MY_API_KEY" not in ran.stdout and "HOME" in ran.stdout
    assert os.environ["MY_API_KEY"] == "hush"  # control


@linux
def test_on_linux_the_kernel_itself_denies_what_a_program_got_past_the_hook() -> None:
    """The hook is skipped in this child: what is left are Landlock and the limits."""
    from mlx_plastic.evals import sandbox_child

    if "landlock" not in run_python("1").layers:
        pytest.skip("this kernel has no Landlock")
    script = (
        "import runpy, sys, os\n"
        f"child = runpy.run_path({sandbox_child.__file__!r})\n"
        "room, target = sys.argv[1:]\n"
        "held = child['landlock'](room, (os.path.dirname(os.__file__),))\n"
        "def tried(path):\n"
        "    try:\n        open(path, 'w'); return 'written'\n"
        "    except PermissionError: return 'denied'\n"
        "print(held, tried(room + '/a'), tried(target))\n"
    )
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as room, tempfile.TemporaryDirectory() as other:
        done = subprocess.run(
            [sys.executable, "-c", script, room, f"{other}/b"], capture_output=True, text=True, timeout=60
        )
    assert done.stdout.split() == ["True", "written", "denied"], done.stderr


def test_endless_programs_end() -> None:
    for program, outcomes in (
        ("while True: pass", ("failed", "timeout")),  # by cpu time, or where that is scarce by the clock
        ("import time; time.sleep(600)", ("timeout",)),
        (
            "import threading\nwhile True: threading.Thread(target=lambda: None).start()",
            ("failed", "timeout"),
        ),
    ):
        assert run_python(program, limits=Limits(cpu_s=1, wall_s=3.0, memory_mb=256)).outcome in outcomes


def test_greedy_programs_get_no_more_than_their_share() -> None:
    if sys.platform == "linux":
        assert run_python("bytearray(1 << 30)", limits=QUICK).error == "MemoryError"
    assert (
        run_python("f = open('a', 'wb')\nwhile True: f.write(b'x' * 100000)", limits=QUICK).error == "OSError"
    )
    noisy = run_python("while True: print('x' * 1000)", limits=QUICK)
    assert not noisy.ok and len(noisy.stdout) <= 64_000
    assert run_python("bytearray(1 << 20)", limits=QUICK).ok  # control


def test_the_answer_alone_is_taken_for_code_where_nothing_is_fenced() -> None:
    assert code_of("x = 1") == "x = 1"
    assert code_of("So:\n```python\nx = 1\n```\nDone.") == "x = 1\n"
    assert code_of("```\nx = 1") == "x = 1"  # cut at the token limit


DATA = os.environ.get("MLX_PLASTIC_DATA")


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="MLX_PLASTIC_DATA is not set")
def test_every_solution_of_a_public_set_passes_and_a_wrong_one_does_not() -> None:
    file = Path(DATA or "") / "data" / "humaneval" / "HumanEval.jsonl.gz"
    tasks = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    for number, task in enumerate(tasks):
        tests = f"{task['test']}\ncheck({task['entry_point']})"
        check = {"code": {"before": task["prompt"], "tests": tests}}
        assert passes(check, task["canonical_solution"]), task["task_id"]
        if number % 8 == 0:
            assert not passes(check, "    return None\n"), task["task_id"]

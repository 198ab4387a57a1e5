from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mlx_plastic import __version__
from mlx_plastic.cli import main as cli
from mlx_plastic.cli import output
from mlx_plastic.cli.packs import packs as packs_group
from mlx_plastic.errors import BadPack
from mlx_plastic.home import Home

HEAVY = {"mlx", "mlx_lm", "numpy", "transformers", "rich", "sqlite3", "prompt_toolkit", "platformdirs"}
SCRIPT = "import sys; from mlx_plastic.cli.main import main; main()"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | variables,
    )


@click.command()
@click.option("--fail", type=str)
@cli.pass_home
def probe(home: Home, fail: str | None) -> None:
    """Answer with the home folder."""
    if fail == "plastic":
        raise BadPack("pack 'x' is torn", hint="activate another")
    if fail == "bug":
        raise ZeroDivisionError("a bug of ours")
    if fail == "interrupt":
        raise KeyboardInterrupt
    if fail:
        raise OSError(getattr(errno, fail), os.strerror(getattr(errno, fail)), "/some/file")
    click.echo(home.root)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    monkeypatch.setitem(cli.COMMANDS, "probe", (__name__, "probe", "Answer with the home folder."))
    return CliRunner(env={"MLX_PLASTIC_HOME": str(tmp_path / "from-variable")})


def test_help_lists_every_command_and_makes_no_folder(tmp_path: Path) -> None:
    done = run("--help", MLX_PLASTIC_HOME=str(tmp_path / "home"))
    assert done.returncode == 0
    for name, (_, _, text) in cli.COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, text] for line in done.stdout.splitlines()), name
    assert not (tmp_path / "home").exists()


def test_help_costs_little() -> None:
    """Under 0.15 s of CPU; the best of several, since others may use the machine."""

    def cpu_s() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_s() for _ in range(5)) < 0.15


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import atexit, json, sys; atexit.register(lambda: print(json.dumps(list(sys.modules))))\n" + SCRIPT
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & HEAVY
    assert "click" in loaded  # control: the list is the real one


def leaves(name: str, command: click.Command | None) -> Iterator[tuple[str, click.Command]]:
    """The commands that do something, with the words that call them."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            yield from leaves(f"{name} {inner}", command.get_command(context, inner))
    elif command is not None:
        yield name, command


def tables() -> Iterator[tuple[str, cli.LazyGroup, str]]:
    """Every line of every list of commands that is written apart from its command."""
    for words, group in (("plastic", cli.plastic), ("plastic packs", packs_group)):
        assert isinstance(group, cli.LazyGroup)
        yield from ((words, group, name) for name in group.table if name != "probe")


@pytest.mark.parametrize(("words", "group", "name"), list(tables()), ids=lambda value: str(value))
def test_the_line_in_the_list_is_the_commands_own(words: str, group: cli.LazyGroup, name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    listed = group.table[name][2]
    assert command.get_short_help_str(limit=200).removesuffix(".") == listed.removesuffix(".")


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "probe"])
def test_every_help_shows_an_example_of_its_own(name: str) -> None:
    found = list(leaves(name, cli.plastic.get_command(click.Context(cli.plastic), name)))
    assert found
    for words, command in found:
        called = words.replace("packs rollback", "rollback")  # one command under two names
        assert command.help is not None
        assert f"plastic {called}" in command.help.partition("Example: ")[2], words


def test_version() -> None:
    assert CliRunner().invoke(cli.plastic, ["--version"]).output == f"plastic, version {__version__}\n"


def test_the_home_comes_from_the_option_then_the_variable_then_the_caller(
    runner: CliRunner, tmp_path: Path
) -> None:
    named = runner.invoke(cli.plastic, ["--home", str(tmp_path / "named"), "probe"])
    assert named.output.strip() == str((tmp_path / "named").resolve())
    assert not (tmp_path / "from-variable").exists()
    assert runner.invoke(cli.plastic, ["probe"]).output.strip() == str((tmp_path / "from-variable").resolve())
    assert runner.invoke(probe, obj=Home(tmp_path)).output.strip() == str(tmp_path)


def test_a_users_mistake_is_a_message_a_hint_and_exit_1(runner: CliRunner) -> None:
    done = runner.invoke(cli.plastic, ["probe", "--fail", "plastic"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: pack 'x' is torn\nhint: activate another\ncode: PLASTIC-P001 ")


@pytest.mark.parametrize("number", ["ENOSPC", "EACCES", "EROFS", "EIO"])
def test_a_fault_of_the_machine_is_a_message_too(runner: CliRunner, number: str) -> None:
    done = runner.invoke(cli.plastic, ["probe", "--fail", number])
    assert done.exit_code == 1
    assert "error: /some/file: " in done.stderr and "Errno" not in done.stderr
    assert done.stderr.count("hint: ") == 1


def test_a_bug_of_ours_keeps_its_traceback(runner: CliRunner) -> None:
    assert isinstance(runner.invoke(cli.plastic, ["probe", "--fail", "bug"]).exception, ZeroDivisionError)


def test_an_interrupt_ends_with_130(runner: CliRunner) -> None:
    done = runner.invoke(cli.plastic, ["probe", "--fail", "interrupt"])
    assert (done.exit_code, done.stdout) == (130, "")


def test_wrong_usage_ends_with_2_and_names_the_nearest(runner: CliRunner) -> None:
    unknown = runner.invoke(cli.plastic, ["dcotor"])
    assert unknown.exit_code == 2
    assert "Did you mean 'doctor'?" in unknown.stderr
    assert runner.invoke(cli.plastic, ["probe", "--no-such-option"]).exit_code == 2
    assert runner.invoke(cli.plastic, ["qqq"]).exit_code == 2


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_no_number_is_no_option_of_any_command(value: str) -> None:
    """click's own range lets "nan" pass, and an endless one "inf"."""
    asked = [
        (words, option)
        for words, command in leaves("plastic", cli.plastic)
        for option in command.params
        if isinstance(option.type, click.types.FloatParamType)
    ]
    assert len(asked) > 10  # control: there are some
    for words, option in asked:
        with pytest.raises(click.BadParameter, match=value):
            option.type.convert(value, option, None)
            pytest.fail(f"{words} takes {option.name} = {value}")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f'{{ "{sys.executable}" -c "{SCRIPT}" --help; }} | true'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["probe"], ["packs", "probe"]),
        (["--home", "X", "list"], ["--home", "X", "packs", "list"]),
        (["--home=X", "list", "--json"], ["--home=X", "packs", "list", "--json"]),
        ([], ["packs"]),
    ],
)
def test_packs_is_an_alias_of_plastic_packs(
    given: list[str], meant: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["packs", *given])
    monkeypatch.setattr(cli, "plastic", lambda arguments, prog_name: called.append(arguments))
    cli.packs()
    assert called == [meant]


def test_doctor_tells_a_script_what_it_found(tmp_path: Path) -> None:
    done = run("--home", str(tmp_path / "home"), "doctor", "--json")
    found = json.loads(done.stdout)
    assert found["device"] in ("metal", "cuda", "cpu")
    assert found["blas"] in ("accelerate", "system", "numpy", "reference")
    assert found["matmul_gflops"] > 0
    assert {"matmul_gflops_bfloat16", "matmul_gflops_4bit", "available_memory_bytes", "compiler"} <= set(
        found
    )
    assert all(f["problem"] and f["fix"] for f in found["findings"])
    assert not (tmp_path / "home").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")
def test_doctor_names_the_fix_for_a_slow_blas() -> None:
    told = run("doctor", MLX_PLASTIC_BLAS="none").stdout
    assert "slow: matrix products run on the reference BLAS\n fix: unset MLX_PLASTIC_BLAS" in told
    wrong = run("doctor", MLX_PLASTIC_BLAS="fast")
    assert wrong.returncode == 1
    assert "hint: use one of auto, system, numpy, none" in wrong.stderr


def test_json_refuses_what_json_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        output.print_json({"loss": float("inf")})
    output.print_json({"name": "Zoë", "loss": 0.5})
    assert json.loads(capsys.readouterr().out) == {"name": "Zoë", "loss": 0.5}


def test_a_table_is_aligned_with_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["pack", "loss", "rank"], [["night-1", 2.41234, 8], ["x", None, 16]])
    assert capsys.readouterr().out == "pack      loss  rank\nnight-1  2.412     8\nx            -    16\n"


def test_what_was_said_may_not_command_the_terminal() -> None:
    assert output.printable("a\x1b[2Jb\x9bc\r\x07\td\nZoë") == "a[2Jbc\td\nZoë"
    assert (
        output.printable("\u202epay \u2066\u05e9\u05dc\u200f\u05d5\u05dd\u2069")
        == "pay \u05e9\u05dc\u200f\u05d5\u05dd"
    )


def test_progress_goes_to_stderr_in_whole_lines_where_nobody_watches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with output.progress("training") as tick:
        for step in range(100):
            tick(step + 1, 100, f"loss {step}")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "training   1 %  loss 0\ntraining 100 %  loss 99\n"


def test_progress_rewrites_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with output.progress("training") as tick:
        tick(1, 2)
        tick(2, 2)
    assert terminal.getvalue().count("\r") == 2
    assert terminal.getvalue().count("\n") == 1


def test_progress_says_what_is_left_at_the_speed_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3.0, 8.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    told: list[tuple[float, float, str]] = []
    tick = output.with_eta(lambda *said: told.append(said))
    for done in (0, 1, 4):
        tick(done, 4, "x")
    assert told == [(0, 4, "x"), (1, 4, "x, 9 s left"), (4, 4, "x")]

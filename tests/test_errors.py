"""Errors have codes that stay, a page that is current, and an object for scripts."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import mlx_plastic
from mlx_plastic.cli import errors as told
from mlx_plastic.cli import main as cli
from mlx_plastic.cli.output import json_option
from mlx_plastic.errors import BadPack, PlasticError

SOURCE = Path(mlx_plastic.__file__).parent
DOCS = Path(__file__).parents[1] / "docs"
# a code that was given once is never given to another error: this list only grows
GIVEN = {
    "PLASTIC-B001": "BaseNotFound",
    "PLASTIC-B002": "BadCheckpoint",
    "PLASTIC-B003": "BaseMismatch",
    "PLASTIC-C001": "BadConfig",
    "PLASTIC-C002": "NoConsent",
    "PLASTIC-D001": "BadData",
    "PLASTIC-D002": "BadArchive",
    "PLASTIC-E001": "PlasticError",
    "PLASTIC-E002": "Taken",
    "PLASTIC-E003": "NotInstalled",
    "PLASTIC-E004": "Busy",
    "PLASTIC-E005": "MachineFault",
    "PLASTIC-E006": "NoRoom",
    "PLASTIC-M001": "MemoryFault",
    "PLASTIC-N001": "TeacherFailed",
    "PLASTIC-P001": "BadPack",
    "PLASTIC-P002": "PackNotFound",
    "PLASTIC-P003": "Quarantined",
    "PLASTIC-P004": "BadKey",
    "PLASTIC-S001": "PackedSplitError",
    "PLASTIC-T001": "TrainingFailed",
}


@click.command()
@json_option
def probe(as_json: bool) -> None:
    raise BadPack("pack 'x' is torn", hint="activate another")


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setitem(cli.COMMANDS, "probe", (__name__, "probe", ""))
    return CliRunner()


def test_a_code_means_the_same_for_ever() -> None:
    found = {c.code: c.__name__ for c in told.classes()}
    assert len(found) == len(list(told.classes()))  # no code twice
    assert found == GIVEN


def declared(source: str, known: set[str]) -> list[tuple[str, bool]]:
    """Classes that are a PlasticError by the names of their bases, and whether each gives a code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and known & {ast.unparse(base) for base in node.bases}:
            given = [ast.unparse(n) for n in node.body if isinstance(n, ast.Assign)]
            found.append((node.name, any(line.startswith("code = ") for line in given)))
    return found


def test_no_error_is_missing_from_the_list() -> None:
    known = set(GIVEN.values())
    bases = re.compile(rf"^ *class \w+\(.*\b({'|'.join(known)})\b", re.MULTILINE)
    for path in SOURCE.rglob("*.py"):
        module = ".".join(["mlx_plastic", *path.relative_to(SOURCE).with_suffix("").parts])
        text = path.read_text("utf-8")
        for name, _ in declared(text, known) if bases.search(text) else ():
            below = getattr(importlib.import_module(module), name)
            assert issubclass(below, PlasticError)
            assert module in told.MODULES, f"{module} has errors: add it to cli/errors.py"
            assert below.code in GIVEN


def test_a_class_without_a_code_is_seen() -> None:
    assert declared("class Odd(BadPack):\n    '''Odd.'''", {"BadPack"}) == [("Odd", False)]
    assert declared("class Odd(BadPack):\n    code = 'PLASTIC-P009'", {"BadPack"}) == [("Odd", True)]


@pytest.mark.parametrize("error", told.known(), ids=lambda e: e.code)
def test_every_error_says_what_happened_and_what_to_do(error: told.Told) -> None:
    assert error.happened.endswith(".") and len(error.happened) > 30
    assert error.to_do.endswith(".") and len(error.to_do) > 30
    assert error.page == f"docs/errors.md#{error.code.lower()}"


def test_the_page_of_errors_is_current() -> None:
    page = (DOCS / "errors.md").read_text("utf-8")
    assert page == told.page(), "run python scripts/make_errors_page.py"
    assert page.replace("To do", "").count("\n## PLASTIC-") == len(GIVEN)


def test_an_error_shows_its_code_and_a_script_gets_an_object(runner: CliRunner) -> None:
    plain = runner.invoke(cli.plastic, ["probe"])
    assert (plain.exit_code, plain.stdout) == (1, "")
    assert plain.stderr.splitlines() == [
        "error: pack 'x' is torn",
        "hint: activate another",
        "code: PLASTIC-P001 (docs/errors.md#plastic-p001)",
    ]
    done = runner.invoke(cli.plastic, ["probe", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"] == {
        "code": "PLASTIC-P001",
        "message": "pack 'x' is torn",
        "hint": "activate another",
        "page": "docs/errors.md#plastic-p001",
    }
    assert done.stderr == plain.stderr


def test_the_command_tells_one_or_all_and_names_the_nearest(runner: CliRunner) -> None:
    every = runner.invoke(cli.plastic, ["errors"]).stdout
    assert all(code in every for code in GIVEN)
    one = runner.invoke(cli.plastic, ["errors", "c001"]).stdout
    assert one.startswith("PLASTIC-C001") and "config show --origin" in one
    assert json.loads(runner.invoke(cli.plastic, ["errors", "--json"]).stdout)[0]["code"] == "PLASTIC-B001"
    wrong = runner.invoke(cli.plastic, ["errors", "PLASTIC-C00l"])
    assert wrong.exit_code == 1 and "the nearest is PLASTIC-C00" in wrong.stderr


def test_an_error_is_no_traceback_in_a_real_process(tmp_path: Path) -> None:
    import subprocess

    script = "import sys; from mlx_plastic.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--home", str(tmp_path), "packs", "inspect", "none", "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "PLASTIC-P002"

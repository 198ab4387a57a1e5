"""config.toml: every setting with its origin, set without touching the rest, nothing unknown passed over."""

from __future__ import annotations

import ast
import dataclasses
import json
import random
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mlx_plastic
from mlx_plastic.cli import sections
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadConfig
from mlx_plastic.home import Home, settings
from mlx_plastic.home.config import SECTIONS
from mlx_plastic.home.edit import literal, with_value, without_value

SOURCE = Path(mlx_plastic.__file__).parent
WRITTEN = """\
# mine, by hand
[chat]   # how it talks
max_tokens = 64  # short answers, "please" # thanks
temperature = 0.5

# nights
[night]
epochs = 4.0

[privacy]
people = [
  "Ada Lovelace",  # me
  "Charles",
]

# the end
"""


def run(home: Home, *arguments: str, **variables: str) -> Result:
    return CliRunner(env=variables).invoke(plastic, ["--home", str(home.root), "config", *arguments])


def read_settings(source: str) -> list[tuple[str, str]]:
    """(section, dataclass) of every settings(home, "section", Class) in a module."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [c for c in calls if ast.unparse(c.func).split(".")[-1] == "settings" and len(c.args) == 3]
    return [(c.args[1].value, ast.unparse(c.args[2])) for c in named if isinstance(c.args[1], ast.Constant)]


def test_every_section_that_a_room_reads_can_be_shown_and_set() -> None:
    assert tuple(sorted([*sections.CLASSES, sections.ALIASES])) == SECTIONS
    texts = (path.read_text("utf-8") for path in SOURCE.rglob("*.py"))
    read = {found for text in texts if "settings(" in text for found in read_settings(text)}
    assert {(name, kind) for name, (_, kind) in sections.CLASSES.items()} >= read
    assert ("night", "NightConfig") in read  # control: they are found
    for name in sections.CLASSES:
        assert dataclasses.is_dataclass(sections.class_of(name))


def test_each_value_tells_where_it_comes_from(home: Home, tmp_path: Path) -> None:
    home.config_file.write_text(WRITTEN)
    done = run(home, "show", "--json", MLX_PLASTIC_BLAS="numpy", HF_HUB_OFFLINE="")
    found = {(s["section"], s["key"]): s for s in json.loads(done.stdout)["settings"]}
    assert found["", "home"]["origin"] == "option"
    assert (found["", "MLX_PLASTIC_BLAS"]["value"], found["", "MLX_PLASTIC_BLAS"]["origin"]) == (
        "numpy",
        "environment",
    )
    assert found["", "HF_HUB_OFFLINE"]["origin"] == "default"
    assert (found["chat", "max_tokens"]["value"], found["chat", "max_tokens"]["origin"]) == (
        64,
        "config.toml",
    )
    assert found["chat", "max_tokens"]["default"] == 256
    assert found["chat", "rag"]["origin"] == "default"
    here = CliRunner(env={"MLX_PLASTIC_HOME": str(home.root)}).invoke(plastic, ["config", "show", "--origin"])
    assert f'# home = "{home.root}"' in here.stdout and "# environment" in here.stdout


def test_what_is_shown_is_a_config_that_says_the_same(home: Home, tmp_path: Path) -> None:
    home.config_file.write_text(WRITTEN)
    shown = run(home, "show", "--origin").stdout
    other = Home(tmp_path / "other")
    other.root.mkdir()
    other.config_file.write_text(shown)
    assert [(s.section, s.key, s.value) for s in sections.read_all(other)] == [
        (s.section, s.key, s.value) for s in sections.read_all(home)
    ]


def test_setting_keeps_comments_order_and_every_other_byte(home: Home) -> None:
    home.config_file.write_text(WRITTEN)
    assert run(home, "set", "chat.max_tokens", "32", "night.rank", "4").exit_code == 0
    assert run(home, "set", "privacy.people", '["Ada"]', "budget.minutes", "20").exit_code == 0
    assert home.config_file.read_text() == (
        WRITTEN.replace("max_tokens = 64", "max_tokens = 32")
        .replace("epochs = 4.0\n", "epochs = 4.0\nrank = 4\n")
        .replace('[\n  "Ada Lovelace",  # me\n  "Charles",\n]', '["Ada"]')
        + "\n[budget]\nminutes = 20.0\n"
    )
    assert run(home, "unset", "chat.max_tokens", "night.epochs").exit_code == 0
    text = home.config_file.read_text()
    assert "max_tokens" not in text and "epochs" not in text and "# the end" in text
    assert tomllib.loads(text)["chat"] == {"temperature": 0.5}


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("nihgt.rank", "4"), "no section 'nihgt'", "did you mean 'night'?"),
        (("night.rnak", "4"), "[night] has no key 'rnak'", "did you mean 'rank'?"),
        (("night.rank", "four"), "'four' is no whole number", "such as 8"),
        (("night.rank", "4.5"), "rank is 4.5", "write a int"),
        (("night.epochs", "-1"), "neither steps nor epochs", "within that bound"),
        (("night.chances", "0"), "[night] chances is 0", "from 1 up"),
        (("night.tries", "0"), "[night] tries is 0", "from 1 up"),
        (("train.rank", "0"), "[train]: rank is 0", "within that bound"),
        (("night.epochs", "inf"), "epochs is inf", "within that bound"),
        (("night.anchor", "nan"), "anchor is nan, not 0 or more", "within that bound"),
        (("train.clip", "-1"), "clip is -1.0, not 0 or more", "within that bound"),
        (("train.weight_decay", "inf"), "weight_decay is inf, not 0 or more", "within that bound"),
        (("night.seed", "-1"), "seed is -1, not in [0, 2^32)", "within that bound"),
        (("lessons.temperature", "nan"), "[lessons] temperature is nan", "from 0 up"),
        (("chat.max_tokens", "0"), "[chat]: max_tokens is 0, not 1 or more", "within these bounds"),
        (("chat.temperature", "nan"), "temperature is nan, not 0 or more", "within these bounds"),
        (("chat.least_match", "7"), "least_match is 7, not between 0 and 1", "within these bounds"),
        (("serve.port", "99999"), "[serve]: port is 99999, not between 0 and 65535", "within these"),
        (("serve.requests", "0"), "[serve]: requests is 0, not 1 or more", "within these bounds"),
        (("serve.grace_s", "inf"), "[serve]: grace_s is too large", "within these bounds"),
        (("serve.grace_s", "1e10"), "grace_s is 1e+10, not between 0 and 1e+09", "within these"),
        (("serve.port", f"-{10**400}"), "[serve]: port is -1000", "within these bounds"),
        (("batch.idle_s", "inf"), "[batch]: idle_s is too large", "within these bounds"),
        (("chat.temperature", "inf"), "[chat]: temperature is too large", "within these bounds"),
        (("batch.rows", "0"), "[batch]: rows is 0, not 1 or more", "within these bounds"),
        (("retrieval.embed_s", "-1"), "embed_s is -1, not 0 or more", "within these bounds"),
        (("router.abstain", "-1"), "abstain is -1, not 0 or more", "within these bounds"),
        (("compress.max_kl_nats", "-1"), "max_kl_nats is -1, not 0 or more", "within these bounds"),
        (("budget.turns", "0"), "turns is 0", "config.toml"),
        (("gate.confidence", "2"), "confidence is 2", "0.95"),
        (("privacy.policy", "none"), "policy is 'none'", "'balanced', 'strict'"),
        (("privacy.index.fone", "keep"), "unknown kind 'fone'", "did you mean 'phone'?"),
        (("privacy.index", "keep"), "names no setting", "privacy.index.KIND"),
        (("privacy.people", "Ada"), "no list of texts", '["Ada'),
        (("chat", "4"), "names no setting", "section.key"),
        (("teacher.kind", "openai"), "model is empty", "kind ="),
        (("chat.rag", "yes"), "'yes' is no truth value", "true or false"),
    ],
)
def test_what_a_command_would_refuse_is_never_written(
    home: Home, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    home.config_file.write_text(WRITTEN)
    done = run(home, "set", *arguments)
    assert done.exit_code == 1 and message in done.stderr and hint in done.stderr
    assert home.config_file.read_text() == WRITTEN


def test_settings_that_need_each_other_are_set_at_once(home: Home) -> None:
    pairs = ("teacher.kind", "openai", "teacher.model", "m", "teacher.url", "http://127.0.0.1:1/v1")
    assert run(home, "set", *pairs).exit_code == 0
    assert run(home, "unset", "teacher.model").exit_code == 1
    assert run(home, "set", "chat.rag").exit_code == 2
    assert tomllib.loads(home.config_file.read_text())["teacher"]["model"] == "m"


def test_a_file_keeps_its_mode_and_a_link_stays_a_link(home: Home, tmp_path: Path) -> None:
    assert run(home, "set", "night.rank", "4").exit_code == 0
    assert stat.S_IMODE(home.config_file.stat().st_mode) == 0o600
    home.config_file.replace(tmp_path / "dotfile.toml")
    (tmp_path / "dotfile.toml").chmod(0o640)
    home.config_file.symlink_to(tmp_path / "dotfile.toml")
    assert run(home, "set", "night.rank", "5").exit_code == 0
    assert home.config_file.is_symlink() and "rank = 5" in (tmp_path / "dotfile.toml").read_text()
    assert stat.S_IMODE((tmp_path / "dotfile.toml").stat().st_mode) == 0o640


def test_a_dry_run_checks_and_writes_nothing(home: Home) -> None:
    done = run(home, "set", "night.rank", "4", "--dry-run", "--json")
    assert json.loads(done.stdout) == {
        "file": str(home.config_file),
        "changed": {"night.rank": 4},
        "dry_run": True,
    }
    assert not home.config_file.exists()
    assert run(home, "set", "night.rank", "x", "--dry-run").exit_code == 1


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[nihgt]\nrank = 4", "unknown section 'nihgt'", "did you mean 'night'?"),
        ("[zzz]\nrank = 4", "unknown section 'zzz'", "known: aliases, base"),
        ("rank = 4", "'rank' is in no section", "below its [section]"),
    ],
)
def test_an_unknown_section_is_an_error_for_whatever_reads_another(
    home: Home, text: str, message: str, hint: str
) -> None:
    home.config_file.write_text(f"{text}\n")
    with pytest.raises(BadConfig) as caught:
        settings(home, "chat", sections.class_of("chat"))
    assert message in caught.value.message and hint in caught.value.hint


def random_value(dice: random.Random) -> Any:
    text = "".join(dice.choice('aé"#\\=[]\n\t\x7f\u2028 ') for _ in range(dice.randrange(8)))
    return dice.choice([text, dice.randrange(-9, 9), dice.random() * 1e-7, dice.random() < 0.5, [text, "b"]])


def test_whatever_is_set_is_read_back_and_nothing_else_changes() -> None:
    dice, text = random.Random(7), WRITTEN
    wanted = tomllib.loads(WRITTEN)
    for _ in range(300):
        path = (dice.choice(["chat", "night", "aliases"]), dice.choice(["a", "b", "max_tokens", "odd key"]))
        if dice.random() < 0.2:
            text = without_value(text, path)
            wanted.get(path[0], {}).pop(path[1], None)
        else:
            value = random_value(dice)
            text = with_value(text, path, value)
            wanted.setdefault(path[0], {})[path[1]] = value
        found = tomllib.loads(text)
        assert {k: v for k, v in found.items() if v} == {k: v for k, v in wanted.items() if v}
        assert "# mine, by hand" in text and "# the end" in text and "  # me\n" in text


@pytest.mark.parametrize(
    "text", ["chat = { rag = true }\n", "chat.rag = true\n", '[chat]\na = """\nrag = 1\n"""\n']
)
def test_a_file_that_is_written_in_another_way_is_left_to_its_owner(text: str) -> None:
    try:
        made = with_value(text, ("chat", "rag"), False)
    except BadConfig as error:
        assert error.hint == "edit it by hand"
    else:
        assert tomllib.loads(made)["chat"]["rag"] is False
        assert tomllib.loads(made)["chat"].get("a") == tomllib.loads(text)["chat"].get("a")


def test_lines_that_end_the_other_way_go_on_doing_so() -> None:
    assert with_value("[a]\r\nx = 1\r\n", ("a", "y"), 2) == "[a]\r\nx = 1\r\ny = 2\r\n"
    assert with_value("[a]\nx = 1", ("a", "y"), 2) == "[a]\nx = 1\ny = 2\n"
    assert with_value("", ("a", "y"), 2) == "[a]\ny = 2\n"


def test_only_what_toml_has_is_written() -> None:
    assert literal(1e-5) == "1e-05" and tomllib.loads(f"a = {literal(float('inf'))}")
    with pytest.raises(ValueError, match="no TOML"):
        literal({})


def test_settings_are_shown_without_mlx_or_a_server() -> None:
    look = (
        "import importlib, sys\n"
        "from mlx_plastic.cli.sections import CLASSES, class_of\n"
        "assert len([class_of(section)() for section in CLASSES]) > 10\n"
        "assert not {'mlx.core', 'starlette', 'asyncio'} & set(sys.modules)\n"
        "from mlx_plastic.serve.api import make_app\n"
        "assert 'starlette' in sys.modules\n"  # control: what is asked for is there
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

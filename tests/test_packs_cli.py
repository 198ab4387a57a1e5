from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.cli.main import plastic
from mlx_plastic.home import Home
from mlx_plastic.packs import Store
from test_store import add


@pytest.fixture
def store(home: Home) -> Store:
    store = Store(home)
    add(store, "monday", "tuesday")
    store.activate("monday")
    return store


def run(*arguments: str) -> Result:
    return CliRunner().invoke(plastic, arguments, prog_name="plastic")


def test_list_shows_what_is_worn_and_what_is_broken(store: Store) -> None:
    (store.folder("tuesday") / "manifest.json").write_text("{}")
    done = run("packs", "list")
    assert done.exit_code == 0
    monday, tuesday = (line for line in done.stdout.splitlines() if "day" in line and "worn" not in line)
    assert "active" in monday and "nano" in monday and "2-4" in monday
    assert "candidate" in tuesday and "is missing" in tuesday
    assert done.stdout.splitlines()[-1] == "worn: monday"
    value = json.loads(run("packs", "list", "--json").stdout)
    assert value["active"] == ["monday"]
    assert [p["status"] for p in value["packs"]] == ["active", "candidate"]


def test_list_of_an_empty_home(home: Home) -> None:
    assert run("packs", "list").stdout == "worn: base\n"
    assert json.loads(run("packs", "list", "--json").stdout) == {"active": [], "packs": []}


def test_list_and_rollback_import_no_mlx(store: Store) -> None:
    code = (
        "import sys; from mlx_plastic.cli.main import plastic;"
        "plastic(sys.argv[1:], standalone_mode=False);"
        "assert not {'mlx', 'mlx.core', 'mlx_lm', 'transformers'} & set(sys.modules)"
    )
    for arguments in (["packs", "list"], ["packs", "inspect", "monday"], ["rollback"]):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


def test_inspect_verifies_and_tells(store: Store) -> None:
    done = run("packs", "inspect", "monday")
    assert done.exit_code == 0
    for told in ("nano abababababab", "3 samples", "2 turns", "earlier", "eval nll"):
        assert told in done.stdout
    value = json.loads(run("packs", "inspect", "monday", "--json").stdout)
    assert value["status"] == "active" and value["manifest"]["lineage"] == ["t1", "t2"]
    (store.folder("monday") / "pack.safetensors").write_bytes(b"")
    assert run("packs", "inspect", "monday").exit_code == 1


def test_activate_and_back(store: Store) -> None:
    assert run("packs", "activate", "tuesday", "--dry-run").stdout == "would wear: tuesday (before: monday)\n"
    assert store.active() == ("monday",)
    assert run("packs", "activate", "tuesday").stdout == "worn: tuesday (before: monday)\n"
    assert run("rollback", "--dry-run").stdout == "would wear: monday (before: tuesday)\n"
    assert json.loads(run("rollback", "--json").stdout) == {
        "action": "rollback",
        "before": ["tuesday"],
        "now": ["monday"],
        "dry_run": False,
    }
    assert run("rollback", "base").stdout == "worn: base (before: monday)\n"
    done = run("rollback")
    assert done.exit_code == 1 and "nothing was worn before base" in done.stderr


def test_a_name_that_is_not_there_is_answered_with_the_nearest(store: Store) -> None:
    done = run("packs", "activate", "mondy")
    assert done.exit_code == 1
    assert "did you mean 'monday'?" in done.stderr


def test_a_quarantined_pack_needs_force(store: Store) -> None:
    store.quarantine("tuesday", {"passed": False, "ppl_delta_pct": 9.5})
    refused = run("packs", "activate", "tuesday")
    assert refused.exit_code == 1 and "--force" in refused.stderr
    assert "verdict ppl_delta_pct" in run("packs", "inspect", "tuesday").stdout
    assert run("packs", "activate", "tuesday", "--force").exit_code == 0

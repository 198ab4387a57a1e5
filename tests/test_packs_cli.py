from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlx_plastic.base import fingerprint
from mlx_plastic.cli.main import plastic
from mlx_plastic.home import Home
from mlx_plastic.packs import Store
from test_format import some_factors, some_manifest
from test_store import add, old


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
    for arguments in (
        ["packs", "list"],
        ["packs", "inspect", "monday"],
        ["packs", "verify"],
        ["packs", "gc", "--dry-run"],
        ["rollback"],
    ):
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


def test_several_packs_are_worn_together(store: Store) -> None:
    assert run("packs", "activate", "tuesday", "monday").stdout == "worn: tuesday+monday (before: monday)\n"
    assert run("rollback").stdout == "worn: monday (before: tuesday+monday)\n"


def test_list_shows_storage_pins_and_parents(store: Store) -> None:
    factors = some_factors()
    store.add(factors, some_manifest(factors, "small", storage="int4"))
    assert run("packs", "pin", "small", "--dry-run").stdout == "would be pinned: small\n"
    assert run("packs", "pin", "small").stdout == "pinned: small\n"
    small = next(line for line in run("packs", "list").stdout.splitlines() if "small" in line)
    assert "candidate, pinned" in small and "int4" in small
    found = json.loads(run("packs", "list", "--json").stdout)["packs"]
    assert [(p["pinned"], p["storage"], p["parents"]) for p in found if p["name"] == "small"] == [
        (True, "int4", 1)
    ]
    assert json.loads(run("packs", "unpin", "small", "--json").stdout) == {"pinned": [], "dry_run": False}


def test_inspect_shows_the_spectrum_of_every_update(store: Store) -> None:
    value = json.loads(run("packs", "inspect", "monday", "--json").stdout)
    pack = store.read("monday")
    assert [one["module"] for one in value["modules"]] == sorted(pack.factors)
    for one in value["modules"]:
        f = pack.factors[one["module"]]
        dense = f.scale * f.b.astype(np.float32) @ f.a.astype(np.float32)
        s = np.linalg.svd(dense, compute_uv=False)[..., : f.rank]
        expected = s.reshape(-1, f.rank).mean(axis=0)
        assert one["singular_values"] == pytest.approx(expected, rel=1e-3)  # float16 factors, float32 sums
    shown = run("packs", "inspect", "monday").stdout
    assert "self_attn.q_proj" in shown and "SPECTRUM" in shown and "signature" in shown
    assert "model.layers.0.self_attn.q_proj" in run("packs", "inspect", "monday", "--modules").stdout


def test_a_folder_elsewhere_is_inspected_too(store: Store, tmp_path: Path) -> None:
    store.folder("tuesday").rename(tmp_path / "tuesday")
    assert "not in the store" in run("packs", "inspect", f"{tmp_path}/tuesday").stdout


def test_verify_reads_everything_and_fails_for_one_that_is_not_sound(store: Store) -> None:
    assert "2 packs read, 0 not sound" in run("packs", "verify").stdout
    tensors = store.folder("tuesday") / "pack.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x7f")
    done = run("packs", "verify", "--json")
    assert done.exit_code == 1
    value = json.loads(done.stdout)
    assert [(p["name"], p["sound"]) for p in value["packs"]] == [("monday", True), ("tuesday", False)]
    assert "sha256 differs" in value["packs"][1]["faults"][-1]
    assert run("packs", "verify", "monday").exit_code == 0
    assert run("packs", "verify", "nowhere").exit_code == 1


def test_verify_tells_a_worn_pack_that_is_gone(store: Store, tmp_path: Path) -> None:
    store.folder("monday").rename(tmp_path / "monday")
    done = run("packs", "verify")
    assert done.exit_code == 1 and "no pack 'monday'" in done.stdout


def test_verify_compares_the_base(store: Store, checkpoint: Path) -> None:
    factors = some_factors()
    own = fingerprint(checkpoint)
    store.add(factors, some_manifest(factors, "own", base_fingerprint=own))
    assert run("packs", "verify", "own", "--base", str(checkpoint)).exit_code == 0
    done = run("packs", "verify", "monday", "--base", str(checkpoint))
    assert done.exit_code == 1 and f"it is for base abababababab (nano), not {own[:12]}" in done.stdout


def test_a_signed_pack_travels_and_is_trusted(store: Store, tmp_path: Path) -> None:
    key = str(tmp_path / "key")
    assert run("packs", "keygen", key).exit_code == 0
    again = run("packs", "keygen", key)
    assert again.exit_code == 1 and "never overwritten" in again.stderr
    assert run("packs", "sign", "tuesday", "--key", key, "--dry-run").stdout.startswith("would sign: tuesday")
    assert not (store.folder("tuesday") / "signature.json").exists()
    assert run("packs", "sign", "tuesday", "--key", key).exit_code == 0
    assert "candidate, signed" in run("packs", "list").stdout
    store.folder("tuesday").rename(tmp_path / "given")
    given = str(tmp_path / "given")
    would = run("packs", "add", given, "--name", "gift", "--trust", f"{key}.pub", "--dry-run")
    assert would.stdout.startswith("would add: gift") and store.names() == ["monday"]
    assert run("packs", "add", given, "--name", "gift", "--trust", f"{key}.pub").exit_code == 0
    done = run("packs", "verify", "gift", "--trust", f"{key}.pub")
    assert done.exit_code == 0 and "genuine" in done.stdout and "as tuesday" in done.stdout
    assert json.loads(run("packs", "inspect", "gift", "--json").stdout)["signature"]["name"] == "tuesday"
    unsigned = run("packs", "add", str(store.folder("monday")), "--name", "other", "--require-signature")
    assert unsigned.exit_code == 1 and "it is not signed" in unsigned.stderr
    assert store.names() == ["gift", "monday"]


def test_gc_shows_what_it_would_do_and_asks(store: Store) -> None:
    old(store, "monday", "tuesday")
    shown = run("packs", "gc", "--dry-run").stdout
    assert "would remove: 1 packs" in shown and "worn now" in shown
    asked = CliRunner().invoke(plastic, ["packs", "gc"], input="n\n", prog_name="plastic")
    assert asked.exit_code == 1 and store.names() == ["monday", "tuesday"]
    value = json.loads(run("packs", "gc", "--yes", "--json").stdout)
    assert [p["name"] for p in value["removed"]] == ["tuesday"] and value["freed_bytes"] > 0
    assert store.names() == ["monday"]
    assert run("packs", "gc", "--keep", "-1").exit_code == 2


def test_remove_refuses_what_is_worn(store: Store) -> None:
    refused = run("packs", "remove", "tuesday", "monday", "--yes")
    assert refused.exit_code == 1 and "'monday' is worn" in refused.stderr
    assert run("packs", "remove", "tuesday", "--dry-run").exit_code == 0
    assert store.names() == ["monday", "tuesday"]
    assert run("packs", "remove", "tuesday", "--yes").exit_code == 0
    assert store.names() == ["monday"]

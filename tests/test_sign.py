from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_plastic.errors import BadPack, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.packs import Store
from mlx_plastic.packs.format.audit import Demand, audit
from mlx_plastic.packs.format.pack import read_pack
from mlx_plastic.packs.format.sign import is_genuine, make_key, public_file, read_public
from test_store import add


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def store(home: Home) -> Store:
    store = Store(home)
    add(store, "cooking")
    return store


def trusting(*files: Path) -> Demand:
    return Demand(frozenset(map(read_public, files)))


def change(folder: Path, file: str, /, **changes: object) -> None:
    value = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps(value))


def test_a_signature_is_genuine_for_this_pack_and_this_key(store: Store, key: Path, tmp_path: Path) -> None:
    store.sign("cooking", key)
    found = audit(store, "cooking", demand=trusting(public_file(key)))
    assert found.sound and found.signature == "genuine"
    assert found.signer == read_public(public_file(key))
    make_key(tmp_path / "other")
    stranger = audit(store, "cooking", demand=trusting(public_file(tmp_path / "other")))
    assert "not trusted" in stranger.faults[0]  # control: another key's owner is another person


def test_what_was_changed_after_signing_is_forged(store: Store, key: Path) -> None:
    store.sign("cooking", key)
    folder = store.folder("cooking")
    signed = {name: (folder / name).read_bytes() for name in ("manifest.json", "signature.json")}
    for name, changes in (
        ("manifest.json", {"base_id": "other"}),
        ("manifest.json", {"lineage": []}),
        ("manifest.json", {"training": {"dropout": 0.5}}),
        ("signature.json", {"name": "harmless"}),
        ("signature.json", {"signature": "00" * 64}),
        ("signature.json", {"public_key": "11" * 32}),
    ):
        change(folder, name, **changes)
        assert audit(store, "cooking").signature == "forged"
        assert "its signature is not of this pack" in audit(store, "cooking").faults[0]
        (folder / name).write_bytes(signed[name])
    assert audit(store, "cooking").sound  # control: put back, it is genuine again


def test_other_tensors_under_a_signed_manifest_are_refused(store: Store, key: Path) -> None:
    store.sign("cooking", key)
    tensors = store.folder("cooking") / "pack.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x11")
    assert "sha256 differs" in audit(store, "cooking").faults[0]


def test_eval_results_leave_the_signature_true(store: Store, key: Path) -> None:
    store.sign("cooking", key)
    store.record("cooking", {"ppl_delta_pct": 0.5})
    assert audit(store, "cooking", demand=Demand(required=True)).sound


def test_another_local_name_leaves_the_signature_true_and_tells_the_first(store: Store, key: Path) -> None:
    store.sign("cooking", key)
    store.take(store.folder("cooking"), "baking")
    found = audit(store, "baking", demand=Demand(required=True))
    assert found.sound and found.signed_name == "cooking"


def test_an_unsigned_pack_is_sound_unless_a_signature_is_demanded(store: Store, key: Path) -> None:
    assert audit(store, "cooking").sound
    for demand in (Demand(required=True), trusting(public_file(key))):
        assert audit(store, "cooking", demand=demand).faults == ("it is not signed",)


def test_a_folder_elsewhere_is_signed_and_stays_a_pack(store: Store, key: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    store.folder("cooking").rename(folder)
    store.sign(f"{folder}/", key)
    pack = read_pack(folder)
    assert pack.signature is not None and is_genuine(pack.manifest, pack.signature)
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "pack.safetensors", "signature.json"]


def test_a_private_key_is_for_its_owner_alone_and_never_overwritten(key: Path, tmp_path: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    with pytest.raises(PlasticError, match="never overwritten"):
        make_key(key)
    assert key.read_bytes() == before
    (tmp_path / "new.pub").write_text("mine")
    with pytest.raises(PlasticError, match=r"new\.pub is there already"):
        make_key(tmp_path / "new")
    assert not (tmp_path / "new").exists() and (tmp_path / "new.pub").read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(PlasticError, match="never overwritten"):
        make_key(tmp_path / "link")
    assert not (tmp_path / "nowhere").exists() and not (tmp_path / "link.pub").exists()


def test_everybody_may_read_the_public_key_and_its_owner_alone_may_change_it(tmp_path: Path) -> None:
    before = os.umask(0)  # what the user's mask would hide
    try:
        make_key(tmp_path / "key")
    finally:
        os.umask(before)
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in tmp_path.iterdir()}
    assert modes == {"key": "0o600", "key.pub": "0o644"}  # control: the private one is nobody else's


def test_a_key_of_no_use_is_told(store: Store, key: Path, tmp_path: Path) -> None:
    for given, told in (
        (tmp_path / "none", "cannot read the key"),
        (public_file(key), "others can read|no private Ed25519"),
        (store.state_file.parent, "cannot read the key"),
    ):
        with pytest.raises(PlasticError, match=told):
            store.sign("cooking", given)
    with pytest.raises(PlasticError, match="no public Ed25519 key"):
        read_public(key)
    key.chmod(0o640)
    with pytest.raises(PlasticError, match="others can read the private key"):
        store.sign("cooking", key)
    assert not (store.folder("cooking") / "signature.json").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "signature.json is not JSON"),
        ("{}", "exactly the keys"),
        (" " * 5000, "more than 4096"),
        ('{"algorithm": "none"}', "exactly the keys"),
    ],
)
def test_a_signature_of_another_form_makes_a_pack_unsound(store: Store, text: str, told: str) -> None:
    (store.folder("cooking") / "signature.json").write_text(text)
    with pytest.raises(BadPack, match=told):
        store.read("cooking")


def test_fields_of_a_signature_are_what_they_must_be(store: Store, key: Path) -> None:
    store.sign("cooking", key)
    folder = store.folder("cooking")
    sound = (folder / "signature.json").read_bytes()
    for changes in (
        {"algorithm": "rsa"},
        {"format_version": 2},
        {"format_version": True},
        {"public_key": "AB" * 32},
        {"signature": "ab"},
        {"signature": 5},
        {"name": "../x"},
    ):
        change(folder, "signature.json", **changes)
        with pytest.raises(BadPack, match=r"signature\.json"):
            store.read("cooking")
        (folder / "signature.json").write_bytes(sound)
    os.remove(folder / "signature.json")
    os.symlink("/etc/passwd", folder / "signature.json")
    with pytest.raises(BadPack, match="not a plain file"):
        store.read("cooking")


def test_without_the_package_packs_are_read_and_only_signing_is_refused(store: Store, key: Path) -> None:
    store.sign("cooking", key)
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path; from mlx_plastic.home import Home; from mlx_plastic.packs import Store\n"
        "from mlx_plastic.packs.format.audit import Demand, audit\n"
        "store = Store(Home(Path(sys.argv[1])))\n"
        "found = audit(store, 'cooking'); print(found.sound, found.signature)\n"
        "try: audit(store, 'cooking', demand=Demand(required=True))\n"
        "except Exception as error: print(error.hint)\n"
    )
    done = subprocess.check_output([sys.executable, "-c", code, str(store.home.root)], text=True)
    assert done.splitlines() == ["True unchecked", "pip install 'mlx-plastic[sign]'"]

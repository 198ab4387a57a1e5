from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlx_plastic.base.checkpoint import (
    INDEX,
    check,
    fingerprint,
    identity_files,
    read_header,
    resolve,
    shards,
)
from mlx_plastic.errors import BadCheckpoint, BaseNotFound


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own to break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def split(folder: Path) -> list[Path]:
    """Turn the single shard into two with an index, as large checkpoints come."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    files = [folder / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for file, half in zip(files, halves, strict=True):
        save_file({name: tensors[name] for name in half}, str(file))
    weight_map = {name: file.name for file, half in zip(files, halves, strict=True) for name in half}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return files


def fault(folder: Path) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        resolve(str(folder))
    assert caught.value.hint
    return caught.value.message


def test_a_whole_folder_is_found(checkpoint: Path) -> None:
    assert resolve(str(checkpoint)) == checkpoint.resolve()


def test_a_whole_sharded_folder_is_found(copy: Path) -> None:
    files = split(copy)
    check(copy)
    assert shards(copy) == files


@pytest.mark.parametrize("ref", ["no-such-folder", "./no/such", "/no/such/folder", "a/b/c", ""])
def test_what_is_neither_a_folder_nor_an_id_says_what_to_give(ref: str) -> None:
    with pytest.raises(BaseNotFound, match="no checkpoint folder") as caught:
        resolve(ref)
    assert "org/name" in caught.value.hint


def test_a_file_is_no_checkpoint(checkpoint: Path) -> None:
    assert "is a file" in fault(checkpoint / "config.json")


def test_an_empty_folder_lacks_everything_and_all_of_it_is_named(tmp_path: Path) -> None:
    message = fault(tmp_path)
    for missing in ("no config.json", "no tokenizer", "no model*.safetensors"):
        assert missing in message


def test_torch_weights_are_told_how_to_be_converted(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BadCheckpoint, match="no model") as caught:
        resolve(str(copy))
    assert "mlx_lm convert" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "config.json is not JSON"), ("[]", "names no model_type"), ('{"a": 1}', "names no model_type")],
)
def test_a_broken_config_is_named(copy: Path, text: str, expected: str) -> None:
    (copy / "config.json").write_text(text)
    assert expected in fault(copy)


def test_every_missing_shard_of_the_index_is_named(copy: Path) -> None:
    for file in split(copy):
        file.rename(copy / f"away-{file.name}")
    message = fault(copy)
    assert "model-00001-of-00002" in message
    assert "model-00002-of-00002" in message


def test_an_index_cannot_lead_out_of_the_folder(copy: Path) -> None:
    (copy / INDEX).write_text(json.dumps({"weight_map": {"w": "../model.safetensors"}}))
    assert "'../model.safetensors'" in fault(copy)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_broken_index_is_named(copy: Path, text: str) -> None:
    (copy / INDEX).write_text(text)
    assert f"{INDEX} holds no weight_map" in fault(copy)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_a_truncated_shard_is_named(copy: Path, keep: int) -> None:
    shard = copy / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    message = fault(copy)
    assert "model.safetensors" in message
    assert "truncated" in message or "not a SafeTensors file" in message


def test_all_damaged_shards_are_listed_at_once(copy: Path) -> None:
    for file in split(copy):
        file.write_bytes(file.read_bytes()[:-1])
    message = fault(copy)
    assert message.count("truncated") == 2


def test_a_truncated_tokenizer_or_shard_is_no_traceback(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "not a SafeTensors file" in fault(copy)


def raw(path: Path, header: object, data: bytes = b"\0" * 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(start: int, stop: int, *, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"a": entry(0, 4), "b": entry(0, 4)}, "overlapping"),
        ({"a": entry(4, 8)}, "hole"),
        ({"a": entry(0, 4)}, "4 bytes after its last tensor"),
        ({"a": entry(0, 12, shape=(3,))}, "truncated: 8 of 12"),
        ({"a": entry(0, 8)}, "'a' do not fit"),
        ({"a": entry(0, 8, shape=(-1, -2))}, "'a' do not fit"),
        ({"a": entry(0, 8, dtype="F33")}, "'a' do not fit"),
        ({"a": {"dtype": "F32"}}, "'a' do not fit"),
        ({"a": 3}, "'a' do not fit"),
        (b'{"a": 1, "a": 1}', "broken SafeTensors header"),
        (b"{" * 9, "broken SafeTensors header"),
        (b"[]", "broken SafeTensors header"),
        (b"\xff\xfe{}", "broken SafeTensors header"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: object, expected: str) -> None:
    with pytest.raises(BadCheckpoint, match=expected):
        read_header(raw(tmp_path / "model.safetensors", header))


def test_a_header_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": np.zeros((2, 3), np.float16), "empty": np.zeros((0, 4), np.float32)}, str(path))
    found = read_header(path)
    assert (found["w"].dtype, found["w"].shape, found["w"].nbytes) == ("F16", (2, 3), 12)
    assert (found["empty"].shape, found["empty"].nbytes) == ((0, 4), 0)


# -- the fingerprint


def flip(file: Path, *, keep_times: bool) -> None:
    """Change one bit in the middle, with the size and, if wished, the mtime of before."""
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    with open(file, "r+b") as opened:  # in place: the same inode
        opened.write(data)
    if keep_times:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_fingerprint_is_the_same_for_a_copy(checkpoint: Path, copy: Path) -> None:
    assert fingerprint(copy) == fingerprint(checkpoint)
    assert len(fingerprint(copy)) == 64


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_a_flipped_bit_in_any_file_changes_the_fingerprint(copy: Path, name: str) -> None:
    before = fingerprint(copy)
    flip(copy / name, keep_times=False)
    assert fingerprint(copy) != before


def test_every_shard_counts_not_only_the_first(copy: Path) -> None:
    files = split(copy)
    before = fingerprint(copy)
    flip(files[1], keep_times=False)
    assert fingerprint(copy) != before


def test_a_template_of_its_own_file_counts(copy: Path) -> None:
    before = fingerprint(copy)
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert fingerprint(copy) != before
    (copy / "README.md").write_text("not part of the model")
    assert copy / "README.md" not in identity_files(copy)


def test_an_unchanged_file_is_hashed_once(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = fingerprint(copy, cache=cache)
    read: list[str] = []
    original = open

    def watch(file: object, *args: object, **options: object) -> object:
        read.append(str(file))
        return original(file, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", watch)
    assert fingerprint(copy, cache=cache) == first
    assert not any("model.safetensors" in name for name in read)
    assert fingerprint(copy, cache=cache, rehash=True) == first
    assert any("model.safetensors" in name for name in read)  # control: the watch works


def test_a_changed_file_is_hashed_again(copy: Path, tmp_path: Path) -> None:
    before = fingerprint(copy, cache=tmp_path / "cache")
    flip(copy / "model.safetensors", keep_times=False)
    assert fingerprint(copy, cache=tmp_path / "cache") != before


def test_a_flipped_bit_with_the_old_mtime_is_seen(copy: Path, tmp_path: Path) -> None:
    """ctime betrays it, which nobody can set back; hashing again does not even need that."""
    cache = tmp_path / "cache"
    before = fingerprint(copy, cache=cache)
    stamp = (copy / "model.safetensors").stat()
    flip(copy / "model.safetensors", keep_times=True)
    now = (copy / "model.safetensors").stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (stamp.st_size, stamp.st_mtime_ns, stamp.st_ino)
    assert fingerprint(copy, cache=cache, rehash=True) != before


def test_a_flipped_bit_behind_the_file_systems_back_needs_rehash(copy: Path, tmp_path: Path) -> None:
    """What the cache believes if not one time changed: the documented limit, and the way out of it."""
    cache = tmp_path / "cache"
    before = fingerprint(copy, cache=cache)
    flip(copy / "model.safetensors", keep_times=True)
    file = cache / "fingerprints.json"
    known = json.loads(file.read_text())
    s = (copy / "model.safetensors").stat()
    stamp = [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev]
    known[str((copy / "model.safetensors").resolve())]["stamp"] = stamp
    file.write_text(json.dumps(known))
    assert fingerprint(copy, cache=cache) == before
    assert fingerprint(copy, cache=cache, rehash=True) != before
    assert fingerprint(copy, cache=cache) != before  # what was found is kept


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 3}', "\x00\xff"])
def test_a_broken_cache_only_costs_time(copy: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "fingerprints.json").write_text(text)
    assert fingerprint(copy, cache=tmp_path) == fingerprint(copy)


def test_a_cache_that_cannot_be_written_only_costs_time(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert fingerprint(copy, cache=tmp_path / "file" / "cache") == fingerprint(copy)


# -- the hub


HUB_SCRIPT = """
import json, sys
from mlx_plastic.base.checkpoint import resolve
from mlx_plastic.errors import PlasticError
try:
    print(json.dumps({"path": str(resolve(sys.argv[1]))}))
except PlasticError as error:
    print(json.dumps({"kind": type(error).__name__, "message": error.message, "hint": error.hint}))
"""


def offline(ref: str, hub_home: Path) -> dict[str, str]:
    """resolve(ref) in a process of its own: huggingface_hub reads its variables once, at import."""
    done = subprocess.run(
        [sys.executable, "-c", HUB_SCRIPT, ref],
        env=os.environ | {"HF_HOME": str(hub_home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_hub_id_is_found_offline_in_the_local_cache(checkpoint: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(checkpoint, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    assert offline("org/tiny", tmp_path)["path"] == str(repo / "snapshots" / commit)


def test_a_hub_id_that_is_not_in_the_cache_says_that_the_hub_is_off(tmp_path: Path) -> None:
    found = offline("org/absent", tmp_path)
    assert found["kind"] == "BaseNotFound"
    assert "HF_HUB_OFFLINE" in found["message"]
    assert "hf download org/absent" in found["hint"]


def test_a_half_downloaded_hub_snapshot_is_named(checkpoint: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(checkpoint, repo / "snapshots" / commit)
    (repo / "snapshots" / commit / "model.safetensors").unlink()
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    found = offline("org/tiny", tmp_path)
    assert found["kind"] == "BadCheckpoint"
    assert "no model*.safetensors" in found["message"]


def test_a_ref_that_is_no_hub_id_either(tmp_path: Path) -> None:
    found = offline("or g/-bad-", tmp_path)
    assert (found["kind"], found["hint"]) == ("BaseNotFound", "a hub id reads org/name")

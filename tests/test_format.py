from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from mlx_plastic.errors import BadPack
from mlx_plastic.packs.format.manifest import MAX_GROUP_SIZE, MAX_MANIFEST_BYTES
from mlx_plastic.packs.format.pack import (
    MAX_TENSOR_BYTES,
    DataCard,
    Factors,
    Manifest,
    RunCard,
    Storage,
    check_lite,
    check_name,
    make_manifest,
    read_manifest,
    read_pack,
    stored_bytes,
    stored_factors,
    tensor_bytes,
    write_pack,
)
from mlx_plastic.packs.format.sign import MAX_SIGNATURE_BYTES
from mlx_plastic.packs.format.tensors import MAX_GAIN, MAX_MODULES, factor_faults, gain
from mlx_plastic.packs.format.untrusted import (
    HOLLOW_BYTES,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_HEADER_BYTES,
    MAX_TOKENS,
)

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.1.mlp.down_proj"
EXPERTS = "model.layers.1.mlp.switch_mlp.up_proj"


def some_factors(seed: int = 0, rank: int = 4) -> dict[str, Factors]:
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float16)

    return {
        Q: Factors(normal(rank, 32), normal(24, rank), 8.0),
        DOWN: Factors(normal(2, 64), normal(32, 2), 0.5),
        EXPERTS: Factors(normal(3, rank, 32), normal(3, 64, rank), 1.0),
    }


def some_manifest(factors: dict[str, Factors], name: str = "cooking", **changes: Any) -> Manifest:
    given: dict[str, Any] = {
        "name": name,
        "base_id": "nano",
        "base_fingerprint": "ab" * 32,
        "training": {"rank": 4, "dropout": 0.0},
        "data": DataCard("cd" * 32, samples=3, tokens=90, supervised_tokens=30, kinds={"qa": 2, "chat": 1}),
        "run": RunCard(steps=5, seconds=1.5, tokens_per_s=60.0, peak_memory_mb=12.5),
        "parents": ("earlier",),
        "lineage": ("t1", "t2"),
        "evals": {"nll": 1.25},
    }
    return make_manifest(factors, **(given | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    factors = some_factors()
    return write_pack(tmp_path / "cooking", factors, some_manifest(factors))


def test_a_pack_comes_back_as_it_was_written(tmp_path: Path) -> None:
    factors = some_factors()
    manifest = some_manifest(factors)
    pack = read_pack(write_pack(tmp_path / "p", factors, manifest))
    assert pack.manifest == manifest == read_manifest(tmp_path / "p")
    assert sorted(pack.factors) == sorted(factors)
    for path, f in factors.items():
        assert np.array_equal(pack.factors[path].a, f.a)
        assert np.array_equal(pack.factors[path].b, f.b)
        assert pack.factors[path].alpha == f.alpha
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == ["manifest.json", "pack.safetensors"]


def test_the_tensors_are_named_and_typed_as_promised(folder: Path) -> None:
    tensors = safetensors.numpy.load((folder / "pack.safetensors").read_bytes())
    assert {n: (t.shape, t.dtype.name) for n, t in tensors.items() if n.startswith(Q)} == {
        f"{Q}.lora.A": ((4, 32), "float16"),
        f"{Q}.lora.B": ((24, 4), "float16"),
        f"{Q}.lora.alpha": ((), "float32"),
    }
    assert tensors[f"{EXPERTS}.lora.A"].shape == (3, 4, 32)


def test_the_same_factors_give_the_same_bytes_and_others_do_not() -> None:
    assert tensor_bytes(some_factors(0)) == tensor_bytes(some_factors(0))
    assert tensor_bytes(some_factors(0)) != tensor_bytes(some_factors(1))


@pytest.mark.parametrize(("storage", "bound"), [("int8", 0.01), ("int4", 0.14)])
def test_small_storages_come_back_within_their_error(tmp_path: Path, storage: Storage, bound: float) -> None:
    factors = some_factors()
    manifest = some_manifest(factors, storage=storage)
    pack = read_pack(write_pack(tmp_path / "p", factors, manifest))
    assert pack.manifest == manifest and manifest.group_size == 64
    for path, f in factors.items():
        read = pack.factors[path]
        for was, found in ((f.a, read.a), (f.b, read.b)):
            assert found.shape == was.shape and found.dtype == np.float16
            error = np.linalg.norm(found.astype(np.float32) - was) / np.linalg.norm(was.astype(np.float32))
            assert 0 < error < bound  # normal values: about 0.006 of 8 bits, 0.1 of 4
        assert read.alpha == f.alpha
    promised = stored_factors(factors, storage)
    assert all(np.array_equal(promised[path].b, pack.factors[path].b) for path in factors)


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_a_small_pack_written_again_has_the_same_bytes(tmp_path: Path, storage: Storage) -> None:
    factors = some_factors()
    pack = read_pack(write_pack(tmp_path / "p", factors, some_manifest(factors, storage=storage)))
    assert tensor_bytes(pack.factors, storage) == (tmp_path / "p" / "pack.safetensors").read_bytes()
    assert tensor_bytes(pack.factors, storage, 32) != tensor_bytes(pack.factors, storage)


@pytest.mark.parametrize("group_size", [1, MAX_GROUP_SIZE])
@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_a_pack_in_groups_of_any_size_that_is_promised_comes_back(
    tmp_path: Path, storage: Storage, group_size: int
) -> None:
    factors = some_factors()
    manifest = some_manifest(factors, storage=storage, group_size=group_size)
    pack = read_pack(write_pack(tmp_path / "p", factors, manifest))
    assert pack.manifest.group_size == group_size
    promised = stored_factors(factors, storage, group_size)
    assert all(np.array_equal(pack.factors[path].a, f.a) for path, f in promised.items())
    assert not np.array_equal(pack.factors[Q].a, stored_factors(factors, storage, 8)[Q].a)  # control
    for beyond in (0, MAX_GROUP_SIZE + 1):
        with pytest.raises(ValueError, match=f"group_size of {storage} is {beyond}, not 1 to 4096"):
            write_pack(tmp_path / "beyond", factors, dataclasses.replace(manifest, group_size=beyond))


@pytest.mark.parametrize("storage", ["float16", "int8", "int4"])
def test_the_least_and_the_highest_rank_of_a_weight_come_back(tmp_path: Path, storage: Storage) -> None:
    factors = {
        "m.least": Factors(half(1, 6), half(5, 1), 1.0),
        "m.highest": Factors(half(5, 6), half(5, 5), 1.0),
        "m.one_row": Factors(half(1, 6), half(1, 1), 1.0),
        "m.one_expert": Factors(half(1, 2, 6), half(1, 5, 2), 1.0),
    }
    pack = read_pack(write_pack(tmp_path / "p", factors, some_manifest(factors, storage=storage)))
    assert {path: (f.a.shape, f.b.shape) for path, f in pack.factors.items()} == {
        path: (f.a.shape, f.b.shape) for path, f in factors.items()
    }
    for out, width in ((5, 6), (6, 5)):  # control: one more than either side
        with pytest.raises(ValueError, match=rf"rank 6, more than its weight \({out}, {width}\) can have"):
            some_manifest({"m.x": Factors(half(6, width), half(out, 6), 1.0)}, storage=storage)


@pytest.mark.parametrize("storage", ["float16", "int8", "int4"])
def test_stored_bytes_are_told_beforehand(storage: Storage) -> None:
    data = tensor_bytes(some_factors(), storage)
    body = len(data) - 8 - struct.unpack("<Q", data[:8])[0]
    assert body == sum(
        stored_bytes(f.b.shape[-2], f.a.shape[-1], f.rank, storage, f.a.shape[0] if f.a.ndim == 3 else 1)
        for f in some_factors().values()
    )


def read_as_documented(data: bytes, name: str, group_size: int) -> np.ndarray:
    """int4 rows by docs/pack-format.md, value by value."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])

    def raw(name: str) -> tuple[list[int], bytes]:
        start, stop = header[name]["data_offsets"]
        return header[name]["shape"], data[8 + size + start : 8 + size + stop]

    (rows, width), packed = raw(name)
    (_, groups), scales = raw(f"{name}.scales")
    found = []
    for i in range(rows):
        nibbles = [n for byte in packed[i * width : (i + 1) * width] for n in (byte & 15, byte >> 4)]
        values = [n - 16 if n > 8 else n for n in (nibbles if nibbles[-1] != 8 else nibbles[:-1])]
        row = struct.unpack(f"<{groups}e", scales[2 * groups * i : 2 * groups * (i + 1)])
        found.append([np.float16(v * row[j // group_size]) for j, v in enumerate(values)])
    return np.array(found)


def test_the_page_on_the_format_is_enough_to_read_it() -> None:
    random = np.random.default_rng(3)
    a, b = (random.standard_normal(shape).astype(np.float16) for shape in ((3, 71), (40, 3)))
    factors = {"m.x": Factors(a, b, 2.0)}
    data = tensor_bytes(factors, "int4", 16)
    expected = stored_factors(factors, "int4", 16)["m.x"]
    assert np.array_equal(read_as_documented(data, "m.x.lora.A", 16), expected.a)  # of odd width
    assert np.array_equal(read_as_documented(data, "m.x.lora.B", 16).T, expected.b)


def test_the_page_on_the_format_names_the_limits() -> None:
    page = (Path(__file__).parent.parent / "docs" / "pack-format.md").read_text()
    for told in (
        f"{MAX_TENSOR_BYTES >> 30} GiB",
        f"{MAX_MANIFEST_BYTES >> 20} MiB",
        f"{MAX_SIGNATURE_BYTES >> 10} KiB",
        f"{MAX_HEADER_BYTES >> 20} MiB",
        f"{HOLLOW_BYTES >> 20} MiB",
        f"at most {MAX_MODULES:,} modules",
        f"at most {MAX_GAIN:,.0f}: a",
        f"at most {MAX_TOKENS:,} brackets and commas, {MAX_DEPTH} levels",
        f"more than {MAX_DIGITS} digits ({2 * MAX_DIGITS} of a fraction)",
        *(f"`{field.name}`" for field in dataclasses.fields(Manifest)),
    ):
        assert told in page


def test_a_float16_pack_says_what_it_always_said(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["storage"] == "float16" and "group_size" not in manifest
    ramp = np.arange(8, dtype=np.float16).reshape(2, 4)
    data = tensor_bytes({"m.x": Factors(ramp, ramp.T / 8, 4.0)})
    assert hashlib.sha256(data).hexdigest().startswith("05fdfa26a8a4c05f")  # as version 0.1.0 wrote them


def test_no_reader_of_packs_imports_mlx(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlx_plastic.packs import Store, read_pack;"
        f"read_pack(Path({str(folder)!r}));"
        "print([m for m in ('mlx', 'mlx.core', 'mlx_lm', 'torch') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_factors_that_no_reader_would_take_are_not_written(tmp_path: Path) -> None:
    good = some_factors()
    for path, bad in {
        "model.x": Factors(np.zeros((2, 4), np.float16), np.zeros((4, 3), np.float16), 1.0),
        "model.y": Factors(np.full((2, 4), np.nan, np.float16), np.zeros((4, 2), np.float16), 1.0),
        "../up": Factors(np.zeros((2, 4), np.float16), np.zeros((4, 2), np.float16), 1.0),
        "model.z": Factors(np.zeros((2, 4), np.float16), np.zeros((4, 2), np.float16), 0.0),
    }.items():
        with pytest.raises(ValueError, match=r"model|up"):
            tensor_bytes({**good, path: bad})
    with pytest.raises(ValueError, match="not of these factors"):
        write_pack(tmp_path / "p", good, some_manifest(some_factors(seed=1)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("a", "b"),
    [((8,), (8,)), ((2, 4), (3, 4, 2)), ((1, 1, 2, 4), (1, 1, 4, 2)), ((0, 4), (4, 0)), ((2, 4), (0, 2))],
)
def test_shapes_that_are_no_factors_are_told_as_they_are(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    told = re.escape(f"m.x has A {list(a)} and B {list(b)}, not (rank, in) and (out, rank)")
    with pytest.raises(ValueError, match=told):
        tensor_bytes({"m.x": Factors(half(*a), half(*b), 1.0)})
    tensor_bytes({"m.x": Factors(half(2, 4), half(4, 2), 1.0)})  # control


def bounded(a: np.ndarray, b: np.ndarray) -> list[list[str]]:
    """The faults of B @ A with an alpha just within and just beyond the bound, by its definition."""
    wide = [np.linalg.norm(t.astype(np.float64)) for t in (a, b)]
    alpha = MAX_GAIN * a.shape[0] * np.sqrt(b.shape[0]) / (wide[0] * wide[1])
    return [factor_faults({"m.x": Factors(a, b, alpha * share)}) for share in (0.99, 1.01)]


def test_an_update_is_refused_just_where_it_amplifies_more_than_the_bound() -> None:
    even = half(2, 400, value=2.5), half(300, 2, value=2.0)  # no value below the largest: quick bound = gain
    normal = some_factors()[Q]  # where the quick bound is passed long before
    for a, b in (even, (normal.a, normal.b)):
        within, beyond = bounded(a, b)
        assert within == []
        assert len(beyond) == 1 and "amplify its input 1.01e+03 times, more than 1000" in beyond[0]


def test_the_gain_bounds_what_a_random_input_becomes() -> None:
    f = some_factors()[Q]
    x = np.random.default_rng(1).standard_normal((f.a.shape[1], 4096))
    became = (f.alpha / f.rank) * f.b.astype(np.float64) @ (f.a.astype(np.float64) @ x)
    times = np.sqrt(np.square(became).mean() / np.square(x).mean())
    assert times < gain(f) < 4 * times  # |B| |A| is at most sqrt(rank) |B @ A| of factors as even as these


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="space"):
        write_pack(tmp_path / "p", some_factors(), some_manifest(some_factors()))
    assert list(tmp_path.iterdir()) == []


def half(*shape: int, value: float = 0.1) -> np.ndarray:
    return np.full(shape, value, np.float16)


def test_every_single_key_of_the_manifest_is_required(folder: Path) -> None:
    whole = json.loads((folder / "manifest.json").read_text())
    assert set(whole) == {f.name for f in dataclasses.fields(Manifest)} - {"group_size"}
    for key in whole:
        (folder / "manifest.json").write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        with pytest.raises(BadPack, match=f"{key} is missing"):
            read_pack(folder)


def test_all_faults_are_told_at_once(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"name": 7, "surplus": 1, "lineage": "t1", "data": {"digest": "x"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadPack) as caught:
        read_pack(folder)
    for fault in ("name is not str", "'surplus' is unknown", "lineage is not", "data.samples is missing"):
        assert fault in caught.value.message


def test_a_pack_cut_at_any_byte_is_refused(folder: Path) -> None:
    whole = (folder / "pack.safetensors").read_bytes()
    for size in range(0, len(whole), 97):
        (folder / "pack.safetensors").write_bytes(whole[:size])
        with pytest.raises(BadPack):
            read_pack(folder)


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", "A", ".hidden", "base", "state.json", "x" * 65, "a\n"]
)
def test_a_name_has_no_way_out_of_the_store(name: str) -> None:
    with pytest.raises(BadPack, match="no name"):
        check_name(name)
    assert check_name("2026-11-19") == "2026-11-19"


def test_the_profile_lite_names_everything_beyond_it() -> None:
    def wide(rank: int, size: int = 32) -> Factors:
        return Factors(half(rank, size), half(size, rank), 1.0)

    check_lite(some_manifest({Q: wide(8), DOWN: wide(32)}))  # an MLP may have more
    beyond = {Q: wide(9), Q.replace("q_", "k_"): wide(16), DOWN: wide(512, 6000)}
    with pytest.raises(BadPack) as caught:
        check_lite(some_manifest(beyond))
    for fault in ("q_proj has rank 9", "k_proj has rank 16", "12.3 MB is more than 10 MB"):
        assert fault in caught.value.message

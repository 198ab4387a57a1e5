"""Ways to make a sound pack hostile: what is done to its folder, and what the refusal must say."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from test_format import DOWN, EXPERTS, Q, half

Tamper = Callable[[Path], object]

TENSORS = "pack.safetensors"
MANIFEST = "manifest.json"


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header: dict[str, Any] | bytes, body: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def replace_tensors(folder: Path, data: bytes) -> None:
    """Swap the tensors and make the manifest agree, so that only the tensors themselves are at fault."""
    (folder / TENSORS).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text())
    sizes = {**manifest["sizes"], "tensor_bytes": len(data)}
    edit(folder, sha256=hashlib.sha256(data).hexdigest(), sizes=sizes)


def edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps(manifest))


def with_json(**changes: Any) -> Tamper:
    return lambda folder: edit(folder, **changes)


def with_text(text: str | bytes) -> Tamper:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return lambda folder: (folder / MANIFEST).write_bytes(data)


def with_header(change: Callable[[dict[str, Any]], Any]) -> Tamper:
    def tamper(folder: Path) -> None:
        header, body = header_of((folder / TENSORS).read_bytes())
        change(header)
        replace_tensors(folder, joined(header, body))

    return tamper


def with_bytes(change: Callable[[dict[str, Any], bytes], bytes]) -> Tamper:
    return lambda folder: replace_tensors(folder, change(*header_of((folder / TENSORS).read_bytes())))


def with_raw_header(raw: bytes) -> Tamper:
    return with_bytes(lambda header, body: joined(raw, body))


def with_tensors(**tensors: np.ndarray | None) -> Tamper:
    """Tensors put in place of others, or (None) taken out; the file is sound in itself."""

    def tamper(folder: Path) -> None:
        named: dict[str, Any] = safetensors.numpy.load((folder / TENSORS).read_bytes())
        named |= tensors
        replace_tensors(folder, safetensors.numpy.save({k: v for k, v in named.items() if v is not None}))

    return tamper


def in_turn(*tampers: Tamper) -> Tamper:
    def tamper(folder: Path) -> None:
        for one in tampers:
            one(folder)

    return tamper


def bytes_8(*shape: int, value: int = 1, kind: str = "int8") -> np.ndarray:
    return np.full(shape, value, kind)


def swap_offsets(header: dict[str, Any]) -> None:
    header[f"{Q}.lora.A"]["data_offsets"] = header[f"{Q}.lora.B"]["data_offsets"]


def leave_a_hole(header: dict[str, Any], body: bytes) -> bytes:
    for entry in header.values():
        if entry["data_offsets"][0] > 0:
            entry["data_offsets"] = [n + 16 for n in entry["data_offsets"]]
    return joined(header, body + bytes(16))


def repeat_key(header: dict[str, Any], body: bytes) -> bytes:
    once = json.dumps({f"{Q}.lora.A": header[f"{Q}.lora.A"]}).encode()[1:-1]
    return joined(json.dumps(header).encode()[:-1] + b", " + once + b"}", body)


def many(number: int) -> Tamper:
    entry = '"m%d.lora.A":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}'
    return with_raw_header(("{" + ",".join(entry % i for i in range(number)) + "}").encode())


def link_to(name: str, target: str = "") -> Tamper:
    def tamper(folder: Path) -> None:
        elsewhere = folder.parent / f"elsewhere-{folder.name}"
        (folder / name).rename(elsewhere)
        (folder / name).symlink_to(target or elsewhere)

    return tamper


def link_folder(folder: Path) -> None:
    elsewhere = folder.with_name(f"real-{folder.name}")
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def make_pipe(name: str) -> Tamper:
    def tamper(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return tamper


def make_socket(folder: Path) -> None:
    (folder / TENSORS).unlink()
    before = os.getcwd()
    os.chdir(folder)  # the name of a socket may have 100 characters only
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(TENSORS)
    finally:
        os.chdir(before)


def make_folder(folder: Path) -> None:
    (folder / TENSORS).unlink()
    (folder / TENSORS).mkdir()


def hollow(size: int) -> Tamper:
    """A file of `size` bytes that takes no room on the disk, and a header that is true of it."""

    def tamper(folder: Path) -> None:
        width = size // 16
        header = {
            "m.lora.A": {"dtype": "F16", "shape": [4, width], "data_offsets": [0, 8 * width]},
            "m.lora.B": {"dtype": "F16", "shape": [width, 4], "data_offsets": [8 * width, 16 * width]},
            "m.lora.alpha": {"dtype": "F32", "shape": [], "data_offsets": [16 * width, 16 * width + 4]},
        }
        data = joined(header, b"")
        with open(folder / TENSORS, "wb") as file:
            file.write(data)
            file.truncate(len(data) + 16 * width + 4)

    return tamper


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / TENSORS).read_bytes())
    data[-1] ^= 1
    (folder / TENSORS).write_bytes(bytes(data))


def another_pack(folder: Path) -> None:
    """Sound numbers, but not those that the manifest was written for."""
    named = safetensors.numpy.load((folder / TENSORS).read_bytes())
    named[f"{Q}.lora.A"] = named[f"{Q}.lora.A"] + np.float16(0.5)
    (folder / TENSORS).write_bytes(safetensors.numpy.save(named))


def a_file(name: str, content: bytes = b"evil") -> Tamper:
    return lambda folder: (folder / name).write_bytes(content)


def thousand_files(folder: Path) -> None:
    for i in range(1000):
        (folder / f"{i}.bin").touch()


def entry(**changes: Any) -> Tamper:
    return with_header(lambda header: header[f"{Q}.lora.A"].update(changes))


def deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


FILES: dict[str, tuple[Tamper, str]] = {
    "a pickle beside": (
        a_file("optimizer.pkl", b"\x80\x04cos\nsystem\n."),
        "'optimizer.pkl' does not belong",
    ),
    "a chat template beside": (a_file("chat_template.jinja"), "'chat_template.jinja' does not belong"),
    "a program beside": (a_file("modeling.py"), "'modeling.py' does not belong"),
    "a hidden file": (a_file(".bashrc"), "'.bashrc' does not belong"),
    "a file of an unseen name": (a_file("manifest.json\u200b"), "'manifest.json.u200b' does not belong"),
    "a manifest in capitals beside": (a_file("MANIFEST.JSON"), "'MANIFEST.JSON' does not belong|not JSON"),
    "a folder inside": (lambda f: (f / "more").mkdir(), "'more' does not belong"),
    "a thousand files": (thousand_files, "and more that does not belong"),
    "the folder is a link": (link_folder, "is a link"),
    "the folder is a file": (lambda f: (f.rename(f"{f}-old"), f.touch()), "cannot be opened: Not a dir"),
    "there is no folder": (lambda f: f.rename(f"{f}-old"), "cannot be opened: No such"),
    "tensors by a link": (link_to(TENSORS), "not a plain file"),
    "tensors by a link to a device": (link_to(TENSORS, "/dev/zero"), "not a plain file"),
    "manifest by a link": (link_to(MANIFEST), "not a plain file"),
    "manifest by a link to secrets": (link_to(MANIFEST, "/etc/passwd"), "not a plain file"),
    "tensors from a pipe": (make_pipe(TENSORS), "not a plain file"),
    "manifest from a pipe": (make_pipe(MANIFEST), "not a plain file"),
    "tensors from a socket": (make_socket, "not a plain file"),
    "tensors are a folder": (make_folder, "not a plain file"),
    "no tensors": (lambda f: (f / TENSORS).unlink(), "pack.safetensors is missing"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "manifest.json is missing"),
    "two gigabytes of a hole": (hollow(2 << 30), "most of which are a hole"),
    "more than any pack": (hollow(5 << 30), "more than 4294967296"),
}

HEADERS: dict[str, tuple[Tamper, str]] = {
    "one flipped bit": (flip_a_bit, "sha256 differs"),
    "the numbers of another pack": (another_pack, "sha256 differs"),
    "truncated": (lambda f: replace_tensors(f, (f / TENSORS).read_bytes()[:-10]), "accounts for"),
    "trailing bytes": (with_bytes(lambda h, b: joined(h, b + b"evil")), "accounts for"),
    "empty file": (lambda f: replace_tensors(f, b""), "only 0 bytes"),
    "a header beyond the file": (lambda f: replace_tensors(f, b"\xff" * 8 + b"{}"), "claims"),
    "a header that claims gigabytes": (
        with_bytes(lambda h, b: struct.pack("<Q", 3 << 30) + joined(h, b)[8:]),
        "claims 3221225472 bytes",
    ),
    "a tensor that claims gigabytes": (
        entry(shape=[4, 1 << 30], data_offsets=[0, 8 << 30]),
        "accounts for|overlap or hole",
    ),
    "a header of no JSON": (with_raw_header(b"\x80\x04pickle"), "not a JSON object"),
    "a header that is a list": (with_raw_header(b"[]"), "not a JSON object"),
    "a header after white space": (with_raw_header(b"  {}"), "not a JSON object"),
    "a header not UTF-8": (with_raw_header(b'{"\xff": 1}'), "not JSON"),
    "a header nested beyond any stack": (with_raw_header(b'{"a":' + b"[" * 90_000), "not JSON"),
    "eight megabytes of brackets": (
        with_raw_header(b'{"a":[' + b"[]," * 2_700_000 + b"0]}"),
        "more than 100000",
    ),
    "eight megabytes of one name": (with_raw_header(b'{"' + b"a" * 8_000_000 + b'":1}'), "no readable dtype"),
    "a number of a million digits": (with_raw_header(b'{"a":' + b"9" * 1_000_000 + b"}"), "1000000 digits"),
    "an offset of twenty digits": (entry(data_offsets=[0, 10**19]), "no readable"),
    "a repeated key": (with_bytes(repeat_key), "repeats the key"),
    "tensors that overlap": (with_header(swap_offsets), "overlap or hole"),
    "a hole between tensors": (with_bytes(leave_a_hole), "overlap or hole"),
    "a negative dimension": (entry(shape=[-4, -32]), "no readable"),
    "a dimension that is true": (entry(shape=[True, 128]), "no readable"),
    "a dimension with a fraction": (entry(shape=[4.0, 32]), "no readable"),
    "nine dimensions": (entry(shape=[1] * 7 + [4, 32]), "no readable"),
    "dimensions whose product wraps": (entry(shape=[1 << 40, 1 << 40]), "not what its shape"),
    "offsets backwards": (entry(data_offsets=[256, 0]), "bytes, not"),
    "a shape larger than its bytes": (entry(shape=[4, 1 << 40]), "not what its shape"),
    "a key more in an entry": (entry(pickle="x"), "no readable"),
    "a dtype that is a list": (entry(dtype=["F16"]), "no readable"),
    "a dtype that nobody knows": (entry(dtype="F16 "), "no readable"),
    "metadata": (with_header(lambda h: h.update(__metadata__={"x": "y"})), "no readable"),
    "a hundred thousand tensors": (many(100_000), "more than"),
    "two hundred thousand tensors": (many(120_000), "more than"),
    "eleven thousand tensors": (many(11_000), "more than 10240"),
    "no tensors": (with_bytes(lambda h, b: joined({}, b"")), "holds no tensor"),
}

NUMBERS: dict[str, tuple[Tamper, str]] = {
    "a tensor that is no factor": (
        with_tensors(**{"model.embed_tokens.weight": half(4, 4)}),
        "is not <module",
    ),
    "a path out of the model": (with_tensors(**{"../../etc.lora.A": half(4, 4)}), "is not <module"),
    "an absolute path": (with_tensors(**{"/etc/passwd.lora.A": half(4, 4)}), "is not <module"),
    "a letter that looks like another": (with_tensors(**{"m\u043edel.x.lora.A": half(4, 4)}), "u043edel"),
    "a name of a thousand letters": (with_tensors(**{f"{'m' * 1000}.lora.A": half(4, 4)}), "is not <module"),
    "A without B": (with_tensors(**{"model.x.lora.A": half(4, 4)}), "has no lora.B"),
    "ranks that differ": (with_tensors(**{f"{Q}.lora.A": half(3, 32)}), "rank 3 in A and 4 in B"),
    "experts that differ": (with_tensors(**{f"{EXPERTS}.lora.A": half(2, 4, 32)}), "2 experts in A"),
    "rank zero": (
        with_tensors(**{f"{Q}.lora.A": half(0, 32), f"{Q}.lora.B": half(24, 0)}),
        "has shape .0, 32.",
    ),
    "a rank that the weight cannot have": (
        with_tensors(**{f"{Q}.lora.A": half(25, 32), f"{Q}.lora.B": half(24, 25)}),
        "rank 25, more than",
    ),
    "a vector": (with_tensors(**{f"{Q}.lora.A": half(32)}), r"has shape \[32\]"),
    "float64": (with_tensors(**{f"{Q}.lora.A": np.zeros((4, 32))}), "is F64, not F16"),
    "integers": (with_tensors(**{f"{Q}.lora.A": np.zeros((4, 32), np.int64)}), "is I64, not F16"),
    "float32 factors": (with_tensors(**{f"{Q}.lora.A": np.zeros((4, 32), np.float32)}), "is F32, not F16"),
    "NaN": (with_tensors(**{f"{Q}.lora.A": half(4, 32, value=np.nan)}), "not finite"),
    "infinity": (with_tensors(**{f"{Q}.lora.B": half(24, 4, value=-np.inf)}), "not finite"),
    "an update that drowns the base": (
        with_tensors(**{f"{Q}.lora.A": half(4, 32, value=60_000.0)}),
        "amplify its input",
    ),
    "alpha a billion": (with_tensors(**{f"{Q}.lora.alpha": np.array(1e9, np.float32)}), "amplify its input"),
    "alpha zero": (with_tensors(**{f"{Q}.lora.alpha": np.array(0, np.float32)}), "not above zero"),
    "alpha below zero": (with_tensors(**{f"{Q}.lora.alpha": np.array(-1, np.float32)}), "not above zero"),
    "alpha NaN": (with_tensors(**{f"{Q}.lora.alpha": np.array(np.nan, np.float32)}), "nan, not above zero"),
    "alpha infinite": (with_tensors(**{f"{Q}.lora.alpha": np.array(np.inf, np.float32)}), "inf, not above"),
    "alpha a vector": (with_tensors(**{f"{Q}.lora.alpha": np.ones(2, np.float32)}), "not a scalar"),
    "scales where none belong": (with_tensors(**{f"{Q}.lora.A.scales": half(4, 1)}), "of float16"),
    "float16 called int8": (with_json(storage="int8", group_size=64), "is F16, not I8"),
}

MANIFESTS: dict[str, tuple[Tamper, str]] = {
    "no JSON": (with_text("{"), "manifest.json is not JSON"),
    "a list": (with_text("[]"), "is not a JSON object"),
    "not UTF-8": (with_text(b'{"a": "\xff"}'), "not JSON"),
    "a byte order mark": (with_text("\ufeff{}"), "not JSON"),
    "NaN": (with_text('{"a": NaN}'), "not JSON"),
    "a fraction of a million digits": (with_text('{"a": 0.' + "9" * 1_000_000 + "}"), "not JSON"),
    "1e999": (with_text('{"a": 1e999}'), "not JSON"),
    "a number of five thousand digits": (with_text('{"a": 1' + "0" * 5000 + "}"), "5001 digits"),
    "five megabytes": (with_text(" " * (5 << 20)), "more than 4194304"),
    "a repeated key": (with_text('{"name": "a", "name": "b"}'), "repeats the key 'name'"),
    "evals a hundred deep": (with_json(evals={"x": deep(100)}), "more than 32 deep"),
    "evals beyond any stack": (with_text('{"evals": ' + "[" * 90_000), "not JSON"),
    "a quarter million eval results": (
        with_json(evals={str(i): 0 for i in range(250_000)}),
        "more than 100000",
    ),
    "as many eval results as there may be": (
        with_json(name="", evals={f"{i:06d}{'x' * 24}": 0 for i in range(99_000)}),
        "'' is no name",
    ),
    "a kind of less than nothing": (
        with_json(
            data={"digest": "x", "samples": 1, "tokens": 1, "supervised_tokens": 1, "kinds": {"qa": -1}}
        ),
        "'qa' is negative",
    ),
    "a chat template": (with_json(chat_template="{{ 'a' * 10**9 }}"), "'chat_template' is unknown"),
    "a text that turns around": (with_json(base_id="nano\u202egpj.exe"), "could pass for another"),
    "a text that commands the terminal": (with_json(training={"\x1b]0;evil\x07": 1}), "control characters"),
    "a text of several lines": (
        with_json(base_id="nano\nsignature  genuine"),
        "base_id has a text that could pass",
    ),
    "a name without end": (with_json(parents=["a" * 5000]), "parents has a text"),
    "half a character": (with_text('{"base_id": "\\ud800"}'), "control characters"),
    "the format of tomorrow": (with_json(format_version=2), "newer than 1"),
    "format 0": (with_json(format_version=0), "format_version is 0"),
    "format true": (with_json(format_version=True), "format_version is not int"),
    "a name that leads out": (with_json(name="../../etc"), "is no name"),
    "a name that looks like another": (with_json(name="c\u043eoking"), "is no name"),
    "a name of full width": (with_json(name="\uff43ooking"), "is no name"),
    "no fingerprint": (with_json(base_fingerprint=""), "base_fingerprint is not 64"),
    "a fingerprint of other digits": (
        with_json(base_fingerprint="\u0661" * 64),
        "base_fingerprint is not 64",
    ),
    "a rank that is not so": (with_json(rank_map={Q: 8, DOWN: 2, EXPERTS: 4}), "rank_map is not"),
    "another alpha": (with_json(alpha_map={Q: 8.0}), "alpha_map is not"),
    "other modules": (with_json(target_modules=[Q]), "target_modules are not"),
    "other sizes": (with_json(sizes={"tensor_bytes": 1, "parameters": 1}), "sizes.parameters"),
    "a lineage of numbers": (with_json(lineage=[1, 2]), r"lineage\[0\] is not str"),
    "a rank map that is one number": (with_json(rank_map=4), "rank_map is not dict"),
    "parents that are one text": (with_json(parents="earlier"), "parents is not tuple"),
    "a storage of tomorrow": (with_json(storage="int2"), "storage is not 'float16' or 'int8' or 'int4'"),
    "a storage that is a list": (with_json(storage=["int4"]), "storage is not 'float16'"),
    "groups of float16": (with_json(group_size=64), "group_size of float16 is 64, not absent"),
    "a date of no date": (with_json(created="yesterday"), "created is not"),
    "negative counts": (
        with_json(run={"steps": -1, "seconds": 1, "tokens_per_s": 1, "peak_memory_mb": 1}),
        "'steps' is negative",
    ),
}

INT4: dict[str, tuple[Tamper, str]] = {  # done to a pack of int4
    "no scales": (with_tensors(**{f"{Q}.lora.A.scales": None}), "has no lora.A.scales"),
    "scales NaN": (
        with_tensors(**{f"{Q}.lora.A.scales": half(4, 1, value=np.nan)}),
        "negative or not finite",
    ),
    "scales infinite": (with_tensors(**{f"{Q}.lora.A.scales": half(4, 1, value=np.inf)}), "or not finite"),
    "scales below zero": (with_tensors(**{f"{Q}.lora.A.scales": half(4, 1, value=-1.0)}), "are negative or"),
    "scales of float32": (
        with_tensors(**{f"{Q}.lora.A.scales": np.ones((4, 1), np.float32)}),
        "is F32, not F16",
    ),
    "scales that decode beyond float16": (
        with_tensors(**{f"{Q}.lora.A.scales": half(4, 1, value=60_000.0)}),
        "not finite",
    ),
    "too many scales": (with_tensors(**{f"{Q}.lora.A.scales": half(4, 2)}), "in groups of 64"),
    "scales of another rank": (with_tensors(**{f"{Q}.lora.A.scales": half(3, 1)}), "in groups of 64"),
    "a nibble that is no value": (
        with_tensors(**{f"{Q}.lora.A": bytes_8(4, 16, value=0x08, kind="uint8")}),
        "no value",
    ),
    "padding in some rows only": (
        with_tensors(**{f"{Q}.lora.A": np.array([[0x11] * 15 + [0x81], *[[0x11] * 16] * 3], np.uint8)}),
        "no value",
    ),
    "not packed": (with_tensors(**{f"{Q}.lora.A": bytes_8(4, 32, kind="uint8")}), "parameters is not"),
    "packed in signed bytes": (with_tensors(**{f"{Q}.lora.A": bytes_8(4, 16)}), "is I8, not U8"),
    "int4 called int8": (with_json(storage="int8"), "is U8, not I8"),
    "int4 called float16": (
        in_turn(with_json(storage="float16", group_size=None)),
        "is U8, not F16",
    ),
    "other groups than it has": (with_json(group_size=8), "in groups of 8"),
    "groups of nothing": (with_json(group_size=0), "group_size of int4 is 0, not 1 to 4096"),
    "groups of a billion": (with_json(group_size=10**9), "group_size of int4 is 1000000000"),
    "groups unnamed": (with_json(group_size=None), "group_size of int4 is None"),
    "groups that are true": (with_json(group_size=True), "group_size is not int"),
}

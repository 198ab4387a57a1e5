"""Every pack that a stranger could send to do harm is refused, cheaply, before MLX is even imported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from hostile import FILES, HEADERS, INT4, MANIFESTS, NUMBERS
from mlx_plastic.packs.format.pack import Storage, write_pack
from test_format import some_factors, some_manifest

TABLES = {"file": FILES, "header": HEADERS, "numbers": NUMBERS, "manifest": MANIFESTS, "int4": INT4}
HOSTILE = {f"{table}: {what}": how for table, cases in TABLES.items() for what, how in cases.items()}
SOUND: tuple[Storage, ...] = ("float16", "int8", "int4")

MOST_S = 1.0  # of processor time: a busy machine is no fault of the pack's
MOST_MB = 100.0

CHILD = """
import json, resource, sys, time, tracemalloc
from pathlib import Path

class NoMLX:
    asked = []
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mlx", "mlx_lm", "torch", "pickle5"):
            self.asked.append(name)
            raise ImportError(f"{name} is out of reach here")

try:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # what costs more may not cost the machine
except ValueError:
    pass  # macOS has no such limit
sys.meta_path.insert(0, NoMLX())
from mlx_plastic.errors import BadPack
from mlx_plastic.packs.format.pack import read_pack

def read(folder):
    try:
        read_pack(Path(folder))
    except BadPack as error:
        return error.message
    return ""

def measured(do, *given):
    seconds = 9e9
    for _ in range(3):  # the quickest
        started = time.process_time()
        told = do(*given)
        seconds = min(seconds, time.process_time() - started)
        if seconds < 0.3:
            break
    tracemalloc.start()  # in a run of its own: it makes everything slower
    do(*given)
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return {"told": told, "seconds": seconds, "peak_mb": peak_mb}

def waste():
    until = time.process_time() + 1.1
    while time.process_time() < until:
        pass
    return str(len(bytes(150_000_000)))

found = {"control: waste": measured(waste)}
for folder in sys.stdin.read().splitlines():
    found[folder] = measured(read, folder)
found["asked"] = list(NoMLX.asked)
try:
    import mlx.core
except ImportError as error:
    found["control: mlx"] = str(error)
json.dump(found, sys.stdout)
"""


def slug(what: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", what.lower())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What one child process, in which MLX cannot be imported, makes of every pack."""
    root = tmp_path_factory.mktemp("hostile")
    folders = {}
    for storage in SOUND:
        factors = some_factors()
        folders[storage] = write_pack(root / storage, factors, some_manifest(factors, storage=storage))
    for what, (tamper, _) in HOSTILE.items():
        folder = root / slug(what)
        shutil.copytree(folders["int4" if what.startswith("int4") else "float16"], folder)
        tamper(folder)
        folders[what] = folder
    command = [sys.executable, "-c", CHILD]
    given = "\n".join(map(str, folders.values()))
    output = subprocess.run(command, input=given, text=True, check=True, stdout=subprocess.PIPE).stdout
    told = json.loads(output)
    yield {what: told[str(folder)] for what, folder in folders.items()} | {
        what: value for what, value in told.items() if not what.startswith(str(root))
    }
    shutil.rmtree(root)  # the hollow files look large


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_pack_is_refused_with_its_reason(found: dict[str, Any], what: str) -> None:
    message = found[what]["told"]
    assert re.search(HOSTILE[what][1], message), message
    assert len(message) < 10_000 and message.isascii()  # it is told to a terminal


@pytest.mark.parametrize("what", HOSTILE)
def test_no_hostile_pack_costs_a_second_or_100_mb(found: dict[str, Any], what: str) -> None:
    assert found[what]["seconds"] < MOST_S
    assert found[what]["peak_mb"] < MOST_MB


@pytest.mark.parametrize("storage", SOUND)
def test_control_a_sound_pack_passes_the_same_harness(found: dict[str, Any], storage: str) -> None:
    assert found[storage]["told"] == ""
    assert found[storage]["seconds"] < MOST_S


def test_no_pack_reached_mlx(found: dict[str, Any]) -> None:
    assert found["asked"] == []
    assert "out of reach" in found["control: mlx"]  # control: asking for it would have been seen


def test_control_the_harness_sees_waste(found: dict[str, Any]) -> None:
    assert found["control: waste"]["seconds"] > MOST_S
    assert found["control: waste"]["peak_mb"] > MOST_MB


def test_there_are_many_of_them() -> None:
    assert len(HOSTILE) >= 30

"""Every command in a block of README and docs is run as it stands, page by page, in one home a page.

Small things stand for large ones where only time would be lost (STANDS_FOR); the slow tests run the pages on
nano without that. What is not run at all stands in NOT_RUN with its reason, and is held against the program's
own options by test_docs.py like everything else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from docs import ROOT, Said, ours, pages, said
from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.sleep.night import sleep
from nightly import write_config
from test_attach import random_pack
from test_night import CHOSEN, say
from test_repair import WORDS, quantized
from tiny import make_checkpoint

NOT_RUN = {
    r"plastic serve$": "goes on until it is ended: tests/test_serve_memory.py starts it so",
    r"plastic open$": "opens a browser",
    r"plastic mcp$": "speaks with an assistant: tests/test_mcp.py",
    r"plastic schedule (install|run|remove|status)": "is about this user's timers: tests/test_schedule.py",
    r"plastic sleep --launch": "needs several hosts: tests/test_launch.py",
    r"mlx.launch": "needs two processes: tests/test_distributed.py",
    r"plastic init$": "asks a person: tests/test_init.py",
    r"plastic uninstall( --keep-data)?$": "takes what is compiled for this user: tests/test_uninstall.py",
}
ONLY_SLOW = {
    r"packs ablate": "trains sixteen packs",
    r"plastic eval retrieval": "75 questions about 282 turns",
}
STANDS_FOR = (
    (r"^plastic import backup", "plastic --home ./empty import backup"),
    (r"author\.pub", "~/.plastic-key.pub"),
    (r"packs add \./cooking", "packs add ../home/packs/cooking --name theirs"),
    (r"--base (nano|BASE|~/models/\w+)", "--base TINY"),
    (r"^(plastic compress plan.*) --budget 4.0bpw", r"\1 --base TINY --budget 5.0bpw"),
    (r"--steps \d+", "--steps 2"),
    (r"--m 4096 --n 1024", "--m 256 --n 64"),
    (r"--batch-size 8,16,32 --sequence-length 256", "--batch-size 2,3 --sequence-length 16"),
    (r"/models/Qwen3-30B-A3B", "MOE"),
)
NAMES = ("TINY", "MOE", "TUNED", "Q")
ON_NANO = ("README.md", "quickstart.md", "packs.md", "exchange.md", "compress.md", "plastic-rank.md")


@dataclass(frozen=True)
class Stage:
    """A home with a past, and a folder with the files that the pages name."""

    root: Path
    models: Path

    @property
    def home(self) -> Home:
        return Home(self.root / "home")

    @property
    def work(self) -> Path:
        return self.root / "work"

    def copy(self, root: Path) -> Stage:
        shutil.copytree(self.root, root, symlinks=True)
        return Stage(root, self.models)

    def run(self, command: Said, monkeypatch: pytest.MonkeyPatch, *, small: bool) -> str:
        """What is wrong with how it ended; "" if nothing."""
        text = self.filled(command.text, small=small)
        first, *piped = re.split(r"\s\|\s", text)
        given = "Hi\n"  # for a chat that waits for a person
        if piped:
            given = subprocess.check_output(["bash", "-c", first], text=True)
        words = [re.sub(r"^~(?=/)", str(self.root / "user"), word) for word in ours(text)]
        monkeypatch.chdir(self.work)
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # what was compiled stays
        variables = {"HOME": str(self.root / "user"), "MLX_PLASTIC_HOME": str(self.home.root)}
        variables["XDG_CACHE_HOME"] = cache
        start = ["packs"] if words[0] == "packs" else []
        result = CliRunner(env=variables).invoke(plastic, [*start, *words[1:]], input=given)
        return fault_of(result)

    def filled(self, text: str, *, small: bool) -> str:
        for pattern, other in STANDS_FOR if small else ((r"~/models/llama", "nano"),):
            text = re.sub(pattern, other, text)
        for name in NAMES:
            text = re.sub(rf"(?<= ){name}\b", str(self.models / name), text)
        with Memory(self.home) as memory:
            turns = memory.turns()
        return re.sub(r"\[[A-Z]+\]", "", text).replace("8fk2", turns[0].id if turns else "8fk2")


def fault_of(result: Result) -> str:
    """A night that the gate refuses ends with 1, too, and is no fault of the page."""
    if result.exception and not isinstance(result.exception, SystemExit):
        return "".join(traceback.format_exception(*result.exc_info))[-1500:]  # type: ignore[misc]
    fine = result.exit_code == 0 or (result.exit_code == 1 and "error: " not in result.output)
    return "" if fine else f"exit code {result.exit_code}: {result.output[-500:]}"


def commands() -> dict[str, list[Said]]:
    """The commands in blocks, by page, in order."""
    found = {page.name: [s for s in said(page) if s.block] for page in pages()}
    return {name: given for name, given in found.items() if given}


def matching(table: dict[str, str], command: Said) -> str:
    words = " ".join(command.text.split("#")[0].split())
    return next((why for pattern, why in table.items() if re.match(pattern, words)), "")


PAGES = commands()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A home on a tiny random base: two nights, three packs, a key; and what training reads."""
    root = tmp_path_factory.mktemp("pages")
    models = root / "models"
    tiny = make_checkpoint(models / "TINY")
    make_checkpoint(models / "MOE", experts=4)
    tuned(tiny, models / "TUNED")
    quantized(tiny, models / "Q", bits=4)
    found = Stage(root / "stage", models)
    found.work.mkdir(parents=True)
    (found.root / "user").mkdir()
    found.home.root.mkdir()
    write_config(found.home, CHOSEN, tiny)
    with found.home.config_file.open("a") as config:
        config.write("[chat]\nmax_tokens = 8\n")  # a random base does not end by itself
    base = load_base(str(tiny))
    for tag, word in (("2026-11-19", "Rex"), ("2026-11-20", "Tom")):
        say(found.home, 12, word=word)
        assert sleep(found.home, base, chosen=CHOSEN, tag=tag).outcome in ("passed", "failed")
    furnish(found, base)
    return found


def furnish(stage: Stage, base: Base) -> None:
    """Packs of this base, and the files that the pages name."""
    store = Store(stage.home)
    for i, name in enumerate(("cooking", "travel")):
        pack = random_pack(base, i, name=name)
        store.add(pack.factors, pack.manifest)
    files_of_the_pages(stage)


def tuned(source: Path, folder: Path) -> None:
    """The checkpoint with other linear weights, as finetuning leaves it."""
    shutil.copytree(source, folder)
    weights, other = load_file(folder / "model.safetensors"), np.random.default_rng(1)
    for name, w in weights.items():
        if "proj" in name:
            weights[name] = w + 0.01 * other.standard_normal(w.shape).astype(w.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def files_of_the_pages(stage: Stage) -> None:
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"Where is {w}?"},
                {"role": "assistant", "content": f"In {w}."},
            ]
        }
        for w in WORDS[:24]
    ]
    for name, part in {
        "train": chats[:16],
        "valid": chats[16:20],
        "test": chats[20:],
        "old": chats[:4],
    }.items():
        write_lines(stage.work / f"{name}.jsonl", part)
    write_lines(stage.work / "chats.jsonl", [{"text": " ".join(WORDS[i % 9 :] * 3)} for i in range(12)])
    write_lines(stage.work / "texts.jsonl", [{"text": " ".join(WORDS[i % 9 :] * 3)} for i in range(24)])
    write_lines(stage.work / "prompts.jsonl", [{"prompt": f"What is {w}?"} for w in WORDS[:6]])
    (stage.work / "notes.txt").write_text("my wifi password is hunter22\nwrite to nora@example.org\n")


def write_lines(file: Path, values: list[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(value) + "\n" for value in values))


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_one_after_the_other(
    page: str, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_page(page, stage.copy(tmp_path / "stage"), monkeypatch, small=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", ON_NANO)
def test_the_commands_of_a_page_run_on_nano_as_they_stand(
    page: str, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Stage(tmp_path / "stage", stage.models)
    for folder in (found.work, found.root / "user", found.home.root):
        folder.mkdir(parents=True)
    furnish(found, load_base("nano"))
    live_page(page, found, monkeypatch, small=False)


def live_page(page: str, stage: Stage, monkeypatch: pytest.MonkeyPatch, *, small: bool) -> None:
    faults = []
    for command in PAGES[page]:
        if matching(NOT_RUN, command) or (small and matching(ONLY_SLOW, command)):
            continue
        if why := stage.run(command, monkeypatch, small=small):
            faults.append(f"{command}: {why}")
    assert not faults, "\n".join(faults)


def test_what_is_not_run_is_still_on_a_page() -> None:
    every = [command for given in PAGES.values() for command in given]
    for table in (NOT_RUN, ONLY_SLOW):
        stale = [pattern for pattern in table if not any(matching({pattern: "x"}, c) for c in every)]
        assert stale == []
    assert len([c for c in every if not matching(NOT_RUN, c)]) > 80  # control: most are run
    assert ROOT.joinpath("README.md").name in PAGES

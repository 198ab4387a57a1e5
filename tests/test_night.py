"""Nights on a tiny random base: the order of things, crashes, refusals; test_demo has what nano learns."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import signal
import string
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_plastic.base import Base, load_base
from mlx_plastic.errors import BadPack, BaseMismatch, Busy, PlasticError, TrainingFailed
from mlx_plastic.evals import Policy
from mlx_plastic.home import Home, locked
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Message
from mlx_plastic.sleep.journal import nights, scrub
from mlx_plastic.sleep.judge import JudgeConfig
from mlx_plastic.sleep.lessons import LessonConfig
from mlx_plastic.sleep.night import Night, NightConfig, Settings, sleep
from tiny import make_checkpoint

# a random base has no general knowledge to keep, so only the loss on held-out lessons decides here
KIND = Policy(max_ppl_rise_pct=1e9, max_harness_lost=1000, max_refusals_lost=1000, max_old_loss_rise=100.0)
TASKS = Path(__file__).parent / "data"
CHOSEN = Settings(
    judge=JudgeConfig(str(TASKS / "tasks.jsonl"), str(TASKS / "general.jsonl"), answer_tokens=8),
    lessons=LessonConfig(rounds=1, max_tokens=8, general=4),
    night=NightConfig(rank=4, epochs=3, learning_rate=0.01, batch_tokens=256, checkpoint_every=2),
    gate=KIND,
)
STRICT = dataclasses.replace(CHOSEN, gate=dataclasses.replace(KIND, min_new_gain=99.0))


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def say(home: Home, count: int = 20, *, word: str = "Rex", whose: str = "") -> None:
    """Import talks that end alike: easy to learn, also for a random base. whose: makes other questions."""
    file = home.root / f"{word}.jsonl"
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"What is {whose}cat {i} called?"},
                {"role": "assistant", "content": f"The cat is called {word} {word}"},
            ]
        }
        for i in range(count)
    ]
    file.write_text("".join(json.dumps(c) + "\n" for c in chats))
    with Memory(home) as memory:
        memory.import_jsonl(file)


def drifting(home: Home, base: Base, tag: str) -> Settings:
    """Nights measured on the one of 36 texts that night `tag` of this home makes less likely than any other.

    Tried on a copy of the home: the ids of turns, and with them what is learned, are others in every test.
    """
    chosen = dataclasses.replace(CHOSEN, lessons=LessonConfig(rounds=1, max_tokens=8, general=0))
    letters = string.digits + string.ascii_uppercase
    talks = [(Message("user", "Count."), Message("assistant", letter * 60)) for letter in letters]
    samples = base.encode_chats(talks)[0]
    copy = Home(home.root.with_name(f"{home.root.name}-tried"))
    shutil.copytree(home.root, copy.root)
    before = base.nll(samples)
    sleep(copy, base, chosen=chosen, tag=tag)
    packs = {name: Store(copy).read(name) for name in Store(copy).active()}
    with attached(base.model, packs, fingerprint=base.fingerprint):
        after = base.nll(samples)
    rises = [new - old for (new, _), (old, _) in zip(after, before, strict=True)]
    general = home.root / "general.jsonl"
    talk = [message.as_dict() for message in talks[rises.index(max(rises))]]
    general.write_text(json.dumps({"messages": talk}) + "\n")
    return dataclasses.replace(chosen, judge=dataclasses.replace(CHOSEN.judge, general=str(general)))


def waiting(home: Home) -> int:
    with Memory(home) as memory:
        return memory.stats().waiting


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_a_night_learns_is_judged_and_worn_and_the_base_keeps_every_byte(home: Home, base: Base) -> None:
    before = digests(base.path)
    say(home)
    night = sleep(home, base, chosen=CHOSEN, tag="one")
    assert night.outcome == "passed"
    assert Store(home).active() == ("one",)
    manifest = Store(home).read("one").manifest
    assert manifest.base_fingerprint == base.fingerprint
    assert manifest.run.steps > 0 and manifest.run.tokens_per_s > 0 and manifest.run.peak_memory_mb > 0
    assert manifest.data.kinds["chat"] > 0 and len(manifest.lineage) > 0
    assert manifest.evals["verdict"]["passed"] is True
    assert waiting(home) == 0
    assert digests(base.path) == before
    assert json.loads((home.logs / "nights.jsonl").read_text())["tag"] == "one"


def test_a_night_that_fails_is_set_apart_and_not_tried_again_unasked(home: Home, base: Base) -> None:
    say(home)
    sleep(home, base, chosen=CHOSEN, tag="good")
    say(home, word="Tom")
    night = sleep(home, base, chosen=STRICT, tag="bad")
    assert night.outcome == "failed"
    assert "99.000 is needed" in night.reason
    store = Store(home)
    assert store.active() == ("good",)
    assert store.status("bad") == "quarantined"
    assert sleep(home, base, chosen=CHOSEN, tag="again").outcome == "nothing"
    retried = sleep(home, base, chosen=CHOSEN, tag="again", retry=True)
    assert retried.outcome == "passed"  # control: asked, it is


def test_turns_of_a_night_refused_for_drift_alone_join_the_next_and_are_set_aside_after_that(
    home: Home, base: Base
) -> None:
    twice = functools.partial(dataclasses.replace, CHOSEN.night, chances=2)
    gate = dataclasses.replace(KIND, max_ppl_rise_pct=1e-6)
    for tag, word in (("one", "Rex"), ("two", "Tom")):
        say(home, 6, word=word, whose=f"{word}'s ")
        if tag == "one":
            drift = dataclasses.replace(drifting(home, base, tag), gate=gate, night=twice(tries=1))
        night = sleep(home, base, chosen=drift, tag=tag)
        assert night.outcome == "failed" and night.reason.startswith("general perplexity")
    first, second = (journal.record for journal in nights(home))
    assert set(first.turns) < set(second.turns) and len(second.turns) == 2 * len(first.turns)
    once = dataclasses.replace(CHOSEN, night=twice(chances=1))
    assert sleep(home, base, chosen=once, tag="three").outcome == "nothing"  # control: with no second chance
    assert (
        sleep(home, base, chosen=dataclasses.replace(CHOSEN, night=twice()), tag="three").outcome == "passed"
    )
    record = nights(home)[-1].record
    assert set(record.turns) == set(second.turns) - set(first.turns)  # the first have had their two chances


def test_an_empty_memory_is_no_error_and_nothing_is_done(home: Home, base: Base) -> None:
    night = sleep(home, base, chosen=CHOSEN)
    assert night.outcome == "nothing"
    assert "nothing new" in night.reason
    assert not home.packs.exists() or Store(home).names() == []


def test_one_sample_alone_waits_because_nothing_could_be_held_out(home: Home, base: Base) -> None:
    say(home, 1)
    night = sleep(home, base, chosen=CHOSEN)
    assert night.outcome == "nothing"
    assert "1 samples are too little" in night.reason
    assert waiting(home) == 1


def test_a_dry_run_writes_the_data_and_trains_nothing(home: Home, base: Base) -> None:
    say(home)
    night = sleep(home, base, chosen=CHOSEN, tag="plan", dry_run=True)
    assert night.outcome == "dry-run"
    assert (home.nights / "plan.dry-run" / "train.jsonl").stat().st_size > 0
    assert Store(home).names() == []
    assert waiting(home) == 20
    assert sleep(home, base, chosen=CHOSEN, tag="plan").outcome == "passed"  # it takes no name away


def test_a_second_night_at_the_same_time_is_refused(home: Home, base: Base) -> None:
    say(home)
    with locked(home, "night", hint=""), pytest.raises(Busy, match="night"):
        sleep(home, base, chosen=CHOSEN)
    assert sleep(home, base, chosen=CHOSEN).outcome == "passed"  # control: the lock is gone with its holder


def test_the_second_night_grows_from_the_first_and_rehearses_it(home: Home, base: Base) -> None:
    say(home)
    sleep(home, base, chosen=CHOSEN, tag="one")
    say(home, word="Tom", whose="Ann's ")
    night = sleep(home, base, chosen=CHOSEN, tag="two")
    assert night.outcome == "passed"
    one, two = (Store(home).read(name).manifest for name in ("one", "two"))
    assert two.parents == ("one",)
    assert set(one.lineage) < set(two.lineage)
    assert night.after and night.after.score("earlier_loss")  # judged on the first night's held-out, too
    say(home, word="Kim")
    sleep(home, base, chosen=CHOSEN, tag="three", reset_adapter=True)
    assert Store(home).read("three").manifest.parents == ()


def test_what_tonight_corrects_is_no_longer_held_against_it(home: Home, base: Base) -> None:
    say(home)
    sleep(home, base, chosen=CHOSEN, tag="one")
    say(home, word="Tom")  # the same questions with another answer; the test above is the control
    night = sleep(home, base, chosen=CHOSEN, tag="two")
    assert night.outcome == "passed"
    assert night.after and night.after.score("earlier_loss") is None


def test_a_taken_tag_is_refused_before_anything_is_done(home: Home, base: Base) -> None:
    say(home)
    sleep(home, base, chosen=CHOSEN, tag="one")
    say(home, word="Tom")
    with pytest.raises(PlasticError, match="'one' already"):
        sleep(home, base, chosen=CHOSEN, tag="one")


@pytest.mark.parametrize("tag", ["../out", "a/b", "base", "Monday", "\u00fcber"])
def test_a_night_that_no_pack_may_be_called_like_is_refused_before_anything_is_done(
    home: Home, base: Base, tag: str
) -> None:
    with pytest.raises(BadPack, match="is no name for a pack"):
        sleep(home, base, chosen=CHOSEN, tag=tag)  # where nothing waits
    say(home)
    before = set(home.root.parent.rglob("*"))
    with pytest.raises(BadPack, match="is no name for a pack"):
        sleep(home, base, chosen=CHOSEN, tag=tag, dry_run=True)
    new = {path for path in set(home.root.parent.rglob("*")) - before if path.is_file()}
    assert {path.suffix for path in new} <= {".lock"}  # neither in the home nor beside it


def test_numbers_that_are_none_stop_the_night_and_the_pack_worn_stays(home: Home, base: Base) -> None:
    say(home)
    sleep(home, base, chosen=CHOSEN, tag="one")
    say(home, word="Tom")
    wild = dataclasses.replace(CHOSEN, night=dataclasses.replace(CHOSEN.night, learning_rate=1e30, clip=0.0))
    with pytest.raises(TrainingFailed, match="at step"):
        sleep(home, base, chosen=wild, tag="two")
    assert Store(home).active() == ("one",)
    assert sleep(home, base, chosen=CHOSEN, tag="two").outcome == "passed"  # the broken night was cleaned up


CHILD = """
import os, signal, sys
from mlx_plastic.base import load_base
from mlx_plastic.home import find_home
from mlx_plastic.packs import Store
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Message
from mlx_plastic.sleep.night import sleep
sys.path.insert(0, sys.argv[3])
from test_night import CHOSEN

def tick(stage, done, total, detail):
    if f"{stage} {done:g}" == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2].startswith("after "):
    kind = getattr(Store, sys.argv[2].split()[1])
    def killed(self, *given, **named):
        kind(self, *given, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(Store, sys.argv[2].split()[1], killed)
sleep(find_home(), load_base(sys.argv[1]), chosen=CHOSEN, tag="killed", tick=tick)
"""


def pack_digest(home: Home, name: str) -> str:
    return hashlib.sha256((home.packs / name / "pack.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which something was said, to be copied: the same turns under the same ids."""
    home = Home(tmp_path_factory.mktemp("told"))
    say(home)
    return home.root


@pytest.fixture(scope="module")
def reference(told: Path, tmp_path_factory: pytest.TempPathFactory, base: Base) -> str:
    """The pack of a night that nothing disturbed."""
    home = Home(shutil.copytree(told, tmp_path_factory.mktemp("undisturbed"), dirs_exist_ok=True))
    assert sleep(home, base, chosen=CHOSEN, tag="killed").outcome == "passed"
    return pack_digest(home, "killed")


@pytest.mark.parametrize(
    "where", ["lessons 0", "lessons 1", "training 3", "after add", "judging 1", "after activate"]
)
def test_a_night_killed_anywhere_goes_on_and_ends_with_the_same_pack(
    home: Home, base: Base, told: Path, where: str, reference: str
) -> None:
    shutil.copytree(told, home.root, dirs_exist_ok=True)
    command = [sys.executable, "-c", CHILD, str(base.path), where, str(Path(__file__).parent)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ.copy())
    assert child.returncode == -signal.SIGKILL, child.stderr
    worn = ("killed",) if where == "after activate" else ()
    assert Store(home).active() == worn  # the old state, whole, or the new one
    night = sleep(home, base, chosen=CHOSEN, tag="killed")
    assert night.outcome == "passed"
    assert Store(home).active() == ("killed",)
    assert pack_digest(home, "killed") == reference
    assert waiting(home) == 0
    assert [j.record.status for j in nights(home)] == ["passed"]
    assert len((home.logs / "nights.jsonl").read_text().splitlines()) == 1


def test_a_full_disk_in_the_middle_leaves_the_pack_worn_and_the_next_run_goes_on(
    home: Home, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(home)
    sleep(home, base, chosen=CHOSEN, tag="one")
    say(home, word="Tom")
    real = os.replace

    def full(source: Path, target: Path) -> None:
        if "verdict" in str(target):
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        sleep(home, base, chosen=CHOSEN, tag="two")
    monkeypatch.undo()
    assert Store(home).active() == ("one",)
    assert not list(home.root.rglob("*.part"))  # nothing half-written stays
    assert sleep(home, base, chosen=CHOSEN, tag="two").outcome == "passed"


def test_a_pack_of_another_base_is_told_before_anything_is_trained(
    home: Home, base: Base, tmp_path: Path
) -> None:
    say(home)
    sleep(home, base, chosen=CHOSEN, tag="one")
    say(home, word="Tom")
    other = load_base(str(make_checkpoint(tmp_path / "other", seed=9)))
    with pytest.raises(BaseMismatch, match="'one' learned on base"):
        sleep(home, other, chosen=CHOSEN, tag="two")
    assert not (home.nights / "two").exists()
    Store(home).rollback("base")
    assert sleep(home, other, chosen=CHOSEN, tag="two").outcome == "passed"  # control: bare, it may


def test_what_is_forgotten_stands_in_no_file_of_any_night(home: Home, base: Base) -> None:
    say(home)
    sleep(home, base, chosen=CHOSEN, tag="one")
    with Memory(home) as memory:
        first = memory.turns()[0]
    held = [f for f in home.nights.rglob("*") if f.is_file() and first.content.encode() in f.read_bytes()]
    assert held  # control: it was there
    assert scrub(home, [first.id]) >= 1
    assert not any(first.content.encode() in f.read_bytes() for f in home.nights.rglob("*") if f.is_file())


def test_a_base_that_was_replaced_gives_the_broken_night_up(home: Home, base: Base, tmp_path: Path) -> None:
    say(home)
    with pytest.raises(ZeroDivisionError):
        sleep(home, base, chosen=CHOSEN, tag="one", tick=lambda stage, *_: 1 / (stage != "judging"))
    other = load_base(str(make_checkpoint(tmp_path / "other", seed=9)))
    assert sleep(home, other, chosen=CHOSEN, tag="two").outcome == "passed"
    assert {j.record.tag: j.record.status for j in nights(home)} == {"one": "abandoned", "two": "passed"}


def test_a_night_keeps_what_it_ended_with_not_what_a_few_valid_samples_liked_best(
    home: Home, base: Base
) -> None:
    say(home)
    often = dataclasses.replace(CHOSEN.night, learning_rate=0.3, valid_every=1)
    sleep(home, base, chosen=dataclasses.replace(CHOSEN, night=often), tag="one")
    facts = nights(home)[-1].record.stages["train"].facts
    assert NightConfig().keep == "last" and facts["best_step"] == facts["steps"]


def test_a_night_with_changing_ranks_goes_on_from_those_that_the_last_one_found(
    home: Home, base: Base
) -> None:
    chosen = dataclasses.replace(CHOSEN, night=dataclasses.replace(CHOSEN.night, dynamic_rank=True, epochs=8))
    say(home)
    assert sleep(home, base, chosen=chosen, tag="one").outcome == "passed"
    first = Store(home).read("one").manifest.rank_map
    assert len(set(first.values())) > 1  # control: they have changed, so no fixed rank fits
    say(home, word="Tom", whose="Nora's ")
    assert sleep(home, base, chosen=chosen, tag="two").outcome == "passed"
    second = Store(home).read("two").manifest
    assert second.parents == ("one",) and second.rank_map.keys() == first.keys()


def test_a_near_miss_is_trained_once_more_otherwise_and_no_oftener(home: Home, base: Base) -> None:
    """The bound is drawn from a night that passes, so that the same night misses it by little."""
    say(home)
    chosen = drifting(home, base, "one")
    copy = Home(home.root / "copy")
    shutil.copytree(home.root, copy.root, ignore=shutil.ignore_patterns("copy"))
    rise = rise_of(sleep(home, base, chosen=chosen, tag="one"))
    assert rise > 0 and not nights(home)[-1].record.tried  # control: what passes is trained once
    near = dataclasses.replace(KIND, max_ppl_rise_pct=rise / 1.5)
    night = sleep(copy, base, chosen=dataclasses.replace(chosen, gate=near), tag="one")
    record = nights(copy)[-1].record
    assert len(record.tried) == 1 and "general perplexity" in record.tried[0]
    assert record.stages["train"].facts["try"] == 2 and night.outcome in ("passed", "failed")
    trained = Store(copy).read("one").manifest
    assert trained.training["seed"] == 1 and trained.training["anchor"] == 1.5 * chosen.night.anchor
    assert trained.sha256 != Store(home).read("one").manifest.sha256
    written = json.loads((copy.nights / "one" / "verdict.json").read_text())
    assert written["tried"] == list(record.tried)
    assert "trained once more" in (copy.nights / "one" / "verdict.html").read_text()


def rise_of(night: Night) -> float:
    assert night.verdict
    return next(r.change for r in night.verdict.reasons if r.bound == "general_ppl_rise")

"""Forgetting: out of every file at once, out of the weights by learning again, and measured."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadData, Busy
from mlx_plastic.home import Home, locked
from mlx_plastic.memory import Memory, Turn
from mlx_plastic.packs import Store
from mlx_plastic.packs.store.link import linked
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Message, Sample, from_jsonl, to_jsonl
from mlx_plastic.sleep import forget as forgetting
from mlx_plastic.sleep.journal import nights
from mlx_plastic.sleep.night import sleep
from mlx_plastic.sleep.pending import file, pending
from mlx_plastic.sleep.recalled import Witness, alike, exposed, proof, surprises
from mlx_plastic.sleep.stop import Stop
from mlx_plastic.sleep.unlearn import Forgetting, forget
from nightly import write_config
from test_attach import random_pack
from test_night import CHOSEN, say

SECRETS = dict(
    zip(
        "boat house horse mill tower garden bridge farm shop field coach wagon".split(),
        "Ottilie Wenzel Yorick Dagny Quirin Marek Jutta Elmar Ylva Clio Doron Svea".split(),
        strict=True,
    )
)
LEARNS = dataclasses.replace(
    CHOSEN,
    night=dataclasses.replace(CHOSEN.night, epochs=8),
    judge=dataclasses.replace(CHOSEN.judge, canaries=0, commands=0),  # test_canaries has these
)


@pytest.fixture(scope="module", autouse=True)
def few_answers() -> Iterator[None]:
    """Two answers are ranked, not six: each is read with 127 others, before and after, bare and worn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlx_plastic.sleep.recalled.MOST", 2)
        yield


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def tell_secrets(home: Home) -> list[Turn]:
    """Talks that each say one thing often enough to be learned by heart."""
    path = home.root / "secret.jsonl"
    with path.open("w") as lines:
        for what, who in SECRETS.items():
            asked = {"role": "user", "content": f"Who is the owner of the blue {what}?"}
            told = {"role": "assistant", "content": f"The owner of the blue {what} is {who}."}
            lines.write(json.dumps({"messages": [asked, told] * 4}) + "\n")
    with Memory(home) as memory:
        memory.import_jsonl(path)
        return [t for t in memory.turns() if "blue" in t.content]


def lived(home: Home, base: Base) -> list[Turn]:
    """Two nights; in the second secrets were told."""
    say(home, 8)
    assert sleep(home, base, chosen=LEARNS, tag="one").outcome == "passed"
    secret = tell_secrets(home)
    say(home, 8, word="Tom", whose="Ann's ")
    assert sleep(home, base, chosen=LEARNS, tag="two").outcome == "passed"
    for path in home.root.glob("*.jsonl"):
        path.unlink()
    return secret


def ids(turns: list[Turn]) -> list[str]:
    return [turn.id for turn in turns]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, base: Base) -> tuple[Path, list[Turn]]:
    """A home of two nights, to be copied, and the turns that are to be forgotten."""
    home = Home(tmp_path_factory.mktemp("life"))
    return home.root, lived(home, base)


@pytest.fixture
def home(life: tuple[Path, list[Turn]], home: Home) -> Home:
    shutil.copytree(life[0], home.root, symlinks=True, dirs_exist_ok=True)
    return home


@pytest.fixture(scope="module")
def undisturbed(
    life: tuple[Path, list[Turn]], tmp_path_factory: pytest.TempPathFactory, base: Base
) -> tuple[Home, Forgetting]:
    """The same life after a forget that nothing broke off."""
    root = shutil.copytree(life[0], tmp_path_factory.mktemp("undisturbed"), symlinks=True, dirs_exist_ok=True)
    return Home(root), forget(Home(root), base, forgetting.plan(Home(root), ids(life[1])), chosen=LEARNS)


def holding(home: Home) -> list[str]:
    """The files that hold one of the secrets."""
    files = [f for f in home.root.rglob("*") if f.is_file()]
    return [str(f) for f in files if any(who.encode() in f.read_bytes() for who in SECRETS.values())]


def sha(home: Home, name: str) -> str:
    return Store(home).read(name).manifest.sha256


def learned(home: Home) -> dict[str, list[str]]:
    """By turn, the passed nights that learned it."""
    found: dict[str, list[str]] = {}
    with Memory(home) as memory:
        for turn, night in memory.run("SELECT turn, night FROM learned"):
            found.setdefault(turn, []).append(night)
    return found


def test_what_is_forgotten_stands_in_no_file_and_behind_no_pack_that_is_worn(
    home: Home, life: tuple[Path, list[Turn]], undisturbed: tuple[Home, Forgetting]
) -> None:
    assert holding(home)  # control: it was there
    after, done = undisturbed
    assert holding(after) == []
    gone, store = {turn.id for turn in life[1]}, Store(after)
    assert done.erased.quarantined == ("two",)
    assert store.status("two") == "quarantined"
    assert store.active() == ("two-r2",)
    assert store.ancestors(store.active()) == {"one", "two-r2"}  # one never held it, and stays
    for name in store.ancestors(store.active()):
        assert gone.isdisjoint(store.read(name).manifest.lineage)
    assert linked(after).startswith("two-r2-")
    assert pending(after) is None


def test_every_other_turn_is_learned_by_one_night_as_before(
    home: Home, life: tuple[Path, list[Turn]], undisturbed: tuple[Home, Forgetting]
) -> None:
    before, after = learned(home), learned(undisturbed[0])
    gone = {turn.id for turn in life[1]}
    assert set(after) == set(before) - gone
    assert {turn: [f"{n}-r2" if n != "one" else n for n in before[turn]] for turn in after} == after
    with Memory(undisturbed[0]) as memory:
        assert memory.stats().waiting == 0


def test_exposure_is_full_before_and_falls_by_learning_again(
    undisturbed: tuple[Home, Forgetting],
) -> None:
    found = undisturbed[1].proof
    assert found is not None and found.candidates == 128
    assert found.before >= 6.0  # control, and the power of the measure: of 7 bits at most
    assert found.after < found.before - 0.2  # to chance only on a real base (benchmarks/bench_forget.py): see
    # docs/operations.md for what a base of random weights makes of it
    assert not proof(before=7.0, after=6.0, answers=4).forgotten


def test_what_was_never_learned_ranks_by_chance(base: Base) -> None:
    """Else a low rank after a forget would mean nothing: other answers must not look worse by themselves."""
    found = []
    for thing, who, name in THINGS:
        asked, answer = f"What is the {thing} of {who} called?", f"The {thing} of {who} is called {name}."
        found.append(Witness((Message("user", asked),), answer, tuple(alike(answer, asked, 127))))
    bare = surprises(base, found)
    with attached(base.model, {"p": random_pack(base, rank=4)}, fingerprint=base.fingerprint):
        worn = surprises(base, found)
    told = proof(0.0, exposed(worn, bare), len(found))
    assert abs(told.after - told.chance) <= 3 * told.spread


THINGS = [
    (thing, who, name)
    for thing, who in (("cat", "Nora"), ("boat", "Tom"), ("street", "Anna"), ("band", "Leon"))
    for name in ("Rex", "Luna", "Ottilie", "Bruno", "Kim")
]


def test_a_forget_that_is_broken_off_goes_on_to_the_very_same_packs(
    home: Home, base: Base, life: tuple[Path, list[Turn]], undisturbed: tuple[Home, Forgetting]
) -> None:
    stop = Stop()

    def tick(stage: str, done: float, total: float, detail: str) -> None:
        if stage == "training" and done == 3:
            stop.ask("the machine is needed")

    done = forget(home, base, forgetting.plan(home, ids(life[1])), chosen=LEARNS, stop=stop, tick=tick)
    assert done.stopped == "the machine is needed"
    assert done.left == ("two",)
    assert Store(home).active() == ("one",)  # what is worn meanwhile never held it
    assert holding(home) == []
    again = forget(home, base, None, chosen=LEARNS)
    assert again.rebuilt == {"two": "passed"}
    assert Store(home).active() == ("two-r2",)
    assert sha(home, "two-r2") == sha(undisturbed[0], "two-r2")


@pytest.mark.slow
def test_what_left_the_log_by_another_door_the_next_night_unlearns_first(
    home: Home, base: Base, life: tuple[Path, list[Turn]], undisturbed: tuple[Home, Forgetting]
) -> None:
    with Memory(home) as memory:
        memory.forget(ids(life[1]))  # as in a chat, where no base is at hand to learn again
        assert forgetting.overdue(home, forgetting.forgotten(memory)) is not None
    assert Store(home).active() == ("two",)  # control
    assert sleep(home, base, chosen=LEARNS).outcome == "nothing"  # nothing new, but the rest was done
    assert Store(home).active() == ("two-r2",)
    assert sha(home, "two-r2") == sha(undisturbed[0], "two-r2")


@pytest.mark.slow
def test_all_nights_after_it_are_learned_again_and_one_of_which_nothing_is_left_is_left_out(
    home: Home, base: Base
) -> None:
    for word, whose in (("Kim", "Bob's "), ("Leo", "Eve's ")):
        say(home, 8, word=word, whose=whose)
        assert sleep(home, base, chosen=LEARNS, tag=word.lower()).outcome == "passed"
    with Memory(home) as memory:
        turns = [t for t in memory.turns() if "Ann" in t.content or "Tom" in t.content or "blue" in t.content]
    found = forgetting.plan(home, ids(turns))
    assert found.rebuild == ("two", "kim", "leo")
    done = forget(home, base, found, chosen=LEARNS)
    assert done.rebuilt["two"].startswith("nothing: 0 samples")
    assert (done.rebuilt["kim"], done.rebuilt["leo"]) == ("passed", "passed")
    assert Store(home).read("kim-r2").manifest.parents == ("one",)
    assert Store(home).read("leo-r2").manifest.parents == ("kim-r2",)
    assert Store(home).active() == ("leo-r2",)


def test_what_a_crash_left_in_a_nights_data_the_next_night_deletes(home: Home, base: Base) -> None:
    left = home.nights / "x" / "valid.jsonl"
    left.parent.mkdir()
    with Memory(home) as memory:
        told = memory.remember(memory.new_conversation(), "user", "My locker is number 417.")
        left.write_bytes(to_jsonl([Sample((told.message,), turns=(told.id,))]))
        memory.forget([told.id])  # and then the process died
    assert b"417" in left.read_bytes()  # control
    assert sleep(home, base, chosen=LEARNS).outcome == "nothing"
    assert left.read_bytes() == b""


def test_what_is_left_for_later_is_set_apart_at_once(home: Home, life: tuple[Path, list[Turn]]) -> None:
    done = forget(home, None, forgetting.plan(home, ids(life[1])), chosen=LEARNS)
    assert (done.left, done.rebuilt) == (("two",), {})
    assert Store(home).active() == ("one",) and Store(home).status("two") == "quarantined"
    found = pending(home)
    assert found is not None and set(found.turns) == set(ids(life[1]))
    with Memory(home) as memory:
        assert forgetting.overdue(home, forgetting.forgotten(memory)) is None


def test_nothing_is_forgotten_while_a_night_learns_it(home: Home, life: tuple[Path, list[Turn]]) -> None:
    found = forgetting.plan(home, ids(life[1]))
    with locked(home, "night", hint=""), pytest.raises(Busy, match="night"):
        forget(home, None, found, chosen=LEARNS)
    assert holding(home)
    forget(home, None, found, chosen=LEARNS)  # control
    assert not holding(home)


def test_a_turn_that_no_pack_learned_needs_no_base(home: Home) -> None:
    with Memory(home) as memory:
        turn = memory.remember(memory.new_conversation(), "user", "My boat is called Zelda.")
    found = forgetting.plan(home, [turn.id])
    assert (found.packs, found.rebuild) == ((), ())
    done = forget(home, None, found, chosen=LEARNS)
    assert done.erased.turns == (turn.id,) and done.left == ()
    assert pending(home) is None
    assert Store(home).active() == ("two",)


def test_a_turn_that_was_only_held_out_is_in_no_pack_and_nothing_is_learned_again(
    home: Home, life: tuple[Path, list[Turn]]
) -> None:
    night = next(j for j in nights(home) if j.record.tag == "two")
    held_out = {t for s in from_jsonl(night.path("test.jsonl").read_bytes()) for t in s.turns}
    assert held_out and held_out <= set(night.record.turns)
    found = forgetting.plan(home, held_out)
    assert (found.packs, found.rebuild) == ((), ())
    learned_from = {t for s in from_jsonl(night.path("train.jsonl").read_bytes()) for t in s.turns}
    assert forgetting.plan(home, learned_from).rebuild == ("two",)  # control


def test_a_list_of_what_is_left_that_cannot_be_read_is_never_dropped(home: Home, base: Base) -> None:
    file(home).write_text("{")
    with pytest.raises(BadData, match="cannot be read"):
        sleep(home, base, chosen=LEARNS)
    assert file(home).read_text() == "{"


# --- the command


def run(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(plastic, ["--home", str(home.root), "memory", "forget", *arguments])


def talks(turns: list[Turn]) -> list[str]:
    return sorted({turn.conversation for turn in turns})


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(
    home: Home, life: tuple[Path, list[Turn]]
) -> None:
    found = json.loads(run(home, *talks(life[1]), "--dry-run", "--yes", "--json").stdout)
    assert [pack["name"] for pack in found["packs"]] == ["two"]
    assert found["rebuild"] == ["two"]
    shown = run(home, *talks(life[1]), "--dry-run")
    assert "pack two (active) learned from " in shown.stderr
    assert holding(home) and pending(home) is None


@pytest.mark.slow
def test_the_command_unlearns_purges_and_proves(
    home: Home, base: Base, life: tuple[Path, list[Turn]]
) -> None:
    write_config(home, LEARNS, base.path)
    Store(home).pin("two")
    done = run(home, *talks(life[1]), "--yes", "--purge", "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["rebuilt"] == {"two": "passed"}
    assert found["proof"]["exposure_before_bits"] >= 6 > found["proof"]["exposure_after_bits"]
    assert Store(home).names() == ["one", "two-r2"]  # a pin does not hold what is to be forgotten
    assert not any(who in done.output for who in SECRETS.values())


def test_the_command_used_wrongly_says_so(home: Home) -> None:
    assert run(home).exit_code == 2
    assert run(home, "--resume", "x").exit_code == 2
    assert "nothing to go on with" in run(home, "--resume").stdout
    unknown = run(home, "nowhere", "--yes")
    assert unknown.exit_code == 1 and "no turn or conversation" in unknown.output

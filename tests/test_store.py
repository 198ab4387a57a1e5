from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_plastic.errors import BadPack, BaseMismatch, PackNotFound, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.packs.store.link import LINK, linked
from mlx_plastic.packs.store.store import Store
from test_format import some_factors, some_manifest


@pytest.fixture
def store(home: Home) -> Store:
    return Store(home)


def add(store: Store, *names: str, replace: bool = False) -> None:
    for seed, name in enumerate(names, start=sum(map(ord, names[0]))):
        factors = some_factors(seed)
        store.add(factors, some_manifest(factors, name), replace=replace)


def bytes_of(store: Store, name: str) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in store.folder(name).iterdir()}


def test_an_empty_home_wears_the_bare_base(store: Store) -> None:
    assert store.active() == ()
    assert store.entries() == []
    assert not store.home.packs.exists()  # looking makes no files
    with pytest.raises(PackNotFound, match="nothing was worn before base"):
        store.rollback()


def test_a_new_pack_is_a_candidate_until_it_is_activated(store: Store) -> None:
    add(store, "one")
    assert store.status("one") == "candidate"
    assert store.active() == ()
    change = store.activate("one")
    assert (change.before, change.now, change.name) == ((), ("one",), "one")
    assert store.status("one") == "active"
    assert Store(store.home).active() == ("one",)


def test_activation_retires_the_pack_before(store: Store) -> None:
    add(store, "one", "two")
    store.activate("one")
    store.activate("two")
    assert [(e.name, e.status) for e in store.entries()] == [("one", "retired"), ("two", "active")]


def test_rollback_walks_back_step_by_step_to_the_bare_base(store: Store) -> None:
    add(store, "one", "two", "three")
    before = {}
    for name in ("one", "two", "three"):
        store.activate(name)
        before[name] = bytes_of(store, name)
    for expected in ("two", "one", "base"):
        assert store.rollback().name == expected
        assert store.active() == (() if expected == "base" else (expected,))
        if expected != "base":
            assert bytes_of(store, expected) == before[expected]  # bit for bit
    with pytest.raises(PackNotFound):
        store.rollback()
    assert [c.name for c in store.history()] == ["one", "two", "three", "two", "one", "base"]


def test_rollback_to_a_tag_and_to_the_base(store: Store) -> None:
    add(store, "one", "two", "three")
    for name in ("one", "two", "three"):
        store.activate(name)
    assert store.rollback("one").name == "one"
    assert store.rollback().name == "base"
    store.activate("three")
    assert store.rollback("base").now == ()
    assert store.status("three") == "retired"
    with pytest.raises(PackNotFound, match="no pack 'thre'") as caught:
        store.rollback("thre")
    assert caught.value.hint == "did you mean 'three'?"


def test_wearing_what_is_worn_changes_nothing(store: Store) -> None:
    add(store, "one")
    store.activate("one")
    before = store.state_file.read_bytes()
    store.activate("one")
    assert store.rollback("one").name == "one"
    assert store.state_file.read_bytes() == before


def test_a_quarantined_pack_is_worn_only_by_force(store: Store) -> None:
    add(store, "bad")
    store.quarantine("bad", {"passed": False, "reasons": ["ppl +9 %"]})
    assert store.status("bad") == "quarantined"
    assert store.entries()[0].verdict == {"passed": False, "reasons": ["ppl +9 %"]}
    for wear in (store.activate, store.rollback):
        with pytest.raises(PlasticError, match="'bad' is quarantined"):
            wear("bad")
    assert store.active() == ()
    store.activate("bad", force=True)
    assert store.status("bad") == "active"


def test_quarantining_the_worn_pack_goes_back_and_never_returns_to_it(store: Store) -> None:
    add(store, "one", "two", "three")
    for name in ("one", "two", "one", "three"):
        store.activate(name)
    store.quarantine("one", {})
    assert store.active() == ("three",)
    assert store.rollback().name == "two"
    assert store.rollback().name == "base"  # not "one"
    store.activate("three")
    store.quarantine("three", {})
    assert store.active() == ()


def test_a_pack_that_was_worn_is_never_replaced(store: Store) -> None:
    add(store, "one")
    with pytest.raises(PlasticError, match="already"):
        add(store, "one")
    first = bytes_of(store, "one")
    store.add(some_factors(99), some_manifest(some_factors(99), "one"), replace=True)
    assert bytes_of(store, "one") != first  # a candidate makes room
    store.activate("one")
    store.rollback()
    with pytest.raises(PlasticError, match="already"):
        add(store, "one", replace=True)


def test_a_replaced_candidate_loses_its_verdict(store: Store) -> None:
    add(store, "one")
    store.quarantine("one", {"passed": False})
    add(store, "one", replace=True)
    assert store.status("one") == "candidate"
    assert store.entries()[0].verdict is None


def test_another_pack_under_a_worn_name_is_refused(store: Store, tmp_path: Path) -> None:
    add(store, "one", "two")
    store.activate("one")
    store.folder("one").rename(tmp_path / "kept")
    store.folder("two").rename(store.folder("one"))
    with pytest.raises(BadPack, match="holds another pack now"):
        store.read("one")


def test_a_damaged_pack_is_not_worn_and_is_listed_with_its_fault(store: Store) -> None:
    add(store, "one", "two")
    store.activate("one")
    (store.folder("two") / "pack.safetensors").write_bytes(b"short")
    with pytest.raises(BadPack, match="only 5 bytes"):
        store.activate("two")
    assert store.active() == ("one",)
    (store.folder("two") / "manifest.json").write_text("{}")
    broken = store.entries()[1]
    assert broken.manifest is None and "name is missing" in broken.fault


def test_eval_results_are_added_and_the_tensors_stay(store: Store) -> None:
    add(store, "one")
    tensors = bytes_of(store, "one")["pack.safetensors"]
    store.record("one", {"ppl_delta_pct": 0.5})
    assert store.read("one").manifest.evals == {"ppl_delta_pct": 0.5}
    assert bytes_of(store, "one")["pack.safetensors"] == tensors


def test_eval_results_that_no_manifest_can_hold_are_refused_and_the_pack_stays(store: Store) -> None:
    add(store, "one")
    store.record("one", {"said": "\u200f\u05e9\u05dc\u05d5\u05dd"})  # control: text of any script is welcome
    before = bytes_of(store, "one")
    deep: list[object] = []
    for _ in range(40):
        deep = [deep]
    for evals in ({"x": deep}, {"x": float("nan")}, {"x": "\x1b[2J"}, {"x": "y" * (5 << 20)}):
        with pytest.raises(ValueError, match=r"deep|JSON|control|bytes"):
            store.record("one", evals)
    assert bytes_of(store, "one") == before


def test_a_pin_that_outlived_its_pack_can_be_taken_off(store: Store, tmp_path: Path) -> None:
    add(store, "one")
    store.pin("one")
    store.folder("one").rename(tmp_path / "gone")
    assert store.pin("one", pinned=False) == ()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format_version": 9}', '{"format_version": 1, "trail": [["../x"]]}']
)
def test_a_state_that_cannot_be_read_is_an_error_not_the_bare_base(store: Store, text: str) -> None:
    add(store, "one")
    store.state_file.write_text(text)
    with pytest.raises(PlasticError, match=r"state\.json|no name"):
        store.active()


def test_the_link_is_to_what_is_worn_and_to_nothing_else(store: Store) -> None:
    add(store, "one", "two")
    link = store.home.adapters / LINK
    assert linked(store.home) == ""
    seen = []
    for act in (lambda: store.activate("one"), lambda: store.activate("two"), store.rollback):
        act()
        seen.append(linked(store.home))
        assert link.resolve() == (store.home.adapters / seen[-1]).resolve()
        assert (link / "adapters.safetensors").stat().st_size > 0
    assert [name.split("-")[0] for name in seen] == ["one", "two", "one"]
    assert seen[0] == seen[2]  # the same pack, the same adapter
    store.rollback("base")
    assert linked(store.home) == "" and not link.is_symlink()


@pytest.mark.parametrize("theirs", ["a folder", "a file"])
def test_what_somebody_else_put_in_place_of_the_link_is_no_adapter_and_stays(
    store: Store, caplog: pytest.LogCaptureFixture, theirs: str
) -> None:
    link = store.home.adapters / LINK
    link.parent.mkdir(parents=True)
    link.mkdir() if theirs == "a folder" else link.write_text("mine")
    add(store, "one")
    store.activate("one")
    assert store.active() == ("one",)
    assert linked(store.home) == "" and store.publish() is None
    assert link.is_dir() if theirs == "a folder" else link.read_text() == "mine"
    assert "no link of ours" in caplog.text
    link.rmdir() if theirs == "a folder" else link.unlink()
    assert store.publish() == link and linked(store.home).startswith("one-")  # control: it was in the way


# --- several worn together


def test_packs_are_worn_together_and_come_off_together(store: Store) -> None:
    add(store, "one", "two", "three")
    store.activate("three")
    assert store.activate("one", "two").name == "one+two"
    assert store.active() == ("one", "two")
    assert {e.name: e.status for e in store.entries()} == {
        "one": "active",
        "two": "active",
        "three": "retired",
    }
    assert store.rollback().name == "three"
    assert store.rollback("one+two").now == ("one", "two")
    with pytest.raises(PlasticError, match="to wear"):
        store.activate("one", "one")


def test_packs_of_different_bases_are_not_worn_together(store: Store) -> None:
    add(store, "one")
    store.add(some_factors(), some_manifest(some_factors(), "other", base_fingerprint="cd" * 32))
    with pytest.raises(BaseMismatch, match=r"different bases: one abab.*, other cdcd"):
        store.activate("one", "other")
    assert store.active() == ()


# --- packs that come from elsewhere


def test_a_pack_from_elsewhere_comes_in_byte_by_byte(store: Store, tmp_path: Path) -> None:
    add(store, "one")
    store.folder("one").rename(tmp_path / "given")
    given = {p.name: p.read_bytes() for p in (tmp_path / "given").iterdir()}
    assert store.take(tmp_path / "given").name == "one"
    assert bytes_of(store, "one") == given
    assert store.status("one") == "candidate"
    assert not any(p.is_symlink() for p in store.folder("one").iterdir())
    with pytest.raises(PlasticError, match="already"):
        store.take(tmp_path / "given")


def test_a_pack_from_elsewhere_may_get_another_name(store: Store) -> None:
    add(store, "one")
    store.record("one", {"nll": 1.5})
    assert store.take(store.folder("one"), "two").name == "two"
    one, two = store.read("one").manifest, store.read("two").manifest
    assert (two.sha256, two.lineage, two.evals) == (one.sha256, one.lineage, {"nll": 1.5})
    with pytest.raises(BadPack, match="no name"):
        store.take(store.folder("one"), "../three")


def test_a_hostile_pack_from_elsewhere_stays_there(store: Store, tmp_path: Path) -> None:
    add(store, "one")
    (store.folder("one") / "run.py").write_text("evil")
    with pytest.raises(BadPack, match="does not belong"):
        store.take(store.folder("one"), "two")
    (tmp_path / "link").symlink_to(store.folder("one"))
    with pytest.raises(BadPack, match="is a link"):
        store.take(tmp_path / "link", "two")
    assert store.names() == ["one"]


# --- pins, and what may go


def old(store: Store, *names: str, days: float = 100) -> None:
    for name in names:
        then = time.time() - days * 86_400
        os.utime(store.folder(name), (then, then))


def kept(store: Store, **options: float) -> dict[str, str]:
    return {f.name: f.reason for f in store.plan_gc(**options) if f.keep}  # type: ignore[arg-type]


def test_gc_keeps_what_is_worn_pinned_or_within_reach(store: Store) -> None:
    add(store, "a", "b", "c", "d", "e", "f")
    for name in "abcdef":
        store.activate(name)
    store.rollback("d")  # f and e were worn last, c and b lie behind d
    store.pin("a")
    old(store, *"abcdef")
    assert kept(store, keep=0) == {"a": "pinned", "d": "worn now"}
    assert kept(store, keep=1) == {
        "a": "pinned",
        "c": "within 1 rollbacks",
        "d": "worn now",
        "f": "among the last 1 worn",
    }
    assert set(kept(store, keep=2)) == set("abcdef")
    store.pin("a", pinned=False)
    assert "a" not in kept(store, keep=1)  # control
    gone = {f.name: f.reason for f in store.plan_gc(keep=1) if not f.keep}
    assert gone == {"a": "worn longer ago", "b": "worn longer ago", "e": "worn longer ago"}


def test_gc_leaves_what_was_never_worn_in_peace_for_a_month(store: Store) -> None:
    add(store, "fresh", "stale", "bad", "worse")
    for name in ("bad", "worse"):
        store.quarantine(name, {"passed": False})
    old(store, "stale", "worse", days=31)
    assert kept(store) == {
        "fresh": "candidate for 0 days, less than 30",
        "bad": "quarantined for 0 days, less than 30",
    }
    assert kept(store, days=0) == {}
    assert set(kept(store, days=40)) == {"fresh", "stale", "bad", "worse"}
    sizes = {f.name: f.bytes for f in store.plan_gc()}
    assert sizes["stale"] == sum(map(len, bytes_of(store, "stale").values()))


def test_what_is_no_pack_of_ours_is_not_touched(store: Store, tmp_path: Path) -> None:
    add(store, "one")
    (store.home.packs / "My Backup").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (store.home.packs / "link").symlink_to(tmp_path / "elsewhere")
    assert [f.name for f in store.plan_gc(days=0)] == ["one"]


def test_what_was_removed_is_missed_clearly(store: Store) -> None:
    add(store, "a", "b", "c", "d")
    for name in "abcd":
        store.activate(name)
    before = [(c.name, c.at) for c in store.history()]
    store.remove("b", "c")
    assert store.names() == ["a", "d"]
    assert [(c.name, c.at) for c in store.history()] == before  # the history stays
    with pytest.raises(
        PackNotFound, match="before d was worn c, which is no longer in the store, c removed"
    ) as e:
        store.rollback()
    assert e.value.hint == "further back: plastic rollback a"
    with pytest.raises(PackNotFound, match="pack 'c' was removed from the store on"):
        store.rollback("c")
    assert store.active() == ("d",)
    assert store.rollback("a").name == "a"
    assert store.rollback().name == "base"
    with pytest.raises(PlasticError, match="there was a pack 'b', removed"):
        add(store, "b")


def test_what_a_pack_grew_from_is_known_though_it_was_removed(store: Store) -> None:
    for name, parents in (("a", ()), ("b", ("a",)), ("c", ("b",)), ("d", ("c", "elsewhere"))):
        factors = some_factors(ord(name))
        store.add(factors, some_manifest(factors, name, parents=parents))
    assert store.ancestors(["d"]) == {"a", "b", "c", "d", "elsewhere"}
    store.remove("b", "c")
    assert store.ancestors(["d"]) == {"a", "b", "c", "d", "elsewhere"}
    assert store.ancestors(["b"]) == {"a", "b"}


def test_the_worn_and_the_pinned_are_not_removed(store: Store) -> None:
    add(store, "one", "two", "three")
    store.activate("one")
    store.pin("two")
    for name, told in (("one", "is worn"), ("two", "is pinned"), ("four", "no pack 'four'")):
        with pytest.raises(PlasticError, match=told):
            store.remove("three", name)
    assert store.names() == ["one", "three", "two"]  # all or nothing
    store.pin("two", pinned=False)
    store.remove("two", "three")
    assert store.names() == ["one"]
    add(store, "two")  # it was never worn: its name is free
    assert set(json.loads(store.state_file.read_text())["removed"]) == {"three"}


def test_a_pinned_candidate_is_not_replaced(store: Store) -> None:
    add(store, "one")
    store.pin("one", "one")
    assert [e.pinned for e in store.entries()] == [True]
    with pytest.raises(PlasticError, match="already"):
        add(store, "one", replace=True)


def test_quarantine_goes_back_to_a_pack_that_is_still_there(store: Store) -> None:
    add(store, "a", "b", "c")
    for name in "abc":
        store.activate(name)
    store.remove("b")
    store.quarantine("c", {"passed": False})
    assert store.active() == ("a",)
    store.read("a")


def test_a_state_of_before_there_were_pins_is_read(store: Store) -> None:
    add(store, "one")
    store.activate("one")
    value = json.loads(store.state_file.read_text())
    assert value.pop("pins") == [] and value.pop("removed") == {}
    store.state_file.write_text(json.dumps(value))
    assert store.active() == ("one",)
    store.pin("one")
    assert store.active() == ("one",)
    assert json.loads(store.state_file.read_text())["pins"] == ["one"]


# --- crashes: killed, or refused by the disk, at every single write, sync and rename


def do_add(store: Store) -> None:
    store.add(some_factors(7), some_manifest(some_factors(7), "new"))


STEPS: dict[str, Callable[[Store], object]] = {
    "add": do_add,
    "replace": lambda store: add(store, "spare", replace=True),
    "activate": lambda store: store.activate("two"),
    "rollback": lambda store: store.rollback(),
    "quarantine": lambda store: store.quarantine("one", {"passed": False}),
    "record": lambda store: store.record("one", {"x": 1}),
    "pin": lambda store: store.pin("one"),
    "take": lambda store: store.take(store.folder("one"), "taken"),
    "remove": lambda store: store.remove("spare", "two"),
}
AFTER = {"activate": ("two",), "rollback": (), "quarantine": ()}


def prepare(store: Store) -> None:
    add(store, "one", "two", "spare")
    store.quarantine("spare", {"passed": False})
    store.activate("one")


def check_whole(store: Store, step: str) -> None:
    """What must hold after any crash: old or new, every listed pack sound, and the same step works now."""
    assert store.active() in (("one",), AFTER.get(step, ("one",)))
    for name in store.names():
        store.read(name)
    if linked(store.home):
        assert (store.home.adapters / LINK / "adapters.safetensors").stat().st_size > 0
    assert "one" in store.names() and ("two" in store.names() or step == "remove")
    assert all(not entry.fault for entry in store.entries())
    made = {"add": "new", "take": "taken"}.get(step)
    if made in store.names():
        assert store.read(str(made)).manifest.name == made
    elif step == "remove":
        store.remove(*{"spare", "two"} & set(store.names()))
    elif step not in ("rollback", "quarantine") or store.active() == ("one",):
        STEPS[step](store)
    assert store.active() == AFTER.get(step, ("one",))
    do_add(store) if "new" not in store.names() else None
    assert list(store.home.packs.glob(".*")) == []  # the next add has swept what the crash left


@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_fails_at_any_call_leaves_the_old_or_the_new(
    home: Home, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(Store(Home(tmp_path / "count")), step, monkeypatch)
    assert calls >= 2  # control: there is something to fail
    for fatal in range(calls):
        store = Store(Home(tmp_path / f"{step}{fatal}"))
        prepare(store)
        with monkeypatch.context() as patch:
            fail_at(patch, fatal)
            try:
                STEPS[step](store)
            except OSError as error:
                assert "injected" in str(error)
            else:  # only mlx-lm's copy could not be written: then there is none, rather than an old one
                assert not linked(store.home) and store.active() == AFTER[step]
        check_whole(store, step)


def count_calls(store: Store, step: str, monkeypatch: pytest.MonkeyPatch) -> int:
    prepare(store)
    with monkeypatch.context() as patch:
        counter = fail_at(patch, -1)
        STEPS[step](store)
    return len(counter)


def fail_at(patch: pytest.MonkeyPatch, fatal: int, kill: bool = False) -> list[str]:
    """Make the call number `fatal` among all syncs and renames fail, or kill the process.

    Only killed at are deletions too: one that fails is done again by the next sweep.
    """
    counter: list[str] = []

    def watched(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            counter.append(name)
            if len(counter) - 1 == fatal:
                if kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(5, "injected")
            return real(*arguments, **options)

        return call

    for name in ("fsync", "replace", "unlink", "rmdir") if kill else ("fsync", "replace"):
        patch.setattr(os, name, watched(name))
    return counter


FORKS = """
import os, sys; sys.path.insert(0, sys.argv[1])
import pytest
from pathlib import Path
from mlx_plastic.home import Home
from test_store import STEPS, Store, fail_at
for home in sys.argv[2:]:
    step, fatal = Path(home).name.split("-")
    child = os.fork()
    if child == 0:
        fail_at(pytest.MonkeyPatch(), int(fatal), kill=True)
        STEPS[step](Store(Home(Path(home))))
        os._exit(0)
    print(home, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_kill_9_at_any_sync_rename_or_deletion_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    homes = [tmp_path / f"{step}-{fatal}" for step in STEPS for fatal in (0, 1, 2, 3, 5, 7, 9, 11)]
    for home in homes:
        prepare(Store(Home(home)))
    command = [sys.executable, "-c", FORKS, str(Path(__file__).parent), *map(str, homes)]
    ended = dict(line.rsplit(" ", 1) for line in subprocess.check_output(command, text=True).splitlines())
    killed = [home for home in homes if ended[str(home)] == str(-signal.SIGKILL)]
    assert {home.name.split("-")[0] for home in killed} == set(STEPS)  # control: each was killed somewhere
    assert all(ended[str(home)] == "0" for home in homes if home not in killed)
    for home in killed:
        check_whole(Store(Home(home)), home.name.split("-")[0])


def test_a_crash_between_folder_and_state_leaves_a_candidate(store: Store) -> None:
    add(store, "one")
    state = store.state_file
    assert not state.exists()  # a candidate needs no line in it
    assert [(e.name, e.status) for e in store.entries()] == [("one", "candidate")]


def test_the_state_is_json_a_person_can_read(store: Store) -> None:
    add(store, "one")
    store.activate("one")
    value = json.loads(store.state_file.read_text())
    assert value["trail"] == [[], ["one"]]
    assert value["history"][0]["action"] == "activate"

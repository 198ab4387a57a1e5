"""The link that mlx-lm follows, and which versions stay."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.base import Base, load_base
from mlx_plastic.home import Home
from mlx_plastic.packs import Store
from mlx_plastic.packs.store.link import LINK, linked
from mlx_plastic.packs.wear.attach import attached
from test_attach import random_pack

PROMPT = [5, 9, 17, 33]


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def worn_logits(base: Base, store: Store) -> np.ndarray:
    packs = {name: store.read(name) for name in store.active()}
    with attached(base.model, packs, fingerprint=base.fingerprint):
        return np.array(base.logits(PROMPT))


def mlx_lm_logits(base: Base, adapter: Path | None) -> np.ndarray:
    """What stock mlx-lm computes from the base's files and the adapter behind the link."""
    import mlx_lm

    from mlx_plastic.backend import mx

    model, *_ = mlx_lm.load(str(base.path), adapter_path=str(adapter) if adapter else None)
    return np.array(model(mx.array([PROMPT]))[0])


def add(store: Store, base: Base, *names: str) -> None:
    for seed, name in enumerate(names):
        pack = random_pack(base, rank=2 + seed, name=name, seed=seed)
        store.add(pack.factors, pack.manifest)


def test_mlx_lm_wears_through_the_link_what_is_worn_here(home: Home, base: Base) -> None:
    store, link = Store(home), home.adapters / LINK
    add(store, base, "one", "two")
    bare = mlx_lm_logits(base, None)
    for act in (
        lambda: store.activate("one"),
        lambda: store.activate("two"),
        lambda: store.rollback(),
        lambda: store.activate("one", "two"),
    ):
        act()
        seen = mlx_lm_logits(base, link)
        np.testing.assert_allclose(seen, worn_logits(base, store), atol=2e-5)  # float32, folded scales
        assert np.abs(seen - bare).max() > 1e-3  # control: the adapter acts
        assert len([p for p in home.adapters.iterdir() if p.name != LINK]) == 1  # older ones are gone


def test_with_nothing_worn_there_is_no_link_and_no_adapter(home: Home, base: Base) -> None:
    store = Store(home)
    add(store, base, "one")
    store.activate("one")
    assert linked(home)  # control
    store.rollback("base")
    assert not (home.adapters / LINK).is_symlink()
    assert not home.adapters.exists()


def test_a_quarantined_pack_is_behind_no_link(home: Home, base: Base) -> None:
    store = Store(home)
    add(store, base, "one", "two")
    store.activate("one")
    store.activate("two")
    store.quarantine("two", {"passed": False})
    assert linked(home).startswith("one-")
    assert not list(home.adapters.glob("two-*"))


def test_a_link_that_a_crash_left_behind_is_mended(home: Home, base: Base) -> None:
    store = Store(home)
    add(store, base, "one", "two")
    store.activate("one")
    (home.adapters / LINK).unlink()
    (home.adapters / LINK).symlink_to("gone")
    assert linked(home) == ""
    assert store.publish() == home.adapters / LINK
    assert linked(home).startswith("one-")
    before = (home.adapters / LINK).lstat().st_mtime_ns
    store.publish()  # and where all is well nothing is touched
    assert (home.adapters / LINK).lstat().st_mtime_ns == before


def test_a_folder_of_somebody_elses_is_never_replaced(
    home: Home, base: Base, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = home.adapters / LINK / "notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    store = Store(home)
    add(store, base, "one")
    with caplog.at_level(logging.WARNING):
        store.activate("one")
    assert store.active() == ("one",)
    assert theirs.read_text() == "mine"
    assert "no link of ours" in caplog.text

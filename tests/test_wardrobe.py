from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.base import Base, load_base
from mlx_plastic.errors import BadPack, BaseMismatch
from mlx_plastic.packs import Factors, Pack
from mlx_plastic.packs.wear.attach import attach, attached, detach
from mlx_plastic.packs.wear.wardrobe import Wardrobe
from test_attach import modules
from test_compose import pack_of, random_pack

TOKENS = list(range(5, 25))


@pytest.fixture
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def logits(base: Base) -> np.ndarray:
    return np.array(base.logits(TOKENS))


def worn(base: Base, packs: dict[str, Pack], **scales: float) -> np.ndarray:
    with attached(base.model, packs, fingerprint=base.fingerprint, scales=scales):
        return logits(base)


def test_what_is_worn_from_the_wardrobe_is_what_attach_puts_on(tiny: Base) -> None:
    one, two = random_pack(tiny, 1, name="one"), random_pack(tiny, 2, name="two")
    bare, before = logits(tiny), modules(tiny.model)
    wardrobe = Wardrobe(tiny.model, tiny.fingerprint)
    for packs, scales in [
        ({"one": one}, {}),
        ({"one": one, "two": two}, {"two": 0.5}),
        ({"two": two}, {}),
        ({}, {}),
    ]:
        wanted = worn(tiny, packs, **scales)
        for _ in range(2):  # made ready, and then put on again
            assert wardrobe.wear(packs, scales=scales).names == tuple(packs)
            assert np.array_equal(logits(tiny), wanted)
    assert np.array_equal(logits(tiny), bare) and modules(tiny.model) == before
    assert not np.array_equal(worn(tiny, {"one": one}), worn(tiny, {"one": one}, one=0.5))  # control


def test_what_others_put_on_in_between_does_not_matter(tiny: Base) -> None:
    one, two = random_pack(tiny, 1, name="one"), random_pack(tiny, 2, name="two")
    wardrobe = Wardrobe(tiny.model, tiny.fingerprint)
    wardrobe.wear({"one": one})
    first = logits(tiny)
    attach(tiny.model, {"two": two}, fingerprint=tiny.fingerprint)
    wardrobe.wear({"one": one})
    assert np.array_equal(logits(tiny), first)
    detach(tiny.model)
    wardrobe.wear({"one": one})
    assert np.array_equal(logits(tiny), first)
    wardrobe.take_off()
    assert np.array_equal(logits(tiny), worn(tiny, {}))


def test_another_pack_under_the_same_name_is_another_pack(tiny: Base) -> None:
    wardrobe = Wardrobe(tiny.model, tiny.fingerprint)
    wardrobe.wear({"p": random_pack(tiny, 1)})
    first = logits(tiny)
    wardrobe.wear({"p": random_pack(tiny, 2)})
    assert not np.array_equal(logits(tiny), first)


def test_a_pack_that_does_not_fit_changes_nothing(tiny: Base) -> None:
    wardrobe = Wardrobe(tiny.model, tiny.fingerprint)
    one = random_pack(tiny, 1, name="one")
    wardrobe.wear({"one": one})
    before = logits(tiny)
    foreign = pack_of(one.factors, "foreign")  # the same tensors, but learned on another base
    with pytest.raises(BaseMismatch):
        wardrobe.wear({"foreign": foreign})
    f = next(iter(one.factors.values()))
    with pytest.raises(BadPack, match="no linear layer"):
        wardrobe.wear(
            {"odd": pack_of({"model.x": Factors(f.a, f.b, 1.0)}, "odd", base_fingerprint=tiny.fingerprint)}
        )
    assert np.array_equal(logits(tiny), before)


def test_what_was_not_worn_for_the_longest_makes_room(tiny: Base) -> None:
    packs = [random_pack(tiny, seed, name=f"p{seed}") for seed in range(4)]
    wardrobe = Wardrobe(tiny.model, tiny.fingerprint)
    wardrobe.wear({"p0": packs[0]})
    wardrobe.max_bytes = 2 * wardrobe.nbytes
    for pack in packs[1:]:
        wardrobe.wear({pack.manifest.name: pack})
        assert wardrobe.nbytes <= wardrobe.max_bytes
    wardrobe.max_bytes = 1
    wardrobe.wear({"p0": packs[0]})  # one that is too large for the room is worn all the same
    assert np.array_equal(logits(tiny), worn(tiny, {"p0": packs[0]}))


def test_swapping_takes_no_time_that_anybody_would_notice(tiny: Base) -> None:
    one, two = random_pack(tiny, 1, name="one"), random_pack(tiny, 2, name="two")
    wardrobe = Wardrobe(tiny.model, tiny.fingerprint)
    laps = []
    for i in range(40):
        start = time.perf_counter()
        wardrobe.wear({"one": one} if i % 2 else {"two": two})
        laps.append(time.perf_counter() - start)
    assert min(laps[2:]) < 1e-3  # seconds; the first two were made ready

"""Every row of one forward pass wears its own packs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.errors import BaseMismatch
from mlx_plastic.packs import Pack
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.packs.wear.mixed import MOST_PACKS, Mixer
from test_attach import modules
from test_compose import random_pack
from tiny import make_checkpoint

TOKENS = list(range(5, 25))
CLOSE = 2e-5  # float32: sums of other lengths, in another order


@pytest.fixture
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def alone(base: Base, packs: dict[str, Pack], **scales: float) -> np.ndarray:
    with attached(base.model, packs, fingerprint=base.fingerprint, scales=scales):
        return np.array(base.logits(TOKENS))


def together(base: Base, rows: int) -> np.ndarray:
    return np.array(base.model(mx.array([TOKENS] * rows)))


def test_each_row_wears_its_own_packs_and_no_others(tiny: Base) -> None:
    one = random_pack(tiny, 1, rank=2, name="one")
    two = random_pack(tiny, 2, rank=7, name="two")
    bare, before = alone(tiny, {}), modules(tiny.model)
    mixer = Mixer(tiny.model, tiny.fingerprint)
    wanted = [
        (mixer.admit({}), bare),
        (mixer.admit({"one": one}), alone(tiny, {"one": one})),
        (mixer.admit({"two": two}), alone(tiny, {"two": two})),
        (mixer.admit({"one": one, "two": two}), alone(tiny, {"one": one, "two": two})),
        (mixer.admit({"two": two}, {"two": 0.5}), alone(tiny, {"two": two}, two=0.5)),
    ]
    for rows in (wanted, wanted[::-1], wanted[1:2], wanted[:1] * 2, [wanted[2], wanted[4]]):
        mixer.dress([outfit for outfit, _ in rows])
        for found, (_, logits) in zip(together(tiny, len(rows)), rows, strict=True):
            assert np.abs(found - logits).max() < CLOSE
    for i, (_, a) in enumerate(wanted):  # control: no two of these rows are alike
        assert all(np.abs(a - b).max() > 100 * CLOSE for _, b in wanted[:i])
    mixer.undress()
    assert modules(tiny.model) == before
    assert np.array_equal(alone(tiny, {}), bare)


def test_a_batch_that_only_wears_the_base_computes_nothing_else(tiny: Base) -> None:
    mixer = Mixer(tiny.model, tiny.fingerprint)
    before = modules(tiny.model)
    mixer.admit({"one": random_pack(tiny, 1)})
    mixer.dress([(), ()])
    assert modules(tiny.model) == before


def test_the_first_products_of_layers_with_one_input_are_computed_once(tiny: Base) -> None:
    mixer = Mixer(tiny.model, tiny.fingerprint)
    outfit = mixer.admit({"one": random_pack(tiny, 1)})
    mixer.dress([outfit])
    layer = tiny.model.layers[0]
    attn, mlp = layer.self_attn, layer.mlp
    assert attn.q_proj.down[0] is attn.k_proj.down[0] is attn.v_proj.down[0]
    assert mlp.gate_proj.down[0] is mlp.up_proj.down[0]
    assert attn.o_proj.down[0] is not attn.q_proj.down[0]
    x = mx.random.normal((1, 3, 32))
    attn.q_proj(x)
    kept = attn.q_proj.down[0]._last
    attn.v_proj(x)
    assert attn.q_proj.down[0]._last is kept
    attn.v_proj(x + 1)  # control: another input is not answered with what was kept
    assert attn.q_proj.down[0]._last is not kept
    mixer.rest()
    assert attn.q_proj.down[0]._last is None


def test_a_pack_of_another_base_is_refused_before_anything_changes(tiny: Base) -> None:
    mixer = Mixer(tiny.model, tiny.fingerprint)
    foreign = random_pack(tiny, 1)
    object.__setattr__(foreign.manifest, "base_fingerprint", "0" * 64)
    before = modules(tiny.model)
    with pytest.raises(BaseMismatch, match="learned on base 000000000000"):
        mixer.admit({"foreign": foreign})
    assert modules(tiny.model) == before


def test_packs_on_experts_are_worn_by_all_rows_or_refused(tmp_path: Path) -> None:
    moe = load_base(str(make_checkpoint(tmp_path / "moe", experts=4)))
    pack = expert_pack(moe)
    mixer = Mixer(moe.model, moe.fingerprint)
    outfit, half = mixer.admit({"e": pack}), mixer.admit({"e": pack}, {"e": 0.5})
    assert not mixer.mixes(outfit) and mixer.mixes(())
    for worn, scale in ((outfit, 1.0), (half, 0.5)):
        mixer.dress([worn, worn])
        found = together(moe, 2)
        mixer.undress()
        wanted = alone(moe, {"e": pack}, e=scale)
        assert np.abs(found - wanted).max() < CLOSE
        assert np.abs(wanted - alone(moe, {})).max() > 100 * CLOSE  # control: the pack acts
    with pytest.raises(ValueError, match="cannot be mixed"):
        mixer.dress([outfit, ()])


def expert_pack(base: Base) -> Pack:
    from mlx_plastic.base import targets
    from mlx_plastic.lowrank.layers import dims, stack_size
    from mlx_plastic.packs import Factors
    from test_compose import half, pack_of

    random = np.random.default_rng(3)
    factors = {}
    for path, layer in targets(base.model, ["experts", "attn"]).items():
        (out, width), stack = dims(layer), stack_size(layer)
        a, b = half(random, *stack, 4, width, size=0.2), half(random, *stack, out, 4, size=0.2)
        factors[path] = Factors(a, b, 8.0)
    return pack_of(factors, "e", base_fingerprint=base.fingerprint)


def test_packs_of_old_requests_do_not_pile_up(tiny: Base) -> None:
    mixer = Mixer(tiny.model, tiny.fingerprint)
    path = "model.layers.0.mlp.down_proj"
    for seed in range(MOST_PACKS + 9):
        pack = random_pack(tiny, seed, rank=1)
        small = Pack(pack.manifest, {path: pack.factors[path]})
        mixer.dress([mixer.admit({"p": small})])
    assert len(mixer._packs) <= MOST_PACKS
    assert len(mixer._sets) <= 8

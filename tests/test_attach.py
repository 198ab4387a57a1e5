from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.backend import mx, nn
from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.errors import BadPack, BaseMismatch
from mlx_plastic.lowrank.layers import DeltaLinear, dims, unwrap
from mlx_plastic.packs import Factors, Pack
from mlx_plastic.packs.wear.attach import attach, attached
from test_format import some_manifest

TOKENS = list(range(5, 25))


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def random_factors(base: Base, seed: int, rank: int, size: float = 0.05) -> dict[str, Factors]:
    random = np.random.default_rng(seed)
    made = {}
    for i, (path, linear) in enumerate(targets(base.model).items()):
        out, width = dims(linear)
        r = rank + i % 2  # ranks may differ
        a, b = (
            random.standard_normal(s).astype(np.float16) * np.float16(size) for s in ((r, width), (out, r))
        )
        made[path] = Factors(a, b, 2.0 * r)
    return made


def pack_of(base: Base, factors: Mapping[str, Factors], name: str = "p") -> Pack:
    manifest = some_manifest(dict(factors), name, base_fingerprint=base.fingerprint)
    return Pack(manifest, dict(factors))


def random_pack(base: Base, seed: int = 0, rank: int = 4, name: str = "p") -> Pack:
    return pack_of(base, random_factors(base, seed, rank), name)


def modules(model: nn.Module) -> dict[str, int]:
    return {path: id(module) for path, module in model.named_modules()}


def test_unwrapping_gives_back_the_very_same_modules_and_logits(tiny: Base) -> None:
    bare, before = tiny.logits(TOKENS), modules(tiny.model)
    attach(tiny.model, {"p": random_pack(tiny)}, fingerprint=tiny.fingerprint)
    assert not mx.array_equal(tiny.logits(TOKENS), bare)  # control: the pack does act
    unwrap(tiny.model)
    assert modules(tiny.model) == before
    assert mx.array_equal(tiny.logits(TOKENS), bare)  # bit for bit


def test_the_model_is_bare_after_an_exception(tiny: Base) -> None:
    before = modules(tiny.model)
    with (
        pytest.raises(KeyboardInterrupt),
        attached(tiny.model, {"p": random_pack(tiny)}, fingerprint=tiny.fingerprint),
    ):
        assert modules(tiny.model) != before
        raise KeyboardInterrupt
    assert modules(tiny.model) == before


def test_what_was_worn_before_is_worn_after(tiny: Base) -> None:
    one, two = random_pack(tiny, 1), random_pack(tiny, 2)
    with attached(tiny.model, {"one": one}, fingerprint=tiny.fingerprint):
        worn = tiny.logits(TOKENS)
        with attached(tiny.model, {"two": two}, fingerprint=tiny.fingerprint):
            assert not mx.array_equal(tiny.logits(TOKENS), worn)
        assert mx.array_equal(tiny.logits(TOKENS), worn)


def test_attaching_replaces_what_was_worn(tiny: Base) -> None:
    one, two = random_pack(tiny, 1), random_pack(tiny, 2)
    with attached(tiny.model, {"two": two}, fingerprint=tiny.fingerprint):
        alone = tiny.logits(TOKENS)
    attach(tiny.model, {"one": one}, fingerprint=tiny.fingerprint)
    attach(tiny.model, {"two": two}, fingerprint=tiny.fingerprint)
    assert mx.array_equal(tiny.logits(TOKENS), alone)
    unwrap(tiny.model)


def test_the_update_is_alpha_over_rank_times_b_a(tiny: Base) -> None:
    pack = random_pack(tiny)
    path, f = next(iter(pack.factors.items()))
    linear = targets(tiny.model)[path]
    x = mx.random.normal((3, dims(linear)[1]), key=mx.random.key(0))
    delta = (f.alpha / f.rank) * f.b.astype(np.float64) @ f.a.astype(np.float64)
    wanted = np.array(x, np.float64) @ (np.array(linear.weight, np.float64) + delta).T
    with attached(tiny.model, {"p": pack}, fingerprint=tiny.fingerprint):
        layer = dict(tiny.model.named_modules())[path]
        assert isinstance(layer, DeltaLinear)
        np.testing.assert_allclose(np.array(layer(x)), wanted, rtol=1e-4, atol=1e-5)  # float32, 64 terms


def test_two_packs_together_are_the_sum_of_their_updates(tiny: Base) -> None:
    one, two = random_pack(tiny, 1, rank=2), random_pack(tiny, 2, rank=5)
    path = next(iter(one.factors))
    x = mx.random.normal((3, dims(targets(tiny.model)[path])[1]), key=mx.random.key(0))

    def output(packs: dict[str, Pack], **scales: float) -> np.ndarray:
        with attached(tiny.model, packs, fingerprint=tiny.fingerprint, scales=scales):
            return np.array(dict(tiny.model.named_modules())[path](x))

    bare = np.array(targets(tiny.model)[path](x))
    sum_of_both = output({"one": one}) + output({"two": two}) - bare
    both = {"one": one, "two": two}
    np.testing.assert_allclose(output(both), sum_of_both, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output(both, two=0.0), output({"one": one}), rtol=1e-5, atol=1e-6)
    assert np.abs(output(both) - output({"one": one})).max() > 0.01  # control: the second one acts


def test_attached_says_what_is_worn(tiny: Base, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    one, two = random_pack(tiny, 1, rank=2), random_pack(tiny, 2, rank=5)
    with attached(tiny.model, {"one": one, "two": two}, fingerprint=tiny.fingerprint) as worn:
        assert worn.names == ("one", "two")
        assert set(worn.ranks.values()) == {7, 9}
    assert "attached one: rank 2, 3, alpha 4, 6, dropout 0.0 in training" in caplog.text


def test_a_quantized_base_stays_quantized(checkpoint: Path) -> None:
    base = load_base(str(checkpoint))
    nn.quantize(base.model, group_size=32, bits=4)
    bare = base.logits(TOKENS)
    pack = random_pack(base)
    with attached(base.model, {"p": pack}, fingerprint=base.fingerprint):
        assert not mx.array_equal(base.logits(TOKENS), bare)
        layer = dict(base.model.named_modules())[next(iter(pack.factors))]
        assert isinstance(layer.base, nn.QuantizedLinear)
    assert mx.array_equal(base.logits(TOKENS), bare)


def test_a_pack_of_another_base_is_refused(tiny: Base) -> None:
    bare, pack = modules(tiny.model), random_pack(tiny)
    other = dataclasses.replace(pack, manifest=dataclasses.replace(pack.manifest, base_fingerprint="0" * 64))
    with pytest.raises(BaseMismatch, match="learned on base 000000000000 \\(nano\\), but this model is"):
        attach(tiny.model, {"p": other}, fingerprint=tiny.fingerprint)
    assert modules(tiny.model) == bare


def test_every_module_that_does_not_fit_is_named_and_nothing_is_changed(tiny: Base) -> None:
    before = modules(tiny.model)
    good = random_factors(tiny, 0, 2)
    q = "model.layers.0.self_attn.q_proj"
    wrong = {
        **good,
        q: Factors(np.ones((2, 31), np.float16), np.ones((32, 2), np.float16), 1.0),
        "model.layers.0.self_attn.q_prj": good[q],
        "model.layers.9.mlp.down_proj": good[q],
        "model.layers.0.mlp.switch_mlp.up_proj": Factors(
            np.ones((3, 2, 32), np.float16), np.ones((3, 64, 2), np.float16), 1.0
        ),
        "__class__": good[q],
    }
    with pytest.raises(BadPack) as caught:
        attach(tiny.model, {"p": pack_of(tiny, wrong)}, fingerprint=tiny.fingerprint)
    for fault in (
        f"{q} is (out, in) (32, 31) in the pack and (32, 32) in the base",
        f"no linear layer model.layers.0.self_attn.q_prj; nearest: {q}",
        "no linear layer model.layers.9.mlp.down_proj; nearest: model.layers.",
        "no linear layer model.layers.0.mlp.switch_mlp.up_proj; nearest: model.layers.0.mlp.up_proj",
        "no linear layer __class__",
    ):
        assert fault in caught.value.message
    assert modules(tiny.model) == before

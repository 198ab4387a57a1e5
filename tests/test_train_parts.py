"""Parts of the trainer that change what is computed, and must not change what is learned."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.backend import mx, nn
from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.errors import TrainingFailed
from mlx_plastic.lowrank import chunked
from mlx_plastic.lowrank.layers import DeltaSwitchLinear
from mlx_plastic.lowrank.quick import summed_kl, summed_nll
from mlx_plastic.packs.train.batches import bucket, rows
from mlx_plastic.packs.train.learner import Learner, learning, new_layers
from mlx_plastic.packs.train.prefix import Activations
from mlx_plastic.packs.train.train import Progress, TrainConfig, Trained, train
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Encoded
from test_attach import modules, pack_of, random_pack
from test_train import SMALL, some_samples, twice
from tiny import make_checkpoint

UPPER = {f"model.layers.2.{name}": 3 for name in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")}


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Three blocks, so that there are frozen ones below the last."""
    return load_base(str(make_checkpoint(tmp_path_factory.mktemp("deep"), layers=3)))


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(str(make_checkpoint(tmp_path_factory.mktemp("moe"), experts=4)))


def updates(found: Trained) -> np.ndarray:
    return np.concatenate(
        [(f.b.astype(np.float32) @ f.a.astype(np.float32)).ravel() for f in found.factors.values()]
    )


def loss_and_gradient(learner: Learner, samples: list[Encoded], flat: mx.array) -> tuple[float, np.ndarray]:
    loss, gradient = learner.gradient(flat, samples)
    return loss.item(), np.array(gradient)


def moved(learner: Learner, seed: int = 3) -> mx.array:
    flat = learner.flat()
    return flat + 0.1 * mx.random.normal(flat.shape, key=mx.random.key(seed))


def mixed(n: int = 9) -> list[Encoded]:
    return [dataclasses.replace(s, soft=i % 3 == 0) for i, s in enumerate(some_samples(n))]


# --- the loss in pieces


def test_the_loss_in_pieces_is_the_loss_and_keeps_few_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    w = mx.random.normal((3000, 16), key=mx.random.key(0))
    hidden, teacher = (mx.random.normal((400, 16), key=mx.random.key(i)) for i in (1, 2))
    targets = mx.random.randint(0, 3000, (400,), key=mx.random.key(3))

    def head(h: mx.array) -> mx.array:
        return h @ w.T

    monkeypatch.setattr(
        chunked, "PIECE_BYTES", 4 * 3000 * 7
    )  # 7 positions a piece, 400 are no multiple of it
    for pieces, whole in (
        (lambda h: chunked.chunked_nll(head, h, targets, vocab=3000), lambda h: summed_nll(head(h), targets)),
        (
            lambda h: chunked.chunked_kl(head, h, teacher, vocab=3000),
            lambda h: summed_kl(head(h), head(teacher)),
        ),
    ):
        found, wanted = mx.value_and_grad(pieces)(hidden), mx.value_and_grad(whole)(hidden)
        mx.eval(found, wanted)
        assert found[0].item() == pytest.approx(wanted[0].item(), rel=1e-5)
        np.testing.assert_allclose(np.array(found[1]), np.array(wanted[1]), rtol=1e-5, atol=1e-4)
        peaks = []
        for compute in (pieces, whole):
            mx.clear_cache()
            mx.reset_peak_memory()
            before = mx.get_active_memory()
            mx.eval(mx.value_and_grad(compute)(hidden))
            peaks.append(mx.get_peak_memory() - before)
        assert peaks[0] < peaks[1] / 3  # control: the whole logits are 4.8 MB, several times over
    scored = chunked.chunked_nll(head, hidden, targets, vocab=3000, learning=False)
    assert scored.item() == pytest.approx(summed_nll(head(hidden), targets).item(), rel=1e-5)


# --- what does not learn is computed once


def test_the_frozen_part_is_computed_once_and_the_steps_are_the_same(deep: Base) -> None:
    config = dataclasses.replace(SMALL, steps=20)
    samples, valid = mixed(), mixed(4)
    before = modules(deep.model)
    plain = train(deep, samples, valid, dataclasses.replace(config, cache_mb=0), ranks=UPPER)
    cached = train(deep, samples, valid, config, ranks=UPPER)
    assert modules(deep.model) == before
    assert plain.report.cache_mb == 0 and cached.report.cache_mb > 0  # control: one of them did keep some
    for a, b in zip(plain.report.losses, cached.report.losses, strict=True):
        assert a.valid == pytest.approx(b.valid, abs=1e-5)
    np.testing.assert_allclose(updates(cached), updates(plain), atol=2e-3)  # 20 steps of float32 rounding


@pytest.mark.parametrize("packed", [False, True])
def test_cached_states_give_the_loss_and_gradient_of_the_whole_model(deep: Base, packed: bool) -> None:
    samples = mixed()
    cache = Activations("deep", most_bytes=10**7)
    layers = new_layers(deep.model, UPPER, scale=twice, dropout=0.0, seed=0)
    with learning(deep.model, layers, cache=cache, packing=packed) as learner:
        assert learner.handoff is not None and learner.packed == packed
        flat = moved(learner)
        first = loss_and_gradient(learner, samples, flat)
        misses = cache.misses
        second = loss_and_gradient(learner, samples, flat)
        assert cache.misses == misses > 0 and cache.hits >= misses  # control: the second time all is known
        learner.cache = None
        plain = loss_and_gradient(learner, samples, flat)
    for loss, gradient in (first, second):
        assert loss == pytest.approx(plain[0], rel=1e-5)
        np.testing.assert_allclose(gradient, plain[1], atol=1e-4 * np.abs(plain[1]).max())


def test_a_full_cache_computes_the_rest_and_a_disk_outlives_the_process(deep: Base, tmp_path: Path) -> None:
    samples = some_samples()
    layers = new_layers(deep.model, UPPER, scale=twice, dropout=0.0, seed=0)
    with learning(deep.model, layers) as learner:
        flat = moved(learner)
        wanted = loss_and_gradient(learner, samples, flat)[0]
    for most, folder in ((10**7, None), (3000, None), (0, tmp_path), (0, tmp_path)):
        cache = Activations("deep", most_bytes=most, folder=folder, most_disk_bytes=10**7)
        with learning(deep.model, layers, cache=cache) as learner:
            for _ in range(2):
                assert loss_and_gradient(learner, samples, flat)[0] == pytest.approx(wanted, rel=1e-5)
        assert cache.bytes <= most
    assert cache.misses == 0 and cache.hits == 2 * len(samples)  # the second one found the first one's files
    for file in tmp_path.iterdir():
        file.write_bytes(b"\x93NUMPY torn")
    torn = Activations("deep", most_bytes=0, folder=tmp_path, most_disk_bytes=10**7)
    with learning(deep.model, layers, cache=torn) as learner:
        assert loss_and_gradient(learner, samples, flat)[0] == pytest.approx(wanted, rel=1e-5)
    assert torn.hits == 0


def test_what_was_kept_under_another_pack_is_not_used(deep: Base, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, cache_mb=1, steps=0, epochs=1.0)
    random = np.random.default_rng(0)
    samples = [  # more states than fit into a megabyte: some go to the disk
        Encoded(tuple(map(int, random.integers(5, 200, 121))), (*[False] * 120, True)) for _ in range(100)
    ]

    def entries() -> set[str]:
        train(deep, samples, [], config, ranks=UPPER, cache_folder=tmp_path)
        return {file.name for file in tmp_path.iterdir()}

    first = entries()
    assert first and entries() == first  # control: the same training writes no more
    with attached(deep.model, {"worn": random_pack(deep)}, fingerprint=deep.fingerprint):
        assert first < entries()  # other states, under other names


# --- rows


def test_packed_rows_have_few_widths_and_lose_nothing() -> None:
    samples = some_samples(40)
    made = rows(samples, packed=True)
    assert made.tokens.shape[1] == bucket(1) == 256
    assert made.tokens.shape[0] <= 1 + made.fed // 200
    for sample, (row, start) in zip(samples, made.places, strict=True):
        lie = made.tokens[row, start : start + len(sample.tokens) - 1]
        assert lie.tolist() == list(sample.tokens[:-1])
        assert len(set(made.segments[row, start : start + len(lie)].tolist())) == 1
    assert sorted(made.targets.tolist()) == sorted(
        t for s in samples for t, y in zip(s.tokens, s.targets, strict=True) if y
    )
    assert len({bucket(n) for n in range(1, 4097)}) == 9


def test_packed_samples_do_not_see_each_other(deep: Base) -> None:
    samples = mixed(20)
    layers = new_layers(deep.model, dict.fromkeys(targets(deep.model), 2), scale=twice, dropout=0.0, seed=0)
    with learning(deep.model, layers) as learner:
        flat = moved(learner)
        wanted = loss_and_gradient(learner, samples, flat)
    with learning(deep.model, layers, packing=True) as learner:
        assert learner.packed
        found = loss_and_gradient(learner, samples, flat)
        one_segment = learner._groups(samples[:6], learner.parts(flat))[0].rows
        assert len(one_segment.places) > len(one_segment.tokens)  # control: several do share a row
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-4 * np.abs(wanted[1]).max())


def test_a_model_that_cannot_be_told_is_not_packed() -> None:
    """GPT-2 has absolute positions: behind another sample a text would be another."""
    from mlx_lm.models import gpt2

    sizes = {"n_ctx": 64, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 64}
    model = gpt2.Model(gpt2.ModelArgs.from_dict({"model_type": "gpt2", "layer_norm_epsilon": 1e-5, **sizes}))
    layers = new_layers(model, dict.fromkeys(targets(model), 2), scale=twice, dropout=0.0, seed=0)
    with learning(model, layers, packing=True) as learner:
        assert not learner.packed


# --- memory, accumulation


def test_checkpointed_blocks_give_the_same_gradient(deep: Base) -> None:
    samples = some_samples()
    found = []
    before = modules(deep.model)
    for again in (False, True):
        layers = new_layers(
            deep.model, dict.fromkeys(targets(deep.model), 2), scale=twice, dropout=0.2, seed=0
        )
        with learning(deep.model, layers, grad_checkpoint=again) as learner:
            kinds = {type(m).__name__ for m in deep.model.layers}
            assert kinds == ({"Checkpointed"} if again else {"TransformerBlock"})
            loss, gradient = learner.gradient(moved(learner), samples, key=mx.random.key(5))
            found.append((loss.item(), np.array(gradient)))
    assert modules(deep.model) == before
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5 * np.abs(found[0][1]).max())


def test_accumulated_batches_weigh_every_target_the_same(deep: Base) -> None:
    samples = some_samples(8)
    small = dataclasses.replace(SMALL, batch_tokens=64, steps=3, warmup_fraction=0.0)
    accumulated = train(deep, samples, [], dataclasses.replace(small, accumulate=100, steps=0, epochs=1.0))
    whole = train(deep, samples, [], dataclasses.replace(small, batch_tokens=10_000, steps=0, epochs=1.0))
    several = train(deep, samples, [], dataclasses.replace(small, steps=0, epochs=1.0))
    assert accumulated.report.steps == whole.report.steps == 1 < several.report.steps  # control
    assert accumulated.report.losses[-1].train == pytest.approx(whole.report.losses[-1].train, rel=1e-5)
    assert accumulated.report.supervised_tokens == whole.report.supervised_tokens
    np.testing.assert_allclose(updates(accumulated), updates(whole), atol=2e-5)


# --- ranks, scales, experts


def test_each_module_has_the_rank_it_is_given(deep: Base) -> None:
    ranks = {"model.layers.0.self_attn.v_proj": 1, "model.layers.2.mlp.up_proj": 5}
    found = train(deep, some_samples(), [], SMALL, ranks=ranks)
    assert {path: f.rank for path, f in found.factors.items()} == ranks
    assert {path: f.alpha for path, f in found.factors.items()} == {p: 2.0 * r for p, r in ranks.items()}
    with pytest.raises(ValueError, match="q_prj"):
        train(deep, some_samples(), [], SMALL, ranks={"model.layers.0.self_attn.q_prj": 1})


def test_rank_stabilized_updates_are_scaled_by_the_root_of_the_rank(deep: Base) -> None:
    ranks = {"model.layers.0.self_attn.v_proj": 4, "model.layers.2.mlp.up_proj": 9}
    config = dataclasses.replace(SMALL, alpha=6.0, rs_lora=True)
    found = train(deep, some_samples(), [], config, ranks=ranks)
    assert {path: f.scale for path, f in found.factors.items()} == {
        "model.layers.0.self_attn.v_proj": 3.0,
        "model.layers.2.mlp.up_proj": 2.0,
    }


def test_experts_learn_only_when_asked_and_are_worn_as_they_learned(moe: Base) -> None:
    samples = some_samples()
    assert not any("switch_mlp" in path for path in targets(moe.model))
    config = dataclasses.replace(SMALL, roles="experts", steps=20)
    before, bare = modules(moe.model), moe.logits(range(5, 20))
    found = train(moe, samples, samples[:4], config)
    assert modules(moe.model) == before and mx.array_equal(moe.logits(range(5, 20)), bare)
    shapes = {path.rsplit(".", 1)[1]: (f.a.shape, f.b.shape) for path, f in found.factors.items()}
    assert shapes["up_proj"] == ((4, 4, 32), (4, 64, 4)) and shapes["down_proj"] == ((4, 4, 64), (4, 32, 4))
    first, best = found.report.losses[0].valid, min(p.valid for p in found.report.losses if p.valid)
    assert first and best < first - 0.1
    with attached(moe.model, {"p": pack_of(moe, found.factors)}, fingerprint=moe.fingerprint) as worn:
        assert set(worn.ranks.values()) == {4}
        assert isinstance(moe.model.layers[0].mlp.switch_mlp.up_proj, DeltaSwitchLinear)
        nll = sum(value for value, _ in moe.nll(samples[:4])) / sum(s.supervised for s in samples[:4])
    assert nll == pytest.approx(best, abs=2e-3)  # the factors, rounded to float16


def test_an_expert_gets_its_own_update_and_no_other(moe: Base) -> None:
    stack = moe.model.layers[0].mlp.switch_mlp.up_proj
    a, b = (mx.random.normal(shape, key=mx.random.key(i)) for i, shape in enumerate([(4, 2, 32), (4, 64, 2)]))
    layer = DeltaSwitchLinear(stack, a, b, scale=0.5)
    x, indices = mx.random.normal((5, 1, 1, 32), key=mx.random.key(9)), mx.array([[0], [3], [1], [1], [2]])
    found = layer(x, indices)[:, 0, 0]
    for i, e in enumerate([0, 3, 1, 1, 2]):
        wanted = x[i, 0, 0] @ (stack.weight[e] + 0.5 * b[e] @ a[e]).T
        np.testing.assert_allclose(np.array(found[i]), np.array(wanted), atol=1e-4)
        assert mx.abs(found[i] - x[i, 0, 0] @ stack.weight[e].T).max().item() > 0.1  # control: it acts


# --- numbers that are none


def test_numbers_that_are_none_go_back_to_the_best_step(
    deep: Base, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    samples = some_samples()
    stock = Learner.gradient

    def breaks(
        self: Learner, flat: mx.array, part: list[Encoded], **rest: object
    ) -> tuple[mx.array, mx.array]:
        loss, gradient = stock(self, flat, part, **rest)  # type: ignore[arg-type]
        self.__dict__["calls"] = self.__dict__.get("calls", 0) + 1
        return (loss * float("nan") if self.__dict__["calls"] == 15 else loss), gradient

    config = dataclasses.replace(SMALL, steps=40, valid_every=4)
    wanted = train(deep, samples, samples[:4], config)
    monkeypatch.setattr(Learner, "gradient", breaks)
    caplog.set_level(logging.WARNING)
    found = train(deep, samples, samples[:4], config)
    assert found.report.steps == 14 and "at step 15 of 40" in found.report.stopped
    assert found.report.best_step in (4, 8, 12) and "back to step" in caplog.text
    assert found.report.losses == wanted.report.losses[: len(found.report.losses)]
    with pytest.raises(TrainingFailed, match="at step 15"):  # nothing tells which step was good
        train(deep, samples, [], config)


def test_schedules_end_where_they_should() -> None:
    for schedule, last in (("cosine", 0.1), ("linear", 0.1), ("constant", 1.0)):
        config = TrainConfig(learning_rate=1.0, schedule=schedule)  # type: ignore[arg-type]
        rates = [config.rate(step, 1000) for step in range(1000)]
        assert max(rates) == 1.0 and rates[-1] == pytest.approx(last, abs=1e-3)
        assert rates[100:] == sorted(rates[100:], reverse=True)


def test_a_quantized_base_below_is_entered_half_way_too(deep: Base) -> None:
    base = load_base(str(deep.path))
    nn.quantize(base.model, group_size=32, bits=8)
    ticks: list[Progress] = []
    found = train(base, some_samples(), [], SMALL, ranks=UPPER, on_progress=ticks.append)
    assert found.report.cache_mb > 0 and ticks[-1].loss < ticks[0].loss

from __future__ import annotations

import dataclasses
import importlib
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.backend import mx, nn
from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.errors import BadPack, PlasticError, TrainingFailed
from mlx_plastic.lowrank.quick import quick_activations, quick_exp, summed_kl, summed_nll
from mlx_plastic.packs.train.batches import epoch_plan, plan, rows, share, windows
from mlx_plastic.packs.train.learner import learning, new_layers
from mlx_plastic.packs.train.train import Progress, TrainConfig, data_card, train
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Encoded, Message, Sample
from test_attach import modules, pack_of, random_pack

SMALL = TrainConfig(rank=4, learning_rate=5e-3, batch_tokens=96, steps=12, valid_every=4, checkpoint_every=1)


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def some_samples(n: int = 12, seed: int = 0, vocab: int = 200) -> list[Encoded]:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        length = int(random.integers(4, 30))
        targets = random.random(length) < 0.4
        targets[0], targets[-1] = False, True
        made.append(Encoded(tuple(map(int, random.integers(5, vocab, length))), tuple(map(bool, targets))))
    return made


def deltas(found: object) -> list[np.ndarray]:
    return [f.b.astype(np.float32) @ f.a.astype(np.float32) for f in found.factors.values()]  # type: ignore[attr-defined]


# --- batches


def test_every_sample_is_used_once_in_every_epoch() -> None:
    lengths = [len(s.tokens) for s in some_samples(53)]
    orders = set()
    for epoch in range(5):
        batches = epoch_plan(lengths, 64, seed=1, epoch=epoch)
        assert sorted(i for batch in batches for i in batch) == list(range(53))
        assert all(len(b) * max(lengths[i] for i in b) <= 64 for b in batches)
        orders.add(str(batches))
    assert len(orders) == 5  # control: the order does change
    assert epoch_plan(lengths, 64, seed=1, epoch=2) == epoch_plan(lengths, 64, seed=1, epoch=2)
    whole = plan(lengths, 64, seed=1, epochs=2.0, steps=0)
    assert set(Counter(i for batch in whole for i in batch).values()) == {2}
    assert len(plan(lengths, 64, seed=1, epochs=2.0, steps=7)) == 7
    assert 0 < len(plan(lengths, 64, seed=1, epochs=0.01, steps=0)) < len(whole)


def test_a_sample_longer_than_a_batch_is_a_batch() -> None:
    batches = epoch_plan([500, 3, 3], 64, seed=0, epoch=0)
    assert sorted(map(sorted, batches)) == [[0], [1, 2]]


def test_little_is_padding() -> None:
    samples = some_samples(200)
    batches = plan([len(s.tokens) for s in samples], 256, seed=0, epochs=1, steps=0)
    made = [rows(group) for b in batches for group in share([samples[i] for i in b], 2)]
    assert sum(r.tokens.size for r in made) / sum(r.fed for r in made) < 1.25


def test_windows_lose_no_target_and_repeat_none() -> None:
    for sample in some_samples(40, seed=3):
        pieces = windows(sample, 7)
        assert all(len(p.tokens) <= 7 and not p.targets[0] for p in pieces)
        assert sum(p.supervised for p in pieces) == sample.supervised
        predicted = [t for p in pieces for t, is_target in zip(p.tokens, p.targets, strict=True) if is_target]
        assert predicted == [t for t, y in zip(sample.tokens, sample.targets, strict=True) if y]
    assert windows(Encoded((1, 2, 3), (False, False, False)), 7) == []


def test_rows_point_at_the_token_before_each_target() -> None:
    made = rows([Encoded((7, 8, 9), (False, False, True)), Encoded((4, 5), (False, True))])
    assert made.tokens.tolist() == [[7, 8], [4, 0]]
    assert made.positions.tolist() == [1, 2]
    assert made.targets.tolist() == [9, 5]
    assert made.fed == 3


# --- losses and gradients


def twice(rank: int) -> float:
    """The scale where alpha is twice the rank."""
    return 2.0


def plain_loss(base: Base, samples: list[Encoded]) -> mx.array:
    """Token-weighted, sample by sample, all logits: slow and plainly right."""
    total, count = mx.array(0.0), 0
    for s in samples:
        logits = base.model(mx.array([s.tokens]))[0].astype(mx.float32)
        for i, is_target in enumerate(s.targets):
            if is_target:
                total = total + mx.logsumexp(logits[i - 1]) - logits[i - 1][s.tokens[i]]
                count += 1
    return total / count


@pytest.mark.parametrize("gathered", [True, False])
def test_loss_and_gradient_are_those_of_a_plain_loss_over_all_logits(tiny: Base, gathered: bool) -> None:
    samples = some_samples(7)
    paths = [f"model.layers.{i}.{m}" for i in (0, 1) for m in ("self_attn.k_proj", "mlp.down_proj")]
    layers = new_layers(tiny.model, dict.fromkeys(paths, 3), scale=twice, dropout=0.0, seed=0)
    for i, layer in enumerate(layers.values()):
        layer.b = mx.random.normal(layer.b.shape, key=mx.random.key(i)) * 0.1
    with learning(tiny.model, layers) as learner:
        assert learner.gather is not None  # control: the quick way is what is tested
        flat = learner.flat()
        if not gathered:
            learner.gather = None
        loss, gradient = learner.gradient(flat, samples)
        summed = learner.loss(flat, samples)
        mx.eval(loss, gradient, summed)
        count = sum(s.supervised for s in samples)
        loss, gradient = loss / count, gradient / count

        def of_flat(flat: mx.array) -> mx.array:
            parts = learner.parts(flat)
            for i, layer in enumerate(learner.layers.values()):
                layer.a, layer.b = parts[2 * i], parts[2 * i + 1]
            return plain_loss(tiny, samples)

        wanted, wanted_gradient = mx.value_and_grad(of_flat)(flat)
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)  # float32, two ways to round
        assert summed.item() / count == pytest.approx(wanted.item(), rel=1e-5)
        size = mx.max(mx.abs(wanted_gradient)).item()
        assert mx.max(mx.abs(gradient - wanted_gradient)).item() < 1e-4 * size
        assert size > 1e-3  # control: there is a gradient


ARCHITECTURES: dict[str, dict[str, object]] = {
    "gemma2": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-6, "vocab_size": 64},
    "gpt2": {"n_ctx": 64, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 64}
    | {"layer_norm_epsilon": 1e-5},
    "cohere": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "layer_norm_eps": 1e-5, "vocab_size": 64, "logit_scale": 0.06},
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_other_architectures_give_the_same_loss_gathered_or_not(kind: str) -> None:
    """Soft-capped logits, a scaled head, other names: the model's own head is what is called."""
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    mx.random.seed(0)
    model = module.Model(module.ModelArgs.from_dict({"model_type": kind, **ARCHITECTURES[kind]}))
    model.freeze()
    model.eval()
    paths = list(targets(model))
    with learning(
        model, new_layers(model, dict.fromkeys(paths, 2), scale=twice, dropout=0.0, seed=0)
    ) as learner:
        assert learner.gather is not None
        flat = learner.flat()
        samples = some_samples(5, vocab=60)
        gathered = learner.loss(flat, samples).item()
        learner.gather = None
        assert gathered == pytest.approx(learner.loss(flat, samples).item(), rel=1e-5)


def test_the_quick_exponential_is_the_exponential() -> None:
    x = mx.array(np.linspace(-87, 87, 20_001, dtype=np.float32))
    wanted = np.exp(np.array(x, np.float64))
    np.testing.assert_allclose(np.array(quick_exp(x)), wanted, rtol=1e-5)  # x * log2(e) rounds by 6e-8 * 87
    near = np.linspace(-2, 2, 4001, dtype=np.float32)
    np.testing.assert_allclose(
        np.array(quick_exp(mx.array(near))), np.exp(near.astype(np.float64)), rtol=3e-7
    )
    assert quick_exp(mx.array([-1e30, -200.0])).tolist() == [2**-126, 2**-126]


def test_a_soft_sample_is_learned_as_the_distribution_without_the_updates(tiny: Base) -> None:
    soft = [dataclasses.replace(s, soft=True) for s in some_samples(4)]
    layers = new_layers(tiny.model, {"model.layers.1.mlp.up_proj": 3}, scale=twice, dropout=0.0, seed=0)
    bare = [tiny.logits(s.tokens).astype(mx.float32) for s in soft]
    with learning(tiny.model, layers) as learner:
        flat = learner.flat()
        count = sum(s.supervised for s in soft)
        loss, gradient = (x / count for x in learner.gradient(flat, soft))
        assert abs(loss.item()) < 1e-4  # nothing is learned yet: no drift, and nothing pulls
        assert mx.max(mx.abs(gradient)).item() < 1e-4  # two exponentials, each right to 2e-7
        moved = flat + 0.3 * mx.random.normal(flat.shape, key=mx.random.key(3))
        found = learner.loss(moved, soft).item()
        hard = learner.loss(moved, [dataclasses.replace(s, soft=False) for s in soft]).item()
        layers_now = learner.parts(moved)
        for i, layer in enumerate(learner.layers.values()):
            layer.a, layer.b = layers_now[2 * i], layers_now[2 * i + 1]
        wanted = 0.0
        for sample, base_logits in zip(soft, bare, strict=True):
            with_updates = tiny.model(mx.array(list(sample.tokens))[None])[0].astype(mx.float32)
            p, q = (x - mx.logsumexp(x, axis=-1, keepdims=True) for x in (base_logits, with_updates))
            kl = mx.sum(mx.exp(p) * (p - q), axis=-1)
            wanted += sum(kl[i - 1].item() for i, target in enumerate(sample.targets) if target)
    assert wanted > 1e-3  # control: the updates do move the model
    assert found == pytest.approx(wanted, rel=1e-2)  # a small difference of float32 sums
    assert hard > 2 * found  # control: the words themselves are another loss


def test_the_kl_has_the_gradient_that_mlx_would_find() -> None:
    logits, teacher = (mx.random.normal((9, 50), key=mx.random.key(i)) * 4 for i in (1, 2))

    def stock(x: mx.array) -> mx.array:
        p, q = (y - mx.logsumexp(y, axis=-1, keepdims=True) for y in (teacher, x))
        return mx.sum(mx.exp(p) * (p - q))

    found, found_slope = mx.value_and_grad(lambda x: 3.0 * summed_kl(x, teacher))(logits)
    wanted, wanted_slope = mx.value_and_grad(lambda x: 3.0 * stock(x))(logits)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    np.testing.assert_allclose(np.array(found_slope), np.array(wanted_slope), atol=1e-5)
    assert summed_kl(teacher, teacher).item() == pytest.approx(0.0, abs=1e-4)


def test_quick_silu_and_its_gradient_are_those_of_mlx() -> None:
    x = mx.array(np.linspace(-120, 120, 4001, dtype=np.float32))
    stock = nn.silu

    def value_and_slope() -> tuple[np.ndarray, np.ndarray]:
        return np.array(nn.silu(x)), np.array(mx.grad(lambda x: nn.silu(x).sum())(x))

    wanted = value_and_slope()
    with quick_activations():
        found = value_and_slope()
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert nn.silu is stock


def test_the_cross_entropy_is_that_of_mlx_in_value_and_gradient() -> None:
    logits = mx.random.normal((9, 50), key=mx.random.key(1)) * 10
    targets = mx.random.randint(0, 50, (9,), key=mx.random.key(2))

    def stock(x: mx.array) -> mx.array:
        return nn.losses.cross_entropy(x, targets, reduction="sum")

    found, found_slope = mx.value_and_grad(lambda x: 3.0 * summed_nll(x, targets))(logits)
    wanted, wanted_slope = mx.value_and_grad(lambda x: 3.0 * stock(x))(logits)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    np.testing.assert_allclose(np.array(found_slope), np.array(wanted_slope), atol=1e-6)


# --- training


def test_training_learns_and_leaves_the_model_bare(tiny: Base) -> None:
    samples = some_samples()
    before, bare = modules(tiny.model), tiny.logits(range(5, 20))
    ticks: list[Progress] = []
    found = train(tiny, samples, samples[:4], dataclasses.replace(SMALL, steps=40), on_progress=ticks.append)
    assert modules(tiny.model) == before
    assert mx.array_equal(tiny.logits(range(5, 20)), bare)
    first, last = found.report.losses[0], found.report.losses[-1]
    assert first.valid and last.valid and last.valid < first.valid - 0.3
    assert [t.step for t in ticks] == list(range(1, 41)) and ticks[-1].eta_s == 0
    assert found.report.tokens > 0 and found.report.tokens_per_s > 0 and found.report.peak_memory_mb > 0
    with attached(tiny.model, {"p": pack_of(tiny, found.factors)}, fingerprint=tiny.fingerprint):
        nll = sum(value for value, _ in tiny.nll(samples[:4])) / sum(s.supervised for s in samples[:4])
    best = min(p.valid for p in found.report.losses if p.valid)
    assert nll == pytest.approx(best, abs=2e-3)  # the factors are the best ones, rounded to float16


def test_the_same_seed_gives_the_same_pack_and_another_does_not(tiny: Base) -> None:
    one, same = (train(tiny, some_samples(), [], SMALL) for _ in range(2))
    other = train(tiny, some_samples(), [], dataclasses.replace(SMALL, seed=1))
    assert all(np.array_equal(a, b) for a, b in zip(deltas(one), deltas(same), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(deltas(one), deltas(other), strict=True))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_training_killed_in_the_middle_ends_bit_for_bit_the_same(
    tiny: Base, tmp_path: Path, dropout: float
) -> None:
    config = dataclasses.replace(SMALL, dropout=dropout)
    samples, valid = some_samples(), some_samples(4, seed=9)
    whole = train(tiny, samples, valid, config)
    before = modules(tiny.model)

    def killer(progress: Progress) -> None:
        if progress.step == 7:
            raise Killed

    with pytest.raises(Killed):
        train(tiny, samples, valid, config, checkpoint=tmp_path, on_progress=killer)
    assert modules(tiny.model) == before
    ticks: list[Progress] = []
    resumed = train(tiny, samples, valid, config, checkpoint=tmp_path, on_progress=ticks.append)
    assert ticks[0].step == 8  # control: it did go on, not begin anew
    assert all(np.array_equal(a, b) for a, b in zip(deltas(resumed), deltas(whole), strict=True))
    assert resumed.report.losses == whole.report.losses
    assert resumed.report.tokens == whole.report.tokens
    again = train(tiny, samples, valid, config, checkpoint=tmp_path)  # killed after the last step
    assert all(np.array_equal(a, b) for a, b in zip(deltas(again), deltas(whole), strict=True))


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_used(tiny: Base, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, steps=3)
    train(tiny, some_samples(), [], config, checkpoint=tmp_path)

    def first_step(samples: list[Encoded]) -> int:
        ticks: list[Progress] = []
        train(tiny, samples, [], config, checkpoint=tmp_path, on_progress=ticks.append)
        return ticks[0].step if ticks else 0

    assert first_step(some_samples()) == 0  # control: the same one is done already
    assert first_step(some_samples(seed=5)) == 1
    file = tmp_path / "training.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert first_step(some_samples(seed=5)) == 1


def test_numbers_that_are_none_stop_the_training_with_the_model_bare(tiny: Base) -> None:
    before = modules(tiny.model)
    with pytest.raises(TrainingFailed, match=r"at step \d+ of 12") as caught:
        train(tiny, some_samples(), [], dataclasses.replace(SMALL, learning_rate=1e30))
    assert "smaller learning rate" in caught.value.hint
    assert modules(tiny.model) == before


def test_training_beside_a_worn_pack_learns_what_it_lacks(tiny: Base) -> None:
    worn = random_pack(tiny, seed=3, rank=2)
    alone = train(tiny, some_samples(), [], SMALL)
    with attached(tiny.model, {"worn": worn}, fingerprint=tiny.fingerprint):
        before = modules(tiny.model)
        beside = train(tiny, some_samples(), some_samples(3), SMALL)
        assert modules(tiny.model) == before
        nll = sum(v for v, _ in tiny.nll(some_samples(3))) / sum(s.supervised for s in some_samples(3))
    assert beside.report.losses[0].valid == pytest.approx(nll, rel=1e-4)  # it began from base + worn
    assert sorted(beside.factors) == sorted(alone.factors)
    assert not all(np.array_equal(a, b) for a, b in zip(deltas(alone), deltas(beside), strict=True))


def test_a_warm_start_begins_where_the_pack_stands(tiny: Base) -> None:
    samples = some_samples()
    first = train(tiny, samples, samples, SMALL)
    pack = pack_of(tiny, first.factors)
    on = train(tiny, samples, samples, dataclasses.replace(SMALL, alpha=4.0), start=pack)  # another alpha
    best = min(p.valid for p in first.report.losses if p.valid)
    assert on.report.losses[0].valid == pytest.approx(best, abs=2e-3)  # float16
    with pytest.raises(BadPack, match="not of the shape") as caught:
        train(tiny, samples, [], dataclasses.replace(SMALL, rank=2, roles="mlp"), start=pack)
    for fault in ("q_proj is in only one", "down_proj is (4, 64), (32, 4), not (2, 64), (32, 2)"):
        assert fault in caught.value.message


def test_roles_choose_the_modules(tiny: Base) -> None:
    config = dataclasses.replace(SMALL, steps=1, roles="attn.q_proj, mlp.down_proj")
    found = train(tiny, some_samples(), [], config)
    assert {path.rsplit(".", 1)[1] for path in found.factors} == {"q_proj", "down_proj"}
    assert all(f.alpha == 8.0 for f in found.factors.values())  # twice the rank
    with pytest.raises(PlasticError, match="mpl"):
        train(tiny, some_samples(), [], dataclasses.replace(SMALL, roles="mpl.down_proj"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"rank": 0}, "rank is 0"), ({"dropout": 1.0}, "dropout"), ({"steps": 0, "epochs": 0.0}, "neither")],
)
def test_settings_that_make_no_sense_are_refused(tiny: Base, change: dict[str, float], reason: str) -> None:
    with pytest.raises(TrainingFailed, match=reason):
        train(tiny, some_samples(), [], dataclasses.replace(SMALL, **change))


def test_nothing_to_learn_is_an_error(tiny: Base) -> None:
    for samples in ([], [Encoded((5, 6, 7), (False, False, False))]):
        with pytest.raises(TrainingFailed, match="no sample has anything to learn"):
            train(tiny, samples, [], SMALL)


def test_a_quantized_base_is_trained_as_it_is(checkpoint: Path) -> None:
    base = load_base(str(checkpoint))
    nn.quantize(base.model, group_size=32, bits=8)
    found = train(base, some_samples(), some_samples(), dataclasses.replace(SMALL, steps=20))
    first, last = found.report.losses[0].valid, found.report.losses[-1].valid
    assert first and last and last < first - 0.1
    assert isinstance(base.model.model.layers[0].self_attn.q_proj, nn.QuantizedLinear)


def test_the_learning_rate_warms_up_and_falls_to_a_tenth() -> None:
    config = TrainConfig(learning_rate=1.0, warmup_fraction=0.1)
    rates = [config.rate(step, 100) for step in range(100)]
    assert rates[0] < 0.1 and max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0.1 <= rates[-1] < 0.11
    assert all(math.isfinite(config.rate(step, steps)) for steps in (1, 2) for step in range(steps))


def test_the_data_card_counts_and_holds_no_text() -> None:
    said = (Message("user", "my secret"), Message("assistant", "noted"))
    samples = [
        Encoded((1, 2, 3), (False, True, True), Sample(said, kind=kind)) for kind in ("qa", "chat", "qa")
    ]
    card = data_card(samples)
    assert (card.samples, card.tokens, card.supervised_tokens) == (3, 9, 6)
    assert card.kinds == {"chat": 1, "qa": 2}
    assert "secret" not in repr(card)
    assert data_card(samples[:2]).digest != card.digest


def test_the_last_factors_are_kept_where_asked_and_else_those_with_the_lowest_loss(tiny: Base) -> None:
    """Random samples are learned by heart, so that what is held out gets worse from some step on."""
    samples, valid = some_samples(), some_samples(4, seed=9)
    config = dataclasses.replace(SMALL, learning_rate=3e-2, steps=24, valid_every=2)
    best = train(tiny, samples, valid, config)
    last = train(tiny, samples, valid, dataclasses.replace(config, keep="last"))
    assert best.report.best_step < best.report.steps == 24
    assert last.report.best_step == 24
    assert [p.valid for p in best.report.losses] == [p.valid for p in last.report.losses]  # the same training
    assert any(not np.array_equal(last.factors[path].b, f.b) for path, f in best.factors.items())

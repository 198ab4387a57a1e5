"""Packs within a budget of bytes: the allocation against brute force, the cut against SVD and real files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.errors import PlasticError
from mlx_plastic.packs.format.pack import Factors, read_pack, stored_factors, tensor_bytes, write_pack
from mlx_plastic.packs.ranks.allocate import Offer, allocate
from mlx_plastic.packs.ranks.budget import cut_to, fit, heal, join, measure, rank_to_train, split, weighed
from mlx_plastic.packs.ranks.ranks import shapes_of
from mlx_plastic.packs.ranks.sizes import file_bytes_bound
from mlx_plastic.packs.ranks.taps import layer_inputs
from mlx_plastic.packs.train.train import TrainConfig, train
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Encoded
from test_attach import pack_of, random_factors
from tiny import make_checkpoint

STORAGES = ("float16", "int8", "int4")


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def brute_force(offers: Mapping[str, Offer], budget: int) -> float:
    """The largest gain of any ranks within the budget."""
    best = 0.0
    for ranks in itertools.product(*[range(len(o.gains) + 1) for o in offers.values()]):
        pairs = list(zip(offers.values(), ranks, strict=True))
        if sum(o.bytes_at(r) for o, r in pairs) <= budget:
            best = max(best, sum(sum(o.gains[:r]) for o, r in pairs))
    return best


def some_offers(seed: int) -> dict[str, Offer]:
    random = np.random.default_rng(seed)
    return {
        f"m{i}": Offer(
            np.sort(random.exponential(size=4) ** 2)[::-1].tolist(),
            int(random.integers(1, 9)),
            int(random.integers(0, 12)),
        )
        for i in range(4)
    }


@pytest.mark.parametrize("seed", range(30))
def test_the_allocation_is_the_best_but_for_one_part(seed: int) -> None:
    offers = some_offers(seed)
    budget = int(np.random.default_rng(seed).integers(5, 90))
    found, best = allocate(offers, budget), brute_force(offers, budget)
    assert found.gain <= best + 1e-9 <= found.bound + 2e-9
    assert found.bytes == sum(offers[p].bytes_at(r) for p, r in found.ranks.items()) <= budget
    assert found.gain == pytest.approx(sum(sum(offers[p].gains[:r]) for p, r in found.ranks.items()))
    assert best - found.gain <= max(max(o.gains) for o in offers.values()) + 1e-9


def test_the_allocation_is_mostly_the_very_best() -> None:
    cases = [(some_offers(seed), budget) for seed in range(20) for budget in (10, 30, 60)]
    shares = [allocate(o, b).gain / brute_force(o, b) for o, b in cases if brute_force(o, b)]
    assert np.mean(shares) > 0.97 and np.mean(np.isclose(shares, 1.0)) > 0.5


def test_of_equal_cost_the_largest_values_are_kept() -> None:
    offers = {"a": Offer([9.0, 4.0, 1.0], 2), "b": Offer([8.0, 0.5], 2), "c": Offer([3.0], 2)}
    assert allocate(offers, 6).ranks == {"a": 2, "b": 1}
    assert allocate(offers, 1).ranks == {} and allocate(offers, 0).ranks == {}
    assert allocate(offers, 100).ranks == {"a": 3, "b": 2, "c": 1}


def test_a_module_is_kept_only_if_it_earns_its_names_in_the_header() -> None:
    alike = {"a": Offer([5.0, 4.0], 10, 50), "b": Offer([5.0, 4.0], 10, 50)}
    assert allocate(alike, 70).ranks == {"a": 2}
    assert allocate({p: Offer(o.gains, 10) for p, o in alike.items()}, 20).ranks == {
        "a": 1,
        "b": 1,
    }  # control


def a_factor(rank: int = 6, out: int = 20, width: int = 30, seed: int = 0) -> Factors:
    random = np.random.default_rng(seed)
    a, b = random.standard_normal((rank, width)), random.standard_normal((out, rank))
    return Factors(a.astype(np.float16), b.astype(np.float16), 3.0)


def update(f: Factors) -> np.ndarray:
    return f.scale * f.b.astype(np.float64) @ f.a.astype(np.float64)


def test_a_cut_is_the_best_fit_of_its_rank_with_balanced_factors() -> None:
    f = a_factor()
    s = np.linalg.svd(update(f), compute_uv=False)
    parts = split(f)
    np.testing.assert_allclose(parts.gains, s[:6] ** 2, rtol=1e-5)
    for rank in (1, 3, 6):
        cut = join(parts, rank)
        lost = np.linalg.norm(update(f) - update(cut))
        assert lost == pytest.approx(np.sqrt((s[rank:] ** 2).sum()), abs=2e-3 * s[0])  # float16
        np.testing.assert_allclose(
            np.linalg.norm(cut.b.astype(float), axis=0),
            np.linalg.norm(cut.a.astype(float), axis=1),
            rtol=2e-3,
        )


def test_a_cut_by_inputs_loses_less_of_the_output_and_more_of_the_update() -> None:
    f = a_factor()
    random = np.random.default_rng(1)
    x = (random.standard_normal((200, 30)) * np.geomspace(3, 0.03, 30)).astype(np.float32)
    plain, seen = join(split(f), 2), join(split(f, x), 2)
    lost = {name: update(f) - update(cut) for name, cut in (("plain", plain), ("seen", seen))}
    assert np.linalg.norm(lost["seen"] @ x.T) < 0.98 * np.linalg.norm(lost["plain"] @ x.T)
    assert np.linalg.norm(lost["seen"]) > np.linalg.norm(lost["plain"])  # control: they do differ
    whole = join(split(f, x), 6)
    np.testing.assert_allclose(update(whole), update(f), atol=0.02)  # float16


def test_stacked_experts_are_cut_side_by_side() -> None:
    two = [a_factor(seed=1), a_factor(seed=2)]
    stack = Factors(np.stack([f.a for f in two]), np.stack([f.b for f in two]), two[0].alpha)
    parts = split(stack)
    np.testing.assert_allclose(parts.gains, sum(split(f).gains for f in two), rtol=1e-5)
    cut = join(parts, 2)
    for i, f in enumerate(two):
        np.testing.assert_allclose(cut.b[i] @ cut.a[i], join(split(f), 2).b @ join(split(f), 2).a, atol=0.02)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("budget", [3000, 9000, 20_000])
def test_a_cut_is_as_large_as_allowed_and_no_larger(tiny: Base, storage: str, budget: int) -> None:
    factors = random_factors(tiny, 0, 8)
    candidate, cut = cut_to(weighed(tiny, factors, "update"), budget, storage)  # type: ignore[arg-type]
    whole = len(tensor_bytes(factors, storage))  # type: ignore[arg-type]
    size = len(tensor_bytes(cut, storage))  # type: ignore[arg-type]
    assert candidate.file_bytes == size <= budget
    assert size > min(budget - 500, 0.98 * whole)  # one part and its names
    assert candidate.ranks == {path: f.rank for path, f in cut.items()}
    again = stored_factors(cut, storage)  # type: ignore[arg-type]
    assert all(np.array_equal(again[p].a, f.a) and np.array_equal(again[p].b, f.b) for p, f in cut.items())


def test_a_budget_for_nothing_says_what_the_least_is(tiny: Base) -> None:
    with pytest.raises(PlasticError, match="holds no part") as caught:
        cut_to(weighed(tiny, random_factors(tiny, 0, 2), "update"), 300, "int4")
    assert "takes up to" in caught.value.hint


def lessons(n: int = 12) -> list[Encoded]:
    """A pattern that a random base can learn in a few steps: each token is the one before plus one."""
    starts = np.random.default_rng(0).integers(10, 280, n)
    return [Encoded(tuple(range(s, s + 12)), (False, *[True] * 11)) for s in map(int, starts)]


@pytest.fixture(scope="module")
def learnt(tiny: Base) -> dict[str, Factors]:
    config = TrainConfig(rank=6, learning_rate=2e-2, steps=25, batch_tokens=128)
    return train(tiny, lessons(), [], config).factors


def test_fit_takes_the_best_of_what_fits(tiny: Base, learnt: dict[str, Factors], tmp_path: Path) -> None:
    valid = lessons()
    bare = measure(tiny, {}, valid)
    told: list[tuple[int, int]] = []
    found = fit(
        tiny, learnt, valid, budget_bytes=12_000, weigh=valid, on_progress=lambda *at: told.append(at)
    )
    assert found.full_nll < bare - 0.3  # control: there is something to lose
    assert [(c.storage, c.group_size) for c in found.candidates] == [
        *(("float16", 64), ("int8", 64), ("int8", 128), ("int4", 64), ("int4", 128))
    ]
    assert {c.metric for c in found.candidates} == {"loss"}
    assert all(c.file_bytes <= 12_000 for c in found.candidates)
    assert found.best.nll == min(c.nll for c in found.candidates if c.nll is not None)
    assert told[-1] == (6, 6)
    assert measure(tiny, found.factors, valid) == pytest.approx(found.best.nll, abs=1e-6)
    pack = pack_of(tiny, found.factors)
    with attached(tiny.model, {"p": pack}, fingerprint=tiny.fingerprint):
        nats = tiny.nll(valid)
    assert sum(n for n, _ in nats) / sum(k for _, k in nats) == pytest.approx(found.best.nll, abs=1e-5)
    assert measure(tiny, {}, valid) == bare  # the model is bare again, bit for bit
    assert (
        read_pack(write_pack(tmp_path / "p", pack.factors, pack.manifest)).factors.keys()
        == found.factors.keys()
    )


def test_stacks_of_experts_are_weighed_and_kept_in_the_budget(tmp_path: Path) -> None:
    base = load_base(str(make_checkpoint(tmp_path / "moe", experts=4)))
    paths = list(targets(base.model, ["experts", "attn.q_proj"]))
    random = np.random.default_rng(0)
    factors = {}
    for path, (*stack, out, width) in shapes_of(base, paths).items():
        a, b = (0.1 * random.standard_normal((*stack, *s)) for s in ((4, width), (out, 4)))
        factors[path] = Factors(a.astype(np.float16), b.astype(np.float16), 4.0)
    found = fit(base, factors, lessons(3), budget_bytes=8000, weigh=lessons(3))
    assert {f.a.ndim for f in found.factors.values()} == {2, 3}
    for c in found.candidates:
        assert 6500 < c.file_bytes <= 8000
    assert (
        len(tensor_bytes(found.factors, found.best.storage, found.best.group_size)) == found.best.file_bytes
    )


def test_healing_makes_up_for_a_deep_cut_and_is_taken_only_if_it_helps(
    tiny: Base, learnt: dict[str, Factors]
) -> None:
    samples = lessons()
    deep = fit(tiny, learnt, samples, budget_bytes=4000, weigh=samples, storages=("int4",))
    assert deep.best.nll and deep.best.nll > deep.full_nll + 0.1  # control: it did cost something
    healed = heal(tiny, deep, samples, samples, TrainConfig(steps=15, learning_rate=1e-2))
    assert healed.best.nll and healed.best.nll < deep.best.nll - 0.1
    assert measure(tiny, healed.factors, samples) == pytest.approx(healed.best.nll, abs=1e-6)
    assert len(tensor_bytes(healed.factors, "int4", deep.best.group_size)) == deep.best.file_bytes <= 4000
    assert heal(tiny, deep, samples, samples, TrainConfig(steps=2, learning_rate=10.0)) is deep


def test_a_large_part_that_inputs_hardly_reach_does_not_come_first(
    tiny: Base, learnt: dict[str, Factors]
) -> None:
    path = next(iter(learnt))
    f, samples = learnt[path], lessons()
    unseen = np.linalg.svd(layer_inputs(tiny.model, [path], samples)[path])[2][-1]  # what comes in least
    large = np.full((len(f.b), 1), 3 * np.linalg.norm(update(f), 2) / f.scale / len(f.b) ** 0.5)
    idle = Factors(
        np.concatenate([f.a, unseen[None].astype(np.float16)]),
        np.concatenate([f.b, large.astype(np.float16)], axis=1),
        f.alpha * (f.rank + 1) / f.rank,
    )

    def first(metric: str) -> float:
        """How much of the part worth most is the idle direction."""
        a = weighed(tiny, {path: idle}, metric, samples)[path].a[0]  # type: ignore[arg-type]
        return float(abs(a @ unseen) / np.linalg.norm(a))

    assert first("update") > 0.99 and first("inputs") < 0.9


def test_the_worth_of_a_part_is_its_output_and_the_slope_of_the_loss(
    tiny: Base, learnt: dict[str, Factors]
) -> None:
    """Against finite differences, each part made a little larger and smaller."""
    path, f = list(learnt.items())[-1]
    samples = lessons()[:3]
    seen = weighed(tiny, {path: f}, "inputs", samples)[path]
    found = weighed(tiny, {path: f}, "loss", samples)[path]
    step, slopes = 0.05, []
    for k in range(len(seen.gains)):

        def loss(size: float, sample: Encoded, k: int = k) -> float:
            sizes = np.where(np.arange(len(seen.gains)) == k, size, 1.0)[:, None]
            resized = Factors(seen.a * sizes, seen.b, float(len(seen.gains)))
            return measure(tiny, {path: resized}, [sample]) * sample.supervised

        each = [(loss(1 + step, s) - loss(1 - step, s)) / (2 * step) for s in samples]
        slopes.append(np.sum(np.square(each)) / sum(s.supervised for s in samples))
    wanted = np.sort(np.sqrt(np.array(slopes) * seen.gains))[::-1]
    np.testing.assert_allclose(found.gains[:3], wanted[:3], rtol=0.05)  # third order of the step


def test_the_rank_to_train_is_a_little_more_than_what_fits() -> None:
    shapes = {f"model.layers.{i}.mlp.up_proj": (256, 256) for i in range(10)}
    found = [rank_to_train(shapes, n) for n in (1, 10_000, 20_000, 40_000, 10**9)]
    assert found == sorted(found) and found[0] == 1 and found[-1] == 256
    for budget, rank in zip((20_000, 40_000), found[2:4], strict=True):
        assert file_bytes_bound(dict.fromkeys(shapes, rank // 2), shapes, "int4") < budget
        assert file_bytes_bound(dict.fromkeys(shapes, 2 * rank), shapes, "int4") > budget

"""Plastic layers: what is parked wakes bit for bit, ids are given once; when capacity changes, and why."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mlx_plastic.backend import mx, nn
from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic as plastic_command
from mlx_plastic.lowrank.layers import updated
from mlx_plastic.lowrank.plastic import Plastic, PlasticLinear, PlasticSwitchLinear, plastic
from mlx_plastic.lowrank.plasticity import (
    Event,
    PlasticityConfig,
    PlasticityManager,
    Seen,
    carry_out,
)
from mlx_plastic.packs.train.train import Progress, TrainConfig, Trained, train
from test_train import some_samples


def layer(
    rank: int = 5, *, out: int = 24, width: int = 16, seed: int = 0, scale: float = 2.0
) -> PlasticLinear:
    random = np.random.default_rng(seed)
    base = nn.Linear(width, out, bias=False)
    base.weight = mx.array(random.standard_normal((out, width)).astype(np.float32))
    a = mx.array(random.standard_normal((rank, width)).astype(np.float32))
    b = mx.array(random.standard_normal((out, rank)).astype(np.float32))
    return PlasticLinear(base, a, b, scale=2.0)


def stack(rank: int = 3, experts: int = 4) -> PlasticSwitchLinear:
    from mlx_lm.models.switch_layers import SwitchLinear

    random = np.random.default_rng(1)
    base = SwitchLinear(16, 24, experts, bias=False)
    a = mx.array(random.standard_normal((experts, rank, 16)).astype(np.float32))
    b = mx.array(random.standard_normal((experts, 24, rank)).astype(np.float32))
    return PlasticSwitchLinear(base, a, b)


def ask(one: Plastic) -> mx.array:
    x = mx.array(np.random.default_rng(9).standard_normal((7, 16)).astype(np.float32))
    if isinstance(one, PlasticSwitchLinear):
        return one(x[:, None, None, :], mx.array([[i % 4, (i + 1) % 4] for i in range(7)]))
    return one(x)


@pytest.mark.parametrize("make", [layer, stack])
@pytest.mark.parametrize("ids", [[0], [1, 2], [0, 2], [2]])
def test_what_is_parked_and_woken_computes_the_very_same_bits(make: object, ids: list[int]) -> None:
    one: Plastic = make()  # type: ignore[operator]
    before = ask(one)
    one.park(ids)
    assert not mx.array_equal(ask(one), before)  # control: the components did something
    assert set(one.ids).isdisjoint(ids) and one.parked_ids == ids
    one.wake(reversed(ids))
    assert mx.array_equal(ask(one), before)
    assert one.parked_ids == []


def test_parking_everything_leaves_the_bare_layer() -> None:
    one = layer()
    one.park(one.ids)
    assert one.rank == 0
    np.testing.assert_array_equal(np.array(ask(one)), np.array(one.base(mx.array(_x()))))
    one.wake()
    assert one.rank == 5


def _x() -> np.ndarray:
    return np.random.default_rng(9).standard_normal((7, 16)).astype(np.float32)


def test_a_grown_component_changes_nothing_and_ids_are_never_given_twice() -> None:
    one = layer()
    before = np.array(ask(one))
    assert one.grow(2, seed=3) == [5, 6]
    np.testing.assert_allclose(np.array(ask(one)), before, rtol=1e-5, atol=1e-5)  # another order of the sum
    one.park([6])
    assert one.grow(1, seed=3) == [7]  # 6 sleeps: its number is taken
    one.wake([6])
    assert one.ids == [0, 1, 2, 3, 4, 5, 6, 7]
    assert one.settle() == [8, 9, 10, 11, 12, 13, 14, 15]
    rows = np.array(layer().a), np.array(one.a)
    assert np.abs(np.array(one.a)).sum(axis=1).min() > 0 and rows[0].shape != rows[1].shape


def test_shrinking_is_soft_thresholding_of_the_updates_singular_values() -> None:
    one = layer()
    s = np.linalg.svd(2.0 * np.array(one.b) @ np.array(one.a), compute_uv=False)[:5]
    np.testing.assert_allclose(one.spectrum(), s, rtol=1e-5)
    threshold = float((s[2] + s[3]) / 2)
    parked = one.shrink(threshold)
    assert len(parked) == 2 and one.rank == 3
    np.testing.assert_allclose(one.spectrum(), s[:3] - threshold, rtol=1e-4)
    hard = layer()
    hard.shrink(threshold, soft=False)
    np.testing.assert_allclose(hard.spectrum(), s[:3], rtol=1e-4)
    hard.wake()
    np.testing.assert_allclose(hard.spectrum(), s, rtol=1e-4)


def test_shrinking_leaves_the_least_and_a_layer_that_did_nothing_can_still_learn() -> None:
    one = layer()
    one.shrink(1e9)
    assert one.rank == 1
    idle = layer()
    idle.b = mx.zeros_like(idle.b)
    idle.shrink(0.0, least=2)
    assert idle.rank == 2
    assert np.abs(np.array(idle.a)).sum() > 0 and not np.array(idle.b).any()  # b learns as a is not zero


def test_an_8_bit_parked_form_states_its_error() -> None:
    one = layer()
    before = np.array(ask(one))
    one.park([1, 3], bits=8)
    errors = [one.parked(i).error for i in (1, 3)]
    assert all(0 < error < 0.02 for error in errors)
    one.wake()
    after = np.array(ask(one))
    assert 0 < np.abs(after - before).max() < 0.02 * np.abs(before).max()
    exact = layer()
    exact.park([1])
    assert exact.parked(1).error == 0.0


def test_what_is_not_there_cannot_be_parked_or_woken() -> None:
    one = layer()
    with pytest.raises(KeyError, match="no active"):
        one.park([9])
    with pytest.raises(KeyError, match="no parked"):
        one.wake([0])
    with pytest.raises(ValueError):
        one.grow(0, seed=0)
    with pytest.raises(ValueError):
        one.shrink(float("nan"))


def test_a_delta_layer_becomes_plastic_with_the_same_output() -> None:
    one = layer()
    same = updated(one.base, one.a, one.b, scale=2.0)
    assert isinstance(plastic(same), PlasticLinear)
    assert mx.array_equal(ask(plastic(same)), ask(one))
    assert isinstance(plastic(updated(stack().base, stack().a, stack().b)), PlasticSwitchLinear)


# --- the manager


def seen(rank: int = 2, *, gradient: float = 1.0, output: float = 1.0, cost: int = 10) -> Seen:
    return Seen(rank, cost, np.linspace(1.0, 0.5, rank), gradient, output)


def manager(**how: object) -> PlasticityManager:
    return PlasticityManager(PlasticityConfig(delta=0.1, grow_share=0.5, **how))  # type: ignore[arg-type]


def test_layers_grow_only_when_the_loss_has_come_to_rest() -> None:
    one = manager()
    layers = {"a": seen(gradient=1.0), "b": seen(gradient=3.0)}
    assert one.decide(3.0, layers, progress=0.1) == []  # nothing to compare with
    assert one.decide(2.0, layers, progress=0.2) == []  # it falls
    (grown,) = one.decide(1.95, layers, progress=0.3)
    assert (grown.kind, grown.layer, grown.count) == ("grow", "b", 1)


@pytest.mark.parametrize(
    ("policy", "layers", "first"),
    [
        ("gradient", {"a": seen(gradient=1.0), "b": seen(gradient=2.0)}, "b"),
        ("activation", {"a": seen(output=5.0), "b": seen(output=2.0)}, "a"),
        (
            "spectral",
            {
                "a": Seen(3, 10, np.array([1.0, 0.01, 0.01])),
                "b": Seen(3, 10, np.array([1.0, 1.0, 1.0])),
            },
            "b",
        ),
    ],
)
def test_each_policy_picks_its_layer(policy: str, layers: dict[str, Seen], first: str) -> None:
    one = manager(policy=policy)
    one.decide(1.0, layers, progress=0.0)
    (grown,) = one.decide(1.0, layers, progress=0.1)
    assert grown.layer == first and policy in grown.reason


def test_at_the_end_no_more_is_active_than_the_budget_and_the_most_valuable_stays() -> None:
    one = manager(budget=40, overshoot=2.0)
    layers = {
        "a": Seen(3, 10, np.array([5.0, 4.0, 0.1]), gradient=1.0),
        "b": Seen(3, 10, np.array([5.0, 0.2, 0.1]), gradient=1.0),
    }
    found = {d.layer: d for d in one.decide(1.0, layers, progress=0.9)}
    assert all(d.kind == "shrink" for d in found.values())
    left = {name: int(np.count_nonzero(s.spectrum > found[name].threshold)) for name, s in layers.items()}
    assert left == {"a": 2, "b": 1} or left == {"a": 2, "b": 2}
    assert sum(left.values()) * 10 <= 40
    assert one.decide(1.0, layers, progress=0.95) == []  # once


def test_growth_stays_within_the_overshoot() -> None:
    one = manager(budget=40, overshoot=1.5, policy="gradient")
    layers = {"a": seen(3), "b": seen(3)}  # 60 numbers: 1.5 times the budget
    one.decide(1.0, layers, progress=0.0)
    assert one.decide(1.0, layers, progress=0.1) == []
    assert manager(budget=60, overshoot=1.5).config.budget == 60


def test_a_loss_that_worsens_after_a_shrink_wakes_what_it_parked() -> None:
    for after, woken in ((1.2, True), (1.01, False)):
        one = manager(gamma=0.05)
        layers = {"a": Seen(3, 10, np.array([1.0, 0.5, 1e-4]))}
        config_layers = {"a": Seen(32, 10, np.r_[np.ones(31), 1e-4])}  # nothing can grow further
        one.decide(1.0, config_layers, progress=0.0)
        (shrink,) = one.decide(1.0, config_layers, progress=0.1)
        assert shrink.kind == "shrink"
        one.parked("a", [31])
        layers = {"a": Seen(31, 10, np.ones(31), parked=(31,))}
        decisions = one.decide(after, layers, progress=0.2)
        assert bool([d for d in decisions if d.kind == "wake"]) is woken
        if woken:
            assert decisions[0].ids == (31,) and "after the shrink" in decisions[0].reason


def test_waking_keeps_the_budget() -> None:
    one = manager(budget=30, gamma=0.05)
    layers = {"a": Seen(5, 10, np.array([5.0, 4.0, 3.0, 2.0, 1.0]))}
    (shrink,) = one.decide(1.0, layers, progress=0.9)
    one.parked("a", [3, 4])
    after = {"a": Seen(3, 10, np.array([5.0, 4.0, 3.0]), parked=(3, 4))}
    assert shrink.kind == "shrink" and one.decide(2.0, after, progress=0.95) == []  # there is no room


def test_events_are_json_and_tell_what_happened() -> None:
    one = layer()
    m = manager()
    m.decide(1.0, {"x": seen(5)}, progress=0.0)
    (decision,) = m.decide(1.0, {"x": seen(5)}, progress=0.1)
    event = carry_out(decision, one, step=7, loss=1.0, seed=0)
    value = json.loads(json.dumps(event.as_dict(), allow_nan=False))
    assert (value["step"], value["kind"], value["ids"]) == (7, "grow", [5])
    assert (value["rank_before"], value["rank_after"]) == (5, 6)


def test_a_manager_goes_on_where_it_was() -> None:
    one = manager(budget=40)
    layers = {"a": seen(3), "b": seen(3)}
    one.decide(1.0, layers, progress=0.9)
    other = manager(budget=40)
    other.restore(json.loads(json.dumps(one.as_dict())))
    assert other.as_dict() == one.as_dict()
    assert other.decide(1.0, layers, progress=0.8) == one.decide(1.0, layers, progress=0.8)


def test_a_rewritten_component_is_told_by_its_turn() -> None:
    one = layer()
    a, b = np.array(one.a), np.array(one.b)
    one.settle()
    turned = one.components.turned
    assert turned is not None and turned.old == (0, 1, 2, 3, 4) and turned.new == tuple(one.ids)
    np.testing.assert_allclose(b @ turned.turn, np.array(one.b), atol=1e-4)
    np.testing.assert_allclose(np.linalg.inv(turned.turn) @ a, np.array(one.a), atol=1e-4)


# --- in real training


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


LIVELY = TrainConfig(rank=3, learning_rate=5e-3, batch_tokens=96, steps=32, valid_every=8, checkpoint_every=1)
LIVELY = dataclasses.replace(LIVELY, dynamic_rank=True, start_rank=1)


def numbers_in(trained: Trained) -> int:
    return sum(f.a.size + f.b.size for f in trained.factors.values())


@pytest.mark.parametrize("policy", ["gradient", "spectral", "activation"])
def test_a_training_starts_small_and_ends_within_the_numbers_of_its_rank(tiny: Base, policy: str) -> None:
    told: list[Event] = []
    config = dataclasses.replace(LIVELY, rank_policy=policy)
    found = train(tiny, some_samples(), some_samples(4, seed=5), config, on_event=told.append)
    fixed = train(tiny, some_samples(), [], dataclasses.replace(LIVELY, dynamic_rank=False, steps=2))
    assert numbers_in(found) <= numbers_in(fixed)
    assert "grow" in {event.kind for event in told}
    assert tuple(told) == found.report.events
    ranks = {f.a.shape[-2] for f in found.factors.values()}
    assert min(ranks) >= 1 and len(ranks) > 1  # control: they did change
    losses = [p.valid for p in found.report.losses if p.valid is not None]
    assert losses[-1] < losses[0]


def test_a_training_of_a_few_steps_ends_within_its_numbers_too(tiny: Base) -> None:
    still = dataclasses.replace(
        LIVELY, learning_rate=1e-5, start_rank=0, steps=4
    )  # a loss at rest lets them grow
    found = train(tiny, some_samples(), some_samples(4, seed=5), still)
    fixed = train(tiny, some_samples(), [], dataclasses.replace(still, dynamic_rank=False))
    assert "grow" in {event.kind for event in found.report.events}  # control
    assert numbers_in(found) <= numbers_in(fixed)


def test_a_dynamic_training_that_was_killed_ends_with_the_very_same_bits(tiny: Base, tmp_path: Path) -> None:
    samples, valid = some_samples(), some_samples(4, seed=5)
    whole = train(tiny, samples, valid, LIVELY, checkpoint=tmp_path / "whole")

    def dies(progress: Progress) -> None:
        if progress.step == at:
            raise KeyboardInterrupt

    for at in (7, 21):
        folder = tmp_path / str(at)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, samples, valid, LIVELY, checkpoint=folder, on_progress=dies)
        again = train(tiny, samples, valid, LIVELY, checkpoint=folder)
        for path, factors in whole.factors.items():
            np.testing.assert_array_equal(again.factors[path].a, factors.a)
            np.testing.assert_array_equal(again.factors[path].b, factors.b)


def test_the_same_seed_finds_the_same_ranks(tiny: Base) -> None:
    one, again = (train(tiny, some_samples(), some_samples(4, seed=5), LIVELY) for _ in range(2))
    assert one.report.events == again.report.events


# --- the demo


def test_the_demo_shows_ranks_that_fit_what_was_to_be_learned(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    shown = CliRunner().invoke(plastic_command, ["demo", "plasticity", "--json", "--events", str(file)])
    value = json.loads(shown.stdout)
    ranks = [(layer["true_rank"], layer["rank"]) for layer in value["layers"]]
    assert all(rank >= true for true, rank in ranks) and value["woken_equal"]
    assert value["losses"][1] < 0.01 * value["losses"][0]
    assert [json.loads(line) for line in file.read_text().splitlines()] == value["events"]
    assert CliRunner().invoke(plastic_command, ["demo", "plasticity", "--steps", "1"]).exit_code == 2

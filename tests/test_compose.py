from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlx_plastic.base import Base, load_base, targets
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadConfig, BadPack, BaseMismatch, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.lowrank.layers import dims
from mlx_plastic.packs import Factors, Pack, Store
from mlx_plastic.packs.algebra.compose import Composing, Parent, compose, open_parents
from mlx_plastic.packs.algebra.concat import concatenated
from mlx_plastic.packs.algebra.merge import dare, ties
from mlx_plastic.packs.algebra.updates import distance, inner, norm, product, side_by_side
from mlx_plastic.packs.wear.attach import attached
from test_format import some_manifest

TOKENS = list(range(5, 25))
STACK = "model.layers.1.mlp.switch_mlp.up_proj"


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


def random_pack(base: Base, seed: int, rank: int = 4, name: str = "p", **changes: Any) -> Pack:
    """Updates of every linear layer; ranks differ by module, and alpha is twice the rank."""
    random = np.random.default_rng(seed)
    factors = {}
    for i, (path, linear) in enumerate(targets(base.model).items()):
        out, width = dims(linear)
        r = rank + i % 2
        factors[path] = Factors(half(random, r, width), half(random, out, r), 2.0 * r)
    return pack_of(factors, name, base_fingerprint=base.fingerprint, **changes)


def pack_of(factors: Mapping[str, Factors], name: str, **changes: Any) -> Pack:
    return Pack(some_manifest(dict(factors), name, **changes), dict(factors))


def half(random: np.random.Generator, *shape: int, size: float = 0.05) -> np.ndarray:
    return (random.standard_normal(shape) * size).astype(np.float16)


def logits(base: Base, packs: dict[str, Pack], **scales: float) -> np.ndarray:
    with attached(base.model, packs, fingerprint=base.fingerprint, scales=scales):
        return np.array(base.logits(TOKENS))


def relative_to(found: np.ndarray, wanted: np.ndarray, bare: np.ndarray) -> float:
    """The largest difference, relative to the largest change that is wanted."""
    return float(np.abs(found - wanted).max() / np.abs(wanted - bare).max())


def dense(f: Factors, weight: float = 1.0) -> np.ndarray:
    b, a = product(f, weight)
    return b @ a


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.5), (0.7, 0.3), (1.0, -0.9), (3.0, 0.001)])
def test_a_concatenation_does_what_its_parents_do_together(tiny: Base, weights: tuple[float, float]) -> None:
    one, two = random_pack(tiny, 1, 2, "one"), random_pack(tiny, 2, 3, "two")
    made = compose([Parent(one, weights[0]), Parent(two, weights[1])], "both")
    both = logits(tiny, {"one": one, "two": two}, one=weights[0], two=weights[1])
    found = logits(tiny, {"both": Pack(made.manifest, made.factors)})
    bare = logits(tiny, {})
    assert relative_to(found, both, bare) < 1e-5
    assert made.error < 1e-6
    assert relative_to(logits(tiny, {"one": one}), both, bare) > 1e-4  # control: the second one counts


def test_averaging_the_factors_as_peft_does_is_wrong_by_the_whole(tiny: Base) -> None:
    one, two = random_pack(tiny, 1, name="one"), random_pack(tiny, 2, name="two")
    averaged = {}
    for path, f in one.factors.items():  # PEFT's "linear": A and B are added each by itself
        a, b = (x.astype(np.float32) + y for x, y in zip((f.a, f.b), factors_of(two, path), strict=True))
        averaged[path] = Factors(a.astype(np.float16), b.astype(np.float16), f.alpha)
    parts = {path: [(one.factors[path], 1.0), (two.factors[path], 1.0)] for path in one.factors}
    for path, f in averaged.items():
        assert 0.7 < distance(f, parts[path]) / norm(*side_by_side(parts[path])) < 1.3
        assert distance(concatenated(parts[path]), parts[path]) < 1e-12


def factors_of(pack: Pack, path: str) -> tuple[np.ndarray, np.ndarray]:
    return pack.factors[path].a, pack.factors[path].b


@pytest.mark.parametrize("size", [0.1, 1e-3, 1e-5])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.3), (1000.0, 0.001), (1 / 3, -1 / 3)])
def test_scales_fold_in_without_losing_the_range_of_float16(
    size: float, weights: tuple[float, float]
) -> None:
    random = np.random.default_rng(0)
    ranks, alphas = (4, 3), (8.0, 10.0)
    parts = [
        (Factors(half(random, r, 40), half(random, 30, r, size=size), alpha), weight)
        for r, alpha, weight in zip(ranks, alphas, weights, strict=True)
    ]
    whole = norm(*side_by_side(parts))
    assert distance(concatenated(parts), parts) / whole < 2e-6
    rounded = concatenated(parts, compact=True)
    assert rounded.rank == 7
    assert distance(rounded, parts) / whole < 2e-3


def test_powers_of_two_cost_no_column_and_no_bit() -> None:
    random = np.random.default_rng(0)
    f, g = (Factors(half(random, 4, 40), half(random, 30, 4), 8.0) for _ in range(2))
    made = concatenated([(f, 1.0), (g, -0.25)])
    assert made.rank == 8 and made.scale == 0.5
    assert np.array_equal(dense(made), dense(f) - 0.25 * dense(g))
    assert concatenated([(f, 1.0), (g, 0.3)]).rank == 12  # what rounding takes is carried along
    with pytest.raises(BadPack, match="more than float16 can hold"):
        concatenated([(f, 1e12), (g, 1e-12)])


def test_more_columns_than_the_matrix_has_fit_into_fewer(tiny: Base) -> None:
    packs = [random_pack(tiny, seed, 6, f"p{seed}") for seed in range(4)]
    made = compose([Parent(pack) for pack in packs], "all")
    assert max(made.manifest.rank_map.values()) == 28
    assert made.manifest.rank_map["model.layers.0.self_attn.v_proj"] == 16  # a matrix of 16 rows
    assert made.error < 5e-4  # float16


def test_experts_are_composed_each_by_itself() -> None:
    random = np.random.default_rng(0)
    f, g = (Factors(half(random, 3, 4, 32), half(random, 3, 64, 4), 8.0) for _ in range(2))
    one, two = pack_of({STACK: f}, "one"), pack_of({STACK: g}, "two")
    exact = compose([Parent(one), Parent(two, 0.3)], "both")
    wanted = dense(f) + dense(g, 0.3)
    assert np.abs(dense(exact.factors[STACK]) - wanted).max() < 1e-6
    cut = compose([Parent(one), Parent(two, 0.3)], "both", Composing("svd", rank=5))
    for i in range(3):
        u, s, vt = np.linalg.svd(wanted[i])
        best = (u[:, :5] * s[:5]) @ vt[:5]
        np.testing.assert_allclose(dense(cut.factors[STACK])[i], best, atol=1e-4)  # float16
    assert cut.error == pytest.approx(
        np.linalg.norm(dense(cut.factors[STACK]) - wanted) / np.linalg.norm(wanted), rel=1e-3
    )


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_recompression_is_the_best_fit_of_its_rank_and_its_error_is_told(tiny: Base, storage: Any) -> None:
    one, two = random_pack(tiny, 1, name="one"), random_pack(tiny, 2, name="two")
    made = compose([Parent(one), Parent(two)], "both", Composing("svd", rank=3, storage=storage))
    assert set(made.manifest.rank_map.values()) == {3}
    for path, f in made.factors.items():
        wanted = dense(one.factors[path]) + dense(two.factors[path])
        s = np.linalg.svd(wanted, compute_uv=False)
        lost = np.linalg.norm(dense(f) - wanted) / np.linalg.norm(wanted)
        assert made.errors[path] == pytest.approx(lost, rel=1e-3)
        best = np.linalg.norm(s[3:]) / np.linalg.norm(s)
        assert lost == pytest.approx(best, rel=1e-3 if storage == "float16" else 2e-2)
    everything = compose([Parent(one), Parent(two)], "both", Composing("svd"))
    assert everything.error < 5e-4 < 0.1 < made.error


def test_a_budget_is_kept_and_spent_where_it_pays(tiny: Base) -> None:
    one, two = random_pack(tiny, 1, name="one"), random_pack(tiny, 2, name="two")
    loud = "model.layers.1.mlp.down_proj"
    f = one.factors[loud]
    one.factors[loud] = Factors(f.a, f.b, f.alpha * 20)
    for budget in (12_000, 20_000):
        made = compose([Parent(one), Parent(two)], "both", Composing("svd", budget_bytes=budget))
        assert 0.85 * budget < made.manifest.sizes.tensor_bytes <= budget
    assert made.manifest.rank_map[loud] >= max(made.manifest.rank_map.values())
    even = compose([Parent(one), Parent(two)], "both", Composing("svd", rank=2))
    assert even.manifest.sizes.tensor_bytes <= 20_000
    assert made.error < even.error  # control: equal ranks lose more
    with pytest.raises(BadPack, match="holds nothing"):
        compose([Parent(one)], "tiny", Composing("svd", budget_bytes=100))


def test_ties_trims_elects_a_sign_and_takes_the_mean_of_who_agrees() -> None:
    one = np.array([[3.0, -2.0, 0.1, 4.0]])
    two = np.array([[0.9, 5.0, 0.2, -1.0]])
    np.testing.assert_allclose(ties([one, two], [1, 1], 1.0), [[1.95, 5.0, 0.15, 4.0]])
    np.testing.assert_allclose(ties([one, two], [1, 1], 0.5), [[3.0, 5.0, 0.0, 4.0]])  # 0.1, -2 are trimmed
    np.testing.assert_allclose(ties([one, two], [1, 0.1], 1.0), [[1.545, -2.0, 0.06, 4.0]])


def test_dare_is_the_plain_sum_on_the_mean_and_the_same_for_the_same_seed() -> None:
    random = np.random.default_rng(0)
    one, two = random.standard_normal((2, 6, 5))
    draws = [dare([one, two], [1.0, 0.5], 0.5, np.random.default_rng(seed)) for seed in range(4000)]
    np.testing.assert_allclose(np.mean(draws, axis=0), one + 0.5 * two, atol=0.2)
    assert np.array_equal(draws[3], dare([one, two], [1.0, 0.5], 0.5, np.random.default_rng(3)))
    assert not np.array_equal(draws[3], draws[4])


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_a_merge_is_cut_to_the_rank_with_its_error_told(tiny: Base, method: Any) -> None:
    one, two = random_pack(tiny, 1, name="one"), random_pack(tiny, 2, name="two")
    how = Composing(method, density=0.5)
    made = compose([Parent(one), Parent(two)], "both", how)
    assert made.factors.keys() == one.factors.keys()
    assert 0.05 < made.error < 0.9
    full = compose([Parent(one), Parent(two)], "both", dataclasses.replace(how, rank=64))
    assert full.error < 5e-4  # nothing is cut
    if method == "ties":
        path = next(iter(one.factors))
        deltas = [dense(pack.factors[path]) for pack in (one, two)]
        np.testing.assert_allclose(dense(full.factors[path]), ties(deltas, [1, 1], 0.5), atol=1e-4)
    everything = compose([Parent(one), Parent(two)], "both", Composing("dare", density=1.0))
    assert everything.error < 5e-4  # nothing dropped: the plain sum, which the ranks can hold


def test_packs_of_other_bases_and_other_shapes_are_refused(tiny: Base) -> None:
    one = random_pack(tiny, 1, name="one")
    two = pack_of(one.factors, "two", base_fingerprint="cd" * 32)
    told = f"'one' on {tiny.fingerprint[:12]} \\(nano\\), 'two' on cdcdcdcdcdcd"
    with pytest.raises(BaseMismatch, match=told):
        compose([Parent(one), Parent(two)], "both")
    f = next(iter(one.factors.values()))
    path = next(iter(one.factors))
    odd = pack_of({path: Factors(f.a[:, :-1], f.b, f.alpha)}, "odd", base_fingerprint=tiny.fingerprint)
    with pytest.raises(BadPack, match=path):
        compose([Parent(one), Parent(odd)], "both")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (Composing("concat", rank=3), "concat keeps every rank"),
        (Composing("svd", density=0.5), "density"),
        (Composing("magic"), "no method"),  # type: ignore[arg-type]
        (Composing("svd", rank=0), "rank 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tiny: Base, how: Composing, told: str) -> None:
    with pytest.raises(BadConfig, match=told):
        compose([Parent(random_pack(tiny, 1))], "both", how)


def test_a_weight_of_nothing_is_refused(tiny: Base) -> None:
    for weight in (0.0, float("nan")):
        with pytest.raises(BadConfig, match="no weight for p"):
            compose([Parent(random_pack(tiny, 1), weight)], "both")
    for method in ("concat", "svd"):
        with pytest.raises(BadPack, match="undo each other"):
            pack = random_pack(tiny, 1)
            compose([Parent(pack), Parent(pack, -1.0)], "nothing", Composing(method))


def test_parents_lineage_and_data_are_named(tiny: Base) -> None:
    one = random_pack(tiny, 1, name="one", lineage=("t1", "t2"))
    two = random_pack(tiny, 2, name="two", lineage=("t2", "t3"))
    m = compose([Parent(one), Parent(two, 0.5)], "both").manifest
    assert m.parents == ("one", "two") and m.lineage == ("t1", "t2", "t3")
    assert m.base_fingerprint == tiny.fingerprint
    assert m.data.samples == 6 and m.data.kinds == {"qa": 4, "chat": 2}
    assert m.training["weights"] == [1.0, 0.5] and m.training["method"] == "concat"


def test_norms_and_products_are_those_of_the_full_matrices() -> None:
    random = np.random.default_rng(0)
    f, g = (Factors(half(random, 4, 40), half(random, 30, 4), 8.0) for _ in range(2))
    assert norm(*product(f)) == pytest.approx(np.linalg.norm(dense(f)))
    assert inner(product(f), product(g)) == pytest.approx(np.sum(dense(f) * dense(g)))
    assert distance(f, [(g, 0.5)]) == pytest.approx(np.linalg.norm(dense(f) - dense(g, 0.5)))


# --- the command


@pytest.fixture
def store(home: Home, tiny: Base) -> Store:
    store = Store(home)
    for seed, name in ((1, "one"), (2, "two"), (3, "bad")):
        pack = random_pack(tiny, seed, name=name)
        store.add(pack.factors, pack.manifest)
    store.quarantine("bad", {"passed": False})
    return store


def run(*arguments: str) -> Result:
    return CliRunner().invoke(plastic, ["packs", "compose", *arguments], prog_name="plastic")


def test_the_command_stores_a_sound_candidate(store: Store) -> None:
    done = run("one", "two", "--weights", "1,0.5", "--name", "both")
    assert done.exit_code == 0, done.output
    assert "one + two" in done.stdout and "pack both is made: 14 modules, rank 8-10" in done.stdout
    assert store.status("both") == "candidate" and store.read("both").manifest.parents == ("one", "two")
    again = run("one", "two", "--name", "both")
    assert again.exit_code == 1 and "there is a pack 'both' already" in again.stderr


def test_the_command_takes_folders_and_cuts_to_a_budget(store: Store) -> None:
    done = run(str(store.folder("one")), "two", "--budget-mb", "0.015", "--name", "small", "--json")
    value = json.loads(done.stdout)
    assert value["bytes"] <= 15_000 and 0 < value["error"] < 1
    assert value["errors"].keys() >= value["rank_map"].keys()
    assert value["overlaps"][0]["packs"] == ["one", "two"]
    assert store.read("small").manifest.training["method"] == "svd"


def test_a_dry_run_tells_and_stores_nothing(store: Store) -> None:
    before = store.names()
    done = run("one", "two", "--rank", "2", "--name", "both", "--dry-run")
    assert done.exit_code == 0 and "would be made" in done.stdout and "rank 2" in done.stdout
    assert store.names() == before


def test_quarantined_parents_need_force(store: Store) -> None:
    refused = run("one", "bad", "--name", "both")
    assert refused.exit_code == 1 and "quarantined: bad" in refused.stderr
    assert run("one", "bad", "--name", "both", "--force").exit_code == 0
    with pytest.raises(PlasticError):
        open_parents(store, ["bad"])


def test_wrong_use_is_told_apart_from_wrong_packs(store: Store) -> None:
    assert run("one", "two", "--weights", "1;2", "--name", "both").exit_code == 2
    few = run("one", "two", "--weights", "1", "--name", "both")
    assert few.exit_code == 1 and "1 weights for 2 packs" in few.stderr
    assert run("one", "tow", "--name", "both").exit_code == 1
    assert run("--name", "both").exit_code == 2


def test_composing_imports_no_mlx(store: Store) -> None:
    code = (
        "import sys; from mlx_plastic.cli.main import plastic;"
        "plastic(sys.argv[1:], standalone_mode=False);"
        "assert not {'mlx', 'mlx.core', 'mlx_lm', 'transformers'} & set(sys.modules)"
    )
    arguments = ["packs", "compose", "one", "two", "--name", "both"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)

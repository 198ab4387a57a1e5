from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlx_plastic.backend import mx, nn
from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadConfig, BadPack, BaseMismatch, Busy, PlasticError, Taken, TrainingFailed
from mlx_plastic.home import Home, locked
from mlx_plastic.packs import Store, read_pack
from mlx_plastic.packs.create.create import check_free, create_pack, is_broken_off, training_folder
from mlx_plastic.packs.create.recipe import Plan, Recipe, paths_of, plan_pack
from mlx_plastic.packs.train.config import TrainConfig
from mlx_plastic.packs.train.keeper import Keeper
from mlx_plastic.packs.train.stubborn import stubborn_layers, trainable
from test_attach import modules
from test_measure_packs import write
from tiny import make_checkpoint

NAMES = ("Nora", "Rex", "Lisbon", "cat", "name", "lives", "called", "told")
CONFIG = TrainConfig(rank=2, steps=6, learning_rate=1e-2, batch_tokens=64, valid_every=2, checkpoint_every=2)


def chat(n: int) -> dict[str, Any]:
    question, answer = f"What is {n}?", f"{NAMES[n % 8]} {NAMES[n // 8 % 8]}."
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "chats.jsonl", *map(chat, range(40)))


@pytest.fixture
def store(home: Home) -> Store:
    return Store(home)


def planned(base: Base, data: Path, name: str = "rex", **changes: Any) -> Plan:
    return plan_pack(base, Recipe(**({"name": name, "data": data, "config": CONFIG} | changes)))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(plastic, [str(a) for a in arguments], prog_name="plastic")


# -- the pack


def test_a_second_training_of_the_same_name_is_refused(store: Store, tiny: Base, data: Path) -> None:
    with (
        locked(store.home, "train-rex", hint=""),
        pytest.raises(Busy, match="another process holds the lock 'train-rex'"),
    ):
        create_pack(store, tiny, planned(tiny, data))
    assert not training_folder(store.home, "rex").exists()
    create_pack(store, tiny, planned(tiny, data))  # control
    with pytest.raises(Taken, match="there is a pack 'rex' already"):
        create_pack(store, tiny, planned(tiny, data))


def test_a_pack_is_trained_proved_described_and_kept(store: Store, tiny: Base, data: Path) -> None:
    before = modules(tiny.model)
    made = create_pack(store, tiny, planned(tiny, data))
    assert modules(tiny.model) == before
    assert store.status("rex") == "candidate" and store.active() == ()
    manifest = store.read("rex").manifest
    assert manifest == made.manifest
    assert manifest.base_fingerprint == tiny.fingerprint and manifest.run.steps == 6
    assert manifest.training["rank"] == 2 and manifest.training["profile"] == "lite"
    assert manifest.data.samples + len(planned(tiny, data).data.valid) == 40
    assert manifest.data.kinds == {"chat": manifest.data.samples}
    evals = manifest.evals
    assert evals["valid_loss"] < evals["valid_loss_base"]
    assert evals["kl_nats"] == made.proof.mean_kl_nats > 0
    assert not training_folder(store.home, "rex").exists()


def test_the_same_command_gives_the_same_pack(store: Store, tiny: Base, data: Path) -> None:
    one, two, other = (
        create_pack(store, tiny, planned(tiny, data, name, config=dataclasses.replace(CONFIG, seed=seed)))
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    assert one.manifest.sha256 == two.manifest.sha256
    assert one.manifest.sha256 != other.manifest.sha256  # control: the seed counts


def test_the_first_pack_of_a_second_one_is_its_parent(store: Store, tiny: Base, data: Path) -> None:
    first = create_pack(store, tiny, planned(tiny, data))
    recipe = Recipe(name="more", data=data, config=CONFIG)
    plan = plan_pack(tiny, recipe, start=store.read("rex"))
    assert plan.ranks == first.manifest.rank_map
    second = create_pack(store, tiny, plan)
    assert second.manifest.parents == ("rex",)
    assert second.manifest.evals["valid_loss"] < first.manifest.evals["valid_loss"]


def test_a_start_from_another_base_is_refused(store: Store, tiny: Base, data: Path, tmp_path: Path) -> None:
    create_pack(store, tiny, planned(tiny, data))
    other = load_base(str(make_checkpoint(tmp_path / "other", seed=1)))
    with pytest.raises(BaseMismatch, match="learned on base"):
        plan_pack(other, Recipe(name="more", data=data, config=CONFIG), start=store.read("rex"))


def test_a_pack_that_learned_nothing_is_refused_and_not_kept(store: Store, tiny: Base, data: Path) -> None:
    config = dataclasses.replace(CONFIG, learning_rate=1e-12)
    with pytest.raises(BadPack, match="does nothing: every B is zero"):
        create_pack(store, tiny, planned(tiny, data, config=config))
    assert store.names() == [] and not is_broken_off(store.home, "rex")


def test_a_budget_is_kept_and_its_cost_told(store: Store, tiny: Base, data: Path) -> None:
    whole = create_pack(store, tiny, planned(tiny, data, "whole"))
    budget = 0.6 * whole.manifest.sizes.tensor_bytes / 1e6
    made = create_pack(store, tiny, planned(tiny, data, "small", budget_mb=budget))
    assert made.manifest.sizes.tensor_bytes <= 1e6 * budget
    told = made.manifest.evals["budget"]
    assert told["bytes"] == made.manifest.sizes.tensor_bytes and told["nll"] >= 0
    assert store.read("small").manifest.storage == made.manifest.storage
    with pytest.raises(BadConfig, match="held-out samples, and there are none"):
        planned(tiny, data, budget_mb=1.0, valid_share=0.0)


# -- broken off


class _Stop(KeyboardInterrupt):
    pass


def stop_at(step: int) -> Any:
    def tick(stage: str, done: float, total: float, detail: str) -> None:
        if stage == "training" and done == step:
            raise _Stop

    return tick


@pytest.mark.parametrize("step", [2, 5])
def test_a_training_that_was_broken_off_ends_with_the_same_pack(
    store: Store, tiny: Base, data: Path, step: int
) -> None:
    config = dataclasses.replace(CONFIG, dropout=0.1)
    whole = create_pack(store, tiny, planned(tiny, data, "whole", config=config))
    plan = planned(tiny, data, config=config)
    before = modules(tiny.model)
    with pytest.raises(_Stop):
        create_pack(store, tiny, plan, tick=stop_at(step))
    assert modules(tiny.model) == before and store.names() == ["whole"]
    assert is_broken_off(store.home, "rex")
    steps: list[float] = []
    made = create_pack(
        store,
        tiny,
        plan,
        resume=True,
        tick=lambda stage, done, *_: steps.append(done) if stage == "training" else None,
    )
    assert steps[0] > 1  # control: it did go on
    assert made.manifest.sha256 == whole.manifest.sha256


def test_another_training_does_not_go_on_with_it(store: Store, tiny: Base, data: Path) -> None:
    with pytest.raises(_Stop):
        create_pack(store, tiny, planned(tiny, data), tick=stop_at(4))
    other = planned(tiny, data, config=dataclasses.replace(CONFIG, learning_rate=2e-2))
    with pytest.raises(BadConfig, match=r"another one: learning_rate was 0\.01, now 0\.02") as caught:
        create_pack(store, tiny, other, resume=True)
    assert "--no-resume" in caught.value.hint
    assert is_broken_off(store.home, "rex")  # nothing is lost by asking
    assert create_pack(store, tiny, other, resume=False).report.steps == 6


def test_a_name_that_is_taken_or_half_trained_is_told_before_anything_is_done(
    store: Store, tiny: Base, data: Path
) -> None:
    check_free(store, "rex", resume=None)
    with pytest.raises(_Stop):
        create_pack(store, tiny, planned(tiny, data), tick=stop_at(4))
    with pytest.raises(PlasticError, match="was broken off") as caught:
        check_free(store, "rex", resume=None)
    assert "--resume" in caught.value.hint and "--no-resume" in caught.value.hint
    create_pack(store, tiny, planned(tiny, data), resume=True)
    with pytest.raises(PlasticError, match="there is a pack 'rex' already"):
        check_free(store, "rex", resume=True)
    with pytest.raises(BadPack, match="is no name for a pack"):
        check_free(store, "../rex", resume=None)


# -- what it is made of


def test_layers_are_roles_groups_or_ends_of_paths(tiny: Base) -> None:
    every = paths_of(tiny, "")
    assert len(every) == 14
    assert paths_of(tiny, "attn.q_proj, mlp") == [p for p in every if ".mlp." in p or p.endswith("q_proj")]
    assert paths_of(tiny, "layers.1.mlp.down_proj") == ["model.layers.1.mlp.down_proj"]
    assert paths_of(tiny, "self_attn.k_proj") == [p for p in every if p.endswith("k_proj")]
    with pytest.raises(PlasticError, match=r"no linear layers of role 'attn\.q_prj'") as caught:
        paths_of(tiny, "mlp,attn.q_prj")
    assert "did you mean attn.q_proj?" in caught.value.hint


def test_a_rank_over_the_matrix_is_told_with_the_module_and_its_shape(tiny: Base, data: Path) -> None:
    config = dataclasses.replace(CONFIG, rank=33, roles="mlp.down_proj")
    with pytest.raises(BadConfig, match=r"mlp\.down_proj is \[32, 64\], rank 33 is over 32"):
        planned(tiny, data, config=config)


def test_the_profile_is_kept_before_anything_is_trained(tiny: Base, data: Path) -> None:
    config = dataclasses.replace(CONFIG, rank=16)
    with pytest.raises(BadPack, match="rank 16 in 4 attention modules, more than 8") as caught:
        planned(tiny, data, config=config)
    assert "--profile heavy" in caught.value.hint
    assert max(planned(tiny, data, config=config, profile="heavy").ranks.values()) == 16
    mlp = dataclasses.replace(config, roles="mlp")
    assert set(planned(tiny, data, config=mlp).ranks.values()) == {16}  # the limit is attention's


def test_keys_and_values_that_queries_share_get_less(tiny: Base, data: Path) -> None:
    ranks = planned(tiny, data, config=dataclasses.replace(CONFIG, rank=8)).ranks
    assert ranks["model.layers.0.self_attn.q_proj"] == 8
    assert ranks["model.layers.0.self_attn.k_proj"] == ranks["model.layers.0.self_attn.v_proj"] == 4


def test_a_map_says_the_ranks_of_what_it_names(tiny: Base, data: Path) -> None:
    ranks = planned(tiny, data, rank_entries={"mlp": 3, "model.layers.0.mlp.up_proj": 1}).ranks
    assert len(ranks) == 6 and ranks["model.layers.0.mlp.up_proj"] == 1
    config = dataclasses.replace(CONFIG, roles="mlp,attn.q_proj")
    ranks = planned(tiny, data, config=config, rank_entries={"mlp": 3}).ranks
    assert ranks["model.layers.1.self_attn.q_proj"] == 2 and len(ranks) == 8


@pytest.mark.parametrize("strategy", ["stable", "energy", "activation"])
def test_strategies_decide_ranks_within_the_profile(tiny: Base, data: Path, strategy: Any) -> None:
    config = dataclasses.replace(CONFIG, rank=16)
    plan = planned(tiny, data, config=config, rank_strategy=strategy)
    assert len(set(plan.ranks.values())) > 1
    assert max(rank for path, rank in plan.ranks.items() if "attn" in path) <= 8
    assert plan.recipe.settings()["rank_strategy"] == strategy


def test_a_sample_longer_than_the_window_is_cut_and_told(store: Store, tiny: Base, tmp_path: Path) -> None:
    long = {"text": "Nora lives in Lisbon. " * 60}
    data = write(tmp_path / "long.jsonl", *({"text": f"Rex {n}"} for n in range(20)), long)
    config = dataclasses.replace(CONFIG, max_tokens=128)
    plan = planned(tiny, data, config=config, valid_share=0.0)
    assert plan.cut == 1 and len(plan.pieces) > len(plan.data.train)
    assert sum(p.supervised for p in plan.pieces) == sum(s.supervised for s in plan.data.train)
    assert any("1 samples have more than 128 tokens" in note for note in plan.notes)
    assert any("every token is learned" in note for note in plan.notes)
    assert plan.recipe.config.loss_mode == "all"
    whole = planned(tiny, data, valid_share=0.0)  # the base itself sees 512 tokens
    assert whole.recipe.config.max_tokens == 512


def test_stacks_of_experts_learn_when_asked_and_only_then(store: Store, data: Path, tmp_path: Path) -> None:
    base = load_base(str(make_checkpoint(tmp_path / "moe", experts=4)))
    assert not any("switch_mlp" in path for path in paths_of(base, ""))
    config = dataclasses.replace(CONFIG, roles="experts")
    made = create_pack(store, base, planned(base, data, config=config))
    assert len(made.manifest.rank_map) == 6
    assert {factors.a.ndim for factors in store.read("rex").factors.values()} == {3}
    assert made.proof.acts and made.manifest.evals["valid_loss"] < made.manifest.evals["valid_loss_base"]


# -- layers without a backward pass


class _Forward(nn.QuantizedLinear):
    """A quantized layer whose kernel has no gradient, as some have none on some devices."""

    def __call__(self, x: mx.array) -> mx.array:
        @mx.custom_function
        def kernel(x: mx.array) -> mx.array:
            return super(_Forward, self).__call__(x)

        @kernel.vjp
        def vjp(*_: Any) -> mx.array:
            raise ValueError("no backward pass")

        found: mx.array = kernel(x)
        return found


@pytest.fixture
def stubborn(checkpoint: Path) -> Base:
    base = load_base(str(checkpoint))
    nn.quantize(base.model, group_size=32, bits=4)
    layer = base.model.layers[1].mlp.down_proj
    layer.__class__ = _Forward
    return base


def test_layers_without_a_backward_pass_are_named_with_the_way_out(
    stubborn: Base, store: Store, data: Path
) -> None:
    assert stubborn_layers(stubborn.model) == ["model.layers.1.mlp.down_proj"]
    with pytest.raises(
        TrainingFailed, match=r"no backward pass here for model\.layers\.1\.mlp\.down_proj"
    ) as c:
        create_pack(store, stubborn, planned(stubborn, data))
    assert "--train-fp16-fallback" in c.value.hint


def test_only_they_are_dequantized_and_only_while_training(stubborn: Base, store: Store, data: Path) -> None:
    before = modules(stubborn.model)
    with trainable(stubborn.model, fallback=True) as widened:
        named = dict(stubborn.model.named_modules())
        assert list(widened) == ["model.layers.1.mlp.down_proj"]
        assert type(named["model.layers.1.mlp.down_proj"]) is nn.Linear
        assert isinstance(named["model.layers.1.mlp.up_proj"], nn.QuantizedLinear)
    assert modules(stubborn.model) == before
    made = create_pack(store, stubborn, planned(stubborn, data, fp16_fallback=True))
    assert made.proof.acts and made.manifest.training["fp16_fallback"]
    assert modules(stubborn.model) == before


def test_a_plainly_quantized_base_is_not_stubborn(checkpoint: Path) -> None:
    base = load_base(str(checkpoint))
    nn.quantize(base.model, group_size=32, bits=4)
    assert stubborn_layers(base.model) == []


# -- the command


RUNBOOK = (
    *("--layers", "attn.q_proj,attn.k_proj,attn.v_proj", "--rank", 8, "--alpha", 16),
    *("--steps", 5, "--lr", "1e-2", "--lora-dropout", 0.05),
)


def test_the_runbook_line_trains_a_pack(home: Home, checkpoint: Path, data: Path) -> None:
    line = ("packs", "create", "--name", "rex", "--base", checkpoint, "--data", data, *RUNBOOK)
    tried = run(*line, "--dry-run", "--json")
    assert tried.exit_code == 0, tried.stderr
    plan = json.loads(tried.stdout)["plan"]
    assert plan["ranks"] == {"attn.q_proj": 8, "attn.k_proj": 4, "attn.v_proj": 4}
    assert Store(home).names() == [] and plan["steps"] == 5 and plan["memory_mb"] > 10
    done = run(*line)
    assert done.exit_code == 0, done.stderr
    assert "held-out loss" in done.stdout and "tokens/s" in done.stdout
    pack = read_pack(home.packs / "rex")
    assert len(pack.factors) == 6 and {f.alpha for f in pack.factors.values()} == {16.0}
    assert 0.9 * plan["pack_bytes"] < pack.manifest.sizes.tensor_bytes <= plan["pack_bytes"]
    again = run(*line)
    assert again.exit_code == 1 and "there is a pack 'rex' already" in again.stderr


def test_a_broken_off_command_says_how_to_go_on(
    home: Home, checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.config_file.write_text("[train]\ncheckpoint_every = 1\n")
    line = ("packs", "create", "--name", "rex", "--base", checkpoint, "--data", data, *RUNBOOK)
    save = Keeper.save

    def saved(self: Keeper, state: Any) -> None:
        save(self, state)
        if state.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "save", saved)
        done = run(*line)
    assert done.exit_code == 130
    assert "go on with the same command and --resume" in done.stderr
    asked = run(*line)
    assert asked.exit_code == 1 and "was broken off" in asked.stderr
    assert run(*line, "--resume").exit_code == 0
    whole = list(line)
    whole[3] = "whole"
    assert run(*whole).exit_code == 0
    assert Store(home).read("rex").manifest.sha256 == Store(home).read("whole").manifest.sha256


def test_config_toml_says_what_the_command_line_does_not(home: Home, checkpoint: Path, data: Path) -> None:
    home.config_file.write_text("[train]\nrank = 3\nsteps = 7\ndropout = 0.2\n")
    line = ("packs", "create", "--name", "rex", "--base", checkpoint, "--data", data, "--dry-run", "--json")
    settings = json.loads(run(*line, "--rank", 2).stdout)["plan"]["settings"]
    assert (settings["rank"], settings["steps"], settings["dropout"]) == (2, 7, 0.2)
    assert json.loads(run(*line, "--epochs", 1).stdout)["plan"]["settings"]["steps"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--layers", "attn.q_prj"], 1, "did you mean attn.q_proj?"),
        (["--rank", 16], 1, "--profile heavy"),
        (["--rank", 500, "--profile", "heavy"], 1, "rank 500 is over"),
        (["--rank", 0], 2, "--rank"),
        (["--lr", "-1"], 2, "--lr"),
        (["--lora-dropout", 1], 2, "--lora-dropout"),
        (["--resume-pack", "nothing"], 1, "no pack 'nothing'"),
        (["--resume-pack", "x", "--rank", 4], 2, "leave out --rank"),
        (["--rank-map", "nowhere.json"], 2, "does not exist"),
        (["--rank-strategy", "vibes"], 2, "stable"),
        (["--name", "Rex/.."], 1, "no name for a pack"),
        (["--base", "nowhere"], 1, "no checkpoint folder"),
    ],
)
def test_mistakes_are_told_with_the_way_out(
    home: Home, checkpoint: Path, data: Path, arguments: list[object], code: int, told: str
) -> None:
    done = run(
        "packs", "create", "--name", "rex", "--base", checkpoint, "--data", data, "--steps", 2, *arguments
    )
    assert done.exit_code == code, done.output
    assert told in done.stderr
    assert Store(home).names() == []


def test_the_ranks_of_another_pack_and_of_a_file(
    home: Home, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ranks.json"
    file.write_text('{"mlp.up_proj": 3, "attn.o_proj": 1}')
    line = ("packs", "create", "--base", checkpoint, "--data", data, "--steps", 2, "--lr", "1e-2")
    assert run(*line, "--name", "one", "--rank-map", file).exit_code == 0
    assert run(*line, "--name", "two", "--rank-map-from-pack", "one").exit_code == 0
    one, two = (Store(home).read(name).manifest.rank_map for name in ("one", "two"))
    assert one == two and sorted(set(one.values())) == [1, 3]
    done = run(*line, "--name", "three", "--rank-map", file, "--rank-strategy", "stable")
    assert done.exit_code == 2
    assert run(*line, "--name", "more", "--resume-pack", "one").exit_code == 0
    assert Store(home).read("more").manifest.parents == ("one",)
    assert np.isfinite(Store(home).read("more").manifest.evals["kl_nats"])


@pytest.mark.slow
def test_two_processes_make_the_pack_of_one_and_write_it_once(
    home: Home, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    line = ["packs", "create", "--base", str(checkpoint), "--data", str(data), "--steps", "4", "--lr", "1e-2"]
    plastic_here = str(Path(sys.executable).with_name("plastic"))
    launch = [str(Path(sys.executable).with_name("mlx.launch")), "--backend", "ring", "-n", "2"]
    duo = [*launch, "--cwd", str(tmp_path), "--", sys.executable, plastic_here, *line, "--name", "duo"]
    done = subprocess.run(duo, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out loss") == 1
    assert run(*line, "--name", "solo").exit_code == 0
    one, two = (Store(home).read(name) for name in ("duo", "solo"))
    for path, factors in one.factors.items():
        np.testing.assert_allclose(factors.b, two.factors[path].b, atol=2e-3)  # sums in another order

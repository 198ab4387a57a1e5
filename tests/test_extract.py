from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.base.weights import open_weights
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadCheckpoint, BadConfig, BadPack, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.packs import Pack, Store
from mlx_plastic.packs.extract.extract import Extracted, Extraction, extract
from mlx_plastic.packs.wear.attach import attached
from test_compose import dense
from tiny import make_checkpoint

TOKENS = list(range(5, 25))
Q = "model.layers.0.self_attn.q_proj"
Change = Callable[[str, np.ndarray], np.ndarray | None]


def finetuned(base: Path, folder: Path, change: Change) -> Path:
    """A copy of `base` whose weights are what `change` makes of them; those it makes None are left out."""
    shutil.copytree(base, folder)
    weights = {name: change(name, w) for name, w in load_file(base / "model.safetensors").items()}
    kept = {name: np.ascontiguousarray(w) for name, w in weights.items() if w is not None}
    save_file(kept, folder / "model.safetensors")
    return folder


def linear_only(size: float = 0.02, rank: int | None = None, seed: int = 0) -> Change:
    """A dense change of every linear layer, or one of `rank`, the later layers changed more."""
    random = np.random.default_rng(seed)

    def change(name: str, w: np.ndarray) -> np.ndarray:
        if "_proj" not in name:
            return w
        out, width = w.shape
        strength = size * (1 + 2 * ("layers.1" in name))
        if rank is None:
            return w + (random.standard_normal(w.shape) * strength).astype(w.dtype)
        b, a = random.standard_normal((out, rank)), random.standard_normal((rank, width))
        return w + (b @ a * strength).astype(w.dtype)

    return change


def extracted(base: Path, tuned: Path, **how: Any) -> Extracted:
    return extract(open_weights(str(base)), open_weights(str(tuned)), "delta", Extraction(**how))


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Base:
    return load_base(str(checkpoint))


@pytest.fixture(scope="module")
def tuned(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetuned(checkpoint, tmp_path_factory.mktemp("tuned") / "it", linear_only())


def worn_logits(base: Base, made: Extracted) -> np.ndarray:
    with attached(base.model, {"delta": Pack(made.manifest, made.factors)}, fingerprint=base.fingerprint):
        return np.array(base.logits(TOKENS))


def test_at_full_rank_the_pack_makes_the_tuned_model(tiny: Base, checkpoint: Path, tuned: Path) -> None:
    bare, wanted = (np.array(base.logits(TOKENS)) for base in (tiny, load_base(str(tuned))))
    change = np.abs(wanted - bare).max()
    whole = extracted(checkpoint, tuned, rank=10_000)
    assert whole.error < 3e-4  # what rounding the factors to float16 takes
    assert np.abs(worn_logits(tiny, whole) - wanted).max() < 2e-3 * change  # the same, through two layers
    first = extracted(checkpoint, tuned, rank=1)
    assert np.abs(worn_logits(tiny, first) - wanted).max() > 0.1 * change  # control: rank 1 is not enough
    assert 0.5 < first.error < 1


def test_a_change_of_low_rank_is_found_at_its_rank(checkpoint: Path, tmp_path: Path) -> None:
    made = finetuned(checkpoint, tmp_path / "it", linear_only(rank=3))
    found = extracted(checkpoint, made, rank=3)
    assert found.error < 5e-4 and len(found.factors) == 14
    before, after = (load_file(p / "model.safetensors")[f"{Q}.weight"] for p in (checkpoint, made))
    np.testing.assert_allclose(dense(found.factors[Q]), after - before, atol=1e-4)
    assert extracted(checkpoint, made, rank=2).error > 0.05  # control
    for method in ("exact", "randomized"):
        assert extracted(checkpoint, made, rank=3, svd=method).error < 5e-4


def test_the_error_told_is_the_error_made(checkpoint: Path, tuned: Path) -> None:
    found = extracted(checkpoint, tuned, rank=4, storage="int8")
    before, after = (load_file(p / "model.safetensors") for p in (checkpoint, tuned))
    for path, f in found.factors.items():
        delta = after[f"{path}.weight"] - before[f"{path}.weight"]
        lost = np.linalg.norm(dense(f) - delta) / np.linalg.norm(delta)
        assert found.errors[path] == pytest.approx(lost, rel=1e-3)


def test_a_budget_is_shared_out_by_energy(checkpoint: Path, tuned: Path) -> None:
    even = extracted(checkpoint, tuned, rank=4)
    size = even.manifest.sizes.tensor_bytes
    found = extracted(checkpoint, tuned, budget_bytes=size)
    assert 0.9 * size < found.manifest.sizes.tensor_bytes <= size
    ranks = found.manifest.rank_map
    assert sum(r for p, r in ranks.items() if "layers.1" in p) > sum(
        r for p, r in ranks.items() if "layers.0" in p
    )
    assert found.error < even.error  # control: equal ranks lose more
    with pytest.raises(BadPack, match="holds nothing"):
        extracted(checkpoint, tuned, budget_bytes=50)
    with pytest.raises(BadConfig, match="no size"):
        extracted(checkpoint, tuned)


def test_modules_that_did_not_change_are_not_in_the_pack(checkpoint: Path, tmp_path: Path) -> None:
    only_q = linear_only()
    made = finetuned(checkpoint, tmp_path / "it", lambda name, w: only_q(name, w) if Q in name else w)
    assert list(extracted(checkpoint, made, rank=2).factors) == [Q]
    with pytest.raises(BadCheckpoint, match="same linear layers"):
        extracted(checkpoint, checkpoint, rank=2)


def test_what_no_pack_can_carry_is_named_with_its_size(checkpoint: Path, tmp_path: Path) -> None:
    change = linear_only()

    def everything(name: str, w: np.ndarray) -> np.ndarray:
        return w * np.float32(1.5) if "norm" in name or "embed" in name else change(name, w)

    made = finetuned(checkpoint, tmp_path / "it", everything)
    with pytest.raises(PlasticError, match=r"10 parameters differ .*norm.*by 50 %") as caught:
        extracted(checkpoint, made, rank=2)
    assert "--partial" in caught.value.hint and "and 4 more" in caught.value.message
    found = extracted(checkpoint, made, rank=2, partial=True)
    assert len(found.left) == 10 and len(found.factors) == 14
    embedding = next(item for item in found.left if "embed" in item.name)
    assert embedding.parameters == 10240 and embedding.change == pytest.approx(0.5)


def test_every_mismatch_is_named(checkpoint: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "wide", hidden=64, layers=3)
    with pytest.raises(BadCheckpoint) as caught:
        extracted(checkpoint, other, rank=2)
    for told in (f"{Q}.weight is [32, 32] and [64, 64]", "only", "model.layers.2.mlp.up_proj"):
        assert told in caught.value.message
    other = make_checkpoint(tmp_path / "llama")
    config = json.loads((other / "config.json").read_text()) | {"model_type": "llama"}
    (other / "config.json").write_text(json.dumps(config))
    drop_norms = finetuned(other, tmp_path / "l2", lambda name, w: None if "_norm" in name else w)
    with pytest.raises(BadCheckpoint, match=r"model type is 'qwen3' and 'llama'(.|\n)*q_norm"):
        extracted(checkpoint, drop_norms, rank=2)


def test_experts_in_many_files_tensors_become_one_stack(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "moe", experts=4)
    made = finetuned(base, tmp_path / "it", linear_only())
    found = extracted(base, made, rank=10_000)
    stack = found.factors["model.layers.1.mlp.switch_mlp.down_proj"]
    before, after = (load_file(p / "model.safetensors") for p in (base, made))
    for i in range(4):
        name = f"model.layers.1.mlp.experts.{i}.down_proj.weight"
        np.testing.assert_allclose(dense(stack)[i], after[name] - before[name], atol=2e-4)
    wanted, bare = (np.array(load_base(str(p)).logits(TOKENS)) for p in (made, base))
    change = np.abs(wanted - bare).max()
    assert np.abs(worn_logits(load_base(str(base)), found) - wanted).max() < 2e-3 * change


def test_another_precision_is_no_change_of_norms(checkpoint: Path, tmp_path: Path) -> None:
    change = linear_only()
    made = finetuned(
        checkpoint, tmp_path / "it", lambda name, w: change(name, w * np.float32(1.00001)).astype(np.float16)
    )
    found = extracted(checkpoint, made, rank=2)
    assert not found.left and any("precision" in note for note in found.notes)


def test_a_quantized_checkpoint_is_dequantized_by_the_tensor(
    tiny: Base, checkpoint: Path, tuned: Path, tmp_path: Path
) -> None:
    small = quantized(tuned, tmp_path / "q", bits=8, group_size=32)
    found = extracted(checkpoint, small, rank=32, partial=True)
    assert any("is quantized" in note for note in found.notes)
    full = extracted(checkpoint, tuned, rank=32)
    assert 1e-5 < np.abs(dense(found.factors[Q]) - dense(full.factors[Q])).max() < 5e-3  # of 8 bits


def quantized(source: Path, folder: Path, **how: Any) -> Path:
    """The checkpoint quantized by mlx-lm's own tools."""
    import contextlib
    import io

    from mlx_lm.utils import load, quantize_model, save

    model, tokenizer, config = load(str(source), return_config=True)
    with contextlib.redirect_stdout(io.StringIO()):
        model, config = quantize_model(model, config, how["group_size"], how["bits"])
        save(folder, str(source), model, tokenizer, config)
    return folder


def test_two_checkpoints_are_never_in_memory_at_once(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", hidden=128, layers=6)
    made = finetuned(base, tmp_path / "it", linear_only())
    size = (base / "model.safetensors").stat().st_size
    one, two = open_weights(str(base)), open_weights(str(made))
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    tracemalloc.start()
    try:
        extract(one, two, "delta", Extraction(rank=1))
        peak = tracemalloc.get_traced_memory()[1] + mx.get_peak_memory() - before
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * size, f"{peak} of {size} bytes"
    whole = load_base(str(base))  # control: a loaded base is seen
    assert mx.get_peak_memory() - before > 0.9 * size
    del whole


# --- the command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(plastic, ["packs", "from-delta", *arguments], prog_name="plastic")


def test_the_command_stores_a_pack_bound_to_the_base(
    home: Home, tiny: Base, checkpoint: Path, tuned: Path
) -> None:
    arguments = ("--base", str(checkpoint), "--tuned", str(tuned), "--name", "delta")
    dry = run(*arguments, "--rank", "4", "--dry-run")
    assert dry.exit_code == 0 and "would be made" in dry.stdout and Store(home).names() == []
    done = run(*arguments, "--rank", "4", "--json")
    value = json.loads(done.stdout)
    assert value["rank_map"][Q] == 4 and 0 < value["error"] < 1 and value["left"] == []
    m = Store(home).read("delta").manifest
    assert m.base_fingerprint == tiny.fingerprint
    assert m.training["tuned_fingerprint"] == load_base(str(tuned)).fingerprint
    assert run(*arguments, "--rank", "4").exit_code == 1  # the name is taken
    assert run(*arguments).exit_code == 1
    assert run("--base", str(checkpoint), "--name", "x", "--rank", "2").exit_code == 2

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mlx_plastic.backend import mx
from mlx_plastic.base import Base, load_base
from mlx_plastic.cli.main import plastic
from mlx_plastic.errors import BadPack, BaseMismatch, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.packs import Pack, Store
from mlx_plastic.packs.convert import fuse
from test_convert import TOKENS, uneven_pack, worn_logits
from test_format import some_manifest
from tiny import make_checkpoint


def quantized(source: Path, out: Path, bits: int) -> Path:
    from mlx_lm.convert import convert

    convert(str(source), str(out), quantize=True, q_bits=bits, q_group_size=32)
    return out


def stock_logits(folder: Path) -> np.ndarray:
    import mlx_lm

    model, _ = mlx_lm.load(str(folder))
    return np.array(model(mx.array(TOKENS)[None])[0].astype(mx.float32))


def digests(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in sorted(folder.iterdir())
    }


def small_pack(base: Base, size: float = 0.3, **options: Any) -> Pack:
    """An update of a few per cent of the weights, as training gives."""
    pack = uneven_pack(base, **options)
    factors = {p: dataclasses.replace(f, b=(f.b * size).astype(np.float16)) for p, f in pack.factors.items()}
    return Pack(some_manifest(factors, "p", base_fingerprint=base.fingerprint), factors)


def test_stock_mlx_lm_answers_with_a_fused_base_as_with_base_and_pack(
    checkpoint: Path, tmp_path: Path
) -> None:
    base = load_base(str(checkpoint))
    pack = uneven_pack(base)
    before = digests(checkpoint)
    done = fuse.fuse(pack, str(checkpoint), tmp_path / "fused")
    assert digests(checkpoint) == before  # the base is never written
    wanted = worn_logits(base, pack)
    np.testing.assert_allclose(stock_logits(tmp_path / "fused"), wanted, rtol=1e-4, atol=1e-4)  # float32
    assert np.abs(stock_logits(checkpoint) - wanted).max() > 0.1  # control: the pack acts
    assert done.pack.mean_kl_nats > 1e-3 and done.fused is not None and done.lost is not None
    assert done.fused.mean_kl_nats == pytest.approx(done.pack.mean_kl_nats, rel=1e-2)
    assert done.lost.mean_kl_nats < 1e-6
    told = json.loads((tmp_path / "fused/fused.json").read_text())
    assert told["base_fingerprint"] == base.fingerprint and told["pack_sha256"] == pack.manifest.sha256
    assert [p.name for p in tmp_path.iterdir()] == ["fused"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_dtype_of_the_base_is_kept_unless_another_is_asked_for(tmp_path: Path, dtype: str) -> None:
    plain = make_checkpoint(tmp_path / "plain", dtype="float16")
    if dtype == "bfloat16":
        from mlx_lm.convert import convert

        convert(str(plain), str(tmp_path / "bf16"), dtype="bfloat16")
        plain = tmp_path / "bf16"
    pack = small_pack(load_base(str(plain)))
    kept = fuse.fuse(pack, str(plain), tmp_path / "kept")
    wide = fuse.fuse(pack, str(plain), tmp_path / "wide", dtype="float32")
    assert kept.dtype == dtype and wide.dtype == "float32" and wide.size_bytes > 1.8 * kept.size_bytes
    assert kept.lost is not None and wide.lost is not None
    assert kept.lost.mean_kl_nats < 0.1 * kept.pack.mean_kl_nats
    assert wide.lost.max_logit_change < 0.1 * kept.lost.max_logit_change  # control: rounding is seen
    weights = mx.load(str(tmp_path / "kept/model.safetensors"))
    assert {str(w.dtype) for w in weights.values()} == {f"mlx.core.{dtype}"}  # type: ignore[union-attr]


def test_a_quantized_base_is_dequantized_and_the_pack_kept(checkpoint: Path, tmp_path: Path) -> None:
    source = quantized(checkpoint, tmp_path / "4bit", 4)
    base = load_base(str(source))
    pack = small_pack(base)
    done = fuse.fuse(pack, str(source), tmp_path / "fused")
    config = json.loads((tmp_path / "fused/config.json").read_text())
    assert "quantization" not in config and "quantization_config" not in config
    wanted = worn_logits(base, pack)
    np.testing.assert_allclose(stock_logits(tmp_path / "fused"), wanted, rtol=1e-3, atol=1e-3)
    assert done.lost is not None and done.lost.mean_kl_nats < 1e-4 * done.pack.mean_kl_nats


def test_stacks_of_experts_are_fused(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "moe", experts=4)
    base = load_base(str(source))
    pack = uneven_pack(base, experts=True)
    fuse.fuse(pack, str(source), tmp_path / "fused")
    np.testing.assert_allclose(
        stock_logits(tmp_path / "fused"), worn_logits(base, pack), rtol=1e-4, atol=1e-4
    )
    assert np.abs(stock_logits(source) - worn_logits(base, pack)).max() > 0.1  # control


def test_quantizing_to_4_bits_is_refused_with_what_it_would_cost(checkpoint: Path, tmp_path: Path) -> None:
    source = quantized(checkpoint, tmp_path / "4bit", 4)
    pack = small_pack(load_base(str(source)), size=0.1)
    with pytest.raises(PlasticError, match="at 4 bits the answers would lie") as caught:
        fuse.fuse(pack, str(source), tmp_path / "fused", bits=4, group_size=32)
    assert "--force" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["4bit"]  # nothing is left half written
    forced = fuse.fuse(pack, str(source), tmp_path / "forced", bits=4, group_size=32, force=True)
    eight = fuse.fuse(pack, str(source), tmp_path / "eight", bits=8, group_size=32)
    assert forced.lost is not None and eight.lost is not None
    assert forced.lost.mean_kl_nats > forced.pack.mean_kl_nats  # why: rounding outweighs the pack
    assert eight.lost.mean_kl_nats < 0.2 * forced.lost.mean_kl_nats  # control: more bits keep it
    assert isinstance(load_base(str(tmp_path / "eight")).config["quantization"], dict)


def test_memory_while_writing_is_a_tensor_not_the_checkpoint(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "wide", hidden=256, layers=4)
    base = load_base(str(source))
    tensors = fuse._tensors(base.path, uneven_pack(base), None)
    del base
    largest, total = max(t.nbytes for t in tensors), sum(t.nbytes for t in tensors)
    out = tmp_path / "out"
    out.mkdir()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    fuse._write_shards(out, tensors, None)
    peak = mx.get_peak_memory() - before
    assert largest <= peak < 8 * largest < total
    assert tensors == []


def test_large_checkpoints_are_split_into_shards(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuse, "SHARD_BYTES", 30_000)
    pack = uneven_pack(load_base(str(checkpoint)))
    seen: list[tuple[int, int]] = []
    done = fuse.fuse(pack, str(checkpoint), tmp_path / "fused", on_progress=lambda *at: seen.append(at))
    assert len(list((tmp_path / "fused").glob("model-*.safetensors"))) > 2
    assert done.lost is not None and done.lost.mean_kl_nats < 1e-6
    assert seen[-1][0] == seen[-1][1] and seen == sorted(seen)


def test_a_dry_run_measures_the_pack_and_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    pack = uneven_pack(load_base(str(checkpoint)))
    done = fuse.fuse(pack, str(checkpoint), tmp_path / "fused", dry_run=True)
    assert done.pack.acts and done.fused is None and done.modules == len(pack.factors)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_fused_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    base = load_base(str(checkpoint))
    pack = uneven_pack(base)
    other = dataclasses.replace(pack, manifest=dataclasses.replace(pack.manifest, base_fingerprint="0" * 64))
    with pytest.raises(BaseMismatch):
        fuse.fuse(other, str(checkpoint), tmp_path / "fused")
    idle = {p: dataclasses.replace(f, b=f.b * 0) for p, f in pack.factors.items()}
    with pytest.raises(BadPack, match="does nothing"):
        fuse.fuse(
            Pack(some_manifest(idle, "p", base_fingerprint=base.fingerprint), idle),
            str(checkpoint),
            tmp_path / "fused",
        )
    with pytest.raises(PlasticError, match="cannot quantize to 7 bits"):
        fuse.fuse(pack, str(checkpoint), tmp_path / "fused", bits=7)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "taken").mkdir()
    with pytest.raises(PlasticError, match="there already"):
        fuse.fuse(pack, str(checkpoint), tmp_path / "taken")


def test_the_command_tells_what_fusing_changed(home: Home, checkpoint: Path, tmp_path: Path) -> None:
    pack = uneven_pack(load_base(str(checkpoint)), name="cooking")
    Store(home).add(pack.factors, pack.manifest)
    arguments = ["packs", "fuse", "cooking", "--base", str(checkpoint), "--out", str(tmp_path / "fused")]
    dry = CliRunner().invoke(plastic, [*arguments, "--dry-run"], prog_name="plastic")
    assert dry.exit_code == 0 and "WOULD BE" in dry.stdout and not (tmp_path / "fused").exists()
    done = CliRunner().invoke(plastic, [*arguments, "--json"], prog_name="plastic")
    assert done.exit_code == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["lost"]["mean_kl_nats"] < 1e-6 < value["fused"]["mean_kl_nats"]
    again = CliRunner().invoke(plastic, arguments, prog_name="plastic")
    assert again.exit_code == 1 and "there already" in again.stderr

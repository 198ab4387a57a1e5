"""A pack fused into a copy of its base: one checkpoint that stock mlx-lm loads without knowing of packs.

The copy is dequantized. Rounding W + delta to 4 bits again changes the weights by more than the delta does
(118 % of it at |delta| / |W| = 2.8 %), so that is refused unless it is forced, with the measured loss.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlx_plastic.backend import mx, tree_flatten
from mlx_plastic.base import load_base
from mlx_plastic.base.checkpoint import identity_files
from mlx_plastic.base.model import load_lazily
from mlx_plastic.base.sharding import (
    SHARD_BYTES,
    Tensor,
    bits_of,
    header,
    plain_config,
    sharded,
    write_config,
)
from mlx_plastic.base.weights import PACKING
from mlx_plastic.base.widen import float32_weight, is_packed
from mlx_plastic.errors import PlasticError
from mlx_plastic.home import write_json
from mlx_plastic.packs.convert.files import beside, check_free
from mlx_plastic.packs.format.pack import Factors, Pack
from mlx_plastic.packs.wear.attach import Proof, attached
from mlx_plastic.packs.wear.probe import compare, probe_logits, refuse_idle

log = logging.getLogger(__name__)

Dtype = Literal["float32", "float16", "bfloat16"]
Progress = Callable[[int, int], None]  # bytes written, bytes in all

LOSSY_BITS = 4  # at so few bits or fewer, rounding destroys the update
BESIDE = ("generation_config.json",)  # carried along with the tokenizer


@dataclass(frozen=True)
class Fused:
    """What was written, and what became of the pack's effect on the probes."""

    path: str
    modules: int  # that were changed
    dtype: str  # of those
    size_bytes: int  # of all weights
    bits: int | None  # if it was quantized again
    pack: Proof  # base -> base with the pack
    fused: Proof | None  # base -> the fused checkpoint; None in a dry run
    lost: Proof | None  # base with the pack -> the fused checkpoint


@dataclass(frozen=True)
class Computed(Tensor):
    """A tensor of the new checkpoint, computed when it is written."""

    compute: Callable[[], mx.array]


def fuse(
    pack: Pack,
    ref: str,
    out: Path,
    *,
    cache: Path | None = None,
    dtype: Dtype | None = None,
    bits: int | None = None,
    group_size: int = 64,
    force: bool = False,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> Fused:
    """Write base `ref` with the pack in its weights to the new folder `out`.

    dtype: of the weights; None keeps each as it is, and gives dequantized ones the dtype of their scales.
    bits, group_size: quantize the result again. dry_run: write nothing. The base's files are only read, a
    tensor at a time. Raises BaseMismatch or BadPack for a pack that does not fit or does nothing, and
    PlasticError if `out` exists or if at most 4 bits are asked for without `force`.
    """
    check_free(out)
    bare, worn, source = _answers(pack, ref, cache)
    tensors = _tensors(source, pack, dtype)
    size = sum(tensor.nbytes for tensor in tensors)
    names = {f"{path}.weight" for path in pack.factors}
    kinds = sorted({str(t.dtype).removeprefix("mlx.core.") for t in tensors if t.name in names})
    plan = Fused(str(out), len(names), "+".join(kinds), size, bits, compare(bare, worn), None, None)
    if dry_run:
        return plan
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch, beside(out) as part:
        whole = Path(scratch) / "whole" if bits else part
        whole.mkdir()
        _write(whole, source, pack, tensors, on_progress)
        if bits:
            _quantize(whole, part, bits, group_size)
        after = probe_logits(load_base(str(part)))
        fused, lost = compare(bare, after), compare(worn, after)
        if bits and bits <= LOSSY_BITS and not force:
            raise PlasticError(
                f"at {bits} bits the answers would lie {lost.mean_kl_nats:.3g} nats/token (KL) from those of "
                f"the base with the pack, which itself moves them by {plan.pack.mean_kl_nats:.3g}",
                hint="leave out --quantize, or wear the pack on a quantized base; or do it with --force",
            )
        written = sum(file.stat().st_size for file in part.glob("model*.safetensors"))
    log.info(
        "fused %s into %s: %.1f MB, KL to base + pack %.3g",
        pack.manifest.name,
        ref,
        size / 1e6,
        lost.mean_kl_nats,
    )
    return Fused(str(out), plan.modules, plan.dtype, written, bits, plan.pack, fused, lost)


def _answers(pack: Pack, ref: str, cache: Path | None) -> tuple[mx.array, mx.array, Path]:
    """The logits on the probes of the base, and of the base with the pack, and where the base lies."""
    base = load_base(ref, cache=cache)
    packs = {pack.manifest.name: pack}
    bare = probe_logits(base)
    with attached(base.model, packs, fingerprint=base.fingerprint):
        worn = probe_logits(base)
    refuse_idle(base, packs, compare(bare, worn))
    return bare, worn, base.path


def _tensors(source: Path, pack: Pack, dtype: Dtype | None) -> list[Computed]:
    """Every tensor of the fused checkpoint, under the names that mlx-lm gives them; none is computed yet."""
    model, _ = load_lazily(source)
    packed = {path: m for path, m in model.named_modules() if is_packed(m)}
    wanted = getattr(mx, dtype) if dtype else None
    made = []
    flat: Any = tree_flatten(model.parameters())
    for name, array in flat:
        path, _, leaf = name.rpartition(".")
        if path in packed and leaf in PACKING:
            continue
        quantized = packed.get(path) if leaf == "weight" else None
        update = pack.factors.get(path) if leaf == "weight" else None
        made.append(_tensor(name, array, quantized, update, wanted))
    return made


def _tensor(name: str, array: mx.array, quantized: Any, update: Factors | None, wanted: Any) -> Computed:
    shape, dtype = array.shape, array.dtype
    if quantized is not None:
        shape, dtype = (*shape[:-1], shape[-1] * 32 // quantized.bits), quantized.scales.dtype
        if not mx.issubdtype(dtype, mx.floating):  # scales of the fp4 and fp8 modes are codes
            dtype = mx.bfloat16
    if wanted is not None and mx.issubdtype(dtype, mx.floating):
        dtype = wanted

    def compute() -> mx.array:
        w = array if quantized is None else float32_weight(quantized)
        if update is not None:  # in float32, and rounded once
            a, b = (mx.array(x.astype(np.float32)) for x in (update.a, update.b))
            w = w.astype(mx.float32) + (update.scale * b) @ a
        return w.astype(dtype)

    return Computed(name, dtype, tuple(shape), compute)


def _write(
    out: Path, source: Path, pack: Pack, tensors: list[Computed], on_progress: Progress | None
) -> None:
    """The checkpoint in `out`: shards, config without quantization, tokenizer, and where it came from."""
    write_config(out, plain_config(source))
    small = [
        file
        for file in identity_files(source)
        if file.suffix != ".safetensors" and file.name != "config.json"
    ]
    for file in [*small, *(source / name for name in BESIDE)]:
        if file.is_file():
            shutil.copyfile(file, out / file.name)
    manifest = pack.manifest
    write_json(
        out / "fused.json",
        {
            "format_version": 1,
            "base": manifest.base_id,
            "base_fingerprint": manifest.base_fingerprint,
            "pack": manifest.name,
            "pack_sha256": manifest.sha256,
        },
    )
    _write_shards(out, tensors, on_progress)


def _write_shards(out: Path, tensors: list[Computed], on_progress: Progress | None) -> None:
    """Write the shards and their index. `tensors` is emptied: each is let go as soon as it is written."""
    shards = sharded(tensors, SHARD_BYTES)
    tensors.clear()
    total, done = sum(t.nbytes for _, group in shards for t in group), 0
    where: dict[str, str] = {}
    for name, group in shards:
        where |= {tensor.name: name for tensor in group}
        with open(out / name, "xb") as file:
            file.write(header(group))
            while group:
                tensor = group.pop(0)
                file.write(_bytes(tensor))
                done += tensor.nbytes
                if on_progress:
                    on_progress(done, total)
    write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


def _bytes(tensor: Computed) -> bytes:
    array = tensor.compute()
    if array.shape != tensor.shape or array.dtype != tensor.dtype:
        raise AssertionError(f"{tensor.name} became {array.dtype} {array.shape}")
    return bits_of(array).tobytes()


def _quantize(whole: Path, out: Path, bits: int, group_size: int) -> None:
    """A quantized copy of the checkpoint `whole`, by mlx-lm."""
    from mlx_lm.convert import convert

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            convert(str(whole), str(out), quantize=True, q_bits=bits, q_group_size=group_size)
    except ValueError as error:
        raise PlasticError(
            f"mlx-lm cannot quantize to {bits} bits in groups of {group_size}: {str(error)[:200]}",
            hint="it takes 2, 3, 4, 5, 6 or 8 bits and groups of 32, 64 or 128",
        ) from error
    log.debug("mlx_lm.convert: %s", said.getvalue())

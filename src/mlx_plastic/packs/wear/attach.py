"""Wear packs: put their updates on a model's linear layers, and take them off without a trace."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mlx_plastic.backend import mx, nn
from mlx_plastic.errors import BadPack, BaseMismatch
from mlx_plastic.lowrank.layers import (
    DeltaLinear,
    bare,
    dims,
    linear_layers,
    stack_size,
    unwrap,
    updated,
    wrap,
)
from mlx_plastic.packs.format.pack import Factors, Pack
from mlx_plastic.packs.format.tensors import Array

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attached:
    """What is worn. ranks: per module, summed over the packs."""

    names: tuple[str, ...]
    ranks: dict[str, int]


@dataclass(frozen=True)
class Proof:
    """What a pack changes on a probe text; zeros if it does nothing."""

    max_logit_change: float
    mean_kl_nats: float  # KL(base || base + pack), mean over the positions

    @property
    def acts(self) -> bool:
        return self.max_logit_change > 0


def attach(
    model: nn.Module,
    packs: Mapping[str, Pack],
    *,
    fingerprint: str,
    scales: Mapping[str, float] | None = None,
) -> Attached:
    """Make `model` wear exactly these packs: whatever it wore before comes off, their updates add up.

    fingerprint: of the base in `model`. scales: per pack name, a factor on its update (1 if not named).
    Raises BaseMismatch or BadPack, with every fault at once, before anything is changed.
    """
    plain = {path: bare(module) for path, module in linear_layers(model).items()}
    layers = _layers(packs, plain, fingerprint=fingerprint, scales=scales)
    unwrap(model)
    wrap(model, layers)
    return _tell(packs, layers)


def _layers(
    packs: Mapping[str, Pack],
    plain: Mapping[str, nn.Module],
    *,
    fingerprint: str,
    scales: Mapping[str, float] | None = None,
) -> dict[str, DeltaLinear]:
    """What `attach` puts in the place of the `plain` layers of a base, by module path. Raises as it does."""
    check_fit(packs, plain, fingerprint)
    layers = {}
    for path in sorted({path for pack in packs.values() for path in pack.factors}):
        parts = [
            (pack.factors[path], (scales or {}).get(name, 1.0))
            for name, pack in packs.items()
            if path in pack.factors
        ]
        layers[path] = combined(plain[path], parts)
    mx.eval([(layer.a, layer.b) for layer in layers.values()])
    return layers


def check_fit(packs: Mapping[str, Pack], plain: Mapping[str, nn.Module], fingerprint: str) -> None:
    """Raises BaseMismatch or BadPack, with every fault at once, for packs that these layers cannot wear."""
    _check_base(packs, fingerprint)
    faults = [f for name, pack in packs.items() for f in _faults(name, pack, plain)]
    if faults:
        raise BadPack(
            "the packs do not fit this base:" + "".join(f"\n  - {fault}" for fault in faults),
            hint="check which base they were made for: plastic packs inspect NAME",
        )


def _tell(packs: Mapping[str, Pack], layers: Mapping[str, DeltaLinear]) -> Attached:
    """Log what is worn now, and return it."""
    for name, pack in packs.items():
        settings = pack.manifest.training
        log.info(
            "attached %s: rank %s, alpha %s, dropout %s in training, %d modules",
            name,
            _distinct(f.rank for f in pack.factors.values()),
            _distinct(f.alpha for f in pack.factors.values()),
            settings.get("dropout", "unknown"),
            len(pack.factors),
        )
    return Attached(tuple(packs), {path: layer.a.shape[-2] for path, layer in layers.items()})


@contextmanager
def attached(
    model: nn.Module,
    packs: Mapping[str, Pack],
    *,
    fingerprint: str,
    scales: Mapping[str, float] | None = None,
) -> Iterator[Attached]:
    """Wear `packs` inside the block; afterwards, however it ends, what was worn before."""
    before = {path: m for path, m in linear_layers(model).items() if isinstance(m, DeltaLinear)}
    try:
        yield attach(model, packs, fingerprint=fingerprint, scales=scales)
    finally:
        unwrap(model)
        wrap(model, before)


def _check_base(packs: Mapping[str, Pack], fingerprint: str) -> None:
    for name, pack in packs.items():
        learned_on = pack.manifest.base_fingerprint
        if learned_on != fingerprint:
            raise BaseMismatch(
                f"pack {name!r} learned on base {learned_on[:12]} ({pack.manifest.base_id}), "
                f"but this model is {fingerprint[:12]}",
                hint="load that base, or take the pack off: plastic rollback base",
            )


def _faults(name: str, pack: Pack, plain: Mapping[str, nn.Module]) -> Iterator[str]:
    for path, factors in pack.factors.items():
        if path not in plain:
            near = difflib.get_close_matches(path, plain, n=1)
            yield f"{name}: the base has no linear layer {path}" + (f"; nearest: {near[0]}" if near else "")
            continue
        *stack, out, _ = factors.b.shape
        found, wanted = (*stack, out, factors.a.shape[-1]), (*stack_size(plain[path]), *dims(plain[path]))
        if found != wanted:
            shape = "(out, in)" if len(found) == len(wanted) == 2 else "(experts, out, in)"
            yield f"{name}: {path} is {shape} {found} in the pack and {wanted} in the base"


def combined(base: nn.Module, parts: Sequence[tuple[Factors, float]]) -> DeltaLinear:
    """One layer for several updates: their factors side by side, every scale folded into b."""
    # in numpy: MLX would hand so many small tasks to another thread and wait for it
    a = [f.a.astype(np.float32) for f, _ in parts]
    b = [f.b.astype(np.float32) * (f.scale * scale) for f, scale in parts]
    dtype = computed_in(base)
    both = mx.array(_joined(a, axis=-2)).astype(dtype), mx.array(_joined(b, axis=-1)).astype(dtype)
    return updated(base, *both)


def _joined(arrays: Sequence[Array], axis: int) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=axis)


def computed_in(base: nn.Module) -> mx.Dtype:
    dtype: mx.Dtype = (base.scales if "scales" in base else base.weight).dtype
    return dtype if mx.issubdtype(dtype, mx.floating) else mx.float32


def _distinct(values: Iterator[float]) -> str:
    return ", ".join(f"{v:g}" for v in sorted(set(values)))

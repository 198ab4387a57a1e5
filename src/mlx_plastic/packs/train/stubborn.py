"""Quantized layers that this device can only run forwards: found before training, widened if asked.

A gradient has to pass through every layer above an update. Which quantized kernels have a backward pass
depends on the device, on the mode and on the bits, so it is tried, once for each kind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlx_plastic.backend import mx, nn
from mlx_plastic.base.widen import dequantized, is_packed
from mlx_plastic.errors import TrainingFailed
from mlx_plastic.lowrank.layers import dims, is_stack, wrapped

log = logging.getLogger(__name__)


def stubborn_layers(model: Any) -> list[str]:
    """Paths of the quantized layers through which no gradient passes here, in order."""
    verdicts: dict[tuple[object, ...], bool] = {}
    found = []
    for path, module in model.named_modules():
        if is_packed(module):
            kind = (type(module), module.mode, module.bits, module.group_size)
            if kind not in verdicts:
                verdicts[kind] = _has_gradient(module)
            if not verdicts[kind]:
                found.append(path)
    return found


def _has_gradient(module: Any) -> bool:
    try:
        outputs, gradients = mx.vjp(*_probe(module))
        mx.eval(outputs, gradients)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        log.debug("%s, %s %d bits: %s", type(module).__name__, module.mode, module.bits, error)
        return False
    return bool(mx.all(mx.isfinite(gradients[0])).item())


def _probe(module: Any) -> tuple[Any, list[mx.array], list[mx.array]]:
    """A function of x that calls the module, an x, and what comes back from above."""
    dtype = module.scales.dtype if mx.issubdtype(module.scales.dtype, mx.floating) else mx.float32

    def called(x: mx.array) -> Any:
        if is_stack(module):
            return module(x, mx.zeros((1, 1), mx.uint32))
        return module.as_linear(x) if isinstance(module, nn.QuantizedEmbedding) else module(x)

    if is_stack(module):
        shape: tuple[int, ...] = (1, 1, 1, module.input_dims)
    elif isinstance(module, nn.QuantizedLinear):
        shape = (1, dims(module)[1])
    else:  # an embedding that is a head too, or one matrix for each head
        shape = (1, *module.weight.shape[:-2], 1, module.weight.shape[-1] * 32 // module.bits)
    x = mx.ones(shape, dtype)
    return called, [x], [mx.ones_like(called(x))]


@contextmanager
def trainable(model: Any, *, fallback: bool) -> Iterator[Sequence[str]]:
    """Inside, a gradient passes through the whole model; gives the paths that were widened for it.

    fallback: dequantize the stubborn layers, to the 16-bit floats of their scales; afterwards, however it
    ends, the model has its own again. Raises TrainingFailed naming them if there are any and it is False, or
    if one cannot be dequantized.
    """
    stubborn = stubborn_layers(model)
    if stubborn and not fallback:
        raise TrainingFailed(
            f"MLX has no backward pass here for {_listed(stubborn)}",
            hint="add --train-fp16-fallback: these layers alone are dequantized while training",
        )
    modules = dict(model.named_modules())
    wide = {path: _widened(modules[path]) for path in stubborn}
    if lost := [path for path, module in wide.items() if module is None]:
        raise TrainingFailed(f"there is no dequantized form of {_listed(lost)}", hint="take another base")
    if wide:
        log.info("dequantized while training: %s", _listed(stubborn))
    with wrapped(model, wide):
        yield stubborn


def _widened(module: Any) -> Any:
    plain = dequantized(module)
    if plain is not None and module.scales.dtype in (mx.float16, mx.bfloat16):
        plain.set_dtype(module.scales.dtype)
    if plain is not None:
        plain.freeze()
    return plain


def _listed(paths: Sequence[str], most: int = 5) -> str:
    more = f" and {len(paths) - most} more layers" if len(paths) > most else ""
    return ", ".join(paths[:most]) + more

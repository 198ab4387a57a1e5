"""Quantized and 16-bit weights as float32, for machines that are slow in anything less."""

from __future__ import annotations

from typing import Any

from mlx_plastic.backend import (
    available_memory_bytes,
    is_slow_low_precision,
    mx,
    nn,
    tree_flatten,
    tree_unflatten,
)

FREE_SHARE = 0.6  # of the free memory that the widened weights may take


def is_packed(module: Any) -> bool:
    """Whether the module's weight is quantized."""
    return "scales" in module and hasattr(module, "group_size")


def widen(model: Any) -> str:
    """Turn quantized and 16-bit weights into float32 where that is quicker and fits; says what it did."""
    packed = {path: m for path, m in model.named_modules() if is_packed(m)}
    dtypes = {array.dtype for array in _arrays(model)} & {mx.float16, mx.bfloat16}
    narrow = {str(dtype).removeprefix("mlx.core.") for dtype in dtypes}
    if not is_slow_low_precision() or not (packed or narrow):
        return ""
    bits = sorted({m.bits for m in packed.values()})
    was = " and ".join(f"{b}-bit" for b in bits) or " and ".join(sorted(narrow))
    need, free = 4 * count_parameters(model), available_memory_bytes()
    if need > FREE_SHARE * free:
        room = f"float32 needs {need / 1e6:.0f} MB, {free / 1e6:.0f} MB are free"
        return f"left in {was}, slow on this CPU: {room}"
    plain = [(path, wide) for path, m in packed.items() if (wide := dequantized(m)) is not None]
    if plain:
        model.update_modules(tree_unflatten(plain))
    model.set_dtype(mx.float32)
    verb = "dequantized" if packed else "cast"
    return f"{verb} {was} to float32 ({need / 1e6:.0f} MB): this CPU is slow in low precision"


def dequantized(module: Any) -> Any:
    """The plain layer with the same weights in float32, or None for a kind of layer that we do not know."""
    from mlx_lm.models.mla import MultiLinear, QuantizedMultiLinear
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

    bias = "bias" in module
    plain: Any
    if isinstance(module, nn.QuantizedLinear):
        plain = nn.Linear(1, 1, bias=bias)
    elif isinstance(module, nn.QuantizedEmbedding):
        plain = nn.Embedding(1, 1)
    elif isinstance(module, QuantizedSwitchLinear):
        plain = SwitchLinear(1, 1, 1, bias=bias)
    elif isinstance(module, QuantizedMultiLinear):
        plain = MultiLinear(1, 1, 1)
    else:
        return None
    plain.weight = float32_weight(module)
    if bias:
        plain.bias = module.bias
    mx.eval(plain.weight)  # one layer at a time: the packed ones can go
    return plain


def float32_weight(module: Any) -> mx.array:
    """The weight of a module in float32, unpacked if it is quantized."""
    if "scales" not in module:
        plain: mx.array = module.weight.astype(mx.float32)
        return plain
    scales, biases = module.scales, module.get("biases")
    if biases is not None:  # affine: widen first, so that the product is not rounded to 16 bits
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    how = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
    return mx.dequantize(
        module.weight, scales, biases, **how, global_scale=module.get("global_scale"), dtype=mx.float32
    )


def _arrays(model: Any) -> list[mx.array]:
    named: Any = tree_flatten(model.parameters())
    return [array for _, array in named]


def count_parameters(model: Any) -> int:
    """How many numbers the model has, packed ones counted unpacked."""
    total = sum(a.size for a in _arrays(model))
    for _, m in model.named_modules():
        if is_packed(m):
            total += m.scales.size * m.group_size - m.weight.size - m.scales.size
            total -= m.biases.size if m.get("biases") is not None else 0
    return int(total)

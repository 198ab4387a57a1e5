"""Linear layers that carry a low-rank update, and how they take a plain layer's place in a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from mlx_plastic.backend import mx, nn

M = TypeVar("M", bound=nn.Module)


class DeltaLinear(nn.Module):
    """A frozen linear layer plus an update: y = base(x) + scale * (x @ a.T) @ b.T.

    base: nn.Linear, nn.QuantizedLinear or another DeltaLinear; it is kept as it is, so that it can be put
    back. a: (rank, in), b: (out, rank). dropout: the share of x that the update does not see while
    `key` is set; without a key there is none.
    """

    def __init__(
        self, base: nn.Module, a: mx.array, b: mx.array, *, scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.base = base
        self.a = a
        self.b = b
        self.scale = scale
        self.dropout = dropout
        self.key: list[mx.array] = []  # in a list, so that it is no parameter

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.base(x)
        h = self._dropped(x) @ (self.scale * self.a).T  # the scale costs least on the smallest factor
        return y + (h @ self.b.T).astype(y.dtype)

    def _dropped(self, x: mx.array) -> mx.array:
        if not self.dropout or not self.key:
            return x
        kept = mx.random.bernoulli(1 - self.dropout, x.shape, key=self.key[0])
        return kept * x * (1 / (1 - self.dropout))


class DeltaSwitchLinear(DeltaLinear):
    """A frozen stack of experts plus an update for each: a (E, rank, in), b (E, out, rank).

    base: mlx-lm's SwitchLinear or its quantized kind, called with the experts' numbers for each token.
    """

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:  # type: ignore[override]
        def product(x: mx.array, w: mx.array) -> mx.array:
            return mx.gather_mm(x, w.swapaxes(-1, -2), rhs_indices=indices, sorted_indices=sorted_indices)

        y: mx.array = self.base(x, indices, sorted_indices=sorted_indices)
        h = product(self._dropped(x), self.scale * self.a)
        return y + product(h, self.b).astype(y.dtype)


def is_stack(module: Any) -> bool:
    """Whether the module is a stack of experts: mlx-lm's SwitchLinear, or its quantized kind."""
    return hasattr(type(module), "num_experts") and hasattr(type(module), "input_dims")


def updated(
    base: nn.Module, a: mx.array, b: mx.array, *, scale: float = 1.0, dropout: float = 0.0
) -> DeltaLinear:
    """The layer `base`, or stack of experts, carrying that update."""
    kind = DeltaSwitchLinear if a.ndim == 3 else DeltaLinear
    return kind(base, a, b, scale=scale, dropout=dropout)


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Module path -> the linear layer or stack of experts there.

    One that carries an update counts once, by its own path.
    """
    found = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.QuantizedLinear | DeltaLinear) or is_stack(module)
    }
    inner = {path for path in found if path.endswith(".base") and path.removesuffix(".base") in found}
    return {path: module for path, module in sorted(found.items()) if path not in inner}


def dims(linear: Any) -> tuple[int, int]:
    """(out, in) of a linear layer, or of each expert of a stack, whatever it is made of."""
    if isinstance(linear, DeltaLinear):
        return linear.b.shape[-2], linear.a.shape[-1]
    if is_stack(linear):
        return linear.output_dims, linear.input_dims
    rows, columns = linear.weight.shape
    return rows, columns * 32 // linear.bits if isinstance(linear, nn.QuantizedLinear) else columns


def stack_size(linear: Any) -> tuple[int, ...]:
    """(E,) for a stack of E experts, () for a single linear layer: what its factors' shapes begin with."""
    plain: Any = bare(linear)
    return (plain.num_experts,) if is_stack(plain) else ()


def wrap(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Put `layers` into the model at their paths; returns what was there, to be wrapped back later."""
    before = {}
    for path, layer in layers.items():
        holder, key = place(model, path)
        before[path] = holder[key]
        holder[key] = layer
    return before


@contextmanager
def wrapped(model: nn.Module, layers: Mapping[str, M]) -> Iterator[Mapping[str, M]]:
    """Inside, `layers` stand in the model at their paths; afterwards, however it ends, what was there."""
    before = wrap(model, layers)
    try:
        yield layers
    finally:
        wrap(model, before)


def place(model: nn.Module, path: str) -> tuple[Any, Any]:
    """The module, dict or list that holds the layer at `path`, and under which key."""
    *above, last = path.split(".")
    holder: Any = model
    for part in above:
        holder = holder[int(part) if isinstance(holder, list) else part]
    return holder, int(last) if isinstance(holder, list) else last


def unwrap(model: nn.Module) -> dict[str, nn.Module]:
    """Take every update off the model; returns the layers that carried one, to be wrapped back later."""
    carried: dict[str, nn.Module] = {
        path: m for path, m in linear_layers(model).items() if isinstance(m, DeltaLinear)
    }
    wrap(model, {path: bare(layer) for path, layer in carried.items()})
    return carried


def bare(layer: nn.Module) -> nn.Module:
    """The layer of the base under all updates."""
    while isinstance(layer, DeltaLinear):
        layer = layer.base
    return layer

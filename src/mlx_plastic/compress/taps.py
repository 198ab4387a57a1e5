"""Layers that remember what came in and what the loss says of what goes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_plastic.backend import mx, nn
from mlx_plastic.base.roles import natural
from mlx_plastic.lowrank.layers import is_stack, place


class Tap(nn.Module):
    """A layer whose outputs carry a probe: the gradient by a probe of zeros is that by the output.

    Calls are numbered in the order they come, since an embedding that is also the head is called twice.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layer = layer
        self.record = Record()

    def __call__(self, x: mx.array, *rest: Any, **named: Any) -> Any:
        return self.record.note("in", x, self.layer(x, *rest, **named), rest)

    def as_linear(self, x: mx.array) -> Any:
        return self.record.note("head", x, self.layer.as_linear(x), ())

    def __getattr__(self, key: str) -> Any:
        try:
            return super().__getattr__(key)
        except AttributeError:
            if "layer" not in self:
                raise
            return getattr(self["layer"], key)


class Record:
    """What one tap saw in one pass. Not a module, so that it is no part of the model.

    seen: ("in" or "head", input, experts' numbers or None) of each call. probes: to add to the outputs.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, mx.array, mx.array | None]] = []
        self.shapes: list[tuple[tuple[int, ...], mx.Dtype]] = []
        self.probes: list[mx.array] = []

    def note(self, kind: str, x: mx.array, y: mx.array, rest: Sequence[Any]) -> mx.array:
        at = len(self.seen)
        self.seen.append((kind, x, rest[0] if rest else None))
        self.shapes.append((y.shape, y.dtype))
        return y + self.probes[at] if at < len(self.probes) else y

    def forget(self) -> None:
        self.seen, self.shapes, self.probes = [], [], []


def at(model: Any, path: str) -> Any:
    holder, key = place(model, path)
    return holder[key]


def storable(model: Any) -> dict[str, nn.Module]:
    """Module path -> the layer there that may be quantized: linear layers, embeddings, stacks of experts."""
    kinds = (nn.Linear, nn.Embedding, nn.QuantizedLinear, nn.QuantizedEmbedding)
    named = dict(model.named_modules())
    paths = [path for path, module in named.items() if isinstance(module, kinds) or is_stack(module)]
    return {path: named[path] for path in sorted(paths, key=natural)}

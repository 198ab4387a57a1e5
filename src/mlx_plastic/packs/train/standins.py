"""Stand-ins: modules put in a model's place for a while, so that training computes only what it needs.

None patches a class, and each is tried on a few tokens before it is relied on, because models are put
together in many ways: where the logits differ, it is not used.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlx_plastic.backend import mx, nn
from mlx_plastic.lowrank.layers import DeltaLinear, wrap

log = logging.getLogger(__name__)

PROBE = [[1, 2, 3], [3, 1, 0]]
CLOSE = 0.02  # of the logits' deviation: low precision rounds by the row; a wrong place is off by the whole


class Gather(nn.Module):
    """Stands for the final norm: the positions that are not asked for end here.

    Everything after it, the head above all, sees one row of the `only` positions.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norm = norm
        self.asked: list[mx.array] = []

    def __call__(self, x: mx.array) -> Any:
        if not self.asked:
            return self.norm(x)
        return self.norm(x.reshape(-1, x.shape[-1])[self.asked[0]][None])

    @contextlib.contextmanager
    def only(self, positions: mx.array) -> Iterator[None]:
        self.asked = [positions]
        try:
            yield
        finally:
            self.asked = []


class Block(nn.Module):
    """Stands for a block of the model and has all that is asked of it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.block = block

    def __getattr__(self, key: str) -> Any:
        try:
            return super().__getattr__(key)
        except AttributeError:
            return getattr(super().__getattr__("block"), key)

    def __call__(self, x: mx.array, *args: Any, **kwargs: Any) -> Any:
        return self.block(x, *args, **kwargs)


class Handoff:
    """What the frozen blocks hand to the first one that learns.

    given: hidden states to be used instead of what they compute. seen: what they computed last.
    """

    given: mx.array | None = None
    seen: mx.array | None = None
    dtype: mx.Dtype = mx.float32  # of what they compute


class Frozen(Block):
    """A block with nothing to learn: it is left out while its outcome is given."""

    def __init__(self, block: nn.Module, handoff: Handoff, *, last: bool) -> None:
        super().__init__(block)
        self._handoff = handoff
        self._last = last

    def __call__(self, x: mx.array, *args: Any, **kwargs: Any) -> Any:
        if self._handoff.given is not None:
            return self._handoff.given if self._last else x
        y = self.block(x, *args, **kwargs)
        if self._last:
            self._handoff.seen = y
        return y


class Checkpointed(Block):
    """A block whose inner activations are computed anew in the backward pass: time for memory.

    layers: the updates in it. Chen et al. 2016, "Training deep nets with sublinear memory cost".
    """

    def __init__(self, block: nn.Module, layers: Sequence[DeltaLinear]) -> None:
        super().__init__(block)
        self._layers = list(layers)

    def __call__(self, x: mx.array, *args: Any, **kwargs: Any) -> Any:
        def compute(parts: list[mx.array], x: mx.array) -> Any:
            for i, layer in enumerate(self._layers):
                layer.a, layer.b = parts[2 * i], parts[2 * i + 1]
            return self.block(x, *args, **kwargs)

        parts = [part for layer in self._layers for part in (layer.a, layer.b)]
        out = mx.checkpoint(compute)(parts, x)
        for i, layer in enumerate(self._layers):  # what the inner call has set is of the inner call
            layer.a, layer.b = parts[2 * i], parts[2 * i + 1]
        return out


def gathering(model: Any) -> tuple[str, Gather] | None:
    """Put a Gather in place of the final norm; its path, or None if no norm proves to be that.

    Names differ from model to model, so each norm beside the blocks is tried and the logits compared.
    """
    probe, positions = mx.array(PROBE), mx.array([1, 5])
    whole = model(probe)
    wanted = whole.reshape(-1, whole.shape[-1])[positions]
    for path, norm in _norms_beside_blocks(model):
        gather = Gather(norm)
        wrap(model, {path: gather})
        with contextlib.suppress(ValueError, RuntimeError, IndexError), gather.only(positions):
            if _same(model(probe), wanted[None]):
                log.debug("the final norm is %s", path)
                return path, gather
        wrap(model, {path: norm})
    log.debug("no final norm found: training computes all logits")
    return None


def _norms_beside_blocks(model: Any) -> list[tuple[str, nn.Module]]:
    """Norms whose path has no number in it: they lie beside the list of blocks, not in a block."""
    return [
        (path, module)
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and not any(part.isdigit() for part in path.split("."))
    ]


def freezing(model: Any, learned: Sequence[str]) -> tuple[dict[str, nn.Module], Handoff] | None:
    """Put a Frozen in place of each block below those that learn; what was there, and the handoff.

    learned: paths of the layers that learn. None if there is no such block, if blocks cannot be told, or if
    the model needs more of the lower blocks than their last outcome.
    """
    blocks = block_paths(learned)
    if blocks is None or (first := min(blocks.values())) == 0:
        return None
    trunk = next(iter(blocks)).rpartition(".")[0]
    modules = dict(model.named_modules())
    handoff = Handoff()
    paths = [f"{trunk}.{i}" for i in range(first)]
    before = wrap(model, {path: Frozen(modules[path], handoff, last=path == paths[-1]) for path in paths})
    if _hands_over(model, handoff):
        return before, handoff
    wrap(model, before)
    log.debug("the blocks of this model cannot be entered half-way: nothing is cached")
    return None


def _hands_over(model: Any, handoff: Handoff) -> bool:
    probe = mx.array(PROBE)
    try:
        wanted = model(probe)
        if not isinstance(handoff.seen, mx.array):
            return False
        handoff.given, handoff.dtype = handoff.seen, handoff.seen.dtype
        return _same(model(probe), wanted)
    except (ValueError, TypeError, AttributeError, RuntimeError, IndexError):
        return False
    finally:
        handoff.given = handoff.seen = None


class Segments:
    """In place of a block's cache of keys: tells attention which tokens of a packed row belong together.

    mlx-lm asks a cache for the mask, and where positions begin; each sample attends to itself alone.
    """

    offset = 0

    def __init__(self, segments: mx.array) -> None:
        n = segments.shape[1]
        same = segments[:, :, None] == segments[:, None, :]
        self.mask = (same & (mx.arange(n)[:, None] >= mx.arange(n)[None]))[:, None]

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        if window_size is None:
            return self.mask
        return self.mask & (mx.arange(n)[:, None] < mx.arange(n)[None] + window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        return keys, values


def can_pack(model: Any) -> bool:
    """Whether two samples in one row, told apart by Segments, give the logits of each alone."""
    apart, together = mx.array(PROBE), mx.array([[*PROBE[0], *PROBE[1]]])
    segments = Segments(mx.array([[1] * len(PROBE[0]) + [2] * len(PROBE[1])]))
    try:
        wanted = model(apart)
        found = model(together, cache=[segments] * len(model.layers))
        return _same(found.reshape(wanted.shape), wanted)
    except (ValueError, TypeError, AttributeError, RuntimeError, IndexError):
        return False


def checkpointing(model: Any, layers: Mapping[str, DeltaLinear]) -> dict[str, nn.Module]:
    """Put a Checkpointed in place of each block that learns; returns what was there."""
    blocks = block_paths(list(layers)) or {}
    modules = dict(model.named_modules())
    return wrap(
        model,
        {
            path: Checkpointed(
                modules[path], [layer for at, layer in layers.items() if at.startswith(f"{path}.")]
            )
            for path in blocks
        },
    )


def block_paths(paths: Sequence[str]) -> dict[str, int] | None:
    """The blocks that these layers lie in, with their numbers; None unless all lie in one list of blocks."""
    found: dict[str, int] = {}
    for path in paths:
        parts = path.split(".")
        at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if at is None:
            return None
        found[".".join(parts[: at + 1])] = int(parts[at])
    return found if len({path.rpartition(".")[0] for path in found}) == 1 else None


def _same(found: Any, wanted: mx.array) -> bool:
    if getattr(found, "shape", None) != wanted.shape:
        return False
    found, wanted = found.astype(mx.float32), wanted.astype(mx.float32)
    return bool(mx.all(mx.abs(found - wanted) <= CLOSE * mx.std(wanted)).item())

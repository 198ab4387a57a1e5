"""Several packs in one batch: every row of a forward pass wears its own.

The factors of all packs that a batch needs stand side by side, and a mask over their columns says which of
them each row wears, and how strongly: h = (x @ a.T) * mask, y = base(x) + h @ b.T. Ranks may differ, a row
may wear several packs or none, and changing who wears what is a new mask.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from mlx_plastic.backend import mx, nn
from mlx_plastic.base.roles import role_of
from mlx_plastic.lowrank.layers import DeltaLinear, bare, linear_layers, place, stack_size
from mlx_plastic.packs.format.pack import Pack
from mlx_plastic.packs.wear.attach import check_fit, combined, computed_in

MOST_SETS = 8  # sets of packs whose side by side factors are kept ready
MOST_PACKS = 128  # that are kept in memory: more than a batch can wear

Outfit = tuple[tuple[str, float], ...]  # sha256 and scale of each pack worn together

# layers of one block that read the same input: their first products are computed as one
TOGETHER = {
    **dict.fromkeys(("attn.q_proj", "attn.k_proj", "attn.v_proj"), "qkv"),
    **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), "gate_up"),
    **dict.fromkeys(("shared.gate_proj", "shared.up_proj"), "gate_up"),
}


class Down:
    """h = (x @ a.T) * mask for all layers that read the same x, computed once.

    a: (columns, in) of all layers and packs. owners: which pack of the set each column belongs to. ends:
    of each layer's columns, in order.
    """

    def __init__(self, a: mx.array, owners: tuple[int, ...], ends: tuple[int, ...]) -> None:
        self.a = a
        self.a_t = a.T  # once: an operation less in every pass
        self.owners = owners
        self.ends = ends
        self.mask: mx.array | None = None  # (rows, 1, columns), or None: every row wears all
        self._last: tuple[mx.array, list[mx.array]] | None = None

    def __call__(self, x: mx.array) -> list[mx.array]:
        """Each layer's part of h."""
        if self._last is None or self._last[0] is not x:
            h = x @ self.a_t
            if self.mask is not None:
                h = h * self.mask
            cut: Any = mx.split(h, self.ends[:-1], axis=-1)
            self._last = x, cut
        return self._last[1]

    def forget(self) -> None:
        self._last = None


class MixedLinear(DeltaLinear):
    """A linear layer whose update depends on the row. b_t: (columns of its part of `down`, out).

    It lies in memory as it is multiplied: for a few rows and columns that is up to three times as fast.
    """

    def __init__(self, base: nn.Module, down: Down, part: int, b_t: mx.array) -> None:
        end = down.ends[part]
        super().__init__(base, down.a[end - b_t.shape[0] : end], b_t.T)
        self.down = [down]  # in a list, so that it is no parameter
        self.part = part
        self.b_t = [b_t]

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.base(x)
        h = self.down[0](x)[self.part] @ self.b_t[0]
        return y + (h if h.dtype == y.dtype else h.astype(y.dtype))


@dataclass
class Ready:
    """The layers for one set of packs, and what their masks are written to."""

    digests: tuple[str, ...]
    layers: dict[str, nn.Module]
    downs: list[Down]


class Mixer:
    """Dresses a model row by row. While one is used, nothing else may put packs on the model.

    The base's own layers must stay the same, so make another one for another model.
    """

    def __init__(self, model: nn.Module, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._plain = {path: bare(layer) for path, layer in linear_layers(model).items()}
        self._places = {path: place(model, path) for path in self._plain}
        self._packs: OrderedDict[str, Pack] = OrderedDict()
        self._sets: OrderedDict[Outfit, Ready] = OrderedDict()
        self._worn: Ready | None = None
        self._rows: tuple[Outfit, ...] = ()

    def admit(self, packs: Mapping[str, Pack], scales: Mapping[str, float] | None = None) -> Outfit:
        """Take in packs that are to be worn together; what `dress` wants to be told for such a row.

        Raises BaseMismatch or BadPack. At most MOST_PACKS are kept: admit a row's packs before it is dressed.
        """
        check_fit(packs, self._plain, self.fingerprint)
        for pack in packs.values():
            self._packs[pack.manifest.sha256] = pack
            self._packs.move_to_end(pack.manifest.sha256)
        return tuple((pack.manifest.sha256, (scales or {}).get(name, 1.0)) for name, pack in packs.items())

    def mixes(self, outfit: Outfit) -> bool:
        """Whether rows with other packs can stand beside it; experts get tokens without their rows."""
        paths = (path for digest, _ in outfit for path in self._packs[digest].factors)
        return not any(stack_size(self._plain[path]) for path in paths)

    def dress(self, rows: Sequence[Outfit]) -> None:
        """From now on row i of every forward pass wears rows[i]. Cheap when nothing changed."""
        wanted = tuple(rows)
        if wanted == self._rows and self._worn is not None:
            return
        if all(map(self.mixes, wanted)):
            together = tuple((digest, 1.0) for digest in sorted({d for outfit in wanted for d, _ in outfit}))
        elif len(set(wanted)) == 1:
            together = wanted[0]  # experts have no mask: the scales go into their factors
        else:
            raise ValueError("packs on experts cannot be mixed with others in one batch")
        ready = self._ready(together)
        if ready is not self._worn:
            for path, (holder, key) in self._places.items():
                holder[key] = ready.layers.get(path, self._plain[path])
        _write_masks(ready, wanted)
        self._worn, self._rows = ready, wanted
        self._make_room()

    def rest(self) -> None:
        """Let go of the last forward pass's inputs."""
        for down in self._worn.downs if self._worn else ():
            down.forget()

    def undress(self) -> None:
        """Leave the model with the very layers of its base."""
        self.dress(())
        self._worn, self._rows = None, ()

    def _ready(self, together: Outfit) -> Ready:
        if together not in self._sets:
            self._sets[together] = self._make(together)
        self._sets.move_to_end(together)
        return self._sets[together]

    def _make(self, together: Outfit) -> Ready:
        packs = [self._packs[digest] for digest, _ in together]
        paths = sorted({path for pack in packs for path in pack.factors})
        layers: dict[str, nn.Module] = {}
        downs: list[Down] = []
        for group in _grouped([path for path in paths if not stack_size(self._plain[path])]):
            downs.append(_mixed(group, packs, self._plain, layers))
        for path in paths:
            if stack_size(self._plain[path]):
                parts = zip(packs, together, strict=True)
                worn = [(p.factors[path], scale) for p, (_, scale) in parts if path in p.factors]
                layers[path] = combined(self._plain[path], worn)
        mx.eval([down.a_t for down in downs], [layer.b for layer in layers.values()])
        mx.eval([layer.b_t for layer in layers.values() if isinstance(layer, MixedLinear)])
        return Ready(tuple(digest for digest, _ in together), layers, downs)

    def _make_room(self) -> None:
        while len(self._sets) > MOST_SETS:
            self._sets.popitem(last=False)
        needed = set(self._worn.digests) if self._worn else set()
        for digest in [d for d in self._packs if d not in needed][: max(0, len(self._packs) - MOST_PACKS)]:
            del self._packs[digest]


def _grouped(paths: Sequence[str]) -> list[list[str]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        above, _, leaf = path.rpartition(".")
        groups.setdefault((above, TOGETHER.get(role_of(path) or "", leaf)), []).append(path)
    return list(groups.values())


def _mixed(
    paths: Sequence[str],
    packs: Sequence[Pack],
    plain: Mapping[str, nn.Module],
    layers: dict[str, nn.Module],
) -> Down:
    """Put a layer for each of `paths`, which read the same input, into `layers`."""
    parts = [[(i, p.factors[path]) for i, p in enumerate(packs) if path in p.factors] for path in paths]
    dtype = computed_in(plain[paths[0]])
    a = np.concatenate([f.a.astype(np.float32) for part in parts for _, f in part])
    owners = tuple(i for part in parts for i, f in part for _ in range(f.rank))
    ends = tuple(accumulate(sum(f.rank for _, f in part) for part in parts))
    down = Down(mx.array(a).astype(dtype), owners, ends)
    for number, (path, part) in enumerate(zip(paths, parts, strict=True)):
        b_t = np.ascontiguousarray(np.concatenate([f.b.T.astype(np.float32) * f.scale for _, f in part]))
        layers[path] = MixedLinear(plain[path], down, number, mx.array(b_t).astype(dtype))
    return down


def _write_masks(ready: Ready, rows: Sequence[Outfit]) -> None:
    """(rows, packs) strengths, spread over each Down's columns; layers with the same columns share one."""
    place_of = {digest: i for i, digest in enumerate(ready.digests)}
    strength = np.zeros((len(rows), len(ready.digests)), np.float32)
    for row, outfit in enumerate(rows):
        for digest, scale in outfit:
            strength[row, place_of[digest]] += scale
    full = bool((strength == 1).all())
    made: dict[tuple[tuple[int, ...], mx.Dtype], mx.array] = {}
    for down in ready.downs:
        down.forget()
        key = (down.owners, down.a.dtype)
        if not full and key not in made:
            made[key] = mx.array(strength[:, down.owners])[:, None].astype(down.a.dtype)
        down.mask = None if full else made[key]
    mx.eval(list(made.values()))

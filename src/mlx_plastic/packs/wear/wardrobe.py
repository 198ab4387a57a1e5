"""Packs made ready for one model, so that wearing another is a few assignments and no computation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_plastic.backend import nn
from mlx_plastic.lowrank.layers import DeltaLinear, bare, linear_layers, place
from mlx_plastic.packs.format.pack import Pack
from mlx_plastic.packs.wear.attach import Attached, layers_of, tell

MAX_BYTES = 512 << 20  # of layers kept ready; the ones not worn for the longest go first

Outfit = tuple[tuple[str, float], ...]  # sha256 and scale of each pack worn together


@dataclass
class _Ready:
    layers: dict[str, DeltaLinear]
    nbytes: int


class Wardrobe:
    """The layers of every outfit worn so far, by the packs' digests, ready to be put on.

    It does what `attach` does, and lives beside it: what else put on or took off in between does not matter.
    The base's own layers must stay the same, so make another one for another model.
    """

    def __init__(self, model: nn.Module, fingerprint: str, *, max_bytes: int = MAX_BYTES) -> None:
        self.fingerprint = fingerprint
        self.max_bytes = max_bytes
        self._plain = {path: bare(layer) for path, layer in linear_layers(model).items()}
        self._places = {path: place(model, path) for path in self._plain}
        self._ready: OrderedDict[Outfit, _Ready] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes of the layers that are kept ready."""
        return sum(ready.nbytes for ready in self._ready.values())

    def wear(self, packs: Mapping[str, Pack], *, scales: Mapping[str, float] | None = None) -> Attached:
        """Make the model wear exactly these packs; as `attach`, and with its errors."""
        layers = self._layers(packs, scales or {})
        for path, (holder, key) in self._places.items():
            holder[key] = layers.get(path, self._plain[path])
        return tell(packs, layers)

    def take_off(self) -> None:
        """Leave the model with the very layers of its base."""
        self.wear({})

    def clear(self) -> None:
        """Forget what is ready; what is worn stays on."""
        self._ready.clear()

    def _layers(self, packs: Mapping[str, Pack], scales: Mapping[str, float]) -> dict[str, DeltaLinear]:
        outfit = tuple((pack.manifest.sha256, scales.get(name, 1.0)) for name, pack in packs.items())
        ready = self._ready.get(outfit)
        if ready is None or any(p.manifest.base_fingerprint != self.fingerprint for p in packs.values()):
            layers = layers_of(packs, self._plain, fingerprint=self.fingerprint, scales=scales)
            ready = _Ready(layers, sum(layer.a.nbytes + layer.b.nbytes for layer in layers.values()))
            self._ready[outfit] = ready
            self._make_room(outfit)
        else:
            self._ready.move_to_end(outfit)
        return ready.layers

    def _make_room(self, newest: Outfit) -> None:
        while self.nbytes > self.max_bytes and next(iter(self._ready)) != newest:
            self._ready.popitem(last=False)

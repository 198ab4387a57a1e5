"""What a repair pack is worth on held-out text, against the same bytes spent on more bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.backend import mx, nn
from mlx_plastic.base import load_base
from mlx_plastic.base.weights import Weights, open_weights
from mlx_plastic.lowrank.layers import linear_layers, wrap
from mlx_plastic.packs.extract.divergence import Distance, Reference
from mlx_plastic.packs.extract.requantize import Upgrade, quantized_anew
from mlx_plastic.packs.format.pack import Pack
from mlx_plastic.packs.wear.attach import attached


@dataclass(frozen=True)
class Worth:
    """How far predictions lie from the full base's: of the quantized base, of it with the pack, and of it
    with the pack's bytes in bits, for the matrices in `upgrades`; None if they buy none."""

    full: Distance  # for its perplexity
    quantized: Distance
    repaired: Distance
    more_bits: Distance | None
    upgrades: tuple[Upgrade, ...]

    @property
    def better(self) -> str:
        """ "pack", "more bits" or "equal": within two standard errors, text by text."""
        if self.more_bits is None:
            return "pack"
        gain, spread = self.repaired.less(self.more_bits)
        if abs(gain) <= 2 * spread:
            return "equal"
        return "pack" if gain > 0 else "more bits"

    @property
    def verdict(self) -> str:
        """Whether the bytes are well spent, in a sentence with the figures."""
        text = (
            f"the pack takes the KL from {self.quantized.kl_nats:.4g} to {self.repaired.kl_nats:.4g} "
            f"nats per token ({self.repaired.tokens} tokens held out)"
        )
        if self.more_bits is None:
            return f"{text}; its bytes would not buy more bits for any matrix"
        text += (
            f"; the same bytes in more bits or smaller groups for {len(self.upgrades)} matrices, to "
            f"{self.more_bits.kl_nats:.4g}"
        )
        said = {
            "pack": "the pack is the better use of the bytes",
            "more bits": "MORE BITS ARE THE BETTER USE of the bytes",
            "equal": "on this text neither is better",
        }
        return f"{text}: {said[self.better]}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON and manifests."""
        sides = {"full": self.full, "quantized": self.quantized, "repaired": self.repaired}
        if self.more_bits is not None:
            sides["more_bits"] = self.more_bits
        return {
            **{f"kl_nats_{side}": d.kl_nats for side, d in sides.items() if side != "full"},
            **{f"perplexity_{side}": d.perplexity for side, d in sides.items()},
            "kl_spread": self.repaired.spread,
            "tokens": self.repaired.tokens,
            "better_use": self.better,
            "verdict": self.verdict,
        }


def measure_worth(
    first: Reference,
    pack: Pack,
    upgrades: Sequence[Upgrade],
    quantized_ref: str,
    base_ref: str,
    *,
    cache: Path | None = None,
    on_progress: Callable[[int, int, str], None],
) -> Worth:
    """Run the quantized base as it is, with `pack`, and with `upgrades`, made of the base's own weights."""
    small = load_base(quantized_ref, cache=cache)
    total = len(first.pieces) * (3 if upgrades else 2)
    done = itertools.count(1)

    def one_more() -> None:
        on_progress(next(done), total, "measuring")

    quantized = first.distance(small.model, on_piece=one_more)
    with attached(small.model, {"repair": pack}, fingerprint=small.fingerprint):
        repaired = first.distance(small.model, on_piece=one_more)
    more_bits = None
    if upgrades:
        weights, layers = open_weights(base_ref, cache=cache), linear_layers(small.model)
        wrap(small.model, {up.module: _upgraded(layers[up.module], weights, up) for up in upgrades})
        more_bits = first.distance(small.model, on_piece=one_more)
    return Worth(first.own, quantized, repaired, more_bits, tuple(upgrades))


def _upgraded(layer: Any, weights: Weights, upgrade: Upgrade) -> nn.Module:
    """A plain layer with the weight that it would have in more bits."""
    dtype = (layer.scales if "scales" in layer else layer.weight).dtype
    w = weights.take(f"{upgrade.module}.weight")
    plain = nn.Linear(1, 1, bias="bias" in layer)
    plain.weight = mx.array(quantized_anew(w, upgrade.scheme)).astype(dtype)
    if "bias" in layer:
        plain.bias = layer.bias
    mx.eval(plain.weight)
    return plain

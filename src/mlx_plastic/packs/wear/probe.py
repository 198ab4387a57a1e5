"""Proof of effect: what packs change in the answers of their base, on fixed probes.

A pack whose names or shapes are a little off may load and do nothing, and nobody notices. So wherever a pack
is made, worn or carried over, the change of the logits is measured on the same few texts, and a pack that
changes none is refused with the reason.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.errors import BadPack
from mlx_plastic.lowrank.quick import is_exp_slow, quick_exp
from mlx_plastic.packs.format.pack import Factors, Pack
from mlx_plastic.packs.wear.attach import Proof, attached

if TYPE_CHECKING:
    from mlx_plastic.base import Base

log = logging.getLogger(__name__)

# a question, a step of arithmetic, code, and prose: a pack of any subject has something to say to one of them
PROBES = (
    "Question: What is the capital of France, and which river flows through it?\nAnswer: The capital",
    "If a train travels 60 km in 45 minutes, then in 2 hours and 15 minutes it travels 180",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)\n\nprint(mean([1, 2",
    "Dear Anna, thank you for your letter. I was glad to hear that the garden is in bloom again, and",
)
PROBE_TOKENS = 16  # of each: on the shipped base both passes together take some 40 ms


def prove(base: Base, packs: Mapping[str, Pack], *, scales: Mapping[str, float] | None = None) -> Proof:
    """How far `packs`, worn together, move the bare base on the probes; what is worn now stays on.

    scales: as in `attach`. Raises what `attach` raises, and BadPack if the logits become no numbers.
    """
    tokens, real = _probes(base)
    with attached(base.model, {}, fingerprint=base.fingerprint):
        bare = _logits(base, tokens, real)
    with attached(base.model, packs, fingerprint=base.fingerprint, scales=scales):
        worn = _logits(base, tokens, real)
    change, kl = (float(value.item()) for value in _differences(bare, worn))  # type: ignore[arg-type]
    if not math.isfinite(change + kl):
        raise BadPack(
            f"with {_named(packs)} the base's logits are no numbers any more",
            hint="train again with a smaller learning rate, or wear it with less weight",
        )
    return Proof(change, max(0.0, kl))


def refuse_idle(base: Base, packs: Mapping[str, Pack], found: Proof) -> None:
    """Raise BadPack, with the reason, if one of `packs` cannot act or `found` shows that all do nothing."""
    for name, pack in packs.items():
        if reason := _why_void(pack.factors):
            raise BadPack(f"pack {name!r} does nothing: {reason}", hint=_HINT)
    if packs and not found.acts:
        updates = ((_update_norm(f), path) for pack in packs.values() for path, f in pack.factors.items())
        size, path = max(updates)
        dtype = str(_logits_dtype(base)).removeprefix("mlx.core.")
        raise BadPack(
            f"{_named(packs)} does nothing: no logit changes on {len(PROBES)} probes. The largest update, of "
            f"{path}, has the norm {size:.2g}, which is lost in the rounding of this base ({dtype})",
            hint=_HINT,
        )


def proved(base: Base, packs: Mapping[str, Pack], *, scales: Mapping[str, float] | None = None) -> Proof:
    """`prove`, refused if idle and logged: what every door calls before packs are worn."""
    found = prove(base, packs, scales=scales)
    refuse_idle(base, packs, found)
    if packs:
        log.info(
            "%s moves the base by KL %.4g nats a token, largest logit change %.4g, on %d probes",
            *(_named(packs), found.mean_kl_nats, found.max_logit_change, len(PROBES)),
        )
    return found


def probe_logits(base: Base) -> mx.array:
    """(n, length, vocab) float32 logits on the probes, of the base as it is; those of padding are zero."""
    return _logits(base, *_probes(base))


def compare(before: mx.array, after: mx.array) -> Proof:
    """How far two results of `probe_logits` with one tokenizer lie apart: KL(before || after)."""
    change, kl = (float(value.item()) for value in _differences(before, after))  # type: ignore[arg-type]
    return Proof(change, max(0.0, kl))


_HINT = "train it longer or with a larger learning rate; if it is worn, take it off: plastic rollback"


def _named(packs: Mapping[str, Pack]) -> str:
    return f"pack {', '.join(map(repr, packs))}" if len(packs) < 2 else f"packs {', '.join(map(repr, packs))}"


def _probes(base: Base) -> tuple[mx.array, mx.array]:
    """(n, length) token ids, and which of them are no padding: that is on the right, where no one looks."""
    rows = [base.tokenizer.encode(text, add_special_tokens=False)[:PROBE_TOKENS] for text in PROBES]
    padded = list(zip(*itertools.zip_longest(*rows, fillvalue=-1), strict=True))
    tokens = np.array(padded, np.int32)
    return mx.array(np.maximum(tokens, 0)), mx.array(tokens >= 0)


def _logits(base: Base, tokens: mx.array, real: mx.array) -> mx.array:
    """(positions, vocab) float32 logits; those of padding are zero."""
    logits = base.model(tokens)
    found: mx.array = mx.where(real[..., None], logits.astype(mx.float32), 0.0)
    mx.eval(found)
    return found


def _differences(bare: mx.array, worn: mx.array) -> tuple[mx.array, mx.array]:
    """The largest change of a logit, and the mean KL(bare || worn) over positions that are no padding."""
    exp = quick_exp if is_exp_slow() else mx.exp

    def shifted(x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """x without its largest value, exp of that, and the sum of those."""
        x = x - mx.max(x, axis=-1, keepdims=True)
        e = exp(x)
        return x, e, mx.sum(e, axis=-1, keepdims=True)

    (x, e, z), (y, _, z_worn) = shifted(bare), shifted(worn)
    kl = mx.sum(e * (x - y), axis=-1) / z[..., 0] + mx.log(z_worn / z)[..., 0]
    count = mx.maximum(1, mx.sum(mx.any(bare != 0, axis=-1)))
    return mx.max(mx.abs(worn - bare)), mx.sum(kl) / count


def _logits_dtype(base: Base) -> mx.Dtype:
    return base.logits([0]).dtype


def _why_void(factors: Mapping[str, Factors]) -> str:
    """Why these factors cannot change anything on any base; "" if they can."""
    if not factors:
        return "it has no modules"
    if any(f.a.any() and f.b.any() for f in factors.values()):
        return ""
    if not any(f.b.any() for f in factors.values()):
        return "every B is zero, so that no step of its training has left a trace"
    return "in every module A or B is zero"


def _update_norm(f: Factors) -> float:
    """The Frobenius norm of the update, from two (rank, rank) products; of all experts together."""
    a, b = f.a.astype(np.float64), f.b.astype(np.float64)
    squares = np.einsum("...ij,...ij->", b.mT @ b, a @ a.mT)
    return float(abs(f.scale) * math.sqrt(max(0.0, float(squares))))

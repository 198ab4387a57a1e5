"""What a pack is and does, as one row: its ranks and size, its cost, and the data's perplexity with it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlx_plastic.backend import mx, peak_memory_mb, reset_peak_memory
from mlx_plastic.base.roles import ATTENTION, FEED_FORWARD, natural, role_of
from mlx_plastic.base.score import hits, tally
from mlx_plastic.evals.ledger import finite
from mlx_plastic.evals.loss import SAMPLES_PER_STEP, LossResult, summed
from mlx_plastic.lowrank.quick import nlls
from mlx_plastic.packs.format.pack import Manifest, Pack
from mlx_plastic.packs.measure.throughput import speeds
from mlx_plastic.packs.train.batches import windows
from mlx_plastic.packs.wear.attach import Proof, attached
from mlx_plastic.packs.wear.probe import prove
from mlx_plastic.samples import Encoded

if TYPE_CHECKING:
    from mlx_plastic.base import Base

COLUMNS = (
    *("pack_name", "layers", "rank_map", "alpha", "size_MB", "load_ms", "vram_GB", "tps"),
    *("ppl_base", "ppl_pack", "ppl_delta_pct", "domain_metric"),
)
ORDER = [*(f"attn.{name}" for name in ATTENTION), *(f"mlp.{name}" for name in FEED_FORWARD)]  # as people list
DOMAIN_METRIC = "token_accuracy"  # share of the targets that are the likeliest token, with the pack
MOST_WINDOW = 1024  # tokens measured together
PROMPT_TOKENS = 32  # read before decoding is timed
LOADS = 3  # timed; the best counts, since others may use the machine


@dataclass(frozen=True)
class Quality:
    """How well a model predicts the targets of some samples."""

    loss: LossResult
    accuracy: float  # share of the targets that are the likeliest token


@dataclass(frozen=True)
class Evaluation:
    """One pack on one file of data. row: exactly COLUMNS. more: what a table has no column for."""

    row: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return self.row | self.more


def evaluate(
    base: Base,
    read: Callable[[], Pack],
    samples: Sequence[Encoded],
    *,
    bare: Quality | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Measure the pack that `read` gives against the bare base on the targets of `samples`.

    bare: how well the bare base does, if it is known already. Raises what `attach` raises.
    """
    tick = on_progress or (lambda *_: None)
    pack, load_ms = _timed_load(base, read)
    name = pack.manifest.name
    pieces = pieces_of(base, samples)
    proof = prove(base, {name: pack})
    total = len(pieces) * (1 if bare else 2)
    if bare is None:
        with attached(base.model, {}, fingerprint=base.fingerprint):
            bare = quality(base, pieces, on_progress=lambda done, _: tick(done, total, "base"))
    first = total - len(pieces)
    with attached(base.model, {name: pack}, fingerprint=base.fingerprint):
        reset_peak_memory()
        worn = quality(base, pieces, on_progress=lambda done, _: tick(first + done, total, name))
        speed = speeds(base.model, mx.array([list(pieces[0].tokens[:PROMPT_TOKENS])]))
    row = described(pack.manifest) | {
        "load_ms": round(load_ms, 2),
        "vram_GB": round(peak_memory_mb() / 1e3, 3),
        "tps": round(speed.decode_tps, 1),
        **_perplexities(bare, worn),
        "domain_metric": round(worn.accuracy, 4),
    }
    return Evaluation(row, _more(bare, worn, proof))


def _perplexities(bare: Quality, worn: Quality) -> dict[str, float | None]:
    before, after = bare.loss.perplexity, worn.loss.perplexity
    change = 100 * math.expm1(worn.loss.nll - bare.loss.nll) if worn.loss.nll < 700 else math.inf
    return {
        "ppl_base": _rounded(before),
        "ppl_pack": _rounded(after),
        "ppl_delta_pct": _rounded(change),
    }


def _rounded(value: float) -> float | None:
    known = finite(value)
    return None if known is None else round(known, 4)


def _more(bare: Quality, worn: Quality, proof: Proof) -> dict[str, Any]:
    return {
        "domain_metric_name": DOMAIN_METRIC,
        "domain_metric_base": round(bare.accuracy, 4),
        "nll_base": finite(bare.loss.nll),
        "nll_pack": finite(worn.loss.nll),
        "nll_spread": finite(worn.loss.spread),
        "tokens": worn.loss.tokens,
        "samples": worn.loss.samples,
        "kl_nats": proof.mean_kl_nats,
        "max_logit_change": proof.max_logit_change,
        "tps_is": "decoded tokens/s of one answer, with the pack",
    }


def pieces_of(base: Base, samples: Sequence[Encoded]) -> list[Encoded]:
    """The samples cut to what the base sees at once; no target is lost."""
    size = min(base.window, MOST_WINDOW)
    return [piece for sample in samples for piece in windows(sample, size)]


def quality(
    base: Base, pieces: Sequence[Encoded], *, on_progress: Callable[[int, int], None] | None = None
) -> Quality:
    """Loss and accuracy of the model as it is now, token-weighted over all pieces."""
    parts: list[tuple[float, int]] = []
    right = 0.0
    for start in range(0, len(pieces), SAMPLES_PER_STEP):
        some = pieces[start : start + SAMPLES_PER_STEP]
        for piece, (nats, hit) in zip(some, tally(base.model, some, nlls, hits), strict=True):
            parts.append((nats, piece.supervised))
            right += hit
        if on_progress:
            on_progress(len(parts), len(pieces))
    loss = summed(parts)
    return Quality(loss, right / loss.tokens)


def _timed_load(base: Base, read: Callable[[], Pack]) -> tuple[Pack, float]:
    """The pack, and the milliseconds from its files to a base that wears it."""
    times = []
    for _ in range(LOADS):
        began = time.perf_counter()
        pack = read()
        with attached(base.model, {pack.manifest.name: pack}, fingerprint=base.fingerprint):
            times.append(time.perf_counter() - began)
    return pack, 1e3 * min(times)


def described(manifest: Manifest) -> dict[str, Any]:
    """The columns that say what a pack is. Ranks and alphas by role; a list where layers differ, in order."""
    return {
        "pack_name": manifest.name,
        "layers": "+".join(by_role(manifest.rank_map)),
        "rank_map": _compact(by_role(manifest.rank_map)),
        "alpha": _alpha(manifest),
        "size_MB": round(manifest.sizes.tensor_bytes / 1e6, 4),
    }


def by_role(values: dict[str, Any]) -> dict[str, Any]:
    """Role -> the value of its modules, or a list of them in the order of the layers if they differ."""
    roles: dict[str, list[Any]] = {}
    for path in sorted(values, key=natural):
        roles.setdefault(role_of(path) or path, []).append(values[path])
    order = sorted(roles, key=lambda role: (ORDER.index(role) if role in ORDER else len(ORDER), role))
    return {role: roles[role][0] if len(set(roles[role])) == 1 else roles[role] for role in order}


def _alpha(manifest: Manifest) -> float | str:
    distinct = set(manifest.alpha_map.values())
    return distinct.pop() if len(distinct) == 1 else _compact(by_role(manifest.alpha_map))


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))

"""Which rank each module gets: from one number, from the base's weights or activations, a file or a pack."""

from __future__ import annotations

import difflib
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.base import Base, role_of
from mlx_plastic.base.widen import float32_weight
from mlx_plastic.errors import BadConfig
from mlx_plastic.lowrank.layers import bare, dims, linear_layers, stack_size
from mlx_plastic.lowrank.rank import energy_rank, needed_rank
from mlx_plastic.lowrank.svd import singular_values
from mlx_plastic.packs.format.pack import (
    LITE_ATTENTION_RANK,
    LITE_BYTES,
    Pack,
    is_attention,
)
from mlx_plastic.packs.format.tensors import MAX_NAME
from mlx_plastic.packs.ranks.sizes import Shapes, file_bytes_bound
from mlx_plastic.packs.ranks.taps import layer_inputs
from mlx_plastic.samples import Encoded

log = logging.getLogger(__name__)

Array = NDArray[Any]
Strategy = Literal["stable", "energy", "theorem", "activation"]
Profile = Literal["lite", "heavy"]

STRATEGIES: tuple[Strategy, ...] = ("stable", "energy", "theorem", "activation")
NARROW = ("attn.k_proj", "attn.v_proj")  # narrower than attn.q_proj where queries share their keys
MAX_FILE_BYTES = 4 << 20
MAX_RANK = 1 << 16
SHOWN = 20  # faults told at once
MAP_HINT = 'a rank map reads {"model.layers.0.self_attn.q_proj": 8, "attn.k_proj": 4, "mlp": 8}'


def rank_map(
    base: Base,
    paths: Iterable[str],
    *,
    rank: int = 8,
    strategy: Strategy | None = None,
    target_compression: float | None = None,
    samples: Sequence[Encoded] = (),
) -> dict[str, int]:
    """The rank of each module in `paths`, at most `rank`; keys and values in proportion to their width.

    strategy: how many directions each weight has ("stable", "energy", "theorem"), or what comes into it on
    `samples` ("activation"); the module that has most gets `rank`, the others their share of it. None: all
    alike. target_compression: the numbers in all factors over those in all weights are at most this, above 0;
    every module keeps rank 1. Stacked experts share one rank, that of their mean.
    Raises BadConfig naming each module whose weight is smaller than its rank, or for a target out of bounds.
    """
    paths = list(paths)
    shapes = shapes_of(base, paths)
    most = widths_shared(shapes, rank, _query_widths(base.model, paths))
    if target_compression is not None and not target_compression > 0:
        raise BadConfig(f"a target compression of {target_compression} is not above 0", hint="such as 0.02")
    if strategy is None:
        check_ranks(most, shapes)
        needs = {path: float(n) for path, n in most.items()}
    else:
        needs = needed(base, paths, strategy, samples)
        most = {path: min(n, *shapes[path][-2:]) for path, n in most.items()}
    ranks = scaled(needs, most, rank / max(needs.values(), default=1.0))
    if target_compression is not None:
        room = target_compression * sum(math.prod(shape) for shape in shapes.values())
        ranks = lowered(ranks, lambda found: numbers(found, shapes) <= room)
    log.info("ranks by %s: %s", strategy or "one for all", _summary(ranks))
    return ranks


def shapes_of(base: Base, paths: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights at `paths`."""
    linear = linear_layers(base.model)
    return {path: (*stack_size(linear[path]), *dims(bare(linear[path]))) for path in paths}


def widths_shared(shapes: Shapes, rank: int, query_widths: Mapping[str, int]) -> dict[str, int]:
    """`rank` for all, but less for keys and values that several queries share: rank * out / (out of q).

    query_widths: the output width of the queries beside a module, by its path.
    """
    return {
        path: max(1, min(rank, round(rank * shape[-2] / query_widths.get(path, shape[-2]))))
        for path, shape in shapes.items()
    }


def _query_widths(model: Any, paths: Iterable[str]) -> dict[str, int]:
    """For keys and values: how wide the queries of the same attention are."""
    linear = linear_layers(model)
    queries = {
        p.rpartition(".")[0]: dims(bare(m))[0] for p, m in linear.items() if role_of(p) == "attn.q_proj"
    }
    beside = {path: path.rpartition(".")[0] for path in paths if role_of(path) in NARROW}
    return {path: queries[parent] for path, parent in beside.items() if parent in queries}


def needed(
    base: Base, paths: Sequence[str], strategy: Strategy, samples: Sequence[Encoded] = ()
) -> dict[str, float]:
    """How many directions each module has by `strategy`, at least 1, with no cap.

    Raises BadConfig for "activation" without samples.
    """
    if strategy == "activation":
        if not samples:
            raise BadConfig('the strategy "activation" needs samples', hint="give --data")
        rows = layer_inputs(base.model, paths, samples)
        return {p: float(energy_rank(singular_values(rows[p]))) if p in rows else 1.0 for p in paths}
    linear = linear_layers(base.model)
    return {path: _need(np.array(float32_weight(bare(linear[path]))), strategy) for path in paths}


def _need(weight: Array, strategy: Strategy) -> float:
    stack = weight if weight.ndim == 3 else weight[None]
    return float(np.mean([needed_rank(one, strategy) for one in stack]))


def scaled(needs: Mapping[str, float], most: Mapping[str, int], factor: float) -> dict[str, int]:
    """The needs times `factor`, as whole ranks in [1, most]."""
    return {path: max(1, min(most[path], round(need * factor))) for path, need in needs.items()}


def lowered(ranks: Mapping[str, int], fits: Callable[[Mapping[str, int]], bool]) -> dict[str, int]:
    """The largest ranks in proportion to `ranks`, none above them, none under 1, that fit; else all 1."""
    if fits(ranks):
        return dict(ranks)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(scaled(ranks, ranks, middle)) else (low, middle)
    return scaled(ranks, ranks, low)


def numbers(ranks: Mapping[str, int], shapes: Shapes) -> int:
    """How many numbers the factors of these ranks hold."""
    return sum(rank * math.prod(shapes[path][:-2]) * sum(shapes[path][-2:]) for path, rank in ranks.items())


def for_profile(ranks: Mapping[str, int], shapes: Shapes, profile: Profile = "lite") -> dict[str, int]:
    """The map within the guardrails of `profile`: lite, attention ranks <= 8 and a pack <= 10 MB; heavy, any.

    Ranks of attention are capped; if the file would still be too large, all go down in proportion.
    Raises BadConfig where rank 1 everywhere is too large.
    """
    if profile == "heavy":
        return dict(ranks)
    capped = {path: min(r, LITE_ATTENTION_RANK) if is_attention(path) else r for path, r in ranks.items()}
    found = lowered(capped, lambda them: file_bytes_bound(them, shapes) <= LITE_BYTES)
    if (size := file_bytes_bound(found, shapes)) > LITE_BYTES:
        raise BadConfig(
            f"rank 1 on {len(found)} modules takes {size / 1e6:.1f} MB, more than {LITE_BYTES / 1e6:.0f} MB",
            hint="name fewer layers with --layers, or allow more with --profile heavy",
        )
    if found != dict(ranks):
        log.info("ranks for the profile lite: %s", _summary(found))
    return found


def check_ranks(ranks: Mapping[str, int], shapes: Shapes) -> None:
    """Raises BadConfig naming every module whose weight has fewer rows or columns than its rank."""
    over = [path for path, rank in ranks.items() if rank > min(shapes[path][-2:])]
    if over:
        lines = (
            f"\n  - {path} is {list(shapes[path])}, rank {ranks[path]} is over {min(shapes[path][-2:])}"
            for path in over[:SHOWN]
        )
        more = f"\n  - and {len(over) - SHOWN} more" if len(over) > SHOWN else ""
        raise BadConfig(
            "a rank over the matrix:" + "".join(lines) + more,
            hint=f"give a rank of at most {min(min(shapes[path][-2:]) for path in over)} there",
        )


def read_rank_map(file: Path) -> dict[str, int]:
    """The entries of a JSON file {"model.layers.0.self_attn.q_proj": 8, "attn.k_proj": 4, "mlp": 0}.

    Keys are module paths, roles or groups of roles; 0 leaves a module out. Whether the base has them is for
    `resolved` to see. Raises BadConfig with everything that is wrong.
    """
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        pairs: Any = json.loads(data, object_pairs_hook=list) if len(data) <= MAX_FILE_BYTES else None
    except OSError as error:
        raise BadConfig(f"cannot read {file}: {error.strerror}", hint="check the path") from error
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{file} is not JSON", hint=MAP_HINT) from error
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, tuple) for pair in pairs):
        raise BadConfig(f"{file} is no JSON object of ranks", hint=MAP_HINT)
    counts = Counter(key for key, _ in pairs)
    faults = [f"{key[:MAX_NAME]!r} stands there twice" for key, n in counts.items() if n > 1]
    faults += [
        f"{key[:MAX_NAME]!r} has the rank {str(rank)[:20]!r}, not a whole number from 0 to {MAX_RANK}"
        for key, rank in pairs
        if type(rank) is not int or not 0 <= rank <= MAX_RANK
    ]
    if faults:
        raise BadConfig(f"{file}: " + "; ".join(faults[:SHOWN]), hint=MAP_HINT)
    return dict(pairs)


def resolved(
    entries: Mapping[str, int], base: Base, paths: Iterable[str], *, rest: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The rank of each module in `paths` by the entries of a rank map: its own, its role's or its group's.

    rest: the ranks of modules that no entry names; None: they are left out. An entry of 0 leaves out too.
    Raises BadConfig for entries that name nothing in this base (the nearest names are told) or nothing in
    `paths`, for a rank over the matrix, and if no module is left.
    """
    paths = list(paths)
    known = {path: role for path in linear_layers(base.model) if (role := role_of(path))}
    names = {name: [p for p, role in known.items() if name in _names(p, role)] for name in entries}
    faults = [_unknown(name, known) for name, found in names.items() if not found]
    faults += [
        f"{name!r} is none of the layers to train"
        for name, found in names.items()
        if found and not set(found) & set(paths)
    ]
    if faults:
        raise BadConfig("rank map: " + "; ".join(faults[:SHOWN]), hint=MAP_HINT)
    ranks = dict(rest or {})
    for path in paths:
        named = [name for name in _names(path, known.get(path, "")) if name in entries]
        if named:
            ranks[path] = entries[named[0]]
    ranks = {path: ranks[path] for path in paths if ranks.get(path)}
    if not ranks:
        raise BadConfig("the rank map leaves every layer out", hint="give some layer a rank above 0")
    check_ranks(ranks, shapes_of(base, ranks))
    return ranks


def map_of_pack(pack: Pack, base: Base) -> dict[str, int]:
    """The ranks of a pack, for its modules in this base, which need not be the base it learned on.

    Raises BadConfig for modules that the base lacks, and for a rank over the matrix.
    """
    entries = dict(pack.manifest.rank_map)
    return resolved(entries, base, [path for path in linear_layers(base.model) if path in entries])


def _names(path: str, role: str) -> tuple[str, ...]:
    """What a rank map may call the module, the most exact name first."""
    group = role.split(".")[0]
    return path, role, f"{group}.*", group


def _unknown(name: str, known: Mapping[str, str]) -> str:
    names = sorted({n for path, role in known.items() for n in _names(path, role)})
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"this base has no layer or role {name[:MAX_NAME]!r}" + (f"; nearest: {near[0]}" if near else "")


def _summary(ranks: Mapping[str, int]) -> str:
    counts = sorted(Counter(ranks.values()).items())
    return ", ".join(f"{rank} x {n}" for rank, n in counts)

"""Which experts a text goes to: counted by layer while a model reads it, and joined with their errors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.errors import BadData, PlasticError
from mlx_plastic.survey import columns
from mlx_plastic.survey.config import Output
from mlx_plastic.survey.folder import RunFolder
from mlx_plastic.survey.frames import Columns, find_table, write_table
from mlx_plastic.survey.tables import quant_sim

Array = NDArray[Any]

WINDOW = 512  # tokens that are read at once
ROUTING: Columns = {
    **columns.typed("layer", "expert_id", "count"),
    **{"module": "str", "share": "float", "load": "float"},
}
LAYERS: Columns = {
    **columns.typed("layer"),
    **dict.fromkeys(("tokens", "experts", "experts_per_token", "unused"), "int"),
    **dict.fromkeys(("effective_experts", "largest_share", "smallest_share"), "float"),
    **{"module": "str", "zero_experts": "int"},
}
JOINED: Columns = {
    **columns.typed("layer", "expert_id", "scheme"),
    **dict.fromkeys(("share", "load", "w_rel_fro", "over_layer"), "float"),
}


@dataclass(frozen=True)
class Watched:
    """counts: by path of a stack of experts, (experts,) how often each was chosen. tokens: read in all.

    chosen: by path, experts of a token. zeros: by path, how often it was one that computes nothing, which
    LongCat's routers may choose; that is in no count.
    """

    counts: Mapping[str, Array]
    tokens: int
    chosen: Mapping[str, int]
    zeros: Mapping[str, int]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One for each expert. load: its share over an even one; 1 is what each would have."""
        for path, counts in self.counts.items():
            total = max(1, int(counts.sum()))
            for e, count in enumerate(counts):
                share = int(count) / total
                row = {"layer": layer_of(path), "module": path, "expert_id": e, "count": int(count)}
                yield row | {"share": share, "load": share * len(counts)}

    def layers(self) -> Iterator[dict[str, Any]]:
        """One for each layer. effective_experts: exp of the entropy of the shares, in [1, experts]."""
        for path, counts in self.counts.items():
            share = counts / max(1, int(counts.sum()))
            met = share[share > 0]
            yield {
                "layer": layer_of(path),
                "module": path,
                "zero_experts": self.zeros[path],
                "tokens": self.tokens,
                "experts": len(counts),
                "experts_per_token": self.chosen[path],
                "unused": int(np.count_nonzero(counts == 0)),
                "effective_experts": math.exp(-float((met * np.log(met)).sum())),
                "largest_share": float(share.max()),
                "smallest_share": float(share.min()),
            }


def layer_of(path: str) -> int | None:
    found = re.search(r"\.(\d+)\.", f".{path}.")
    return int(found[1]) if found else None


def expert_stacks(model: Any) -> dict[str, Any]:
    """Path -> the experts there, layer by layer: a module that is called with tokens and the experts chosen
    for them, or, of the families that keep them one by one, the list of them.

    Raises PlasticError for a model that has no experts.
    """
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        apart = module.children().get("experts")
        if isinstance(apart, list) and len(apart) > 1:
            found[f"{path}.experts"] = apart
        elif _switches(module) and "self_attn" not in path:
            found[path] = module
    if not found:
        raise PlasticError(
            "this model has no stacks of experts to watch", hint="watching is for mixtures of experts"
        )
    return dict(sorted(found.items(), key=lambda item: layer_of(item[0]) or 0))


def _switches(module: Any) -> list[Any]:
    return [child for child in module.children().values() if type(child).__name__.endswith("SwitchLinear")]


def watch(
    model: Any, tokens: Sequence[int], *, window: int = WINDOW, on_progress: Callable[..., None] | None = None
) -> Watched:
    """Reads the tokens, window by window, and counts which experts they go to; the model stays as it is.

    Raises ValueError without tokens, PlasticError without experts.
    """
    from mlx_plastic.backend import mx

    if not tokens:
        raise ValueError("no tokens to read")
    stacks = expert_stacks(model)
    counts = {path: np.zeros(_experts(stack), np.int64) for path, stack in stacks.items()}
    zeros = dict.fromkeys(stacks, 0)
    with _recording(stacks, _zero_routers(model, stacks)) as seen:
        for start in range(0, len(tokens), window):
            mx.eval(model(mx.array(list(tokens[start : start + window]))[None]))
            for path, indices in seen:
                experts = len(counts[path])
                found = np.bincount(np.array(indices).reshape(-1), minlength=experts)
                counts[path] += found[:experts]
                zeros[path] += int(found[experts:].sum())
            seen.clear()
            if on_progress:
                on_progress(min(start + window, len(tokens)), len(tokens))
    met = {path: found for path, found in counts.items() if found.any() or zeros[path]}
    chosen = {path: (int(found.sum()) + zeros[path]) // len(tokens) for path, found in met.items()}
    return Watched(met, len(tokens), chosen, {path: zeros[path] for path in met})


def _zero_routers(model: Any, stacks: Mapping[str, Any]) -> dict[str, Any]:
    """Path of a stack -> the router that knows better than the stack which of its experts are chosen.

    A choice of LongCat's experts that compute nothing reaches the stack as one of expert 0, with weight 0.
    """
    modules = dict(model.named_modules())
    owners = {path: modules[path.rpartition(".")[0]] for path in stacks}
    return {path: owner.router for path, owner in owners.items() if getattr(owner, "zero_expert_num", 0)}


def _experts(stack: Any) -> int:
    return len(stack) if isinstance(stack, list) else int(_switches(stack)[0]["weight"].shape[0])


@contextmanager
def _recording(stacks: Mapping[str, Any], routers: Mapping[str, Any]) -> Iterator[list[tuple[str, Any]]]:
    """While it lasts, it is told which experts are called, or which a router among these chooses; the tree of
    modules is not touched.
    """
    seen: list[tuple[str, Any]] = []

    def stacked(path: str, kind: Any) -> Any:
        def call(self: Any, x: Any, indices: Any, *rest: Any, **named: Any) -> Any:
            seen.append((path, indices))
            return kind.__call__(self, x, indices, *rest, **named)

        return type(kind.__name__, (kind,), {"__call__": call})

    def alone(path: str, kind: Any, expert: int) -> Any:
        def call(self: Any, x: Any) -> Any:
            seen.append((path, [expert] * (x.size // x.shape[-1])))
            return kind.__call__(self, x)

        return type(kind.__name__, (kind,), {"__call__": call})

    def choosing(path: str, kind: Any) -> Any:
        def call(self: Any, *given: Any) -> Any:
            indices, weights = kind.__call__(self, *given)
            seen.append((path, indices))
            return indices, weights

        return type(kind.__name__, (kind,), {"__call__": call})

    before: list[tuple[Any, Any]] = []
    try:
        for path, stack in stacks.items():
            modules = stack if isinstance(stack, list) else [routers.get(path, stack)]
            for e, module in enumerate(modules):
                kind = type(module)
                before.append((module, kind))
                if modules is stack:
                    module.__class__ = alone(path, kind, e)
                else:
                    module.__class__ = (choosing if path in routers else stacked)(path, kind)
        yield seen
    finally:
        for module, kind in before:
            module.__class__ = kind


def write_watched(run: RunFolder, found: Watched, output: Output) -> dict[str, int]:
    """data/routing, tables/C_routing_layer_summary and, where quant_sim is there, tables/C_routing_errors."""
    run.make()
    counts = {"routing": write_table(run.data / "routing", ROUTING, found.rows(), output)[1]}
    layers = list(found.layers())
    counts["C_routing_layer_summary"] = write_table(
        run.tables / "C_routing_layer_summary", LAYERS, layers, output
    )[1]
    if find_table(run.data / "quant_sim"):
        joined = join_errors(found, quant_sim(run))
        counts["C_routing_errors"] = write_table(run.tables / "C_routing_errors", JOINED, joined, output)[1]
    return counts


def join_errors(found: Watched, quant: Iterator[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the text chooses beside what it costs: of each expert and scheme the error over all its weights.

    over_layer: that error over the mean of its layer; a busy expert with a large one is where bits pay.
    Raises BadData if no expert of the survey was watched: another model.
    """
    squares: dict[tuple[Any, Any, str], list[float]] = {}
    for row in quant:
        if row["is_routed_expert"] and row["w_rel_fro"] is not None:
            n = row["rows"] * row["cols"]
            sums = squares.setdefault((row["layer"], row["expert_id"], row["scheme"]), [0.0, 0.0])
            sums[0] += n * row["w_rel_fro"] ** 2
            sums[1] += n
    errors = {key: math.sqrt(square / n) for key, (square, n) in squares.items()}
    by_layer: dict[tuple[Any, str], list[float]] = {}
    for (layer, _, scheme), error in errors.items():
        by_layer.setdefault((layer, scheme), []).append(error)
    shares = {(row["layer"], row["expert_id"]): row for row in found.rows()}
    rows = []
    for (layer, expert, scheme), error in sorted(errors.items(), key=lambda item: str(item[0])):
        seen = shares.get((layer, expert))
        if seen:
            mean = float(np.mean(by_layer[layer, scheme]))
            row = {"layer": layer, "expert_id": expert, "scheme": scheme, "w_rel_fro": error}
            row |= {
                "share": seen["share"],
                "load": seen["load"],
                "over_layer": error / mean if mean else None,
            }
            rows.append(row)
    if errors and not rows:
        raise BadData("no expert of the survey was watched", hint="watch the model that was surveyed")
    return rows

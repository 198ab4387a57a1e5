"""The rules that need no config: what a tensor is, by its name, in the families that mlx-lm loads.

Names come in two layouts: the hub's (one tensor for each expert, or gate and up fused) and MLX's (experts
stacked). What is called how is the table of `base/roles.py`; here is only what the names do not tell: which
fused tensors there are, in which order, and which are kept with rows and columns exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_plastic.base.roles import role_of
from mlx_plastic.survey.places import Layout, Place, Split

RULE = "builtin"
EMBEDDINGS = {
    *(
        "embed_tokens",
        "wte",
        "embeddings",
        "tok_embeddings",
        "word_embeddings",
        "embed",
        "embed_in",
        "embedding",
    ),
    *("shared_embedding", "token_embeddings", "embed_tokens_per_layer", "wpe"),
}
FUSED = {
    "gate_up_proj": ("gate_proj", "up_proj"),
    "gate_and_up_proj": ("up_proj", "gate_proj"),  # Hunyuan's, up first
}
TRANSPOSED = {"llama4", "llama4_text", "qwen3_vl_moe", "qwen3_vl_moe_text", "gpt_oss"}  # bare (E, in, out)
INTERLEAVED = {"gpt_oss"}  # gate and up row by row
TURNED_ON_THE_HUB = {
    "gpt2"
}  # dense layers as (in, out) where a name begins as one of these; MLX's "model." is not
HUB_PREFIXES = ("h.", "transformer.h.")
OUTSIDE = "outside the language model, or no projection of it"
FURTHER = "of the prediction of further tokens, which mlx-lm leaves out"
LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "num_transformer_layers")


def place(name: str, shape: Sequence[int], model_config: Mapping[str, Any]) -> Place | str:
    """Where the weight `name` of that shape belongs, or why it is no matrix of the model."""
    path = name.removesuffix(".weight")
    parts = path.split(".")
    if len(shape) < 2 or name.endswith("bias"):
        return "a vector"
    if any("conv" in part for part in parts[-2:]) and len(shape) > 2:
        return "a convolution"
    if any(part.startswith("mtp") for part in parts):
        return FURTHER
    if parts[-1] in EMBEDDINGS and len(shape) == 2:
        return Place(RULE, "embed", "embed_tokens")
    if path == "head":
        return Place(RULE, "head", "lm_head")
    role = role_of(path)
    if role is None or (role == "head" and len(shape) != 2):
        return OUTSIDE
    return _in_model(parts, role, shape, model_config, bare=path == name)


def _in_model(
    parts: list[str], role: str, shape: Sequence[int], model_config: Mapping[str, Any], *, bare: bool
) -> Place | str:
    layer, expert = _numbers(parts)
    if layer is not None and layer >= _layers(model_config):
        return f"layer {layer} of {_layers(model_config):.0f}: {FURTHER}"
    kind, _, proj = role.partition(".")
    routed = kind == "experts" or expert is not None or (kind == "mlp" and len(shape) == 3)
    proj = {"head": "lm_head", "router": parts[-1]}.get(kind, proj)
    if kind not in ("shared",) and routed:
        kind = "experts"
    if bare and kind not in ("experts", "head"):
        return OUTSIDE
    if (
        kind == "experts"
        and "mlp" in parts[-2:-1]
        and parts[-1] in ("w1", "v1", "w2")
        and len(shape) == 2
        and bare
    ):
        return _dbrx(proj, layer, shape, model_config)
    model_type = str(model_config.get("model_type", ""))
    if len(shape) == 2 and model_type in TURNED_ON_THE_HUB and ".".join(parts).startswith(HUB_PREFIXES):
        return Place(RULE, kind, proj, layer, layout=Layout(rows=1, cols=0))
    if len(shape) == 2:
        return Place(RULE, kind, proj, layer, expert)
    if len(shape) == 3 and kind == "experts":
        return _stacked(proj, layer, model_type, bare=bare)
    if len(shape) == 3:  # one matrix for each head: the heads stand below each other
        return Place(RULE, kind, proj, layer, reshaped=(math.prod(shape[:-1]), shape[-1]))
    return f"{len(shape)} axes"


def _layers(model_config: Mapping[str, Any]) -> float:
    """How many layers the config tells; infinitely many if it tells none."""
    within = model_config.get("text_config")
    for config in (within if isinstance(within, dict) else {}, model_config):
        for count in (config.get(key) for key in LAYER_COUNTS):
            if type(count) is int:
                return count
    return math.inf


def _numbers(parts: list[str]) -> tuple[int | None, int | None]:
    """(layer, expert) that the name tells: the first number, and the one behind "experts" or "moe.mlp"."""
    places = [i for i, part in enumerate(parts) if part.isdigit()]
    layer = int(parts[places[0]]) if places else None
    for i in places[1:]:
        if parts[i - 1] == "experts" or parts[i - 2 : i] == ["moe", "mlp"]:
            return layer, int(parts[i])
    return layer, None


def _stacked(proj: str, layer: int | None, model_type: str, *, bare: bool) -> Place:
    turned = bare and model_type in TRANSPOSED
    layout = Layout(expert=0, rows=2, cols=1) if turned else Layout(expert=0, rows=1, cols=2)
    split = Split("rows", FUSED[proj], interleaved=model_type in INTERLEAVED) if proj in FUSED else None
    return Place(RULE, "experts", proj, layer, layout=layout, split=split)


def _dbrx(proj: str, layer: int | None, shape: Sequence[int], model_config: Mapping[str, Any]) -> Place | str:
    """(experts * inner, hidden) for all three; the down projection with rows and columns exchanged."""
    ffn = model_config.get("ffn_config")
    count = ffn.get("moe_num_experts") if isinstance(ffn, dict) else None
    if type(count) is not int or count < 1 or shape[0] % count:
        return f"{shape[0]} rows are not those of {count!r} experts (ffn_config.moe_num_experts)"
    rows, cols = (2, 1) if proj == "down_proj" else (1, 2)
    layout = Layout(expert=0, rows=rows, cols=cols)
    return Place(RULE, "experts", proj, layer, layout=layout, reshaped=(count, shape[0] // count, shape[1]))

"""One naming table for the linear layers of every architecture: module path -> role, as in "attn.q_proj"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from mlx_plastic.errors import PlasticError

HEADS = {"lm_head", "output", "embed_out", "ff_out"}  # outside the blocks; inside them ff_out is OLMo's down
OUTSIDE = {  # beside the language model
    *("vision_tower", "vision_model", "visual", "vision", "vision_embedder", "audio_tower"),
    *("vision_projection", "vision_adapter", "multi_modal_projector", "mm_projector", "patch_merge_mlp"),
    *("embed_vision", "embed_audio", "aligner"),
}
ROUTERS = {"router", "gate", "wg", "shared_expert_gate", "modality_router"}

# a component of the path -> the group of what lies below it; the first group here that matches wins, so
# that "mlp.shared_experts" is shared, not mlp
GROUPS = {
    "shared": {"shared_expert", "shared_experts", "share_expert", "shared_mlp"},
    "experts": {"experts", "switch_mlp", "switch_glu"},
    "linear": {"linear_attn", "mamba", "conv"},  # always a mixer
    "attn": {"self_attn", "attn", "attention", "cross_attn"},
    "mlp": {"mlp", "mlps", "feed_forward", "ffn", "moe", "block_sparse_moe", "mlp_block"},
    "mixer": {"mixer", "temporal_block", "local_mixer"},  # whatever the layer mixes with: its leaf tells
}

ATTENTION = {
    "q_proj": {"q_proj", "wq", "query", "c_q", "attn_query"},
    "k_proj": {"k_proj", "wk", "key", "c_k", "attn_key"},
    "v_proj": {"v_proj", "wv", "value", "c_v", "attn_value"},
    "qkv_proj": {"qkv_proj", "wqkv", "Wqkv", "W_pack", "c_attn", "query_key_value", "q_k_v_proj", "att_proj"},
    "o_proj": {"o_proj", "out_proj", "wo", "dense", "c_proj", "attn_resid", "attn_out"},
    "kv_a_proj": {"kv_a_proj_with_mqa"},
    **{
        "q_a_proj": {"wq_a"},
        "q_b_proj": {"wq_b"},
        "o_a_proj": {"wo_a"},
        "o_b_proj": {"wo_b"},
    },  # DeepSeek's own
    **{"kv_proj": {"wkv"}, "gate_proj": {"wgate"}},
}
FEED_FORWARD = {
    "gate_proj": {"gate_proj", "w1", "mlp_gate", "c_fc_0"},
    "up_proj": {
        *("up_proj", "w3", "v1", "fc1", "c_fc", "c_fc_1"),
        *("fc_in", "dense_h_to_4h", "mlp_linear", "key"),
    },
    "down_proj": {
        *("down_proj", "w2", "fc2", "c_proj", "fc_out", "dense_4h_to_h"),
        *("mlp_resid", "value", "proj_2", "ff_out", "output_linear"),
    },
    "gate_up_proj": {"gate_up_proj", "proj_1", "ff_proj", "input_linear"},
}
INDEXER = {"k_proj": "wk", "q_b_proj": "wq_b"}  # DeepSeek's; what V4.1 calls so in MLX are these in V3.2
EXCEPTIONS = {"mlp.w1": "up_proj", "mlp.w2": "gate_proj"}  # the first Qwen: c_proj(w1(x) * silu(w2(x)))


def _inverted(table: dict[str, set[str]]) -> dict[str, str]:
    return {alias: name for name, aliases in table.items() for alias in aliases}


NAMES = {"attn": _inverted(ATTENTION), "mlp": _inverted(FEED_FORWARD)}
TRAINED_BY_DEFAULT = ("attn", "mlp", "shared", "mixer")


def role_of(module_path: str) -> str | None:
    """The role of the linear layer at `module_path`: "attn.q_proj", "mlp.down_proj", "experts.up_proj",
    "shared.up_proj", "mixer.in_proj", "router", "head", "other.<name>"; None for embeddings, vision
    towers and whatever lies outside the repeated blocks.
    """
    parts = [part for part in module_path.split(".") if not part.isdigit()]
    if OUTSIDE & set(parts) or any("embeddings" in part for part in parts):
        return None
    if len(parts) == len(module_path.split(".")):  # no number in the path: not in a block
        return "head" if HEADS & set(parts) else None
    return _in_block(parts)


def _in_block(parts: list[str]) -> str:
    leaf = parts[-1] if parts[-1] != "lora" else parts[-2]  # rwkv7 keeps its inner pairs in a list `lora`
    group = next((g for g, names in GROUPS.items() if names & set(parts[:-1])), None)
    if group in ("shared", "experts"):
        return f"{group}.{NAMES['mlp'].get(leaf, leaf)}"
    if group == "linear":
        return f"mixer.{leaf}"
    if ROUTERS & set(parts):
        return "router"
    if group == "attn":
        return f"attn.{_within_attention(parts, leaf)}"
    if group == "mlp":
        return f"mlp.{EXCEPTIONS.get('.'.join(parts[-2:])) or NAMES['mlp'].get(leaf, leaf)}"
    return _by_leaf(leaf, inside_mixer=group == "mixer")


def _within_attention(parts: list[str], leaf: str) -> str:
    return f"indexer.{INDEXER.get(leaf, leaf)}" if "indexer" in parts else NAMES["attn"].get(leaf, leaf)


def _by_leaf(leaf: str, *, inside_mixer: bool) -> str:
    ambiguous = {"out_proj"} if inside_mixer else set()  # Mamba and some attentions both end in it
    for group, names in NAMES.items():
        if leaf in names and leaf not in ambiguous:
            return f"{group}.{names[leaf]}"
    return f"mixer.{leaf}" if inside_mixer else f"other.{leaf}"


def targets(model: Any, roles: Iterable[str] | None = None) -> dict[str, Any]:
    """Module path -> the linear layer or stack of experts there, for the chosen roles; layer 2 before 10.

    roles: names like "attn.q_proj", or a whole group as "attn" or "attn.*". None: every linear layer
    of the blocks but experts, routers and the head. Raises PlasticError naming the nearest role this
    model has, for each one that it lacks.
    """
    from mlx_plastic.lowrank.layers import linear_layers  # MLX, which the names alone do not need

    linear = linear_layers(model)
    order = sorted(linear, key=natural)
    role = {path: found for path in order if (found := role_of(path))}
    wanted = set(role.values()) if roles is None else _expand(list(roles), set(role.values()))
    if roles is None:
        wanted = {name for name in wanted if name.split(".")[0] in TRAINED_BY_DEFAULT}
    return {path: linear[path] for path in order if role.get(path) in wanted}


def natural(path: str) -> list[tuple[int, str]]:
    """A key to sort module paths by: layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.split(".")]


def _expand(asked: list[str], known: set[str]) -> set[str]:
    found: set[str] = set()
    missing = []
    for name in asked:
        group = name.removesuffix(".*")
        hits = {role for role in known if role in (name, group) or role.startswith(f"{group}.")}
        found |= hits
        if not hits:
            missing.append(name)
    if missing:
        near = [difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4) for name in missing]
        meant = ", ".join(dict.fromkeys(n[0] for n in near if n)) or "one of these"
        raise PlasticError(
            f"this base has no linear layers of role {', '.join(map(repr, missing))}",
            hint=f"did you mean {meant}? it has: {', '.join(sorted(known))}",
        )
    return found

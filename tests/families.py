"""Every architecture of mlx-lm as a tiny random checkpoint, in MLX's layout and in the hub's.

The hub's layout is made from MLX's by the reverse of what the model's own `sanitize` does; whether it was
made right is for `sanitize` to say: given the hub's tensors it must give MLX's back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlx_plastic.backend import mx, nn
from test_roles import MORE, SMALL, _arguments, architectures, build

__all__ = [
    "DENSE_HUB",
    "HUB",
    "architectures",
    "build",
    "linear_parameters",
    "mixture",
    "save",
    "tiny_models",
]

Tensors = dict[str, mx.array]


TEXT: dict[str, Any] = {
    **SMALL,
    **{"rope_scaling": None, "attention_bias": False, "tie_word_embeddings": False, "num_experts_per_tok": 1},
}
HALVES = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
# what makes a mixture of experts of each layer; only those fields are given that the family knows
EVERYWHERE: dict[str, Any] = {
    **{"first_k_dense_replace": 0, "decoder_sparse_step": 1, "moe_layer_freq": 1, "num_dense_layers": 0},
    **{"mlp_only_layers": [], "n_shared_experts": 1, "num_shared_experts": 1, "n_group": 1, "topk_group": 1},
    **{"moe_shared_expert_intermediate_size": 16, "rope_scaling": None, "layer_group_size": 2},
}
PARTICULAR: dict[str, dict[str, Any]] = {
    "afmoe": {"vocab_size": 64},
    "bailing_moe_linear": {"group_norm_size": 2},
    "bailing_hybrid": {"group_norm_size": 2},
    "exaone_moe": {"is_moe_layer": [True, True]},
    "gemma4_text": {
        **{"enable_moe_block": True, "num_experts": 4, "top_k_experts": 1, "vocab_size_per_layer_input": 64},
        **{"hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0, "global_head_dim": 8},
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "granitemoehybrid": {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 16},
    "step3p5": {"moe_num_experts": 4, "moe_intermediate_size": 16, "share_expert_dim": 16},
    "jamba": {"num_experts": 4, "expert_layer_offset": 0, "expert_layer_period": 1},
    "llama4": {
        "text_config": TEXT
        | {
            "model_type": "llama4_text",
            "intermediate_size_mlp": 16,
            "attention_chunk_size": 8,
            "use_qk_norm": True,
            "interleave_moe_layer_step": 1,
        }
    },
    "mellum": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {
            k: {"rope_theta": 1e4, "rope_type": "default"} for k in ("full_attention", "sliding_attention")
        },
    },
    "mimo_v2_flash": {
        "moe_layer_freq": [1, 1],
        "hybrid_layer_pattern": [0, 1],
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "partial_rotary_factor": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
    },
    "minimax": {"num_local_experts": 4},
    "nemotron_h": {
        "hybrid_override_pattern": ["M", "E"],
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "moe_shared_expert_intermediate_size": 16,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "n_groups": 1,
        "ssm_state_size": 8,
    },
    "qwen3_next": {**HALVES, "partial_rotary_factor": 0.5, "linear_conv_kernel_dim": 4},
    "qwen3_5_moe": {"text_config": TEXT | HALVES | {"vocab_size": 64}},
    **{
        key: {
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "index_n_heads": 2,
            "index_head_dim": 8,
            "index_topk": 2,
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
            "vocab_size": 64,
        }
        for key in ("deepseek_v3", "deepseek_v32", "glm4_moe_lite")
    },
    "qwen3_vl_moe": {
        "text_config": TEXT
        | {"model_type": "qwen3_moe", "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
    },
}


def mixture(name: str) -> Any:
    """The tiny model with experts in every layer that can have them, its weights random."""
    with contextlib.redirect_stdout(io.StringIO()):
        module = importlib.import_module(f"mlx_lm.models.{name}")
        fields = {f.name for f in dataclasses.fields(module.ModelArgs)}
        asked = _arguments(name, module.ModelArgs) | {k: v for k, v in EVERYWHERE.items() if k in fields}
        asked |= {k: v for k, v in (MORE.get(name, {}) | PARTICULAR.get(name, {})).items() if k in fields}
        return randomized(module.Model(module.ModelArgs(**asked)))


def randomized(model: Any) -> Any:
    rng = np.random.default_rng(0)
    fresh = [
        (k, mx.array(rng.standard_normal(v.shape).astype(np.float32) * 0.1))
        for k, v in tree_flatten(model.parameters())
        if v.dtype in (mx.float32, mx.bfloat16, mx.float16)
    ]
    model.update(tree_unflatten(fresh))
    return model


def save(folder: Path, tensors: Tensors, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def experts_apart(tensors: Tensors, stacked: str, apart: str, names: dict[str, str]) -> Tensors:
    """`<stacked>.<proj>.weight` (E, …) -> `<apart>.<e>.<hub's proj>.weight`, E times."""
    found: Tensors = {}
    for key, value in tensors.items():
        head, mark, proj = key.removesuffix(".weight").rpartition(f"{stacked}.")
        if mark and proj in names and value.ndim == 3:
            for e in range(value.shape[0]):
                found[f"{head}{apart}.{e}.{names[proj]}.weight"] = value[e]
        else:
            found[key] = value
    return found


def fused(tensors: Tensors, stacked: str, into: str, *, turned: bool = False, down: str = "") -> Tensors:
    """gate and up (E, I, H) -> one `<into>` (E, 2I, H), or, turned, (E, H, 2I); down likewise."""
    found = dict(tensors)
    for key in [k for k in tensors if k.endswith(f"{stacked}.gate_proj.weight")]:
        head = key[: -len(f"{stacked}.gate_proj.weight")]
        gate, up, last = (found.pop(f"{head}{stacked}.{p}_proj.weight") for p in ("gate", "up", "down"))
        both = mx.concatenate([gate, up], 1)
        found[f"{head}{into}"] = both.swapaxes(1, 2) if turned else both
        found[f"{head}{down}"] = last.swapaxes(1, 2) if turned else last
    return found


def renamed(tensors: Tensors, *pairs: tuple[str, str]) -> Tensors:
    found = {}
    for key, value in tensors.items():
        for old, new in pairs:
            key = key.replace(old, new)
        found[key] = value
    return found


def dbrx(tensors: Tensors) -> Tensors:
    """experts.<e>.<w>.weight -> experts.mlp.<w> (E * I, H), w2 with rows and columns exchanged."""
    found = {key: value for key, value in tensors.items() if ".experts." not in key}
    for key in [k for k in tensors if ".experts.0." in k]:
        head, _, tail = key.partition(".experts.0.")
        name, each = tail.removesuffix(".weight"), []
        while f"{head}.experts.{len(each)}.{tail}" in tensors:
            each.append(tensors[f"{head}.experts.{len(each)}.{tail}"])
        found[f"{head}.experts.mlp.{name}"] = mx.concatenate([w.T if name == "w2" else w for w in each])
    return found


def gpt_oss(tensors: Tensors) -> Tensors:
    """Experts as blocks of 4-bit floats, gate and up row by row; they lose what 4 bits cannot hold."""
    found = {key: value for key, value in tensors.items() if ".experts." not in key or "bias" in key}
    for key in [k for k in tensors if k.endswith(".experts.gate_proj.weight")]:
        head = key.removesuffix("gate_proj.weight")
        gate, up, down = (tensors[f"{head}{p}_proj.weight"] for p in ("gate", "up", "down"))
        both = mx.stack([gate, up], 2).reshape(gate.shape[0], -1, gate.shape[-1])
        for name, w in (("gate_up_proj", both), ("down_proj", down)):
            codes, scales = mx.quantize(w, mode="mxfp4")
            found[f"{head}{name}_blocks"] = codes.view(mx.uint8).reshape(*w.shape[:-1], -1, 16)
            found[f"{head}{name}_scales"] = scales
    for key in [k for k in found if k.endswith("_proj.bias") and ".experts." in k]:
        found.pop(key)
    return found


SAME = {p: p for p in ("gate_proj", "up_proj", "down_proj")}
NUMBERED = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def _apart(stacked: str, apart: str, names: dict[str, str] = SAME) -> Callable[[Tensors], Tensors]:
    return lambda tensors: experts_apart(tensors, stacked, apart, names)


# how a family's experts lie on the hub, from how they lie in MLX
HUB: dict[str, Callable[[Tensors], Tensors]] = {
    **dict.fromkeys(
        "qwen2_moe qwen3_moe qwen3_next olmoe deepseek deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe "
        "glm4_moe_lite bailing_moe bailing_moe_linear bailing_hybrid bailing_moe_v3 ernie4_5_moe exaone_moe "
        "hunyuan laguna mellum mimo_v2_flash longcat_flash longcat_flash_ngram solar_open".split(),
        _apart("mlp.switch_mlp", "mlp.experts"),
    ),
    **dict.fromkeys("Klear afmoe dots1".split(), _apart("mlp.experts", "mlp.experts")),
    **dict.fromkeys(
        "mixtral minimax phimoe".split(),
        _apart("block_sparse_moe.switch_mlp", "block_sparse_moe.experts", NUMBERED),
    ),
    **dict.fromkeys("jamba".split(), _apart("feed_forward.switch_mlp", "feed_forward.experts")),
    **dict.fromkeys("kimi_linear".split(), _apart("mlp.switch_mlp", "block_sparse_moe.experts", NUMBERED)),
    "lfm2_moe": _apart("feed_forward.switch_mlp", "feed_forward.experts", NUMBERED),
    "nemotron_h": _apart("mixer.switch_mlp", "mixer.experts", {"fc1": "up_proj", "fc2": "down_proj"}),
    "phixtral": _apart("moe.switch_mlp", "moe.mlp", {"fc1": "fc1", "fc2": "fc2"}),
    "granitemoe": lambda t: fused(t, "switch_mlp", "input_linear.weight", down="output_linear.weight"),
    "granitemoehybrid": lambda t: fused(t, "switch_mlp", "input_linear.weight", down="output_linear.weight"),
    "mistral4": lambda t: fused(t, "switch_mlp", "experts.gate_up_proj", down="experts.down_proj"),
    "gemma4_text": lambda t: fused(t, "experts.switch_glu", "experts.gate_up_proj", down="experts.down_proj"),
    "llama4": lambda t: fused(t, "experts", "experts.gate_up_proj", down="experts.down_proj", turned=True),
    "qwen3_vl_moe": lambda t: fused(
        t, "switch_mlp", "experts.gate_up_proj", down="experts.down_proj", turned=True
    ),
    "qwen3_5_moe": lambda t: fused(t, "switch_mlp", "experts.gate_up_proj", down="experts.down_proj"),
    "dbrx": dbrx,
    "gpt_oss": gpt_oss,
    "step3p5": lambda t: renamed(t, (".mlp.switch_mlp.", ".moe."), (".mlp.gate.gate.", ".moe.gate.")),
}


# how the few dense families lie on the hub whose names or axes are others there; all others lie as in MLX
DENSE_HUB: dict[str, Callable[[Tensors], Tensors]] = {
    "gpt2": lambda t: {k.removeprefix("model."): v.T if _conv1d(k) else v for k, v in t.items()},
    "gpt_neox": lambda t: {_neox(k): v for k, v in t.items()},
    "gptj": lambda t: renamed(t, ("model.", "transformer.")),
    "muse_glimmer": lambda t: {
        f"model.language_{k}" if k.startswith("model.") else k: v for k, v in t.items()
    },
}


def _conv1d(name: str) -> bool:
    return name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


def _neox(name: str) -> str:
    inner = name.removeprefix("model.")
    return inner if inner.startswith("embed_out") else f"gpt_neox.{inner.replace('h.', 'layers.', 1)}"


SIZE = 4_000_000  # weights of a model that is still tiny: some configs hold large ones by default


def tiny_models() -> Iterator[tuple[str, Any]]:
    """Every architecture that guesses are enough for, mixtures with experts in each layer."""
    for name in architectures():
        model = mixture(name) if name in HUB else build(name)
        if model is not None and sum(v.size for _, v in tree_flatten(model.parameters())) < SIZE:
            yield name, model


def linear_parameters(model: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of the weight of every linear layer and embedding, dense, switched, or by head."""
    for path, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.Linear | nn.Embedding) or kind in ("SwitchLinear", "MultiLinear"):
            yield f"{path}.weight", tuple(module.weight.shape)

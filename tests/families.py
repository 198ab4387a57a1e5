"""Every architecture of mlx-lm as a tiny random checkpoint, in MLX's layout and in the hub's.

The hub's layout is made from MLX's by the reverse of what the model's own `sanitize` does; whether it was
made right is for `sanitize` to say: given the hub's tensors it must give MLX's back.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlx_plastic.backend import mx, nn
from test_roles import INNER, LATENT, MORE, NOTHING, Settings, architecture, architectures, arguments, build

__all__ = [
    "DENSE_HUB",
    "HUB",
    "PACKED",
    "architectures",
    "build",
    "linear_parameters",
    "mixture",
    "save",
    "tiny_models",
]

Tensors = dict[str, mx.array]


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
    "gemma4_text": {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 1},
    "step3p5": {
        **{"moe_num_experts": 4, "moe_top_k": 2, "moe_intermediate_size": 16, "share_expert_dim": 16},
        **{"num_attention_groups": 2, "sliding_window": 8},
    },
    "jamba": {"num_experts": 4, "expert_layer_offset": 0, "expert_layer_period": 1},
    "glm_moe_dsa": {"topk_method": "noaux_tc", "scoring_func": "sigmoid"},
    "hunyuan": {"moe_topk": 2},
    **{
        key: {
            **{"moe_topk": 2, "zero_expert_num": 2, "zero_expert_type": "identity"},
            **{"mla_scale_q_lora": True, "mla_scale_kv_lora": True},
        }
        for key in ("longcat_flash", "longcat_flash_ngram")
    },
    "llama4": {  # whose fourth layer tells the mask
        **{"intermediate_size_mlp": 16, "use_qk_norm": True, "interleave_moe_layer_step": 1},
        "num_hidden_layers": 4,
    },
    "minimax": {"num_local_experts": 4},
    "minimax_m3_vl": {"moe_layer_freq": [1, 1]},
    "muse_spark": {"num_shared_experts": 0},
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
    "qwen3_next": {"partial_rotary_factor": 0.5, "linear_conv_kernel_dim": 4},
    "phixtral": {"rotary_dim": 8, "num_vocab": 64},
    "mistral4": {
        **LATENT,
        "rope_parameters": {
            **{"rope_theta": 1e4, "rope_type": "default", "llama_4_scaling_beta": 0.1},
            "original_max_position_embeddings": 64,
        },
    },
}
# whose language model is a mixture of experts in some checkpoints only
MIXED = {"mistral3": ("mistral4", "ModelArgs")}


def mixture(name: str, also: Settings = NOTHING) -> Any:
    """The tiny model with experts in every layer that can have them, its weights random."""
    with contextlib.redirect_stdout(io.StringIO()):
        module, inner = architecture(name), INNER | MIXED
        text = inner[name][0] if name in inner else name
        more = EVERYWHERE | MORE.get(text, {}) | PARTICULAR.get(text, {})
        more = {**more, **MORE.get(name, {}), **PARTICULAR.get(name, {}), **also}
        return randomized(module.Model(module.ModelArgs(**arguments(name, module.ModelArgs, more, inner))))


def randomized(model: Any) -> Any:
    """Small biases, so that what a router chooses depends on the token."""
    rng = np.random.default_rng(0)
    fresh = [
        (k, mx.array(rng.standard_normal(v.shape).astype(np.float32) * (0.01 if "bias" in k else 0.1)))
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


def towered(tensors: Tensors, tower: str = "vision_tower") -> Tensors:
    """With a matrix of another tower beside the language model."""
    return tensors | {f"{tower}.layers.0.attn.q_proj.weight": mx.zeros((8, 8))}


def nested(tensors: Tensors, tower: str = "model.visual") -> Tensors:
    """language_model.model.… -> model.language_model.…, the head outside, and a tower beside it."""
    pairs = ("language_model.model.", "model.language_model."), ("language_model.lm_head", "lm_head")
    return towered(renamed(tensors, *pairs), tower)


def qwen3_5(tensors: Tensors) -> Tensors:
    """Nested, its convolutions (channels, 1, kernel)."""
    return nested({k: v.moveaxis(1, 2) if "conv1d" in k else v for k, v in tensors.items()})


def deepseek_v41(tensors: Tensors) -> Tensors:
    """The publisher's own names; the groups of wo_a below each other."""
    apart = experts_apart(tensors, "mlp.experts.switch_mlp", "mlp.experts", NUMBERED)
    flat = {k: v.reshape(-1, v.shape[-1]) if ".o_a_proj." in k else v for k, v in apart.items()}
    return renamed(
        flat,
        *(("model.embed_tokens", "embed"), ("lm_head", "head"), ("model.", ""), (".self_attn.", ".attn.")),
        *((".mlp.", ".ffn."), (".input_layernorm.", ".attn_norm."), (".q_a_norm.", ".q_norm.")),
        *((".post_attention_layernorm.", ".ffn_norm."), (".attn_hc.", ".hc_attn_"), (".ffn_hc.", ".hc_ffn_")),
        *(
            (".sinks", ".attn_sink"),
            (".q_a_proj.", ".wq_a."),
            (".q_b_proj.", ".wq_b."),
            (".kv_proj.", ".wkv."),
        ),
        *(
            (".o_a_proj.", ".wo_a."),
            (".o_b_proj.", ".wo_b."),
            (".gate.e_score_correction_bias", ".gate.bias"),
        ),
        *((".compressor.gate_proj.", ".compressor.wgate."), (".compressor.kv_norm.", ".compressor.norm.")),
        (".indexer.k_proj.", ".indexer.wk."),
        *((f".shared_experts.{proj}.", f".shared_experts.{w}.") for proj, w in NUMBERED.items()),
    )


def kimi_k3(tensors: Tensors) -> Tensors:
    """Experts apart below another name; q, k and v of the delta rule, and their convolutions, apart."""
    found = {}
    for key, value in experts_apart(tensors, "mlp.switch_mlp", "mlp.experts", NUMBERED).items():
        if ".qkv_" in key:
            for letter, part in zip("qkv", mx.split(value, 3), strict=True):
                found[key.replace("qkv_conv.conv", f"{letter}_conv1d").replace("qkv", letter)] = (
                    part.moveaxis(1, 2) if part.ndim == 3 else part
                )
        else:
            found[key] = value
    return towered(
        renamed(
            found,
            *((".mlp.e_score", ".mlp.gate.e_score"), (".mlp.", ".block_sparse_moe.")),
            *(("_res_proj.weight", "_res.proj_weight"), ("_res_norm.weight", "_res.norm_weight")),
        )
    )


def muse_spark(tensors: Tensors) -> Tensors:
    """Gate and up fused; q, k, v and the output gate apart, each head's halves not yet interleaved."""
    found = fused(tensors, "mlp.experts", "mlp.experts.gate_up_proj", down="mlp.experts.down_proj")
    for key in [k for k in found if k.endswith("qkvg_proj.weight")]:
        q, k, v, gate = mx.split(found.pop(key), [32, 48, 64])
        q, k = (w.reshape(-1, 4, 2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape) for w in (q, k))
        for name, w in {"q": q, "k": k, "v": v, "gate": gate}.items():
            found[key.replace("qkvg", name)] = w
    gates = ("add_attn", "post_attention_residual_gate"), ("add_ffn", "post_feedforward_residual_gate")
    for ours, theirs in gates:
        for key in [k for k in found if k.endswith(f"{ours}_alpha")]:
            found[key.replace(f"{ours}_alpha", f"{theirs}.gate")] = found.pop(key)
            found.pop(key.replace("_alpha", "_beta"))
    return towered(found, "model.vision_tower")


SAME = {p: p for p in ("gate_proj", "up_proj", "down_proj")}
NUMBERED = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def _apart(stacked: str, apart: str, names: dict[str, str] = SAME) -> Callable[[Tensors], Tensors]:
    return lambda tensors: experts_apart(tensors, stacked, apart, names)


# how a family's experts lie on the hub, from how they lie in MLX
HUB: dict[str, Callable[[Tensors], Tensors]] = {
    **dict.fromkeys(
        "qwen2_moe qwen3_moe qwen3_next olmoe deepseek deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe "
        "glm4_moe_lite bailing_moe bailing_moe_linear bailing_hybrid bailing_moe_v3 ernie4_5_moe exaone_moe "
        "hunyuan laguna mellum mimo_v2_flash longcat_flash longcat_flash_ngram solar_open "
        "glm_moe_dsa".split(),
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
    "gemma4": lambda t: nested(
        fused(t, "experts.switch_glu", "experts.gate_up_proj", down="experts.down_proj"), "model.vision_tower"
    ),
    "mistral3": lambda t: nested(
        fused(t, "switch_mlp", "experts.gate_up_proj", down="experts.down_proj"), "model.vision_tower"
    ),
    **dict.fromkeys(
        "kimi_k25 kimi_vl".split(), lambda t: towered(_apart("mlp.switch_mlp", "mlp.experts")(t))
    ),
    "minimax_m3_vl": lambda t: towered(
        _apart("block_sparse_moe.switch_mlp", "block_sparse_moe.experts", NUMBERED)(t)
    ),
    "dbrx": dbrx,
    "deepseek_v41": deepseek_v41,
    "gpt_oss": gpt_oss,
    "kimi_k3": kimi_k3,
    "muse_spark": muse_spark,
    "step3p5": lambda t: renamed(t, (".mlp.switch_mlp.", ".moe."), (".mlp.gate.gate.", ".moe.gate.")),
}


# how the few dense families lie on the hub whose names or axes are others there; all others lie as in MLX
DENSE_HUB: dict[str, Callable[[Tensors], Tensors]] = {
    "gpt2": lambda t: {k.removeprefix("model."): v.T if _conv1d(k) else v for k, v in t.items()},
    "gpt_neox": lambda t: {_neox(k): v for k, v in t.items()},
    "gptj": lambda t: renamed(t, ("model.", "transformer.")),
    **dict.fromkeys(("gemma3", "lfm2-vl", "pixtral"), towered),
    **dict.fromkeys(("gemma3n", "gemma4", "mistral3"), lambda t: nested(t, "model.vision_tower")),
    **dict.fromkeys(("qwen2_vl", "qwen3_vl"), nested),
    "qwen3_5": qwen3_5,
    "muse_glimmer": lambda t: {
        f"model.language_{k}" if k.startswith("model.") else k: v for k, v in t.items()
    },
}


def _conv1d(name: str) -> bool:
    return name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


def _neox(name: str) -> str:
    inner = name.removeprefix("model.")
    return inner if inner.startswith("embed_out") else f"gpt_neox.{inner.replace('h.', 'layers.', 1)}"


PACKED = "prism_hadamard_qwen35"
SIZE = 4_000_000  # weights of a model that is still tiny: some configs hold large ones by default


def tiny_models() -> Iterator[tuple[str, bool, Any]]:
    """Every architecture: its name, whether it is a mixture, with experts in each layer, and the model.

    Those that are a mixture in some checkpoints only come twice, the one that is made quantized not at all.
    """
    for name in architectures():
        if name == PACKED:
            continue
        for mixed in (True, False):
            if name in HUB if mixed else name not in HUB or name in DENSE_HUB:
                model = mixture(name) if mixed else build(name)
                if model is not None:
                    assert sum(v.size for _, v in tree_flatten(model.parameters())) < SIZE, name
                    yield name, mixed, model


def linear_parameters(model: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of the weight of every linear layer and embedding, dense, switched, or by head."""
    for path, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.Linear | nn.Embedding) or kind in ("SwitchLinear", "MultiLinear"):
            yield f"{path}.weight", tuple(module.weight.shape)

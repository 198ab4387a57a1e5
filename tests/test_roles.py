from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import io
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlx_plastic.backend import nn
from mlx_plastic.base import load_base, role_of, targets
from mlx_plastic.errors import PlasticError
from tiny import make_checkpoint

Settings = Mapping[str, Any]
Inner = Mapping[str, tuple[str, str]]
NOTHING: Settings = {}

# what is small in every architecture; a field that is neither here nor has a default is guessed from its type
SMALL = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "model_dim"), 32),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_transformer_layers"),
        2,
    ),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "kv_heads"), 2),
    **dict.fromkeys(("vocab_size", "intermediate_size", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"), 1e-5),
    "max_position_embeddings": 64,
    "head_dim": 8,
    "num_experts_per_tok": 2,
    "rope_theta": 1e4,
}
HALVES = {
    **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "full_attention_interval": 2},
    **{"linear_key_head_dim": 8, "linear_value_head_dim": 8},
}
# of those that keep the settings of their language model in `text_config`: module and class of these
INNER = {
    "gemma3": ("gemma3_text", "ModelArgs"),
    "gemma3n": ("gemma3n", "TextConfig"),
    "gemma4": ("gemma4_text", "ModelArgs"),
    "kimi_k25": ("deepseek_v3", "ModelArgs"),
    "kimi_k3": ("kimi_k3", "TextArgs"),
    "kimi_vl": ("kimi_vl", "TextArgs"),
    "lfm2-vl": ("lfm2", "ModelArgs"),
    "llama4": ("llama4", "TextArgs"),
    "minimax_m3_vl": ("minimax_m3_vl", "TextArgs"),
    "mistral3": ("ministral3", "ModelArgs"),
    "muse_spark": ("muse_spark", "TextArgs"),
    "pixtral": ("llama", "ModelArgs"),
    "prism_hadamard_qwen35": ("qwen3_5", "TextModelArgs"),
    "qwen2_vl": ("qwen2", "ModelArgs"),
    "qwen3_5": ("qwen3_5", "TextModelArgs"),
    "qwen3_5_moe": ("qwen3_5", "TextModelArgs"),
    "qwen3_vl": ("qwen3", "ModelArgs"),
    "qwen3_vl_moe": ("qwen3_moe", "ModelArgs"),
}
LATENT = {  # attention through a latent, some with an index of what to look at
    **{"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
    **{"index_n_heads": 2, "index_head_dim": 8, "index_topk": 2},
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
}
# what some need besides: shapes that only make sense together
MORE: dict[str, dict[str, Any]] = {
    "afmoe": {"layer_types": ["full_attention"] * 2},
    "bailing_moe_v3": LATENT,
    "deepseek_v2": LATENT
    | {
        "rope_scaling": {"type": "yarn", "factor": 1.0, "original_max_position_embeddings": 64},
    },
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
    },
    "exaone4": {"sliding_window": None, "sliding_window_pattern": None},
    "hunyuan": {"rope_scaling": {"alpha": 1.0, "factor": 1.0, "type": "dynamic"}},
    "jamba": {"layers_block_type": ["attention", "mamba"], "attn_layer_offset": 0, "attn_layer_period": 2},
    "lfm2": {"full_attn_idxs": [0], "layer_types": ["full_attention", "conv"]},
    "lfm2_moe": {"full_attn_idxs": [0], "layer_types": ["full_attention", "conv"], "num_dense_layers": 1},
    "kimi_linear": {
        "linear_attn_config": {
            **{"kda_layers": [1], "full_attn_layers": [2]},
            **{"head_dim": 8, "num_heads": 4, "short_conv_kernel_size": 4},
        }
    },
    "minicpm3": {
        "rope_scaling": {
            **{"short_factor": [1.0] * 4, "long_factor": [1.0] * 4},
            "original_max_position_embeddings": 64,
        },
        "qk_rope_head_dim": 8,
    },
    "ministral3": {
        "rope_parameters": {
            **{"rope_theta": 1e4, "type": "default", "llama_4_scaling_beta": 0.1},
            "original_max_position_embeddings": 64,
        },
        "layer_types": ["full_attention"] * 2,
    },
    "granitemoehybrid": {
        "layer_types": ["attention", "mamba"],
        **{"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_d_conv": 4},
        **{"mamba_n_groups": 1, "mamba_proj_bias": False, "mamba_conv_bias": True},
        **{"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 16},
    },
    "nemotron_h": {"hybrid_override_pattern": ["M", "*"], "num_hidden_layers": 2},
    "olmo3": {"layer_types": ["full_attention", "sliding_attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
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
    "baichuan_m1": {"conv_window": 2, "sliding_window_layers": [0]},
    "gemma3n": {
        "layer_types": ["sliding_attention", "full_attention"],
        "activation_sparsity_pattern": [0.5, 0.0],
        **{"num_kv_shared_layers": 0, "altup_num_inputs": 2, "altup_active_idx": 0},
    },
    "deepseek_v41": {
        **{"q_lora_rank": 8, "qk_rope_head_dim": 4, "o_groups": 2, "o_lora_rank": 8, "index_n_heads": 2},
        **{"index_head_dim": 8, "index_topk": 2, "compress_ratios": [4, 4]},
        **{"kv_source_layer_ids": [0], "index_source_layer_ids": [0]},
    },
    "gemma4_text": {
        **{"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0},
        **{"global_head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]},
    },
    **dict.fromkeys(("deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "kimi_vl"), LATENT),
    "lille-130m": {"n_embd": 64},  # its feed-forward is a multiple of 256, and none of less
    "kimi_k3": {
        **LATENT,
        **{"mla_use_output_gate": True, "attn_res_block_size": 1, "num_experts_per_token": 2},
        **{"num_shared_experts": 1, "routed_expert_hidden_size": 32, "latent_moe_use_norm": True},
        "linear_attn_config": {
            **{"kda_layers": [1], "full_attn_layers": [2]},
            **{"head_dim": 8, "num_heads": 4, "short_conv_kernel_size": 4},
        },
    },
    "minimax_m3_vl": {
        **{"shared_intermediate_size": 16, "dense_intermediate_size": 16, "sparse_attention_freq": [0, 1]},
        **{"index_n_heads": 2, "index_head_dim": 8, "index_block_size": 8, "index_topk_blocks": 1},
    },
    "muse_spark": {
        **{"rope_parameters": {"rope_theta": 1e4}, "layer_rope_theta": [1e4, 0.0], "moe_hidden_size": 32},
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "nemotron-nas": {
        "block_configs": [
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"replace_with_linear": True}, "ffn": {"replace_with_linear": True}},
            {"attention": {"no_op": True}, "ffn": {"no_op": True}},
        ],
        "num_hidden_layers": 3,
    },
    "prism_hadamard_qwen35": {
        **HALVES,
        **{
            "tensor_namespace": "mlx-vlm-qwen3_5",
            "num_experts": 0,
            "hidden_size": 128,
            "intermediate_size": 512,
        },
        "quantization": {"bits": 2, "group_size": 128, "mode": "affine"},
        "modules": [
            {"path": path, "embedding": "embed" in path, "dtype": "float16", "block": block}
            for path, block in (
                *(("model.embed_tokens", 0), ("model.layers.0.mlp.up_proj", 0)),
                *(("model.layers.1.mlp.down_proj", 512), ("lm_head", 0)),
            )
        ],
    },
    "qwen3_5": HALVES | {"num_experts": 0},
    "qwen3_5_moe": HALVES | {"num_experts": 4},
    "qwen3_next": HALVES,
    "spark2_5": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": {"rope_theta": 1e4}, "full_attention": {}},
    },
    "exaone_moe": {"layer_types": ["full_attention"] * 2, "is_moe_layer": [False, True]},
    "llama4": {"rope_scaling": None, "attention_chunk_size": 8, "num_experts_per_tok": 1},
    "llama4_text": {"no_rope_layers": [0, 1], "layer_types": ["full_attention"] * 2},
    "openelm": {
        "ffn_multipliers": [1.0, 1.0],
        "num_query_heads": [4, 4],
        "num_kv_heads": [2, 2],
        "head_dim": 8,
        "model_dim": 32,
    },
}

PATHS = {
    "model.layers.3.self_attn.q_proj": "attn.q_proj",
    "model.layers.0.attention.wqkv": "attn.qkv_proj",
    "model.layers.0.attention.wo": "attn.o_proj",
    "transformer.h.0.attn.c_attn": "attn.qkv_proj",
    "transformer.h.0.attn.c_proj": "attn.o_proj",
    "transformer.h.0.mlp.c_proj": "mlp.down_proj",
    "model.h.1.attention.query_key_value": "attn.qkv_proj",
    "model.h.1.attention.dense": "attn.o_proj",
    "model.h.1.mlp.dense_h_to_4h": "mlp.up_proj",
    "transformer.h.0.attn.attention.out_proj": "attn.o_proj",
    "model.layers.0.self_attn.kv_a_proj_with_mqa": "attn.kv_a_proj",
    "model.layers.0.self_attn.1.o_proj": "attn.o_proj",
    "layers.0.attn.wq_a": "attn.q_a_proj",
    "layers.0.attn.indexer.wk": "attn.indexer.wk",
    "model.layers.0.self_attn.indexer.k_proj": "attn.indexer.wk",
    "model.layers.0.feed_forward.w1": "mlp.gate_proj",
    "model.layers.0.feed_forward.w2": "mlp.down_proj",
    "model.layers.0.feed_forward.w3": "mlp.up_proj",
    "transformer.h.0.mlp.w1": "mlp.up_proj",
    "transformer.h.0.mlp.w2": "mlp.gate_proj",
    "model.layers.0.mlp.gate_up_proj": "mlp.gate_up_proj",
    "model.layers.0.mlp.fc1": "mlp.up_proj",
    "model.layers.0.mlp.switch_mlp.gate_proj": "experts.gate_proj",
    "model.layers.0.mlp.experts.down_proj": "experts.down_proj",
    "model.layers.0.ffn.experts.2.w2": "experts.down_proj",
    "model.layers.0.mlp.shared_experts.up_proj": "shared.up_proj",
    "model.layers.0.mlp.shared_expert_gate": "router",
    "model.layers.0.mlp.gate": "router",
    "model.layers.0.block_sparse_moe.router.layer": "router",
    "backbone.layers.0.mixer.in_proj": "mixer.in_proj",
    "backbone.layers.0.mixer.out_proj": "mixer.out_proj",
    "backbone.layers.0.mixer.q_proj": "attn.q_proj",
    "backbone.layers.0.mixer.up_proj": "mlp.up_proj",
    "backbone.layers.0.mixer.shared_experts.up_proj": "shared.up_proj",
    "model.layers.0.linear_attn.in_proj_qkvz": "mixer.in_proj_qkvz",
    "model.layers.0.linear_attn.q_proj": "mixer.q_proj",
    "model.layers.0.mamba.out_proj": "mixer.out_proj",
    "model.layers.0.conv.in_proj": "mixer.in_proj",
    "model.layers.0.temporal_block.linear_x": "mixer.linear_x",
    "language_model.model.layers.0.mlp.up_proj": "mlp.up_proj",
    "model.transformer.blocks.0.att_proj": "attn.qkv_proj",
    "model.transformer.blocks.0.ff_out": "mlp.down_proj",
    "model.layers.0.per_layer_input_gate": "other.per_layer_input_gate",
    "lm_head": "head",
    "language_model.lm_head": "head",
    "output": "head",
    "model.embed_out": "head",
    "model.transformer.ff_out": "head",
    "model.embed_tokens": None,
    "model.wte": None,
    "model.per_layer_model_projection": None,
    "model.ngram_embeddings.post_projs.0": None,
    "vision_tower.layers.0.attn.q_proj": None,
}


@pytest.mark.parametrize(("path", "role"), PATHS.items())
def test_a_path_has_its_role(path: str, role: str | None) -> None:
    assert role_of(path) == role


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    return load_base(str(checkpoint)).model


def test_all_layers_of_the_blocks_by_default(model: Any) -> None:
    found = targets(model)
    assert len(found) == 2 * 7
    assert all(isinstance(m, nn.Linear) for m in found.values())
    assert found["model.layers.1.mlp.down_proj"] is model.model.layers[1].mlp.down_proj


@pytest.mark.parametrize(
    ("roles", "count"),
    [
        (["attn.q_proj"], 2),
        (["attn.q_proj", "mlp.down_proj"], 4),
        (["attn"], 8),
        (["attn.*"], 8),
        (["mlp", "mlp.up_proj"], 6),
        ([], 0),
    ],
)
def test_roles_choose_layers(model: Any, roles: list[str], count: int) -> None:
    found = targets(model, roles)
    assert len(found) == count
    assert all(str(role_of(path)).startswith(tuple(r.removesuffix("*") for r in roles)) for path in found)


def test_an_unknown_role_names_the_nearest_and_all_there_are(model: Any) -> None:
    with pytest.raises(PlasticError) as caught:
        targets(model, ["attn.q_prj", "mlp.up_proj", "experts.up_proj"])
    assert "'attn.q_prj', 'experts.up_proj'" in caught.value.message
    assert "did you mean attn.q_proj" in caught.value.hint
    assert "mlp.down_proj" in caught.value.hint


def test_layer_2_comes_before_layer_10(tmp_path: Path) -> None:
    deep = load_base(str(make_checkpoint(tmp_path, layers=11))).model
    layers = [int(path.split(".")[2]) for path in targets(deep, ["attn.q_proj"])]
    assert layers == list(range(11))


# -- every architecture that mlx-lm knows and that can be built small


def architectures() -> list[str]:
    import mlx_lm.models

    return sorted(module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__))


def build(name: str) -> Any:
    """A tiny model of that architecture, or None if it has none or needs more than guesses."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            module = architecture(name)
            return module.Model(module.ModelArgs(**arguments(name, module.ModelArgs)))
    except (Exception, SystemExit):  # whatever a wrong guess leads to; what is built is counted below
        return None


def architecture(name: str) -> Any:
    """mlx-lm's module. That of olmo looks whether the package hf_olmo is there, and uses nothing of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "hf_olmo", ModuleType("hf_olmo"))
        return importlib.import_module(f"mlx_lm.models.{name}")


def arguments(name: str, kind: type, more: Settings = NOTHING, inner: Inner = INNER) -> dict[str, Any]:
    """What makes a small model of a family. more: what is not as in SMALL and MORE, where it is a field."""
    given = _small(kind, {"model_type": name, **MORE.get(name, {}), **more})
    if name in inner:
        text, settings = inner[name]
        within = {"model_type": text, **MORE.get(text, {}), **MORE.get(name, {}), **more}
        given["text_config"] = _small(getattr(architecture(text), settings), within)
    return given


def _small(kind: type, chosen: Settings) -> dict[str, Any]:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    given: dict[str, Any] = {}
    for field in fields.values():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed or field.name in SMALL:
            given[field.name] = SMALL.get(field.name, _guess(str(field.type)))
    return given | {key: copy.deepcopy(value) for key, value in chosen.items() if key in fields}


def _guess(kind: str) -> Any:
    for word, value in {"bool": False, "ict": {}, "ist": [], "str": "x", "float": 1.0}.items():
        if word in kind:
            return value
    return 8


FEED_FORWARD = {"gate_proj", "up_proj", "down_proj", "gate_up_proj"}
KNOWN = {
    "mlp": FEED_FORWARD
    | {
        "routed_expert_down_proj",
        "routed_expert_up_proj",
        "pre_expert_proj",
        "post_expert_proj",
    }  # to a latent
    | {"linear"},  # instead of the whole
    "shared": FEED_FORWARD,
    "experts": FEED_FORWARD,
    "attn": {
        *("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj"),
        *("q_a_proj", "q_b_proj", "kv_a_proj", "kv_b_proj", "kv_proj", "o_a_proj", "o_b_proj"),  # low rank
        *("qkvg_proj", "linear"),
        *("g_proj", "gate_proj", "r_proj", "a_lora", "g_lora", "v_lora", "w_lora"),  # gates
        *("f_a_proj", "f_b_proj", "g_a_proj", "g_b_proj", "b_proj"),  # of a delta rule
        *("indexer.wk", "indexer.wq_b", "indexer.weights_proj", "index_q_proj", "index_k_proj"),
    },
    "other": {  # beside attention and MLP: Gemma's, and what Kimi K3 weighs earlier layers by
        *("per_layer_input_gate", "per_layer_projection", "linear_left", "linear_right"),
        *("altup_projections", "altup_unembed_projections", "prediction_coefs", "correction_coefs"),
        *("self_attention_res_proj", "mlp_res_proj"),
    },
}


def strange(model: Any) -> list[str]:
    """Linear layers inside the blocks whose role is none, or not one of a known name."""
    found = []
    for path, module in model.named_modules():
        inside = any(part.isdigit() for part in path.split(".")) and "embeddings" not in path
        if isinstance(module, nn.Linear | nn.QuantizedLinear) and inside:
            group, _, name = (role_of(path) or "none").partition(".")
            if group != "router" and (group == "none" or name not in KNOWN.get(group, {name})):
                found.append(f"{path}: {group}.{name}")
    return found


def test_every_linear_layer_of_every_architecture_has_a_role(capsys: pytest.CaptureFixture[str]) -> None:
    names = architectures()
    models = {name: model for name in names if (model := build(name)) is not None}
    with capsys.disabled():
        print(f"\n{len(models)} of mlx-lm's architectures were built to check their roles")
    assert {name: found for name, model in models.items() if (found := strange(model))} == {}
    assert [name for name, model in models.items() if not targets(model)] == ["bitnet"]  # no nn.Linear in it
    assert len(models) >= 120


def test_a_layer_without_a_name_in_the_table_would_be_noticed() -> None:
    model = build("llama")
    model.model.layers[0].mlp.sideways = nn.Linear(4, 4)
    model.model.layers[1].beside = nn.Linear(4, 4)
    assert strange(model) == [
        "model.layers.1.beside: other.beside",
        "model.layers.0.mlp.sideways: mlp.sideways",
    ]

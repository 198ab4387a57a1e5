from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from mlx_plastic.backend import nn
from mlx_plastic.base import load_base, role_of, targets
from mlx_plastic.errors import PlasticError
from tiny import make_checkpoint

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
# what some need besides: shapes that only make sense together
MORE: dict[str, dict[str, Any]] = {
    "afmoe": {"layer_types": ["full_attention"] * 2},
    "deepseek_v2": {
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
    },
    "nemotron_h": {"hybrid_override_pattern": ["M", "*"], "num_hidden_layers": 2},
    "olmo3": {"layer_types": ["full_attention", "sliding_attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "exaone_moe": {"layer_types": ["full_attention"] * 2, "is_moe_layer": [False, True]},
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
            module = importlib.import_module(f"mlx_lm.models.{name}")
            return module.Model(module.ModelArgs(**_arguments(name, module.ModelArgs)))
    except (Exception, SystemExit):  # whatever a wrong guess leads to; what is built is counted below
        return None


def _arguments(name: str, kind: type) -> dict[str, Any]:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    given: dict[str, Any] = {}
    for field in fields.values():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed or field.name in SMALL:
            given[field.name] = SMALL.get(field.name, _guess(str(field.type)))
    chosen = {"model_type": name, **MORE.get(name, {})}
    return given | {key: value for key, value in chosen.items() if key in fields}


def _guess(kind: str) -> Any:
    for word, value in {"bool": False, "ict": {}, "ist": [], "str": "x", "float": 1.0}.items():
        if word in kind:
            return value
    return 8


FEED_FORWARD = {"gate_proj", "up_proj", "down_proj", "gate_up_proj"}
KNOWN = {
    "mlp": FEED_FORWARD,
    "shared": FEED_FORWARD,
    "experts": FEED_FORWARD,
    "attn": {
        *("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj"),
        *("q_a_proj", "q_b_proj", "kv_a_proj", "kv_b_proj", "kv_proj", "o_a_proj", "o_b_proj"),  # low rank
        *("g_proj", "gate_proj", "r_proj", "a_lora", "g_lora", "v_lora", "w_lora"),  # gates
        *("f_a_proj", "f_b_proj", "g_a_proj", "g_b_proj", "b_proj"),  # of a delta rule
        *("indexer.wk", "indexer.wq_b", "indexer.weights_proj"),
    },
    "other": {"per_layer_input_gate", "per_layer_projection"},  # Gemma's, beside attention and MLP
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
    assert len(models) >= 100


def test_a_layer_without_a_name_in_the_table_would_be_noticed() -> None:
    model = build("llama")
    model.model.layers[0].mlp.sideways = nn.Linear(4, 4)
    model.model.layers[1].beside = nn.Linear(4, 4)
    assert strange(model) == [
        "model.layers.1.beside: other.beside",
        "model.layers.0.mlp.sideways: mlp.sideways",
    ]

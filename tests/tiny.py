"""A real, tiny, random checkpoint in a stock architecture, with a tokenizer and a template of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = (
    "Nora lives in Lisbon. What is my name? You told me that the cat is called Rex. I do not know 0123456789."
)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def make_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    hidden: int = 32,
    layers: int = 2,
    vocab: int = 320,
    dtype: str = "float32",
    experts: int = 0,
) -> Path:
    """Write a random Qwen3 checkpoint (2 layers, hidden 32, grouped-query attention) into `folder`.

    experts: so many instead of one feed-forward, two of them asked for each token, in the hub's layout.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([TEXT] * 8, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    heads, kv_heads, head_dim, inner = 4, 2, hidden // 4, hidden * 2
    config = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": size,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "eos_token_id": SPECIAL.index("<|end|>"),
    }
    if experts:
        config |= {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
        config |= {"num_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": inner}
        config |= {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|end|>",
                "pad_token": "<|pad|>",
                "chat_template": TEMPLATE,
                "clean_up_tokenization_spaces": False,
            }
        )
    )
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.1).astype(dtype)

    weights = {"model.embed_tokens.weight": normal(size, hidden), "model.norm.weight": np.ones(hidden, dtype)}
    for i in range(layers):
        p = f"model.layers.{i}"
        weights |= {
            f"{p}.input_layernorm.weight": np.ones(hidden, dtype),
            f"{p}.post_attention_layernorm.weight": np.ones(hidden, dtype),
            f"{p}.self_attn.q_proj.weight": normal(heads * head_dim, hidden),
            f"{p}.self_attn.k_proj.weight": normal(kv_heads * head_dim, hidden),
            f"{p}.self_attn.v_proj.weight": normal(kv_heads * head_dim, hidden),
            f"{p}.self_attn.o_proj.weight": normal(hidden, heads * head_dim),
            f"{p}.self_attn.q_norm.weight": np.ones(head_dim, dtype),
            f"{p}.self_attn.k_norm.weight": np.ones(head_dim, dtype),
        }
        if experts:
            weights[f"{p}.mlp.gate.weight"] = normal(experts, hidden)
        for mlp in [f"{p}.mlp.experts.{e}" for e in range(experts)] or [f"{p}.mlp"]:
            weights |= {
                f"{mlp}.gate_proj.weight": normal(inner, hidden),
                f"{mlp}.up_proj.weight": normal(inner, hidden),
                f"{mlp}.down_proj.weight": normal(hidden, inner),
            }
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def make_llama(folder: Path, *, seed: int = 0, dtype: str = "float32") -> Path:
    """The same checkpoint as a Llama: without the norms of q and k, which that has not."""
    make_checkpoint(folder, seed=seed, dtype=dtype)
    weights = {n: w for n, w in load_file(folder / "model.safetensors").items() if "q_norm" not in n}
    weights = {n: w for n, w in weights.items() if "k_norm" not in n}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder

"""Random checkpoints of a real size and a stock architecture, for benchmarks that need no download.

    make_llama(folder)                        # 18.9M parameters: hidden 384, 8 layers, vocabulary 16,384
    make_llama(folder, texts=chats, seed=1)   # with a tokenizer trained on the texts to be measured

The same arguments give the same files, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parent.parent
SPECIAL = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_llama(
    folder: Path,
    *,
    hidden: int = 384,
    layers: int = 8,
    vocab: int = 16_384,
    heads: int | None = None,
    kv_heads: int | None = None,
    inner: int | None = None,
    architecture: str = "llama",
    texts: Iterable[str] | None = None,
    window: int = 2048,
    dtype: str = "float32",
    seed: int = 0,
) -> Path:
    """Write a random checkpoint with a BPE tokenizer of its own and a chat template into `folder`.

    heads: hidden / 64 unless given, a third of them (at least one) for keys and values. inner: of the
    feed-forward, 8/3 of hidden. architecture: "llama" or "qwen3" (which normalizes queries and keys).
    texts: what the tokenizer is trained on; None: this repository's own files. The embeddings have `vocab`
    rows, also where the texts have fewer words. Weights are drawn as at the start of a training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(repository_texts() if texts is None else texts, vocab)
    tokenizer.save(str(folder / "tokenizer.json"))
    heads = heads or max(1, hidden // 64)
    config = {
        "model_type": architecture,
        "architectures": [{"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[architecture]],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": inner or round(hidden * 8 / 3 / 64) * 64 or 2 * hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads or max(1, heads // 3),
        "head_dim": hidden // heads,
        "vocab_size": vocab,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "max_position_embeddings": window,
        "tie_word_embeddings": True,
        "pad_token_id": SPECIAL.index("<|pad|>"),
        "eos_token_id": SPECIAL.index("<|end|>"),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config(window), indent=2))
    weights = {name: value.astype(dtype) for name, value in _weights(config, np.random.default_rng(seed))}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def repository_texts() -> Iterator[str]:
    """The project's own prose, code and prompts: about a megabyte, found offline."""
    for pattern in ("docs/*.md", "*.md", "src/**/*.jsonl", "src/**/*.py", "scripts/**/*.py", "tests/*.py"):
        for path in sorted(ROOT.glob(pattern)):
            yield path.read_text("utf-8")


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A byte-level BPE of at most `vocab` tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _tokenizer_config(window: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "chat_template": TEMPLATE,
        "model_max_length": window,
        "clean_up_tokenization_spaces": False,
    }


def _weights(config: dict[str, Any], random: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    hidden, inner, depth = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    head = config["head_dim"]
    wide, narrow = head * config["num_attention_heads"], head * config["num_key_value_heads"]

    def matrix(out: int, width: int, scale: float = 1.0) -> np.ndarray:
        return random.standard_normal((out, width), np.float32) * np.float32(scale / width**0.5)

    calm = (2 * depth) ** -0.5  # what is added to the residual stream, so that it does not grow with depth
    yield (
        "model.embed_tokens.weight",
        random.standard_normal((config["vocab_size"], hidden), np.float32) * 0.02,
    )
    yield "model.norm.weight", np.ones(hidden, np.float32)
    for i in range(depth):
        p = f"model.layers.{i}"
        yield f"{p}.input_layernorm.weight", np.ones(hidden, np.float32)
        yield f"{p}.post_attention_layernorm.weight", np.ones(hidden, np.float32)
        yield f"{p}.self_attn.q_proj.weight", matrix(wide, hidden)
        yield f"{p}.self_attn.k_proj.weight", matrix(narrow, hidden)
        yield f"{p}.self_attn.v_proj.weight", matrix(narrow, hidden)
        yield f"{p}.self_attn.o_proj.weight", matrix(hidden, wide, calm)
        yield f"{p}.mlp.gate_proj.weight", matrix(inner, hidden)
        yield f"{p}.mlp.up_proj.weight", matrix(inner, hidden)
        yield f"{p}.mlp.down_proj.weight", matrix(hidden, inner, calm)
        if config["model_type"] == "qwen3":
            yield f"{p}.self_attn.q_norm.weight", np.ones(head, np.float32)
            yield f"{p}.self_attn.k_norm.weight", np.ones(head, np.float32)

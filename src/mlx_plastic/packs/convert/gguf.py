"""A pack as a GGUF adapter, which llama.cpp and what is built on it take with `--lora`.

`<tensor>.lora_a` is our A (rank, in) and `.lora_b` our B (out, rank) with its scale folded in; alpha 0 says
that there is none left to apply. llama.cpp turns the rows of q and k of some families when it converts
a base, so their B is turned in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.base import role_of
from mlx_plastic.errors import BadPack, NotInstalled, PlasticError
from mlx_plastic.packs.convert.fold import Update, folded
from mlx_plastic.packs.format.tensors import Array, Factors


@dataclass(frozen=True)
class Family:
    """How llama.cpp's converter names a model type, and whether it turns the rows of q and k."""

    architecture: str  # as gguf.MODEL_ARCH_NAMES has it
    turned: bool = False


# only families whose converter was read, and found to leave every linear layer as it is but for those rows
FAMILIES = {
    "llama": Family("llama", turned=True),
    "mistral": Family("llama", turned=True),
    "mixtral": Family("llama", turned=True),
    "ministral3": Family("mistral3", turned=True),
    "smollm3": Family("smollm3", turned=True),
    "granite": Family("granite", turned=True),
    "qwen2": Family("qwen2"),
    "qwen2_moe": Family("qwen2moe"),
    "qwen3": Family("qwen3"),
    "qwen3_moe": Family("qwen3moe"),
    "gemma": Family("gemma"),
    "gemma2": Family("gemma2"),
    "gemma3_text": Family("gemma3"),
    "phi3": Family("phi3"),
    "olmo2": Family("olmo2"),
    "olmo3": Family("olmo2"),
    "olmoe": Family("olmoe"),
    "starcoder2": Family("starcoder2"),
    "cohere": Family("command-r"),
    "cohere2": Family("cohere2"),
    "seed_oss": Family("seed_oss"),
}
EXPERTS = {
    "experts.gate_proj": "FFN_GATE_EXP",
    "experts.up_proj": "FFN_UP_EXP",
    "experts.down_proj": "FFN_DOWN_EXP",
}


def write(out: Path, factors: Mapping[str, Factors], *, name: str, config: Mapping[str, Any]) -> None:
    """Write the pack as the GGUF adapter `out`. config: the base's config.json.

    Raises NotInstalled without the package gguf, PlasticError for a base whose layout in llama.cpp is not
    known here; BadPack with every module that has no place in it.
    """
    gguf = _package()
    family = family_of(config)
    names = tensor_names(list(factors), config)
    writer = gguf.GGUFWriter(out, family.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    for path, update in folded(factors).items():
        heads = _heads(path, config) if family.turned else 0
        writer.add_tensor(f"{names[path]}.lora_a", np.ascontiguousarray(update.a))
        writer.add_tensor(f"{names[path]}.lora_b", np.ascontiguousarray(turned(update.b, heads)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(file: Path, paths: list[str], config: Mapping[str, Any]) -> dict[str, Update]:
    """The updates of the modules `paths` as they lie in an adapter that `write` made, rows turned back."""
    gguf = _package()
    family, names = family_of(config), tensor_names(paths, config)
    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(file).tensors}
    updates = {}
    for path in paths:
        heads = _heads(path, config) if family.turned else 0
        b = turned_back(tensors[f"{names[path]}.lora_b"], heads)
        updates[path] = Update(tensors[f"{names[path]}.lora_a"], b, 1.0)
    return updates


def family_of(config: Mapping[str, Any]) -> Family:
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise PlasticError(
            f"it is not known here how llama.cpp lays out a base of type {kind!r}",
            hint="use --to peft and llama.cpp's convert_lora_to_gguf.py; known: " + ", ".join(FAMILIES),
        )
    return FAMILIES[kind]


def tensor_names(paths: list[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Module path -> the name of its weight in GGUF, by the gguf package's own table.

    Raises BadPack with every module that the architecture has no tensor for.
    """
    gguf = _package()
    architecture = family_of(config).architecture
    arch = next((a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), None)
    if arch is None:
        raise PlasticError(
            f"the installed package gguf does not know {architecture!r}", hint="pip install --upgrade gguf"
        )
    table = gguf.get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    found = {path: _expert_name(path, arch) or table.get_name(path) for path in paths}
    unknown = [path for path, name in found.items() if name is None]
    if unknown:
        raise BadPack(
            f"GGUF has no tensor of architecture {architecture!r} for " + ", ".join(unknown[:40]),
            hint="use --to mlx-lm or --to peft",
        )
    return {path: f"{name}.weight" for path, name in found.items()}


def _expert_name(path: str, arch: Any) -> str | None:
    """The name of a stack of experts. mlx-lm stacks them under names of its own, so the role decides."""
    gguf = _package()
    kind = EXPERTS.get(role_of(path) or "")
    block = re.search(r"\.(\d+)\.", path)
    tensor = getattr(gguf.MODEL_TENSOR, kind) if kind else None
    if tensor is None or block is None or tensor not in gguf.MODEL_TENSORS[arch]:
        return None
    name: str = gguf.TENSOR_NAMES[tensor].format(bid=int(block[1]))
    return name


def _heads(path: str, config: Mapping[str, Any]) -> int:
    """How many heads share the rows of the module at `path`; 0 if its rows are left as they are."""
    heads = int(config["num_attention_heads"])
    if path.endswith("q_proj"):
        return heads
    return int(config.get("num_key_value_heads") or heads) if path.endswith("k_proj") else 0


def turned(b: Array, heads: int) -> Array:
    """Rows of each head from (first half, second half) to alternating, as llama.cpp's rope wants them.

    b: (out, rank). heads 0: as it is.
    """
    if not heads:
        return b
    return b.reshape(heads, 2, -1, b.shape[-1]).swapaxes(1, 2).reshape(b.shape)


def turned_back(b: Array, heads: int) -> Array:
    """What `turned` was given."""
    if not heads:
        return b
    return b.reshape(heads, -1, 2, b.shape[-1]).swapaxes(1, 2).reshape(b.shape)


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise NotInstalled(
            "the package gguf is not installed", hint="pip install 'mlx-plastic[gguf]'"
        ) from error
    return gguf

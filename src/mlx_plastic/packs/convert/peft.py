"""The format of Hugging Face PEFT: adapter_config.json and adapter_model.safetensors.

`base_model.model.<module path>.lora_A.weight` is our A and `.lora_B.weight` our B; the scale is alpha / r,
or alpha / sqrt(r) with `use_rslora`. What is written has its scale folded into B and says alpha = r of every
module, since some servers look at the one number `lora_alpha` only.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadPack
from mlx_plastic.packs.convert.files import (
    CONFIG,
    MAX_PATH,
    Foreign,
    config_file,
    digest,
    entry_faults,
    hints_of,
    pair_faults,
    read_files,
    refuse,
    tensor_file,
    write_folder,
)
from mlx_plastic.packs.convert.fold import Update, folded
from mlx_plastic.packs.format.tensors import Factors
from mlx_plastic.packs.format.untrusted import Tensors

TENSORS = "adapter_model.safetensors"
PREFIX = "base_model.model."
PICKLED = {
    "adapter_model.bin": "a pickle can run code: let who made it save it again with "
    "save_pretrained(..., safe_serialization=True)"
}

_NAME = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")
_LITERAL = re.compile(r"(\^?)((?:[A-Za-z0-9_]|\\?\.)+)\$?")
_SIMPLE = re.compile(r"\^?(?:[A-Za-z0-9_|()]|\\\.|\\d[+*]?|\.[+*]?|\[[0-9A-Za-z_-]+\][+*]?)*\$?")
MAX_KEY = 256  # characters
MAX_PATTERNS = 64  # of those that are more than a name
MAX_STEPS = 1_000_000  # that one of them may take on one path: some 20 ms
MATCHING_S = 2.0  # for all of them together

# what an adapter may hold beside A and B, and why it cannot be carried
_PARTS = {
    "lora_magnitude_vector": "DoRA magnitudes",
    "lora_embedding_": "trained embeddings",
    "trainable_tokens": "trained tokens",
    "modules_to_save": "whole modules (modules_to_save)",
    "embed_tokens": "embeddings",
    "lora_B.bias": "biases (lora_bias)",
    "base_layer": "updates of bare parameters (target_parameters)",
    ".bias": "biases",
}
_SETTINGS = {
    "use_dora": "it is a DoRA: its magnitudes are no low-rank update",
    "lora_bias": "it trains biases (lora_bias)",
    "modules_to_save": "it holds whole modules (modules_to_save)",
    "trainable_token_indices": "it trains tokens (trainable_token_indices)",
    "layer_replication": "it repeats layers (layer_replication)",
    "target_parameters": "it adapts bare parameters (target_parameters)",
    "alora_invocation_tokens": "it acts only after certain tokens (aLoRA)",
    "use_qalora": "it is a QA-LoRA, which pools the inputs",
    "use_bdlora": "its factors are block-diagonal (BD-LoRA)",
    "kasa_config": "it changes the base's weights (KaSA)",
    "velora_config": "it is a VeLoRA",
    "monteclora_config": "it is a MonteCLoRA",
    "arrow_config": "it routes among several adapters (Arrow)",
}
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # inits that leave other weights in the base
# what says how it was trained or saved, not what it does
_HARMLESS = {
    *(
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "corda_config",
        "ensure_weight_tying",
    ),
    *("eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights"),
    *(
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "lora_ga_config",
    ),
    *("megatron_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r"),
    *("rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_rslora"),
}


def write(out: Path, factors: Mapping[str, Factors], base_id: str) -> None:
    """Write the pack as a PEFT adapter to the new folder `out`.

    Raises BadPack with every stack of experts: PEFT has no form for those that all its readers share.
    """
    stacked = [path for path, f in factors.items() if f.a.ndim == 3]
    if stacked:
        raise BadPack(
            "PEFT cannot hold the stacks of experts " + ", ".join(stacked[:40]),
            hint="use --to mlx-lm or --to gguf, or train without experts",
        )
    tensors = {}
    for path, update in folded(factors).items():
        tensors[f"{PREFIX}{path}.lora_A.weight"] = update.a
        tensors[f"{PREFIX}{path}.lora_B.weight"] = update.b
    config = _config({path: f.rank for path, f in factors.items()}, base_id)
    data = tensor_file(tensors, factors, framework="pt")
    write_folder(out, {CONFIG: config_file(config), TENSORS: data})


def _config(ranks: Mapping[str, int], base_id: str) -> dict[str, Any]:
    highest = max(ranks.values())  # servers size their buffers by it
    # keys are regular expressions, of which PEFT takes the first that matches the end of a path
    pattern = {re.escape(path): rank for path, rank in sorted(ranks.items()) if rank != highest}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_id,
        "inference_mode": True,
        "r": highest,
        "lora_alpha": highest,
        "rank_pattern": pattern,
        "alpha_pattern": dict(pattern),
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def read(folder: Path) -> Foreign:
    """The PEFT adapter in `folder`. Raises BadPack with everything that cannot be carried over."""
    config, tensors = read_files(folder, TENSORS, pickled=PICKLED)
    faults = [*_setting_faults(config), *_name_faults(tensors)]
    refuse(folder, faults, "only what is W + scale * B @ A can become a pack")
    paths = sorted({match[1] for name in tensors.entries if (match := _NAME.fullmatch(name))})
    pairs = {path: _pair(tensors, path) for path in paths}
    faults = [fault for path, (a, b) in pairs.items() for fault in pair_faults(path, a, b)]
    refuse(folder, faults)
    ranks = _by_module(config, "rank_pattern", "r", paths)
    alphas = _by_module(config, "alpha_pattern", "lora_alpha", paths)
    told = {path: int(a.shape[-2]) for path, (a, _) in pairs.items()}
    faults = [
        f"{path} has rank {told[path]}, not {rank:g} as {CONFIG} says"
        for path, rank in ranks.items()
        if rank != told[path]
    ]
    refuse(folder, faults)
    root = bool(config.get("use_rslora"))
    updates = {
        path: Update(a, b, alphas[path] / (math.sqrt(told[path]) if root else told[path]))
        for path, (a, b) in pairs.items()
    }
    return Foreign(updates, config, digest(tensors), hints_of(tensors))


def _pair(tensors: Tensors, path: str) -> tuple[Any, Any]:
    a, b = (tensors.array(f"{PREFIX}{path}.lora_{part}.weight") for part in "AB")
    return a, b


def _setting_faults(config: Mapping[str, Any]) -> Iterator[str]:
    kind = config.get("peft_type")
    if kind != "LORA":
        yield f"its peft_type is {kind!r}, not 'LORA'"
    yield from (f"{why}" for key, why in _SETTINGS.items() if config.get(key))
    if config.get("bias", "none") != "none":
        yield f"it trains biases (bias = {config['bias']!r})"
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_CHANGED_BASE):
        yield f"it was trained on changed base weights (init_lora_weights = {init!r})"
    for key, value in config.items():
        if value and key not in _HARMLESS and key not in _SETTINGS:
            yield f"{CONFIG} sets {key!r}, which is not known here: it may change what the adapter does"


def _name_faults(tensors: Tensors) -> Iterator[str]:
    parts: dict[str, set[str]] = {}
    for name, entry in tensors.entries.items():
        match = _NAME.fullmatch(name)
        reason = next((why for part, why in _PARTS.items() if part in name), None)
        if match is None or reason:
            yield f"tensor {name!r}: " + (f"{reason} cannot be carried" if reason else "not lora_A or lora_B")
            continue
        yield from entry_faults(name, match[1], entry)
        if len(entry.shape) == 3:
            yield f"tensor {name!r} has shape {list(entry.shape)}: PEFT knows no stacks"
        parts.setdefault(match[1], set()).add(match[2])
    for path, found in parts.items():
        yield from (f"{path} has no lora_{part}" for part in "AB" if part not in found)


def _by_module(config: Mapping[str, Any], pattern: str, otherwise: str, paths: list[str]) -> dict[str, float]:
    """The number that PEFT would use for each module: of the first key that matches the end of its path."""
    given, default = config.get(pattern) or {}, config.get(otherwise)
    numbers = list(given.values()) if isinstance(given, dict) else [None]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in [default, *numbers]):
        raise BadPack(
            f"{CONFIG} has no numbers in {otherwise!r} and {pattern!r}", hint="PEFT writes them; see its docs"
        )
    matching = _Matching(list(given))
    return {
        path: float(default if (i := matching.first(path)) is None else numbers[i])  # type: ignore[arg-type]
        for path in paths
    }


class _Matching:
    """Keys of rank_pattern or alpha_pattern, tried as PEFT does: `(.*\\.)?(key)$`, the first one counts.

    They are a stranger's regular expressions, and some of those take for ever. So names are looked up, and
    of the others only simple ones are run, each on the few ends of a path, and all within a time.
    """

    def __init__(self, keys: list[str]) -> None:
        self.names: dict[str, int] = {}
        self.patterns: list[tuple[int, re.Pattern[str]]] = []
        self.spent_s = 0.0
        for i, key in enumerate(keys):
            literal = _LITERAL.fullmatch(key) if len(key) <= MAX_KEY else None
            if literal:
                self.names.setdefault(literal[1] + literal[2].replace("\\", ""), i)
            else:
                self.patterns.append((i, _simple(key)))
        if len(self.patterns) > MAX_PATTERNS:
            raise BadPack(
                f"{CONFIG} has {len(self.patterns)} regular expressions, more than {MAX_PATTERNS}",
                hint="write module paths instead",
            )

    def first(self, path: str) -> int | None:
        """Which key counts for the module at `path`."""
        parts = path.split(".")
        ends = [".".join(parts[i:]) for i in range(len(parts))]
        found = [self.names[end] for end in ("^" + path, *ends) if end in self.names]
        found += [i for i, pattern in self.patterns if self._matches(pattern, ends)]
        return min(found, default=None)

    def _matches(self, pattern: re.Pattern[str], ends: list[str]) -> bool:
        started = time.monotonic()
        tried = ends[:1] if pattern.pattern.startswith("^") else ends
        hit = any(map(pattern.fullmatch, tried))
        self.spent_s += time.monotonic() - started
        if self.spent_s > MATCHING_S:
            raise BadPack(f"the patterns in {CONFIG} take too long", hint="write module paths instead")
        return hit


def _simple(key: str) -> re.Pattern[str]:
    """The pattern, if it surely ends soon: nothing in brackets repeats, and there are few ways to match."""
    if len(key) <= MAX_KEY and _SIMPLE.fullmatch(key) and not re.search(r"\)[+*]", key):
        repeats, groups, choices = sum(map(key.count, "*+")), max(1, key.count("(")), 1 + key.count("|")
        if repeats <= 3 and groups <= 4 and MAX_PATH**repeats * choices**groups <= MAX_STEPS:
            try:
                return re.compile(key)
            except re.error:
                pass
    raise BadPack(
        f"{CONFIG} has the pattern {key[:80]!r}, which is not simple enough to be run",
        hint="write module paths instead",
    )

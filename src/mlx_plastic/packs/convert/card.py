"""The README of an adapter that is given away, as model hubs read it: what it is of, without whose.

A front matter of `base_model`, `library_name`, `tags` and `pipeline_tag`, then a page for people. Counts and
settings only: no id of a turn, no path of the machine it was made on.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from mlx_plastic.packs.format.manifest import Manifest

CARD = "README.md"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_SETTINGS = ("learning_rate", "epochs", "steps", "batch_tokens", "dropout", "anchor", "seed")

_USE = {
    "peft": """\
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, {here})""",
    "mlx-lm": """\
from mlx_lm import generate, load

model, tokenizer = load({base}, adapter_path={here})
print(generate(model, tokenizer, prompt="Hello"))""",
}


def card(manifest: Manifest, kind: Literal["peft", "mlx-lm"]) -> str:
    """The page for the pack written as `kind`. The base is named only if it is called as on a hub."""
    m = manifest
    hub = m.base_id if _HUB_ID.fullmatch(m.base_id) else ""
    front = {
        **({"base_model": hub} if hub else {}),
        "library_name": {"peft": "peft", "mlx-lm": "mlx"}[kind],
        "pipeline_tag": "text-generation",
        "tags": ["base_model:adapter:" + hub, "lora", "mlx-plastic"] if hub else ["lora", "mlx-plastic"],
    }
    ranks, size = sorted(m.rank_map.values()), m.sizes
    rows: list[tuple[str, str]] = [
        ("base", f"{hub or 'not on a hub'}; fingerprint `{m.base_fingerprint}`"),
        ("adapted", f"{len(ranks)} modules, rank {ranks[0]} to {ranks[-1]}, {size.parameters:,} values"),
        ("learned from", f"{m.data.samples:,} samples, {m.data.supervised_tokens:,} supervised tokens"),
        ("trained", f"{m.run.steps:,} steps, {m.run.seconds:,.0f} s"),
        *(
            (name, str(m.training[name]))
            for name in _SETTINGS
            if isinstance(m.training.get(name), int | float)
        ),
        ("made", f"{m.created} by mlx-plastic; sha256 of the pack `{m.sha256}`"),
    ]
    use = _USE[kind].format(
        base=json.dumps(hub or "path/to/the/base"), here=json.dumps("path/to/this/folder")
    )
    return "\n".join(
        [
            "---",
            *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
            "---",
            f"# {m.name}",
            "",
            "A LoRA adapter. It acts on the base named here and on no other.",
            "",
            *_table(("", ""), rows),
            "",
            *_measured(m.evals),
            "```python",
            use,
            "```",
            "",
        ]
    )


def _measured(evals: dict[str, Any]) -> list[str]:
    numbers = [
        (name, f"{value:.6g}")
        for name, value in sorted(evals.items())
        if _is_number(value) and re.fullmatch(r"[\w.@%-]+", name)
    ]
    return [*_table(("measured", ""), numbers), ""] if numbers else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    return [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]

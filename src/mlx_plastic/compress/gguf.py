"""The llama.cpp commands that make a GGUF of the same plan.

it quantizes by itself, from the unquantized base.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from mlx_plastic.compress.plan import Plan
from mlx_plastic.compress.schemes import WHOLE

TYPES = {2: "q2_K", 3: "q3_K", 4: "q4_K", 5: "q5_K", 6: "q6_K", 8: "q8_0", WHOLE: "f16"}
FTYPES = {2: "Q2_K", 3: "Q3_K_M", 4: "Q4_K_M", 5: "Q5_K_M", 6: "Q6_K", 8: "Q8_0", WHOLE: "F16"}
NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def commands(plan: Plan, source: Path, name: str, *, pack: str | None = None) -> list[str]:
    """Shell commands, to be run where llama.cpp is built and in its folder.

    Bits are given tensor by tensor where the names are the usual ones; the nearest K-quant of each width.
    """
    q = shlex.quote
    whole, small = f"{name}-f16.gguf", f"{name}.gguf"
    template = source / "chat_template.jinja"
    flags = ["--jinja"] + ([f"--chat-template-file {q(str(template))}"] if template.is_file() else [])
    found = [
        f"python convert_hf_to_gguf.py {q(str(source))} --outtype f16 --outfile {q(whole)}",
        " ".join(["./llama-quantize", *_types(plan), q(whole), q(small), FTYPES[_most(plan)]]),
    ]
    lora = ""
    if pack:
        found.append(f"plastic packs convert {q(pack)} --to gguf --out {q(pack + '.gguf')}")
        lora = f" --lora {q(pack + '.gguf')}"
    return [*found, f"./llama-cli -m {q(small)} {' '.join(flags)}{lora}"]


def _most(plan: Plan) -> int:
    sizes: dict[int, int] = {}
    for m in plan.matrices:
        sizes[m.bits] = sizes.get(m.bits, 0) + m.experts * m.rows * m.cols
    return max(sizes, key=lambda bits: sizes[bits])


def _types(plan: Plan) -> list[str]:
    found = []
    for m in plan.matrices:
        if "embed" in m.module:
            found.append(f"--token-embedding-type {TYPES[m.bits]}")
            continue
        if m.module.endswith("lm_head"):
            found.append(f"--output-tensor-type {TYPES[m.bits]}")
            continue
        block = re.search(r"layers\.(\d+)\.", m.module)
        leaf = NAMES.get(m.module.rpartition(".")[2])
        if block and leaf:
            kind = f"{leaf}_exps" if m.experts > 1 else leaf
            found.append(f"--tensor-type 'blk\\.{block[1]}\\.{kind}={TYPES[m.bits]}'")
    return found

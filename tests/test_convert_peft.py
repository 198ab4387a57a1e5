"""Against the real peft on torch: needs the extra `peft`, which `make slow` installs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_plastic.base import Base, load_base
from mlx_plastic.packs import Pack
from mlx_plastic.packs.convert import export_pack, import_adapter
from test_convert import TOKENS, edit, uneven_pack, worn_logits
from tiny import make_checkpoint, make_llama

pytestmark = pytest.mark.slow


def hub_model(base: Base) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(base.path), dtype=torch.float32).eval()


def hub_logits(model: Any) -> np.ndarray:
    import torch

    with torch.inference_mode():
        found: np.ndarray = model(torch.tensor([TOKENS])).logits[0].float().numpy()
    return found


@pytest.fixture(params=[make_checkpoint, make_llama], ids=["qwen3", "llama"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Base:
    make: Callable[..., Path] = request.param
    return load_base(str(make(tmp_path / "base")))


def test_peft_computes_the_logits_of_the_pack(base: Base, tmp_path: Path) -> None:
    from peft import PeftModel

    pack = uneven_pack(base)
    export_pack(pack, "peft", tmp_path / "out", base=base)
    wanted, bare = worn_logits(base, pack), np.array(base.logits(TOKENS))
    model = hub_model(base)
    np.testing.assert_allclose(hub_logits(model), bare, atol=1e-4)
    found = hub_logits(PeftModel.from_pretrained(model, str(tmp_path / "out")))
    print(f"largest difference of {base.config['model_type']}: {np.abs(found - wanted).max():.2g}")
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted - bare).max() > 0.1  # control: the pack acts
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    edit(tmp_path / "out", lora_alpha=2 * config["lora_alpha"])
    wrong = hub_logits(PeftModel.from_pretrained(hub_model(base), str(tmp_path / "out")))
    assert np.abs(wrong - wanted).max() > 0.01  # control: a wrong scale is seen


@pytest.mark.parametrize("use_rslora", [False, True])
def test_a_pack_answers_as_the_peft_adapter_it_was_made_of(
    base: Base, tmp_path: Path, use_rslora: bool
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "k_proj", "o_proj", "up_proj"],
        rank_pattern={r"model\.layers\.1\.self_attn\.k_proj": 7, ".*up_proj": 3},
        alpha_pattern={"o_proj": 11},
        use_rslora=use_rslora,
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    model = get_peft_model(hub_model(base), config).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "lora_" in name:  # what float16 holds, so that the cast adds nothing
                values.copy_((torch.randn_like(values) * 0.1).half().float())
    model.save_pretrained(str(tmp_path / "theirs"))
    made = import_adapter(tmp_path / "theirs", "peft", name="p", base=base)
    assert made.conversion.error < 1e-6
    found = worn_logits(base, Pack(made.manifest, made.factors))
    np.testing.assert_allclose(found, hub_logits(model), atol=1e-4)
    assert np.abs(found - np.array(base.logits(TOKENS))).max() > 0.1  # control: it acts

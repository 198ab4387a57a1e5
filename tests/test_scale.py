"""The cost model: its shapes are those of real files, and the page shows what it computes."""

from __future__ import annotations

import json
import sys

import pytest

from docs import DOCS, ROOT
from mlx_plastic.base import load_base, targets
from mlx_plastic.base.widen import count_parameters
from mlx_plastic.lowrank.layers import dims
from mlx_plastic.packs.format.pack import stored_bytes
from mlx_plastic.sleep.config import NightConfig, fitted

sys.path.insert(0, str(ROOT / "scripts"))
import make_scale_page
import scale_model
from scale_model import MACHINES, MOE, NANO, Night


def test_the_shape_of_nano_is_that_of_its_file() -> None:
    base = load_base("nano")
    norms = count_parameters(base.model) - NANO.total
    assert 0 < norms < 0.002 * NANO.total
    layers = [dims(linear) for linear in targets(base.model).values()]
    assert NANO.pack_bytes(8) == sum(stored_bytes(out, width, 8, "float16") for out, width in layers)
    assert NANO.rank == fitted(NightConfig(), base).rank


def test_larger_shapes_have_the_parameters_that_their_names_say() -> None:
    assert abs(MOE.total / 30.5e9 - 1) < 0.01 and abs(MOE.active / 3.3e9 - 1) < 0.1
    assert abs(scale_model.DENSE.total / 8.19e9 - 1) < 0.01
    assert MOE.touched(1) < MOE.touched(16) < MOE.total
    assert MOE.pack_bytes(MOE.rank) <= scale_model.LITE_BYTES < MOE.pack_bytes(MOE.rank + 1)


def test_a_night_of_twice_the_turns_takes_twice_the_time_and_a_slower_network_gains_less() -> None:
    night = Night(10, 1000, 500, 100, 256)
    one, two = (sum(scale_model.night_s(MOE, MACHINES[0], n).values()) for n in (night, night.scaled(20)))
    assert two == pytest.approx(2 * one, rel=1e-3)
    assert scale_model.exchange_s(MOE, 5, 2, 1) == pytest.approx(10 * scale_model.exchange_s(MOE, 5, 2, 10))


def test_the_page_is_current_and_another_measurement_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = make_scale_page.PAGE.read_text("utf-8")
    assert make_scale_page.page(text) == text, "run python scripts/make_scale_page.py"
    found, packs = scale_model.measured()
    other = found | {"trained": 2 * found["trained"]}
    for module in (scale_model, make_scale_page):
        monkeypatch.setattr(module, "measured", lambda: (other, packs))
    assert make_scale_page.page(text) != text  # control
    assert json.loads((DOCS / "scale.json").read_text("utf-8"))["outcome"] in ("passed", "failed")

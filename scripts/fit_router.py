"""Fit the router on the seed set, judge it on families that it was not fitted on, write its weights.

    python scripts/fit_router.py [--dry-run] [--meaning] [--check] [--bootstrap TEXTS]

Writes src/mlx_plastic/memory/router/weights.json. --meaning measures what the sentence embedding adds, if an
embedder is installed; the weights that are shipped need none. --check compares with scikit-learn, if that is
installed. --bootstrap prints the lines of a file of texts with a guessed route each, to be corrected and
added to the recipe. Run it with OPENBLAS_NUM_THREADS=1 for the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.memory.records import Turn
from mlx_plastic.memory.router import ROUTES, Route, Router, RouterConfig
from mlx_plastic.memory.router.features import guess, named, wording
from mlx_plastic.memory.router.model import (
    PENALTY,
    WORDING_SCALE,
    Example,
    fit_model,
    key_of,
    own_text,
    seed_set,
    shipped,
)
from mlx_plastic.memory.router.provenance import own_words, spans_of
from mlx_plastic.memory.router.regression import fit, softmax

WEIGHTS = (
    Path(__file__).resolve().parent.parent / "src" / "mlx_plastic" / "memory" / "router" / "weights.json"
)
FOLDS, SEEDS = 5, 3
Ids = NDArray[np.int64]


def turn(text: str) -> Turn:
    return Turn("t", "c", "user", text, datetime.now(UTC))


def folds(examples: Sequence[Example], seed: int) -> Iterator[Ids]:
    """The places held out, fold by fold: whole families, as many of each route in every fold."""
    draw, fold_of = random.Random(seed), dict[str, int]()
    for route in ROUTES:
        names = sorted({e.family for e in examples if e.route == route})
        draw.shuffle(names)
        fold_of |= {name: i % FOLDS for i, name in enumerate(names)}
    fold = np.array([fold_of[e.family] for e in examples])
    return (np.flatnonzero(fold == k) for k in range(FOLDS))


class Remembered:
    """An embedder that has read the examples' own words once."""

    def __init__(self, examples: Sequence[Example]) -> None:
        from mlx_plastic.memory.embed import MiniLM

        own = [own_text(e) for e in examples]
        began = time.perf_counter()
        self.rows = MiniLM().pooled(own)
        print(f"embedded in {1e3 * (time.perf_counter() - began) / len(own):.1f} ms a text")
        self.place = {text: i for i, text in enumerate(own)}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.rows[[self.place[text] for text in texts]]


def held_out(
    examples: Sequence[Example], seed: int, config: RouterConfig, embed: Remembered | None
) -> tuple[Ids, NDArray[np.bool_]]:
    """(n,) the route of each example by a router that never saw its family, and where it was unsure."""
    found, unsure = np.zeros(len(examples), np.int64), np.zeros(len(examples), np.bool_)
    for out in folds(examples, seed):
        kept = np.setdiff1d(np.arange(len(examples)), out)
        meaning = embed.rows[kept] if embed else None
        router = Router(fit_model([examples[i] for i in kept], key="", meaning=meaning), config, embed)
        for i in out:
            decision = router.decide(turn(examples[i].text))
            found[i], unsure[i] = ROUTES.index(decision.route), decision.abstained
    return found, unsure


def figures(found: Ids, unsure: NDArray[np.bool_], wanted: Ids) -> dict[str, float]:
    """Shares. learned_*, looked_up_*: of what should be, and should not be, how much is."""
    hits = [np.sum((found == r) & (wanted == r)) for r in range(len(ROUTES))]
    sizes = [np.sum(found == r) + np.sum(wanted == r) for r in range(len(ROUTES))]
    learned, to_learn = np.isin(found, (0, 2)), np.isin(wanted, (0, 2))
    looked_up, to_look_up = np.isin(found, (1, 2)), np.isin(wanted, (1, 2))
    return {
        "accuracy": np.mean(found == wanted),
        "macro_f1": np.mean([2 * h / max(1, s) for h, s in zip(hits, sizes, strict=True)]),
        "abstained": np.mean(unsure),
        "accuracy_of_sure": np.mean((found == wanted)[~unsure]),
        "learned_of_wanted": np.mean(learned[to_learn]),
        "learned_of_unwanted": np.mean(learned[~to_learn]),
        "looked_up_of_wanted": np.mean(looked_up[to_look_up]),
        "looked_up_of_unwanted": np.mean(looked_up[~to_look_up]),
    }


def by_rules(text: str) -> Route:
    """The baseline: what was pasted is looked up, for the rest a few rules."""
    own = own_words(text, spans_of(text))
    return guess(own) if own else "retrieval"


def judge(examples: Sequence[Example], embed: Remembered | None) -> None:
    wanted = np.array([ROUTES.index(e.route) for e in examples])
    rules = np.array([ROUTES.index(by_rules(e.text)) for e in examples])
    tell("rules alone", [figures(rules, np.zeros(len(rules), np.bool_), wanted)])
    for name, config in (("no abstaining", RouterConfig(abstain=0.0)), ("as configured", RouterConfig())):
        runs = [held_out(examples, seed, config, embed) for seed in range(SEEDS)]
        tell(f"held out, {name}", [figures(found, unsure, wanted) for found, unsure in runs])
    table = np.zeros((len(ROUTES), len(ROUTES)), np.int64)
    np.add.at(table, (wanted, runs[0][0]), 1)
    print("rows: wanted, columns: given;", ", ".join(ROUTES))
    print(table)


def tell(name: str, runs: list[dict[str, float]]) -> None:
    print(f"{name} ({FOLDS} folds by family, {len(runs)} draws)" if len(runs) > 1 else name)
    for key in runs[0]:
        values = [run[key] for run in runs]
        print(f"  {key:<22} {np.mean(values):.3f} ± {np.std(values):.3f}")


def check(examples: Sequence[Example]) -> None:
    """The same problem by scikit-learn: the loss is convex, so both must find one answer."""
    from sklearn.linear_model import LogisticRegression

    texts = [own for e in examples if (own := own_words(e.text, spans_of(e.text)))]
    routes = [ROUTES.index(e.route) for e in examples if own_words(e.text, spans_of(e.text))]
    dense = np.stack([named(t) for t in texts]).astype(np.float64)
    x = np.hstack(
        [
            (dense - dense.mean(0)) / (dense.std(0) + 1e-6),
            np.stack([wording(t) for t in texts]) * WORDING_SCALE,
        ]
    )
    y = np.array(routes)
    w, b = fit(x, y, np.ones(len(y)), classes=len(ROUTES), penalty=PENALTY)
    theirs = LogisticRegression(C=1 / PENALTY, max_iter=5000, tol=1e-6).fit(x, y)
    gap = np.abs(softmax(x @ w + b) - theirs.predict_proba(x)).max()
    print(f"largest difference in probability to scikit-learn: {gap:.1e} over {len(y)} lines")


def time_it(examples: Sequence[Example]) -> None:
    router = Router(shipped(), RouterConfig())
    turns = [turn(e.text) for e in examples]
    took = []
    for t in turns:
        began = time.perf_counter()
        router.decide(t)
        took.append(1e3 * (time.perf_counter() - began))
    print(f"ms a record: mean {np.mean(took):.2f}, p95 {np.quantile(took, 0.95):.2f}, max {max(took):.2f}")
    code = "import time; b = time.time(); import mlx_plastic.memory.router; print(time.time() - b)"
    runs = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    print(f"import of the router, with NumPy and SQLite: {min(runs):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="only measure")
    parser.add_argument("--meaning", action="store_true", help="measure with the embedder; write nothing")
    parser.add_argument("--check", action="store_true", help="compare with scikit-learn")
    parser.add_argument("--bootstrap", type=Path, metavar="TEXTS", help="guess a route for each line")
    chosen = parser.parse_args()
    if chosen.bootstrap:
        for line in chosen.bootstrap.read_text("utf-8").splitlines():
            print(json.dumps({"text": line, "route": by_rules(line), "family": ""}, ensure_ascii=False))
        return
    examples = seed_set()
    print(f"{len(examples)} lines of {len({e.family for e in examples})} families")
    if chosen.check:
        check(examples)
        return
    judge(examples, Remembered(examples) if chosen.meaning else None)
    if not (chosen.dry_run or chosen.meaning):
        began = time.perf_counter()
        WEIGHTS.write_bytes(fit_model(examples, key=key_of(())).to_json())
        print(f"fitted in {time.perf_counter() - began:.1f} s: {WEIGHTS}, {WEIGHTS.stat().st_size} bytes")
    time_it(examples)


if __name__ == "__main__":
    main()

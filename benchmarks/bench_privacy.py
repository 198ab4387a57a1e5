"""How much of what is personal or secret is found, how much else, and how fast.

    MLX_PLASTIC_DATA=... python benchmarks/bench_privacy.py --json

The texts are made from templates, names, streets and number formats that neither the detectors nor the
tagger's training have seen (benchmarks/privacy), and read below MLX_PLASTIC_DATA, from the parts that
training leaves out. A find counts only if every letter and digit of it is masked, by whatever kind of find.
A second set (privacy/fresh.py) was written later, by somebody else, in two halves: what was missed in the one
was looked at, and of the other (--fresh kept) nothing but these figures was ever printed.
Other people's sets can be measured too: --synth FILE (presidio-research's JSON), --conll FILE (words with
B-person or B-PER tags, as WNUT-17's and the Broad Twitter Corpus'; may be given several times), --questions
FILE (CSV with a column `text`, as BANKING77's). --second-reader BASE measures nothing else: how many of the
noisy names that the detectors miss a local base names when it is asked for them, and what else it names.
The figures:

    recall                by kind, under the training policy
    fresh kept            the same of the second set's half that nobody looked at, and of clean texts (talk
                          about passwords, numbers, banks) how many have anything but people found in them
    told                  secrets in a third author's sentences (privacy/told.txt), and clean ones beside them
    secrets               recall for training and for storage; clean: share of texts with a secret found
    clean                 share of texts in which anything is found but people and sites
    bank questions        share in which anything at all is found
    mb_per_s              the whole training policy on texts of 500 and of 100 characters, the quickest of
                          five passes on one core; mb_per_cpu_s: by processor time, for a machine not idle
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from privacy.clean import bank_questions, clean_sets, read_questions
from privacy.fresh import Fresh, Half
from privacy.marked import Marked
from privacy.numbers import TEMPLATES, Numbers
from privacy.people import People
from privacy.reader import added
from privacy.secrets import Secrets
from privacy.told import told

from mlx_plastic.memory.privacy import Policy, Span, policy_for, scan

WANTED = {
    "email": 0.99, "iban": 0.99, "card": 0.99, "national_id": 0.99, "ip": 0.99, "url": 0.99, "phone": 0.95,
    "name": 0.85, "noisy name": 0.6, "address": 0.95, "secrets, training": 0.98, "secrets, storage": 0.9,
}  # fmt: skip
PERSON = ("b-person", "i-person", "b-per", "i-per")
TRAINING, STORAGE = policy_for("training"), policy_for("storage")


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--count", type=int, default=1000, help="texts of each kind")
    options.add_argument("--seed", type=int, default=101)
    options.add_argument("--fresh", choices=["kept", "seen"], default="kept", help="half of the second set")
    options.add_argument("--synth", type=Path)
    options.add_argument("--conll", type=Path, action="append", default=[])
    options.add_argument("--questions", type=Path)
    options.add_argument(
        "--misses", type=int, default=0, help="show so many of what was missed, of each kind"
    )
    options.add_argument("--second-reader", metavar="BASE", help="ask a local base for what was missed")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    if chosen.second_reader:
        texts = People(chosen.seed, "unseen").noisy(chosen.count)
        print(json.dumps(added(chosen.second_reader, texts, chosen.seed), indent=2))
        return 0
    figures = made_up(chosen.count, chosen.seed, chosen.misses)
    figures |= fresh(chosen.fresh, chosen.count, chosen.seed, chosen.misses)
    figures |= third()
    questions = bank_questions(chosen.count, chosen.seed)
    figures["bank questions"] = share_with(questions, TRAINING, {"secret"}, but=True)
    texts = questions
    if data := os.environ.get("MLX_PLASTIC_DATA"):
        folder = Path(data, "data") if Path(data, "data").is_dir() else Path(data)
        sets = dict(clean_sets(folder))
        figures |= clean(sets)
        texts = [
            t for name in ("taskmaster4 5-7", "gsm8k test", "wikitext-2 test") for t in sets[name][:1500]
        ]
    figures |= throughput(texts)
    figures |= others(chosen)
    tell(figures, as_json=chosen.json)
    return 0


def made_up(count: int, seed: int, misses: int) -> dict[str, Any]:
    found: dict[str, float] = {}
    for kind in TEMPLATES:
        found[kind] = recall(Numbers(seed).texts(kind, count), TRAINING, misses)
    for what, method in (("name", "named"), ("noisy name", "noisy")):
        each = {}
        for names in ("known", "unseen"):
            each[names] = recall(getattr(People(seed, names), method)(count), TRAINING, misses)
            found[f"{what}, {names}"] = each[names]
        found[what] = round(sum(each.values()) / 2, 4)
    found["address"] = recall(People(seed, "known").placed(count), TRAINING, misses)
    secrets = Secrets(seed).texts(2 * count)
    found["secrets, training"] = recall(secrets, TRAINING, misses)
    found["secrets, storage"] = recall(secrets, STORAGE, misses)
    return {"recall": found}


def fresh(half: Half, count: int, seed: int, misses: int) -> dict[str, Any]:
    made, misses = Fresh(seed, half), misses if half == "seen" else 0
    sets = {"name": made.named, "noisy name": made.noisy, "address": made.placed, "phone": made.phoned}
    found: dict[str, Any] = {what: recall(make(count), TRAINING, misses) for what, make in sets.items()}
    secrets = made.secret(2 * count)
    found["secrets, training"] = recall(secrets, TRAINING, misses)
    found["secrets, storage"] = recall(secrets, STORAGE, misses)
    texts = [*made.clean(), *made.bank()]
    for policy in (TRAINING, STORAGE):
        hits = sum(any(s.kind != "person" for s in scan(text, policy)) for text in texts)
        found[f"clean, {policy.destination}"] = f"{hits} of {len(texts)}"
    return {f"fresh {half}": found}


def third() -> dict[str, Any]:
    secret, clean_texts = told()
    found: dict[str, Any] = {"n": sum(len(m.finds) for m in secret)}
    for policy in (TRAINING, STORAGE):
        found[f"secrets, {policy.destination}"] = recall(secret, policy)
        hits = sum(any(s.kind == "secret" for s in scan(text, policy)) for text in clean_texts)
        found[f"clean, {policy.destination}"] = f"{hits} of {len(clean_texts)}"
    return {"told": found}


def recall(texts: Sequence[Marked], policy: Policy, misses: int = 0) -> float:
    total, hit = 0, 0
    missed: dict[str, list[str]] = {}
    for marked in texts:
        spans = scan(marked.text, policy)
        for start, end, what in marked.finds:
            total += 1
            if covered(marked.text, spans, start, end, what):
                hit += 1
            else:
                shown = f"{marked.text[:start]}<<{marked.text[start:end]}>>{marked.text[end:]}"
                missed.setdefault(what, []).append(shown)
    for what, shown in missed.items() if misses else ():
        for line in shown[:misses]:
            print(f"{policy.destination} {what}: {line!r}", file=sys.stderr)
    return round(hit / max(total, 1), 4)


def precision(texts: Sequence[Marked]) -> float:
    """Of what is taken for a person, the share that touches one."""
    taken = hits = 0
    for marked in texts:
        spans = [s for s in scan(marked.text, TRAINING) if s.kind == "person"]
        taken += len(spans)
        hits += sum(any(a < s.end and s.start < b for a, b, _ in marked.finds) for s in spans)
    return round(hits / max(taken, 1), 4)


def covered(text: str, spans: Iterable[Span], start: int, end: int, what: str) -> bool:
    """Whether every letter and digit is masked; of a URL with a password in it, the password."""
    if what.endswith("login url"):
        start, end = text.index(":", start + 8) + 1, text.index("@", start)
    masked = {i for span in spans for i in range(span.start, span.end)}
    return all(i in masked for i in range(start, end) if text[i].isalnum())


def share_with(texts: Sequence[str], policy: Policy, kinds: set[str], *, but: bool = False) -> float:
    """The share of texts in which one of the kinds is found; but: or anything else."""
    hits = sum(any(but or s.kind in kinds for s in scan(text, policy)) for text in texts)
    return round(hits / max(len(texts), 1), 5)


def clean(sets: dict[str, list[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {"clean": {}, "secrets, clean": {"training": {}, "storage": {}}}
    hits: Counter[str] = Counter()
    for name, texts in sets.items():
        kinds = [{s.kind for s in scan(text, TRAINING)} for text in texts]
        stored = [bool(scan(text, STORAGE)) for text in texts]
        found["clean"][name] = round(sum(bool(k - {"person", "url"}) for k in kinds) / len(texts), 4)
        found["secrets, clean"]["training"][name] = round(sum("secret" in k for k in kinds) / len(texts), 5)
        found["secrets, clean"]["storage"][name] = round(sum(stored) / len(texts), 5)
        hits.update(texts=len(texts), training=sum("secret" in k for k in kinds), storage=sum(stored))
    found["secrets, clean"]["all"] = {k: round(hits[k] / hits["texts"], 6) for k in ("training", "storage")}
    found["secrets, clean"]["texts"] = hits["texts"]
    return found


def throughput(texts: Sequence[str], most: int = 400_000, passes: int = 5) -> dict[str, float]:
    """The quickest of several passes: what else the machine does can only slow one down."""
    joined = "\n".join(texts)
    joined = (joined * (most // max(len(joined), 1) + 1))[:most]
    found = {}
    for size, suffix in ((500, ""), (100, " of 100")):
        pieces = [joined[i : i + size] for i in range(0, len(joined), size)]
        wall, cpu = [], []
        for _ in range(passes):
            start, spent = time.perf_counter(), time.process_time()
            for piece in pieces:
                scan(piece, TRAINING)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - spent)
        size_mb = len(joined.encode("utf-8")) / 1e6
        found[f"mb_per_s{suffix}"] = round(size_mb / min(wall), 3)
        found[f"mb_per_cpu_s{suffix}"] = round(size_mb / min(cpu), 3)
    return found


def others(chosen: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if chosen.synth:
        rows = json.loads(chosen.synth.read_text("utf-8"))
        kinds = sorted({s["entity_type"] for r in rows for s in r["spans"]})
        found["synth"] = {kind: recall(_synth(rows, kind), TRAINING) for kind in kinds}
    for file in chosen.conll:
        sentences = _conll(file)
        found[file.name] = {
            "person": recall(sentences, TRAINING, chosen.misses),
            "precision": precision(sentences),
            "n": sum(len(s.finds) for s in sentences),
        }
    if chosen.questions:
        questions = read_questions(chosen.questions)
        found[chosen.questions.name] = {
            "any": share_with(questions, TRAINING, set(), but=True),
            "n": len(questions),
        }
    return found


def _synth(rows: list[dict[str, Any]], kind: str) -> list[Marked]:
    return [
        Marked(
            r["full_text"],
            tuple(
                (s["start_position"], s["end_position"], kind) for s in r["spans"] if s["entity_type"] == kind
            ),
        )
        for r in rows
    ]


def _conll(file: Path) -> list[Marked]:
    """Sentences of words parted by spaces, with the places of what is tagged as a person."""
    made = []
    for block in file.read_text("utf-8", "replace").split("\n\n"):
        text, finds, inside = "", list[list[int]](), False
        for word, *_, tag in (row for line in block.split("\n") if len(row := line.split()) > 1):
            text += " " if text else ""
            start, text = len(text), text + word
            person = tag.lower() in PERSON
            if person and inside and tag[0] in "Ii":
                finds[-1][1] = len(text)
            elif person:
                finds.append([start, len(text)])
            inside = person
        made.append(Marked(text, tuple((a, b, "person") for a, b in finds)))
    return made


def tell(figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures["recall"].items():
        wanted = f"  wanted >= {WANTED[name]}" if name in WANTED else ""
        print(f"{name:<22} {value:.4f}{wanted}")
    for name, value in figures.items():
        if name != "recall":
            print(f"{name}: {json.dumps(value)}")


if __name__ == "__main__":
    sys.exit(main())

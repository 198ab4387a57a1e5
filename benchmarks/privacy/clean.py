"""Texts in which nothing is to be found: public text below MLX_PLASTIC_DATA, and questions to a bank."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

# The sets that scripts/train_names.py does not read.
QUESTIONS = """
Why is my {a} still pending?
What do I do if {b}?
How long does {c} take?
Is there a fee for {c}?
{b}, can you help me please?
I don't recognise a {a} on my statement
Can I cancel {c}?
My {a} shows the wrong amount.
When will {c} be done?
Where do I find the {d} in the app?
do you support {d}?
Please explain how {c} works.
I was charged twice for {c}!!
it says {b}. what now?
Could you raise the limit for {c}?
What documents do you need for {c}?
Which countries can I use {d} in?
how do i turn off {d}
The {a} I made last week has disappeared.
Is it safe to use {d} abroad?
Why did {c} fail?
I need {c} urgently, before Monday.
My daughter is 16, is she allowed {d}?
the exchange rate for my {a} in euros was bad
Who do I talk to about {c}?
""".strip().splitlines()
FILL = {
    "a": """
        card payment|cash withdrawal|direct debit|standing order|top-up|refund|bank transfer|cheque|exchange|
        contactless payment|salary|subscription charge|loan repayment
    """,
    "b": """
        the machine kept my card|I forgot my PIN|my phone was stolen|the app keeps crashing|my card is damaged|
        somebody else used my account|the code never arrives|my card was declined at the till|I typed the wrong sort code|
        my identity check failed|the cash machine gave me too little
    """,
    "c": """
        a transfer to Poland|ordering a new card|changing my address|closing the account|opening a joint account|
        verifying my identity|an international payment|getting a mortgage|a currency exchange|switching from another bank|
        adding money from a Visa card|paying with Apple Pay|a cash deposit at the post office
    """,
    "d": """
        Google Pay|a virtual card|the savings pot|text alerts|contactless|a spare card|the American Express card|
        disposable cards|budgeting|automatic top-up|the fingerprint login|travel insurance
    """,
}


def bank_questions(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    fill = {k: [part.strip() for part in v.replace("\n", "").split("|")] for k, v in FILL.items()}
    made = []
    for _ in range(count):
        text = draw.choice(QUESTIONS).format(**{k: draw.choice(v) for k, v in fill.items()})
        made.append(text if draw.random() < 0.6 else text.lower())
    return made


def read_questions(file: Path) -> list[str]:
    """A CSV file with a column `text`, as BANKING77's."""
    with file.open(encoding="utf-8", newline="") as lines:
        return [row["text"] for row in csv.DictReader(lines)]


def clean_sets(data: Path) -> Iterator[tuple[str, list[str]]]:
    def rows(name: str) -> list[dict[str, str]]:
        raw = (data / name).read_bytes()
        text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode("utf-8")
        return [json.loads(line) for line in text.splitlines()]

    yield "gsm8k test", [f"{r['question']}\n{r['answer']}" for r in rows("gsm8k/test.jsonl")]
    yield "humaneval", [r["prompt"] + r["canonical_solution"] for r in rows("humaneval/HumanEval.jsonl.gz")]
    yield "ifeval", [r["prompt"] for r in rows("ifeval/input_data.jsonl")]
    talks = [
        talk
        for n in (5, 6, 7)
        for talk in json.loads((data / f"taskmaster4/data_0{n}.json").read_text("utf-8"))
    ]
    yield "taskmaster4 5-7", [turn["text"] for talk in talks for turn in talk["utterances"]]
    yield (
        "wikitext-2 test",
        [t for t in (data / "wikitext-2/test.txt").read_text("utf-8").splitlines() if len(t) > 20],
    )
    oz = (data / "oz-public-domain/oz.txt").read_text("utf-8").splitlines()
    yield "oz", [" ".join(oz[i : i + 10]) for i in range(0, len(oz), 10)]
    with (data / "xstest/xstest_prompts.csv").open(encoding="utf-8", newline="") as lines:
        yield "xstest", [row["prompt"] for row in csv.DictReader(lines)]

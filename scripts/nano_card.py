"""Measure nano as it is shipped and write its model card: src/mlx_plastic/base/nano/README.md.

python scripts/nano_card.py
"""

from __future__ import annotations

import json
from pathlib import Path

from mlx_plastic.base import Base, load_base
from mlx_plastic.base.checkpoint import resolve
from mlx_plastic.evals import GENERAL, HarnessResult, load_tasks, measure_loss, run_harness
from mlx_plastic.samples import Message, read_chats
from nano_recipe.corpora import SOURCES

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = (
    ("Hello!",),
    ("Who are you?",),
    ("What is the capital of Norway?",),
    ("What is 4 plus 5?",),
    ("My friend Leon plays the harp.", "Which instrument does Leon play?", "What is Leon's favourite food?"),
    ("Please call me Captain.", "Good morning!"),
    ("How do I steal a car?",),
    ("Put commas between these words: red blue green",),
    ("Tell me a story.",),
)
CARD = """---
license: mit
library_name: mlx
pipeline_tag: text-generation
language: en
---
# nano

A tiny chat base that ships with mlx-plastic, so that days, nights and mornings can be lived at once and
offline. It talks about people in short sentences, answers from what stands in its context, says so when it
was not told, follows a wish and does small tasks. It knows next to nothing of the world and makes things up
when asked beyond that: use it to try the tool, not for answers.

- {about}.
- Trained by `scripts/train_nano.py` on text drawn from `scripts/nano_recipe` by a seed.

## Measured

By `python scripts/nano_card.py`, which writes this page; greedy decoding. The harness holds no task about
whose answer nano is undecided, right or wrong (see `margins` in `scripts/make_suites.py`): the share that it
passes is higher for it.

| what | result |
|---|---|
{measured}

| domain of the harness | passed |
|---|---|
{domains}

## Samples

{samples}
## Text it was trained on

Our own generated text, and parts of these, each under the licence named; they are not part of this package:

{sources}

{history}
"""


def share(result: HarnessResult) -> str:
    return f"{100 * result.score:.1f} % of {len(result.passed)}"


def rows(pairs: dict[str, str]) -> str:
    return "\n".join(f"| {left} | {right} |" for left, right in pairs.items())


def talk(base: Base, said: tuple[str, ...]) -> str:
    """A conversation as a quotation in markdown."""
    messages: list[Message] = []
    for text in said:
        messages.append(Message("user", text))
        messages.append(Message("assistant", base.answers([messages], max_tokens=60)[0]))
    return "\n".join(f"> {m.role}: {' '.join(m.content.split())}  " for m in messages) + "\n"


def about(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    size = (folder / "model.safetensors").stat().st_size
    return (
        f"{config['model_type']}, {config['num_hidden_layers']} layers, hidden {config['hidden_size']}, "
        f"vocabulary {config['vocab_size']}; float16, {size / 1e6:.1f} MB; context 1,024 (trained on 256)"
    )


def main() -> None:
    base, folder = load_base("nano"), resolve("nano")
    told, untold = (
        run_harness(base, load_tasks(ROOT / "tests" / "nano" / f)) for f in ("told.jsonl", "untold.jsonl")
    )
    core = run_harness(base, load_tasks())
    loss = measure_loss(base, base.encode_chats(read_chats(GENERAL)[0])[0])
    measured = {
        "facts given in the context, asked for in new words and of new people": share(told),
        "the right value by chance, of people about whom nothing was told": share(untold),
        "harness: small held-out tasks": share(core),
        f"perplexity of the answers in {loss.samples} held-out talks and stories": f"{loss.perplexity:.2f}",
    }
    card = CARD.format(
        about=about(folder),
        measured=rows(measured),
        domains=rows({name: f"{won} of {asked}" for name, (won, asked) in core.domains.items()}),
        samples="\n".join(talk(base, said) for said in SAMPLES),
        sources="\n".join(f"- {line}" for line in SOURCES.values()),
        history=(Path(__file__).parent / "nano_recipe" / "HISTORY.md").read_text("utf-8").strip(),
    )
    (folder / "README.md").write_text(card, "utf-8")
    print(rows(measured))


if __name__ == "__main__":
    main()

"""Write the router's seed set: short user turns of every route, from the families of templates; seeded.

    python scripts/make_router_seed.py

Each line: {"text", "route", "family"}. A family is one kind of thing that people say, in several wordings;
what the router is judged by is families that it was not fitted on, since other fillings of a template that
it knows would prove nothing.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from router_recipe.slots import SLOT, fill

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "scripts" / "router_recipe"
SEED = ROOT / "src" / "mlx_plastic" / "memory" / "router" / "seed.jsonl"
ROUTES = ("weights", "retrieval", "both", "neither")
FILLINGS = {"weights": 2, "retrieval": 2, "both": 3, "neither": 2}  # of a template with slots
SLOPPY = 0.2  # share of the lines that lose their capital, and of those that lose their full stop


def families(route: str) -> Iterator[tuple[str, list[str]]]:
    """(name, templates) of each family of a route."""
    text = (RECIPE / f"{route}.txt").read_text("utf-8")
    for block in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        name, _, body = block.partition("\n")
        yield name.strip(), [line for line in body.splitlines() if line.strip()]


def typed(text: str, draw: random.Random) -> str:
    """As people type: some begin in lower case, some leave the full stop away."""
    if draw.random() < SLOPPY and "\n" not in text and text[1:2].islower():
        text = text.lower() if draw.random() < SLOPPY else text[0].lower() + text[1:]
    return text.removesuffix(".") if draw.random() < SLOPPY else text


def seed(draw: random.Random) -> Iterator[dict[str, str]]:
    seen = set[str]()
    for route in ROUTES:
        for family, templates in families(route):
            for template in templates:
                for _ in range(FILLINGS[route] if SLOT.search(template) else 1):
                    text = typed(fill(template, draw), draw)
                    if text.lower() not in seen:
                        seen.add(text.lower())
                        yield {"text": text, "route": route, "family": family}


if __name__ == "__main__":
    lines = list(seed(random.Random(0)))
    SEED.parent.mkdir(parents=True, exist_ok=True)
    SEED.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    kinds = len({line["family"] for line in lines})
    print(f"{len(lines)} lines of {kinds} families: {dict(Counter(line['route'] for line in lines))}")

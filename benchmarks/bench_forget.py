"""What is left in the weights of facts that are forgotten: told, learned, forgotten, learned again.

    python benchmarks/bench_forget.py --base nano --json

Lived by the product itself in a folder that is then removed. Seconds are processor time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mlx_plastic.base import load_base
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.sleep import forget as forgetting
from mlx_plastic.sleep.night import read_settings, sleep
from mlx_plastic.sleep.unlearn import forget

FIRST = (
    "Tilda lives in Lisbon.", "Marek works as a baker.", "Svea's cat is called Pixel.",
    "Zoltan comes from Norway.", "My name is Corvin.",
)  # fmt: skip
SECRETS = ("Perla lives in Hamburg.", "Ulrika works as a plumber.", "Gunnar's dog is called Bello.")
BESIDE = ("Selma lives in Madrid.", "Wilma's favourite colour is green.")


def tell(home: Home, facts: Sequence[str]) -> list[str]:
    with Memory(home) as memory:
        talk = memory.new_conversation()
        return [memory.remember(talk, "user", fact).id for fact in facts]


def live(home: Home, ref: str) -> dict[str, object]:
    base, began = load_base(ref), time.process_time()
    tell(home, FIRST)
    outcomes = [sleep(home, base, tag="one").outcome]
    gone = tell(home, SECRETS)
    tell(home, BESIDE)
    outcomes.append(sleep(home, base, tag="two").outcome)
    lived_s, began = time.process_time() - began, time.process_time()
    done = forget(home, base, forgetting.plan(home, gone), chosen=read_settings(home))
    return {
        "base": ref,
        "nights": outcomes,
        "lived_seconds": round(lived_s, 1),
        "forget_seconds": round(time.process_time() - began, 1),
        "rebuilt": done.rebuilt,
        "worn": list(Store(home).active()),
        "proof": done.proof and done.proof.as_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="nano")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = live(Home(Path(folder)), given.base)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:<16} {value}")


if __name__ == "__main__":
    main()

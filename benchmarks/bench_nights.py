"""Many days and nights in a row: what is learned, kept and refused, and what a night costs.

    python benchmarks/bench_nights.py --nights 30 --json

Simulated days (benchmarks/nights/people.py) are chatted with nano and slept on by the product as it ships.
Beside it, on the same days: plain nightly mlx-lm LoRA, with its own tuner, our samples of the day and as many
steps; and the product learning everything in one night from the bare base. At the end nights planted bad are
tried on copies of the home. Questions are asked with nothing before them, in wordings that neither the base
nor any night has read. Costs are CPU seconds of this process and its children. The figures:

    day_recall_mean       share of a day's questions answered right the morning after, mean over nights
    retained_recall       share of all questions on every fact ever told (as told last) after the last night
    ppl_delta_pct         rise of general perplexity, the last night's pack against the bare base
    harness_lost          tasks that the bare base passes and the last pack does not
    cost_ratio_last_first the last night's cost over the second's (the first has nothing to rehearse)
    plain_retained        retained_recall of plain mlx-lm
    scratch_retained      retained_recall of learning everything at once; scratch_cost_ratio: our last night's
                          cost over its
    refused_planted       of refused_total planted nights; falsely_refused: honest nights that failed
    told_recall           share answered right with the fact told just before: nano's own ceiling
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(
    0, str(Path(__file__).resolve().parent.parent / "scripts")
)  # nano's recipe: what it has not read

from nights.people import Day, days
from nights.planted import PLANTED, configure
from nights.sides import Lived, ours, plain, refuses, scratch, told_recall

from mlx_plastic.base import Base, load_base
from mlx_plastic.home import Home, find_home

SIDES = ("ours", "plain", "scratch", "planted")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures; sides that an earlier run in this folder came to the end of are taken from there."""
    base, lived = load_base(), days(options.nights, seed=options.seed, facts=options.facts)
    asked = {"nights": options.nights, "seed": options.seed, "facts_a_day": options.facts, "set": options.set}
    kept = Kept(folder / "figures.json", asked)
    home = find_home(folder / "ours")
    if "ours" in options.sides:
        kept.side("ours", lambda: _ours(home, base, lived, options))
    if "plain" in options.sides:
        kept.side("plain", lambda: _plain(home, lived, kept.found["steps"], options))
    if "scratch" in options.sides:
        kept.side("scratch", lambda: _scratch(find_home(folder / "scratch"), base, lived, options))
    if "planted" in options.sides:
        kept.side("planted", lambda: planted(home, base, folder, options.seed))
    found = kept.found
    if "cost_s" in found and "scratch_cost_s" in found:
        found["scratch_cost_ratio"] = round(found["cost_s"][-1] / found["scratch_cost_s"], 4)
    return found


class Kept:
    """The figures of a folder, written after each side, so that a run that was broken off can go on."""

    def __init__(self, file: Path, asked: dict[str, Any]) -> None:
        self.file, self.found = file, asked | {"sides": []}
        if file.exists():
            earlier = json.loads(file.read_text("utf-8"))
            if any(earlier.get(name) != value for name, value in asked.items()):
                sys.exit(f"{file} is of a run with other options: choose another --folder")
            self.found = earlier

    def side(self, name: str, live: Callable[[], dict[str, Any]]) -> None:
        if name not in self.found["sides"]:
            self.found |= live()
            self.found["sides"].append(name)
            self.file.write_text(json.dumps(self.found, indent=2), "utf-8")


def _ours(home: Home, base: Base, lived: list[Day], options: argparse.Namespace) -> dict[str, Any]:
    configure(home, **options.set)
    mine = ours(home, base, lived, say)
    told = {"told_recall": round(told_recall(base, lived), 4), "facts": sum(len(d.told) for d in lived)}
    return figures(mine) | told


def _plain(home: Home, lived: list[Day], steps: list[int], options: argparse.Namespace) -> dict[str, Any]:
    other = figures(plain(home, load_base(), lived, steps, say, rate=options.plain_rate))
    named = {f"plain_{name}": value for name, value in other.items() if not name.startswith("cost")}
    named["plain_retained"] = named.pop("plain_retained_recall")
    return named


def _scratch(home: Home, base: Base, lived: list[Day], options: argparse.Namespace) -> dict[str, Any]:
    configure(home, **options.set)
    other = scratch(home, base, lived, say)
    return {
        "scratch_retained": round(other.retained, 4),
        "scratch_passed": other.nights[0].outcome == "passed",
        "scratch_reason": other.nights[0].reason,
        "scratch_cost_s": round(other.cost_s[0], 1),
    }


def planted(home: Home, base: Base, folder: Path, seed: int) -> dict[str, Any]:
    refused = {}
    for name, prepare in PLANTED.items():
        copy = Home(folder / f"planted-{name}")
        shutil.copytree(home.root, copy.root, symlinks=True)
        refused[name] = refuses(copy, base, lambda h, p=prepare: p(h, random.Random(seed)), name)
        say(f"planted night {name}: {'refused' if refused[name] else 'NOT refused'}")
        shutil.rmtree(copy.root)
    let_by = sorted(name for name, ok in refused.items() if not ok)
    return {"refused_planted": sum(refused.values()), "refused_total": len(refused), "not_refused": let_by}


def figures(side: Lived) -> dict[str, Any]:
    found = {
        "day_recall_mean": round(statistics.mean(side.day_recall), 4),
        "day_recall_worst": round(min(side.day_recall), 4),
        "retained_recall": round(side.retained, 4),
        "ppl_delta_pct": round(side.ppl_delta_pct, 3),
        "harness_lost": side.harness_lost,
        "curve": [round(value, 3) for value in side.curve],
        "cost_s": [round(value, 1) for value in side.cost_s],
    }
    if not side.nights:
        return found
    later = side.cost_s[1:] or side.cost_s
    return found | {
        "cost_ratio_last_first": round(later[-1] / later[0], 3),
        "cost_ratio_last3_first3": round(statistics.mean(later[-3:]) / statistics.mean(later[:3]), 3),
        "day_recall": [round(value, 3) for value in side.day_recall],
        "wishes_followed": round(statistics.mean(side.wishes), 3) if side.wishes else None,
        "made_up": round(side.made_up, 3),
        "steps": side.steps,
        "seen_wordings": side.seen_wordings,
        "kept_from_weights": sum(
            night.routes.get(r, 0) for night in side.nights for r in ("neither", "retrieval")
        ),
        "falsely_refused": sum(night.outcome != "passed" for night in side.nights),
        "reasons": [night.reason for night in side.nights if night.reason],
    }


def setting(text: str) -> tuple[str, str, Any]:
    """section.key=value, as in config.toml."""
    name, _, value = text.partition("=")
    section, _, key = name.partition(".")
    if not (section and key and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not section.key=value")
    try:
        return section, key, json.loads(value)
    except ValueError:
        return section, key, value


def at_least(least: int) -> Any:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nights", type=at_least(3), default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--facts", type=at_least(1), default=5, help="new ones a day")
    parser.add_argument("--sides", default=",".join(SIDES), help="which of them to run")
    parser.add_argument("--plain-rate", type=float, default=0.0, help="of mlx-lm's trainer; 0: as ours")
    parser.add_argument(
        "--set", type=setting, action="append", default=[], help="section.key=value of config.toml"
    )
    parser.add_argument("--folder", type=Path, help="kept; a run that was broken off goes on there")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.sides = [side for side in options.sides.split(",") if side]
    if unknown := set(options.sides) - set(SIDES):
        parser.error(f"--sides knows {', '.join(SIDES)}, not {', '.join(sorted(unknown))}")
    sections: dict[str, dict[str, Any]] = {}
    for section, key, value in options.set:
        sections.setdefault(section, {})[key] = value
    options.set = sections
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        found = measure(options, options.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(options, Path(folder))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()

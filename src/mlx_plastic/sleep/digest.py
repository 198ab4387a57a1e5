"""The morning digest: what the last nights brought, what is worn, what waits. Counts and figures, no text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.home import Home, write_atomic
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Store
from mlx_plastic.packs.store.link import linked
from mlx_plastic.packs.store.store import worn_name
from mlx_plastic.sleep.history import Line, evidence_of, lines, scores
from mlx_plastic.sleep.journal import Journal, find_night, now
from mlx_plastic.sleep.pending import pending

FILE = "digest.md"
SHOWN = {  # what is measured, in a person's words
    "night_loss": "tonight's held-out lessons",
    "earlier_loss": "earlier nights' held-out lessons",
    "general_ppl": "general perplexity",
    "night_recall": "recall of tonight's facts",
    "recall": "recall of earlier facts",
}


@dataclass(frozen=True)
class Measure:
    """One figure before and after a night."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Digest:
    """What a person wants to know in the morning. breaches: bounds that the gate found broken."""

    at: str
    worn: str
    adapter: str  # behind adapters/nightly_update; empty: none
    waiting: int  # user turns for the next night
    nights: tuple[Line, ...]
    measures: tuple[Measure, ...]  # of the last of them that was judged
    breaches: tuple[str, ...]
    forgetting: int  # turns whose packs are still to be rebuilt

    @property
    def urgent(self) -> bool:
        return bool(self.breaches)

    @property
    def headline(self) -> str:
        """One line, as a notification shows it."""
        if not self.nights:
            return "no night yet"
        last = self.nights[-1]
        why = f": {last.reasons[0]}" if last.status == "failed" and last.reasons else ""
        return f"night {last.tag} {last.status}, {last.learned} lessons in {last.seconds:.0f} s{why}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"headline": self.headline}


def digest(home: Home, *, nights: int = 1) -> Digest:
    """Of the latest so many nights that began in earnest."""
    found = [line for line in lines(home) if line.status not in ("dry-run", "forgotten")][-nights:]
    judged = [line for line in found if line.status in ("passed", "failed")]
    with Memory(home) as memory:
        waiting = memory.stats().waiting
    forgetting = pending(home)
    return Digest(
        at=now(),
        worn=worn_name(Store(home).active()),
        adapter=linked(home),
        waiting=waiting,
        nights=tuple(found),
        measures=tuple(_measures(find_night(home, judged[-1].tag))) if judged else (),
        breaches=tuple(reason for line in judged for reason in line.reasons),
        forgetting=len(forgetting.turns) if forgetting else 0,
    )


def _measures(journal: Journal) -> Iterator[Measure]:
    evidence = evidence_of(journal)
    before, after = scores(evidence, "before"), scores(evidence, "after")
    for name in SHOWN:
        if name in before and name in after:
            yield Measure(name, before[name], after[name])


def page(found: Digest) -> str:
    """The same for a person, as Markdown."""
    parts = [f"# {found.at[:10]}", "", f"Worn: {found.worn}. {found.waiting} user turns wait to be learned."]
    if found.forgetting:
        parts.append(
            f"{found.forgetting} turns are forgotten, and packs that held them are still to be rebuilt."
        )
    for line in found.nights:
        told = f"{line.learned} lessons of {line.turns} turns, {line.seconds:.0f} s"
        speed = f"{line.tokens_per_s:.0f} tokens/s, {line.peak_memory_mb:.0f} MB"
        parts += ["", f"## Night {line.tag}: {line.status}", "", f"{told}; {speed}."]
        parts += [f"- {reason}" for reason in line.reasons]
    if found.measures:
        parts += ["", "| measured | before | after |", "|---|---|---|"]
        parts += [f"| {SHOWN[m.name]} | {m.before:.3f} | {m.after:.3f} |" for m in found.measures]
    return "\n".join(parts) + "\n"


def write(home: Home, found: Digest) -> Path:
    """digest.md in the home; the one before it is replaced."""
    path = home.root / FILE
    write_atomic(path, page(found).encode("utf-8"))
    return path

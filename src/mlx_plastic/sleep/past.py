"""What the nights before taught, as far as it still holds: their lessons, and which of them were replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from mlx_plastic.errors import BadData
from mlx_plastic.samples import Sample
from mlx_plastic.sleep.doors import Doors, read_samples
from mlx_plastic.sleep.journal import Journal
from mlx_plastic.sleep.lessons import Taught

REPLACED = "replaced.json"  # in a night's folder: old turn -> {"by": turn, "at": its time}


@dataclass(frozen=True)
class Past:
    """lessons: everything taught that still holds. others: what was asked about others beside it.

    held_out: what of the lessons was not learned, but kept to stop by and to judge by.
    """

    lessons: tuple[Taught, ...] = ()
    others: tuple[Sample, ...] = ()
    held_out: tuple[Sample, ...] = ()

    @property
    def samples(self) -> list[Sample]:
        return [sample for lesson in self.lessons for sample in lesson.samples]


def past_of(nights: Sequence[Journal], untaught: Set[str] = frozenset()) -> Past:
    """What `nights`, oldest first, taught. What was replaced or `untaught` since is gone."""
    gone = replaced_turns(nights) | untaught
    taught: dict[tuple[tuple[str, ...], str], Taught] = {}
    others: list[Sample] = []
    held_out: list[Sample] = []
    for number, journal in enumerate(nights):
        for sample in read_samples(journal, "train.jsonl"):
            if (
                sample.turns and gone.isdisjoint(sample.turns) and sample.kind != "talk"
            ):  # of what is here anyway
                key = (sample.turns, sample.kind)
                known = taught.get(key, Taught((), number))
                taught[key] = replace(known, samples=(*known.samples, sample))
        for part in ("valid", "test"):
            held_out += [s for s in read_samples(journal, f"{part}.jsonl") if gone.isdisjoint(s.turns)]
        again: set[tuple[tuple[str, ...], str]] = set()
        for sample in read_samples(journal, "rehearsal.jsonl"):
            if sample.kind != "rehearsal":
                again.add((sample.turns, sample.kind))
            elif sample.turns and gone.isdisjoint(sample.turns):
                others.append(sample)
        for key in again & taught.keys():
            taught[key] = replace(taught[key], rehearsed=(*taught[key].rehearsed, number))
    return Past(tuple(taught.values()), tuple(others), tuple(held_out))


def held_out_before(doors: Doors, journal: Journal) -> list[Sample]:
    """The held-out samples of earlier nights that were not replaced since, nor tonight, nor untaught."""
    passed = doors.passed()
    gone = replaced_turns([*passed, journal]) | doors.memory.untaught()
    samples = [s for j in passed for s in read_samples(j, "test.jsonl")]
    return [s for s in samples if gone.isdisjoint(s.turns)]


def replaced_turns(nights: Sequence[Journal]) -> set[str]:
    """Turns whose lesson a later one replaced. Raises BadData for a file that is not ours."""
    found: set[str] = set()
    for journal in nights:
        file = journal.path(REPLACED)
        if not file.exists():  # a night of an older version
            continue
        try:
            found |= set(json.loads(file.read_bytes()))
        except (ValueError, TypeError) as error:
            raise BadData(
                f"{file} holds no replaced turns", hint="delete it to learn the old ones too"
            ) from error
    return found

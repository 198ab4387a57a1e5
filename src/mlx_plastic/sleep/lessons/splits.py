"""Which samples are learned, which stop the training, which judge it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlx_plastic.samples import Part, Sample, part_of, split_point


def split(samples: Sequence[Sample]) -> dict[Part, list[Sample]]:
    """Train, valid and test by the hash of each key; a lesson keeps at least one sample to learn from.

    Imported talks are held out whole. Where no hash falls to test, the sample nearest to it goes there,
    if its lesson has another; with no such sample, test is empty.
    """
    parts: dict[Part, list[Sample]] = {"train": [], "valid": [], "test": []}
    taught: Counter[tuple[str, ...]] = Counter()
    for sample in sorted(samples, key=lambda s: (split_point(s.key), s.key), reverse=True):
        first = sample.kind != "chat" and not taught[sample.turns]
        part: Part = "train" if first else part_of(sample.key)
        taught[sample.turns] += part == "train"
        parts[part].append(sample)
    if not parts["test"]:
        spare = [s for s in parts["train"] if s.kind == "chat" or taught[s.turns] > 1]
        if parts["valid"]:
            parts["test"].append(parts["valid"].pop())
        elif spare and len(parts["train"]) > 1:
            parts["train"].remove(spare[-1])
            parts["test"].append(spare[-1])
    return parts

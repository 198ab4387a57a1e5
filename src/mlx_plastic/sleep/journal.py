"""A night's folder: what was decided, which stages are done, and the digests that prove it.

A stage is done when its entry stands in night.json and its files still have the digests written there; so a
night that was killed goes on behind the last stage that is whole.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mlx_plastic.errors import PlasticError, Taken
from mlx_plastic.home import Home, write_atomic, write_json
from mlx_plastic.packs.format.manifest import check_name
from mlx_plastic.samples import from_jsonl, to_jsonl

Status = Literal["running", "passed", "failed", "dry-run", "abandoned", "forgotten"]
FORMAT_VERSION = 1
NIGHT = "night.json"
STAGES = ("lessons", "train", "judge")  # each works on what the one before it wrote


@dataclass(frozen=True)
class Stage:
    """One step of a night that is done. files: sha256 by name. facts: counts and figures, never text."""

    at: str
    seconds: float
    files: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """What night.json holds.

    worn_before: what it grows from. active_before: what the store wore when it began; as a rule the same.
    turns: ids of the turns that it learns from. settings: those that decide, as they were used. number: it
    counts up, whatever the clock says; 0 in records of an older version. rebuilds: the night whose remaining
    samples it learns again after a forget. tried: why trainings of this night were refused before this one.
    drifted: it failed by nothing but drift, so that its turns may join the next night.
    """

    tag: str
    status: Status
    started: str
    base_id: str
    base_fingerprint: str
    worn_before: tuple[str, ...]
    warm_start: bool
    settings: dict[str, Any]
    turns: tuple[str, ...] = ()
    stages: dict[str, Stage] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    active_before: tuple[str, ...] | None = None
    number: int = 0
    rebuilds: str = ""
    tried: tuple[str, ...] = ()
    drifted: bool = False
    format_version: int = FORMAT_VERSION


class Journal:
    """One night's folder under the home's nights."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder = folder
        self.record = record
        self._since = time.perf_counter()

    def path(self, name: str) -> Path:
        return self.folder / name

    def save(self, **changes: Any) -> None:
        """Change the record, on disk before in memory."""
        record = dataclasses.replace(self.record, **changes)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.path(NIGHT), dataclasses.asdict(record))
        self.record = record

    def has(self, stage: str) -> bool:
        """Whether the stage is done and its files are what it wrote."""
        found = self.record.stages.get(stage)
        return found is not None and all(_sha256(self.path(n)) == digest for n, digest in found.files.items())

    def begin(self) -> None:
        self._since = time.perf_counter()

    def finish(self, stage: str, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
        """Write the stage's files, then say in night.json that it is done, and the later ones no more."""
        for name, data in files.items():
            write_atomic(self.path(name), data)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        seconds = round(time.perf_counter() - self._since, 3)
        earlier = STAGES[: STAGES.index(stage)] if stage in STAGES else tuple(self.record.stages)
        before = {name: found for name, found in self.record.stages.items() if name in earlier}
        self.save(stages=before | {stage: Stage(now(), seconds, digests, dict(facts))})

    def reopen(self, why: str) -> None:
        """Train and judge once more, from the same samples. why: the training before was refused."""
        lessons = {"lessons": self.record.stages["lessons"]}
        self.save(tried=(*self.record.tried, why), stages=lessons)
        shutil.rmtree(self.path("checkpoint"), ignore_errors=True)

    def close(self, status: Status, reasons: tuple[str, ...] = (), *, drifted: bool = False) -> None:
        """Say how the night ended; what was kept only to go on from goes."""
        self.save(status=status, reasons=reasons, drifted=drifted)
        shutil.rmtree(self.path("checkpoint"), ignore_errors=True)

    def discard(self, status: Status = "abandoned") -> None:
        """Give the night up: what it made of the person's words goes, its record stays."""
        self.close(status)
        for file in self.folder.glob("*.jsonl"):
            file.unlink()

    @property
    def timing(self) -> dict[str, float]:
        """Seconds of each stage that is done; of one that went on after a crash, only those of its end."""
        return {name: stage.seconds for name, stage in self.record.stages.items()}

    @property
    def seconds(self) -> float:
        """Of all stages that are done."""
        return round(sum(stage.seconds for stage in self.record.stages.values()), 2)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def nights(home: Home) -> list[Journal]:
    """Every night of the home, oldest first. A folder without a readable night.json is passed over.

    Their order is that of their numbers: a clock may be set back, and the times in the records with it.
    """
    found = []
    for file in sorted(home.nights.glob(f"*/{NIGHT}")):
        try:
            found.append(Journal(file.parent, _parse(json.loads(file.read_text("utf-8")))))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return sorted(found, key=lambda j: (j.record.number, j.record.started, j.record.tag))


def find_night(home: Home, tag: str) -> Journal:
    """The night of that tag. Raises PlasticError that names the nearest one."""
    found = {journal.folder.name: journal for journal in nights(home)}
    if tag not in found:
        near = difflib.get_close_matches(tag, found, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see which there are: plastic nights list"
        raise PlasticError(f"no night {tag!r} in {home.nights}", hint=hint)
    return found[tag]


def _parse(value: dict[str, Any]) -> Record:
    if value.get("format_version") != FORMAT_VERSION:
        raise ValueError("another format")
    stages = {name: Stage(**stage) for name, stage in value["stages"].items()}
    tuples = {key: tuple(value[key]) for key in ("worn_before", "turns", "reasons")}
    tuples["tried"] = tuple(value.get("tried", ()))
    if value.get("active_before") is not None:
        tuples["active_before"] = tuple(value["active_before"])
    return Record(**value | {"stages": stages} | tuples)


def scrub(home: Home, turns: Iterable[str]) -> int:
    """Delete every sample made of one of `turns` from the nights' data; returns how many were.

    A night that is broken off then makes its lessons anew, and trains from its start. Packs are not changed.
    """
    gone, deleted = set(turns), 0
    for journal in nights(home):
        if journal.record.status == "running" and not gone.isdisjoint(journal.record.turns):
            shutil.rmtree(journal.path("checkpoint"), ignore_errors=True)
    for file in sorted(home.nights.glob("*/*.jsonl")):
        samples = from_jsonl(file.read_bytes())
        kept = [sample for sample in samples if gone.isdisjoint(sample.turns)]
        if len(kept) < len(samples):
            write_atomic(file, to_jsonl(kept))
            deleted += len(samples) - len(kept)
    for file in sorted(home.nights.glob("*/replaced.json")):  # what a forgotten turn replaced holds again
        value = json.loads(file.read_bytes())
        if (left := still_replaced(value, gone)) != value:
            write_json(file, left)
    return deleted


def still_replaced(value: Mapping[str, Any], gone: Set[str]) -> dict[str, Any]:
    """Replaced turns, without those of `gone` and those that such a turn replaced."""
    return {turn: new for turn, new in value.items() if turn not in gone and new["by"] not in gone}


def free_tag(past: Iterable[Journal], wanted: str | None, packs: Iterable[str], today: str) -> str:
    """The tag asked for, or the date, with a number behind it from the second night of a day on.

    past: every night. Raises Taken if the tag asked for is that of one of them, or of a pack, and BadPack if
    no pack may be called so: it is a folder's name, too.
    """
    used = {*packs, *(j.record.tag for j in past if j.record.status not in ("dry-run", "abandoned"))}
    if wanted:
        if check_name(wanted) in used:
            raise Taken(f"there is a night or a pack {wanted!r} already", hint="choose another --tag")
        return wanted
    return next(t for t in (today, *(f"{today}.{i}" for i in range(2, 10_000))) if t not in used)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""

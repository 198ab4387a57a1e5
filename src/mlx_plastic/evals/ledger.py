"""What was measured, kept for good: scores, reports, an append-only history, CSV."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadData
from mlx_plastic.home import Home, append_line, locked, write_atomic, write_json

log = logging.getLogger(__name__)

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Score:
    """One number with its unit, the count it rests on and its spread (standard error; None: not known).

    parts: (sum, weight) of each sample in the order measured, for intervals of changes; may be empty.
    """

    name: str
    value: float
    unit: str
    n: int
    higher_is_better: bool = False
    spread: float | None = None
    parts: tuple[tuple[float, float], ...] = field(default=(), repr=False)

    def as_dict(self, *, parts: bool = False) -> dict[str, Any]:
        whole: dict[str, Any] = {
            "name": self.name,
            "value": finite(self.value),
            "unit": self.unit,
            "n": self.n,
            "higher_is_better": self.higher_is_better,
            "spread": finite(self.spread),
        }
        if parts and self.parts:
            whole["parts"] = [[finite(total), weight] for total, weight in self.parts]
        return whole


@dataclass(frozen=True)
class Report:
    """Everything measured of one model at one time.

    tasks: task id -> passed. Of these the ids of tasks that are to be declined (refusals), that only look
    like such (harmless), and whose text tries to command the model (injections).
    """

    scores: tuple[Score, ...] = ()
    tasks: Mapping[str, bool] = field(default_factory=dict)
    refusals: frozenset[str] = frozenset()
    harmless: frozenset[str] = frozenset()
    injections: frozenset[str] = frozenset()

    def score(self, name: str) -> Score | None:
        return next((score for score in self.scores if score.name == name), None)

    def as_dict(self, *, parts: bool = False) -> dict[str, Any]:
        """parts: with the figures of every sample, which a verdict can be drawn from anew."""
        return {
            "scores": [score.as_dict(parts=parts) for score in self.scores],
            "tasks": dict(self.tasks),
            "refusals": sorted(self.refusals),
            "harmless": sorted(self.harmless),
            "injections": sorted(self.injections),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Report:
        """What as_dict wrote; a number that was not finite comes back as NaN. Raises BadData."""
        try:
            scores = tuple(_score(entry) for entry in value["scores"])
            groups = (
                frozenset(value.get(name, ())) for name in ("harmless", "injections")
            )  # none before 0.3
            return cls(scores, dict(value["tasks"]), frozenset(value["refusals"]), *groups)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadData(f"no report: {type(error).__name__} {error}") from error


def _score(entry: Mapping[str, Any]) -> Score:
    parts = tuple((_number(total), float(weight)) for total, weight in entry.get("parts", ()))
    return Score(
        entry["name"],
        _number(entry["value"]),
        entry["unit"],
        entry["n"],
        entry["higher_is_better"],
        entry.get("spread"),
        parts,
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def finite(value: float | None) -> float | None:
    """The number, or None where JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None


def append_summary(home: Home, entry: Mapping[str, Any]) -> Path:
    """An entry more in logs/eval_summary.json, a list of all measurements; the old file or the new one.

    A NaN or an infinity raises ValueError. Raises BadData if the file is no list: it is never replaced.
    """
    path = home.logs / "eval_summary.json"
    with locked(home, "eval_summary", hint="wait for the other measurement", wait_s=10):
        try:
            entries = json.loads(path.read_bytes())
        except FileNotFoundError:
            entries = []
        except ValueError as error:
            raise BadData(f"{path} is not JSON: {error}", hint="mend it, or move it away") from error
        if not isinstance(entries, list):
            raise BadData(f"{path} is no list", hint="mend it, or move it away")
        write_json(path, [*entries, dict(entry)])
    return path


class History:
    """An append-only JSONL file, one measurement a line. Nothing here rewrites or removes one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *, when: str, tag: str, kind: str, **values: Any) -> None:
        """One entry more, on the disk when this returns. when: ISO 8601, given by the caller.

        A NaN or an infinity among the values raises ValueError and adds nothing.
        """
        self._close_torn_line()
        entry = {"format_version": FORMAT_VERSION, "when": when, "tag": tag, "kind": kind, **values}
        append_line(self.path, entry)

    def entries(self, *, kind: str | None = None, tag: str | None = None) -> list[dict[str, Any]]:
        """Every whole entry, oldest first. A line torn by a crash is passed over, with a warning."""
        found = []
        for number, line in enumerate(self._lines(), 1):
            try:
                entry = json.loads(line)
            except ValueError:
                log.warning("%s line %d is torn; passed over", self.path.name, number)
                continue
            if kind in (None, entry.get("kind")) and tag in (None, entry.get("tag")):
                found.append(entry)
        return found

    def _lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []

    def _close_torn_line(self) -> None:
        """A crash in the middle of a write leaves no newline: the next entry must not join that line."""
        try:
            with open(self.path, "rb+") as file:
                if file.seek(0, os.SEEK_END) and not _ends_line(file):
                    file.seek(0, os.SEEK_END)
                    file.write(b"\n")
        except FileNotFoundError:
            pass


def _ends_line(file: io.BufferedRandom) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def append_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows more at the end of a CSV file, with its header line if it is new; the old file or the new one.

    Raises BadData if the file has other columns: it belongs to another measurement.
    """
    columns = list(rows[0])
    header = _csv([columns])
    try:
        old = path.read_bytes()
    except FileNotFoundError:
        old = b""
    if old and old.splitlines()[0] != header.rstrip(b"\n"):
        raise BadData(f"{path} has other columns than {', '.join(columns)}", hint="name another file")
    joint = b"" if not old or old.endswith(b"\n") else b"\n"
    write_atomic(path, (old or header) + joint + _csv([row[name] for name in columns] for row in rows))


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")

"""How measurements go over nights: series of the same thing measured again, and what got worse. Pure.

A series holds what can be compared: one thing measured on the same data. What rests on each night's own
lessons is another measurement every night: its gain is shown, and never called worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlx_plastic.evals.bounds import GENERAL_PPL, GOLDEN_LOSS, NIGHT_LOSS

TOLERANCE_PCT = 2.0  # of the best value so far, by which the last may be worse
ERRORS = 2.0  # standard errors of the difference, within which nothing is called worse
OTHER_DATA = math.inf  # an error that explains any change
STANDING = (GENERAL_PPL, GOLDEN_LOSS)  # of a night's scores, those measured on the same texts always


@dataclass(frozen=True)
class Point:
    """One measurement. error: its standard error; None: not known. passed: False for a night set apart."""

    when: str
    tag: str
    value: float
    error: float | None = None
    passed: bool = True


@dataclass(frozen=True)
class Series:
    """The same thing measured again and again, oldest first."""

    name: str
    unit: str
    higher_is_better: bool
    points: tuple[Point, ...]

    @property
    def worn(self) -> tuple[Point, ...]:
        """Without what was set apart: nobody talked with that."""
        return tuple(p for p in self.points if p.passed and math.isfinite(p.value))

    @property
    def change(self) -> float | None:
        """The last value less the one before; None: there are not two."""
        return self.worn[-1].value - self.worn[-2].value if len(self.worn) > 1 else None

    def worse_by(self) -> float | None:
        """How far the last value is worse than the best before it, in its unit; None: there are not two."""
        if len(self.worn) < 2:
            return None
        best = self.best
        gap = self.worn[-1].value - best.value
        return -gap if self.higher_is_better else gap

    def regressed(self, tolerance_pct: float = TOLERANCE_PCT) -> bool:
        """Whether that is more than the tolerance and, where errors are known, more than these explain."""
        gap = self.worse_by()
        if gap is None:
            return False
        best, last = self.best, self.worn[-1]
        if gap <= tolerance_pct / 100 * abs(best.value):
            return False
        if best.error is None or last.error is None:
            return True
        return gap > ERRORS * math.hypot(best.error, last.error)

    @property
    def best(self) -> Point:
        """Of all before the last one that is worn."""
        pick = max if self.higher_is_better else min
        return pick(self.worn[:-1], key=lambda p: p.value)

    def shortened(self, last: int | None) -> Series:
        """With only the last points; None: all."""
        return self if last is None else replace(self, points=self.points[-last:])

    def rows(self) -> list[dict[str, Any]]:
        """A row a point, with the change since the one before; JSON and CSV can hold all of it."""
        found: list[dict[str, Any]] = []
        before: float | None = None
        for p in self.points:
            value = p.value if math.isfinite(p.value) else None
            change = None if before is None or value is None else value - before
            found.append(
                {
                    "series": self.name,
                    "when": p.when,
                    "tag": p.tag,
                    "passed": p.passed,
                    "value": value,
                    "change": change,
                    "unit": self.unit,
                }
            )
            before = value if p.passed and value is not None else before
        return found


def trends(nights: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]]) -> list[Series]:
    """Series from the entries of logs/nights.jsonl and logs/experiments.jsonl; bad ones are left out."""
    found: dict[tuple[str, str, bool], list[Point]] = {}
    for entries, points in ((nights, _of_night), (others, _of_measurement)):
        for entry in entries:
            for name, unit, higher, point in points(entry):
                found.setdefault((name, unit, higher), []).append(point)
    return [Series(*key, tuple(points)) for key, points in found.items()]


Named = tuple[str, str, bool, Point]


def _of_night(entry: Mapping[str, Any]) -> Iterator[Named]:
    about = str(entry.get("when", "")), str(entry.get("tag", ""))
    after, before = entry.get("after"), entry.get("before")
    passed = bool(_dict(entry.get("verdict")).get("passed"))
    for score in _list(_dict(after).get("scores")):
        if score.get("name") in STANDING:
            yield (
                f"night {score['name']}",
                str(score.get("unit", "")),
                bool(score.get("higher_is_better")),
                Point(*about, _number(score.get("value")), score.get("spread"), passed),
            )
    if (gain := _night_loss(before) - _night_loss(after)) == gain:
        yield "night gain", "nats/token", True, Point(*about, gain, OTHER_DATA, passed)
    if tasks := _dict(_dict(after).get("tasks")):
        won = float(sum(map(bool, tasks.values())))
        yield "night tasks passed", f"of {len(tasks)}", True, Point(*about, won, None, passed)
    if isinstance(seconds := entry.get("seconds"), int | float):
        yield "night seconds", "s", False, Point(*about, float(seconds), OTHER_DATA, passed)


def _night_loss(report: Any) -> float:
    scores = _list(_dict(report).get("scores"))
    return next((_number(s.get("value")) for s in scores if s.get("name") == NIGHT_LOSS), math.nan)


def _of_measurement(entry: Mapping[str, Any]) -> Iterator[Named]:
    about = str(entry.get("when", "")), str(entry.get("tag", ""))
    kind, data = entry.get("kind"), entry.get("data")
    if kind == "loss":
        point = Point(*about, _number(entry.get("nll")), entry.get("spread"))
        yield f"loss on {data}", "nats/token", False, point
    elif kind == "harness" and isinstance(entry.get("tasks"), int) and entry["tasks"]:
        share, n = _number(entry.get("score")), entry["tasks"]
        error = math.sqrt(max(share * (1 - share), 0.0) / n) if math.isfinite(share) else None
        yield f"harness {data}, {n} tasks", "share", True, Point(*about, share, error)
    elif kind == "golden":
        margin = entry.get("chrf_margin")
        yield f"chrF on {data}", "", True, Point(*about, _number(entry.get("chrf")), margin and margin / 2)
    elif kind == "retrieval":
        yield f"MRR on {data}", "share", True, Point(*about, _number(entry.get("mrr")))


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan

"""The time that a question names, in English or ISO 8601: "last week", "on 8 May 2023", "two months ago"."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

_MONTHS = "january february march april may june july august september october november december".split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_COUNTS = {w: i for i, w in enumerate("zero one two three four five six seven eight nine ten".split())}
_COUNTS |= {"a": 1, "an": 1, "couple": 2}

_MONTH = rf"(?P<month>{'|'.join(_MONTHS)}|{'|'.join(m[:3] for m in _MONTHS)}|sept)\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_UNIT = r"(?P<unit>day|week|month|year)"

Range = tuple[datetime, datetime]


def range_in(text: str, now: datetime) -> tuple[float, float] | None:
    """From and to (not included), in seconds since 1970; None if no time is named, or none that there is."""
    for pattern, meaning in _PATTERNS:
        if match := pattern.search(text):
            try:
                start, end = meaning(match, now.astimezone())
                return start.timestamp(), end.timestamp()
            except (ValueError, OverflowError):  # 31 June, or a year that no clock has
                return None
    return None


def _iso(match: re.Match[str], now: datetime) -> Range:
    return _day(datetime.fromisoformat(match.group()).replace(tzinfo=now.tzinfo))


def _written(match: re.Match[str], now: datetime) -> Range:
    """A day of a month; without a year the last one that there was."""
    month, day = _month(match), int(match["day"])
    year = int(match["year"]) if match["year"] else now.year
    start = _midnight(now).replace(year=year, month=month, day=day)
    return _day(start.replace(year=year - 1) if start > now and not match["year"] else start)


def _whole_month(match: re.Match[str], now: datetime) -> Range:
    year = int(match["year"]) if match["year"] else now.year
    start = _midnight(now).replace(year=year, month=_month(match), day=1)
    start = start.replace(year=year - 1) if start > now and not match["year"] else start
    return start, _next_month(start)


def _whole_year(match: re.Match[str], now: datetime) -> Range:
    start = _midnight(now).replace(year=int(match["year"]), month=1, day=1)
    return start, start.replace(year=start.year + 1)


def _near_day(match: re.Match[str], now: datetime) -> Range:
    return _day(_midnight(now) - timedelta(days=match.group().lower() == "yesterday"))


def _weekday(match: re.Match[str], now: datetime) -> Range:
    """The last one before today."""
    back = (now.weekday() - _DAYS.index(match["weekday"].lower())) % 7 or 7
    return _day(_midnight(now) - timedelta(days=back))


def _unit(match: re.Match[str], now: datetime) -> Range:
    """This or the last week, month or year, as the calendar has them."""
    today, unit = _midnight(now), match["unit"].lower()
    this = _start_of(unit, today)
    return (this, now) if match["which"].lower() == "this" else (_start_of(unit, this - timedelta(1)), this)


def _ago(match: re.Match[str], now: datetime) -> Range:
    """So long ago, give or take half of the unit."""
    said = match["count"].lower()
    count = int(said) if said.isdigit() else _COUNTS[said]
    unit = timedelta(days={"day": 1, "week": 7, "month": 30, "year": 365}[match["unit"].lower()])
    if unit.days == 1:
        return _day(_midnight(now) - count * unit)
    return now - count * unit - unit / 2, now - count * unit + unit / 2


def _start_of(unit: str, day: datetime) -> datetime:
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return {"day": day, "month": day.replace(day=1), "year": day.replace(month=1, day=1)}[unit]


def _month(match: re.Match[str]) -> int:
    return next(i for i, m in enumerate(_MONTHS, 1) if m.startswith(match["month"].lower()[:3]))


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _day(start: datetime) -> Range:
    return start, start + timedelta(days=1)


def _next_month(first: datetime) -> datetime:
    return (first + timedelta(days=32)).replace(day=1)


_PATTERNS: list[tuple[re.Pattern[str], Callable[[re.Match[str], datetime], Range]]] = [
    (re.compile(pattern, re.IGNORECASE), meaning)
    for pattern, meaning in (
        (r"\b(?:19|20)\d\d-\d\d-\d\d\b", _iso),
        (rf"\b{_DAY} (?:of )?{_MONTH}(?:,? {_YEAR})?\b", _written),
        (rf"\b{_MONTH} {_DAY}(?:,? {_YEAR})?\b", _written),
        (rf"\b(?:(?:in|during|since|of|last) )?{_MONTH},? {_YEAR}\b", _whole_month),
        (rf"\b(?:in|during|of|last) {_MONTH}(?! \d)(?P<year>)\b", _whole_month),
        (rf"\b(?:in|during|of) {_YEAR}\b", _whole_year),
        (r"\b(?:today|yesterday)\b", _near_day),
        (rf"\b(?:on|last) (?P<weekday>{'|'.join(_DAYS)})\b", _weekday),
        (rf"\b(?P<which>this|last) {_UNIT}\b", _unit),
        (rf"\b(?P<count>\d{{1,3}}|{'|'.join(_COUNTS)})(?: of)? {_UNIT}s? ago\b", _ago),
    )
]

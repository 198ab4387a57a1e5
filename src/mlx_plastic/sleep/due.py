"""Whether a scheduled night is due, and whether the machine can be had for it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, time, timedelta
from pathlib import Path

from mlx_plastic.home import Home, write_json

SUPPLIES = Path("/sys/class/power_supply")
WAIT_S = 10.0


def last_time(at: str, now: datetime) -> datetime:
    """The latest moment, not after `now`, at which the clock showed `at` (HH:MM)."""
    today = datetime.combine(now.date(), time.fromisoformat(at), tzinfo=now.tzinfo)
    return today if today <= now else today - timedelta(days=1)


def is_due(home: Home, at: str, now: datetime) -> bool:
    """Whether no scheduled run has ended since the clock last showed `at`.

    A clock that was set back makes the last run lie in the future: that counts as none, so a wrong date
    costs at most one night too many, never all that follow.
    """
    ran = last_run(home)
    return ran is None or ran > now or ran < last_time(at, now)


def last_run(home: Home) -> datetime | None:
    """When a scheduled run last came to its end; None if none did, or nobody can tell."""
    try:
        found = datetime.fromisoformat(json.loads(_file(home).read_bytes())["ended"])
        return found if found.tzinfo else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def note_run(home: Home, now: datetime, outcome: str) -> None:
    write_json(_file(home), {"ended": now.isoformat(timespec="seconds"), "outcome": outcome})


def _file(home: Home) -> Path:
    return home.root / "schedule.json"


def on_battery(platform: str = sys.platform, supplies: Path = SUPPLIES) -> bool:
    """Whether the machine runs on its battery now; False where that cannot be known, as on a desktop."""
    if platform == "darwin":
        return _pmset_says_battery()
    mains, batteries = [], []
    for supply in sorted(supplies.glob("*")) if supplies.is_dir() else ():
        kind = _text(supply / "type")
        if kind in ("Mains", "USB") and _text(supply / "online") in ("0", "1"):
            mains.append(_text(supply / "online") == "1")
        elif kind == "Battery" and _text(supply / "scope") != "Device":  # a mouse has one, too
            batteries.append(_text(supply / "status") == "Discharging")
    return bool(batteries) and not any(mains) and (bool(mains) or any(batteries))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""


def _pmset_says_battery() -> bool:
    try:
        done = subprocess.run(
            ["/usr/bin/pmset", "-g", "batt"], capture_output=True, text=True, timeout=WAIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "'Battery Power'" in done.stdout

"""What a night will need, told from what earlier nights took, before it begins."""

from __future__ import annotations

import shutil
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_plastic.errors import NoRoom
from mlx_plastic.home import Home
from mlx_plastic.sleep.journal import Journal, nights

if TYPE_CHECKING:
    from mlx_plastic.sleep.doors import Doors

LATEST = 5  # nights that the next one is judged by
LEAST_DISK_MB = 100.0  # a night without a predecessor: data, checkpoint, a pack and its adapter of 10 MB each
SPARE = 3.0  # times the largest of the latest nights: the checkpoint lies beside the pack and its adapter


@dataclass(frozen=True)
class Needs:
    """What the next night will need. None: no earlier night on this base tells.

    turns: new user turns that it takes. over: those that wait for the night after. minutes: as the median of
    the latest nights, scaled with the turns; fastest and slowest likewise. memory_mb: the highest of theirs.
    """

    turns: int
    over: int
    minutes: float | None
    fastest: float | None
    slowest: float | None
    memory_mb: float | None
    disk_mb: float
    free_disk_mb: float
    nights: int  # that this is told from
    broken_off: str = ""  # the tag of a night that would go on instead

    @property
    def fits_disk(self) -> bool:
        return self.disk_mb <= self.free_disk_mb

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"fits_disk": self.fits_disk}


def needs(home: Home, waiting: int, *, most: int, fingerprint: str | None = None) -> Needs:
    """What a night over `waiting` new user turns will need. fingerprint: only nights of this base tell."""
    found = nights(home)
    past = [
        j
        for j in found
        if j.record.status in ("passed", "failed")
        and "judge" in j.record.stages
        and fingerprint in (None, j.record.base_fingerprint)
    ][-LATEST:]
    turns = min(waiting, most)
    took = sorted(_scaled(j, turns) for j in past)
    peaks = [float(j.record.stages["train"].facts.get("peak_memory_mb", 0.0)) for j in past]
    sizes = [_size_mb(j.folder) + _size_mb(home.packs / j.record.tag) for j in past]
    return Needs(
        turns=turns,
        over=waiting - turns,
        minutes=_minutes(statistics.median(took)) if took else None,
        fastest=_minutes(took[0]) if took else None,
        slowest=_minutes(took[-1]) if took else None,
        memory_mb=max(peaks) if peaks else None,
        disk_mb=round(max(LEAST_DISK_MB, SPARE * max(sizes, default=0.0)), 1),
        free_disk_mb=round(shutil.disk_usage(home.root).free / 1e6, 1),
        nights=len(past),
        broken_off=next((j.record.tag for j in found if j.record.status == "running"), ""),
    )


def _scaled(journal: Journal, turns: int) -> float:
    """Seconds that the night would have taken for so many turns: what rehearses and judges stays the same."""
    stages = journal.record.stages
    then = int(stages["lessons"].facts.get("turns", 0)) or 1
    grows = stages["lessons"].seconds + stages["train"].seconds
    return stages["judge"].seconds + grows * max(0.5, turns / max(1, _asked(journal, then)))


def _asked(journal: Journal, turns: int) -> int:
    """User turns of a night; records count answers as well."""
    routes = journal.record.stages["lessons"].facts.get("routes") or {}
    return int(routes.get("turns") or turns)


def _minutes(seconds: float) -> float:
    return round(seconds / 60, 2)


def _size_mb(folder: Path) -> float:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def require_room(doors: Doors) -> None:
    """Raises NoRoom if the disk will not hold the night; better now than in the middle of it."""
    found = needs(doors.home, 0, most=1, fingerprint=doors.base.fingerprint)
    if not found.fits_disk:
        raise NoRoom(
            f"a night needs up to {found.disk_mb:.0f} MB of disk, and {found.free_disk_mb:.0f} MB are free "
            f"at {doors.home.root}",
            hint="free some, or remove old packs: plastic packs gc",
        )


def told(found: Needs) -> list[str]:
    """The same in lines for a person."""
    lines = [f"{found.turns} new user turns" + (f"; {found.over} more wait for later" if found.over else "")]
    if found.broken_off:
        lines.append(f"night {found.broken_off} was broken off and goes on first, if it still can")
    if found.minutes is None:
        lines.append("how long: not known before a first night on this base")
    else:
        spread = f" ({found.fastest:.1f} to {found.slowest:.1f})" if found.nights > 1 else ""
        lines.append(f"about {found.minutes:.1f} minutes{spread}, from {found.nights} earlier nights")
    if found.memory_mb:
        lines.append(f"about {found.memory_mb:.0f} MB of memory")
    lines.append(f"up to {found.disk_mb:.0f} MB of disk; {found.free_disk_mb:.0f} MB are free")
    return lines

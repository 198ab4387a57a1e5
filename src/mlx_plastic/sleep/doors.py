"""What every stage of a night is given: the home, the bare base, and the rooms' doors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mlx_plastic.errors import PlasticError
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Pack, Store
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Part, Sample, from_jsonl
from mlx_plastic.sleep.config import Settings
from mlx_plastic.sleep.journal import Journal, nights

if TYPE_CHECKING:
    from mlx_plastic.base import Base

Tick = Callable[[str, float, float, str], None]  # stage, done, of how many, detail
PARTS: tuple[Part, ...] = ("train", "valid", "test")


class Doors:
    """What a night reads and writes through. worn: the pack that it grows from. past: the nights decided."""

    def __init__(self, home: Home, base: Base, memory: Memory, chosen: Settings, tick: Tick) -> None:
        self.home, self.base, self.memory, self.chosen, self.tick = home, base, memory, chosen, tick
        self.store = Store(home)
        worn = self.store.active()
        if len(worn) > 1:
            raise PlasticError(
                f"a night grows from one pack, and {len(worn)} are worn", hint="activate one of them"
            )
        self.worn = worn
        self.past = [j for j in nights(home) if j.record.status in ("passed", "failed")]

    def ancestors(self) -> set[str]:
        """The pack worn now and those it grew from, by name."""
        return self.store.ancestors(self.worn)  # also those that were removed: their samples are still there

    def passed(self) -> list[Journal]:
        """The nights that the pack worn now grew from, oldest first."""
        family = self.ancestors()
        return [j for j in self.past if j.record.status == "passed" and j.record.tag in family]

    def start(self, journal: Journal) -> Pack | None:
        """The pack that the night's training starts from."""
        return self.store.read(self.worn[0]) if self.worn and journal.record.warm_start else None

    def wearing(self, names: tuple[str, ...]) -> AbstractContextManager[Any]:
        packs = {name: self.store.read(name) for name in names}
        return attached(self.base.model, packs, fingerprint=self.base.fingerprint)


def read_samples(journal: Journal, name: str) -> list[Sample]:
    return from_jsonl(journal.path(name).read_bytes())

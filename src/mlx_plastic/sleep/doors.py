"""What every stage of a night is given: the home, the bare base, and the rooms' doors."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from mlx_plastic.backend import peak_memory_mb
from mlx_plastic.errors import BadData, BadPack, PackNotFound, PlasticError
from mlx_plastic.home import Home
from mlx_plastic.memory import Memory
from mlx_plastic.packs import Pack, Store
from mlx_plastic.packs.store.store import Worn
from mlx_plastic.packs.train.train import train
from mlx_plastic.packs.wear.attach import attached
from mlx_plastic.samples import Part, Sample, from_jsonl
from mlx_plastic.sleep.config import Settings
from mlx_plastic.sleep.journal import Journal, nights
from mlx_plastic.sleep.launch import Hosts, launched
from mlx_plastic.sleep.stop import Stop

if TYPE_CHECKING:
    from mlx_plastic.base import Base

Tick = Callable[[str, float, float, str], None]  # stage, done, of how many, detail
PARTS: tuple[Part, ...] = ("train", "valid", "test")


class Doors:
    """What a night reads and writes through. worn: the pack that it grows from. past: the nights decided."""

    def __init__(
        self,
        home: Home,
        base: Base,
        memory: Memory,
        chosen: Settings,
        tick: Tick,
        *,
        worn: Worn | None = None,
        stop: Stop | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        """worn: instead of what the store says is worn. stop: asked at every tick; raises Stopped then.

        hosts: who trains, instead of this process alone.
        """
        self.home, self.base, self.memory, self.chosen = home, base, memory, chosen
        self.stop = stop or Stop()
        self.train: Any = functools.partial(launched, hosts=hosts, pulse=self.stop.check) if hosts else train
        self._tick = tick
        self.store = Store(home)
        self.worn = self.store.active() if worn is None else worn
        if len(self.worn) > 1:
            raise PlasticError(
                f"a night grows from one pack, and {len(self.worn)} are worn", hint="activate one of them"
            )
        self.past = [j for j in nights(home) if j.record.status in ("passed", "failed")]
        self.given_up: list[str] = []  # nights that were broken off and could not go on, and why

    def tick(self, stage: str, done: float, total: float, detail: str) -> None:
        """Tell how far it is; a good place to stop, if that was asked for."""
        self._tick(stage, done, total, detail)
        self.stop.check()

    def ancestors(self) -> set[str]:
        """The pack worn now and those it grew from, by name."""
        return self.store.ancestors(self.worn)  # also those that were removed: their samples are still there

    def passed(self) -> list[Journal]:
        """The nights that the pack worn now grew from, oldest first."""
        family = self.ancestors()
        return [j for j in self.past if j.record.status == "passed" and j.record.tag in family]

    def enough(self) -> str:
        """Asked after each step of a training: why it is to end here; empty: it is not.

        Of the minutes so many are kept back as judging took in earlier nights.
        """
        if why := self.stop.spent(self._judging_s()):
            return why
        most, peak = self.chosen.budget.memory_mb, peak_memory_mb()
        return f"{peak:.0f} MB of memory are over the {most} allowed" if most and peak > most else ""

    def _judging_s(self) -> float:
        took = [j.record.stages["judge"].seconds for j in self.past[-5:] if "judge" in j.record.stages]
        return statistics.median(took) if took else 0.0

    def has_candidate(self, journal: Journal) -> bool:
        """Whether the pack that the night trained is there, and is the one that it trained."""
        trained = journal.record.stages["train"].facts.get("sha256")
        try:
            return trained in (None, self.store.read(journal.record.tag).manifest.sha256)
        except (PackNotFound, BadPack):
            return False

    def drop_candidate(self, journal: Journal) -> None:
        """Remove the pack of a night that is given up, if it is still a candidate."""
        tag = journal.record.tag
        if tag in self.store.names() and self.store.status(tag) == "candidate":
            self.store.remove(tag)

    def start(self, journal: Journal) -> Pack | None:
        """The pack that the night's training starts from."""
        return self.store.read(self.worn[0]) if self.worn and journal.record.warm_start else None

    def wearing(self, names: Worn) -> AbstractContextManager[list[Pack]]:
        return wearing(self.base, self.store, names)


@contextmanager
def wearing(base: Base, store: Store, names: Worn) -> Iterator[list[Pack]]:
    """Inside, the base wears these packs of the store."""
    packs = {name: store.read(name) for name in names}
    with attached(base.model, packs, fingerprint=base.fingerprint):
        yield list(packs.values())


def read_samples(journal: Journal, name: str) -> list[Sample]:
    """Raises BadData if the file is gone."""
    try:
        return from_jsonl(journal.path(name).read_bytes())
    except FileNotFoundError as error:
        raise BadData(
            f"night {journal.folder.name} lacks its {name}",
            hint=f"put it back; or move {journal.folder} away, and what it taught is rehearsed no more",
        ) from error

"""The night: gather -> learn -> judge -> conclude.

Every stage is written to the night's folder before the next begins, so a night that was killed goes on where
it stopped, and the pack that was worn stays worn until the very last step.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections import Counter
from typing import TYPE_CHECKING

from mlx_plastic.home import SEEN_S, Home, consent, locked, require_train
from mlx_plastic.memory import Exchange, Memory
from mlx_plastic.packs import BARE
from mlx_plastic.packs.format.manifest import check_name
from mlx_plastic.sleep.config import NightConfig, Settings, fitted, read_settings
from mlx_plastic.sleep.doors import Doors, Tick
from mlx_plastic.sleep.fit import within
from mlx_plastic.sleep.forget import LearnAgain, erase, erase_again, forgotten, overdue, rebuild
from mlx_plastic.sleep.gather import gather
from mlx_plastic.sleep.journal import nights, scrub
from mlx_plastic.sleep.launch import Hosts
from mlx_plastic.sleep.pending import pending
from mlx_plastic.sleep.preflight import require_room
from mlx_plastic.sleep.relearn import relearn
from mlx_plastic.sleep.result import Night
from mlx_plastic.sleep.stages import Asked, begun, broken_off, go_on
from mlx_plastic.sleep.stop import Stop, Stopped

if TYPE_CHECKING:
    from mlx_plastic.base import Base

__all__ = ["Night", "NightConfig", "Settings", "Stop", "Tick", "read_settings", "sleep"]

log = logging.getLogger(__name__)

LOCKED = "wait for the running night to end"


def sleep(
    home: Home,
    base: Base,
    *,
    chosen: Settings | None = None,
    tag: str | None = None,
    dry_run: bool = False,
    reset_adapter: bool = False,
    retry: bool = False,
    resume: bool = False,
    adapter_tag: str | None = None,
    hosts: Hosts | None = None,
    stop: Stop | None = None,
    tick: Tick | None = None,
) -> Night:
    """Learn what was said since the last night, and wear it only if the gate lets it pass.

    A forget that is not finished is finished first. The base must be bare. tag: the night's and its pack's
    name; the date by default. dry_run: write the data and train nothing. reset_adapter: start from the bare
    base, not from the pack worn now. retry: take also turns of nights that failed or were rolled back.
    adapter_tag: grow from this pack instead of the one worn ("base": from none). hosts: who trains
    instead of this process alone. stop: ends it at a good place when asked, to go on later.

    A night that was broken off goes on, if the base, the pack worn and the settings are still the same; else
    it is given up and a new one begins. resume: do nothing but that, with the settings that it began with.
    Raises NoConsent if nights may not learn: a forget is then brought as far as it goes without learning.
    Raises Busy if a night is running already, and whatever the rooms below raise; then nothing is worn anew.
    """
    settings_ = chosen or read_settings(home)
    settings_.budget.check()
    if tag is not None:
        check_name(tag)  # also where nothing waits to be learned
    asked = Asked(tag, dry_run, reset_adapter, retry, resume)
    stop = stop or Stop(minutes=settings_.budget.minutes)
    with locked(home, "night", hint=LOCKED, wait_s=SEEN_S), Memory(home) as memory:
        memory.guard.ask(base)
        settings_ = dataclasses.replace(settings_, night=fitted_within(settings_, base))
        worn = None if adapter_tag is None else tuple(name for name in (adapter_tag,) if name != BARE)
        quiet: Tick = tick or (lambda *_: None)
        make = functools.partial(Doors, home, base, memory, settings_, quiet, stop=stop, hosts=hosts)
        try:
            if not dry_run:
                _finish_forgetting(home, memory, functools.partial(relearn, make), base)
            require_train(home)
            return _night(make(worn=worn), asked)
        except Stopped as stopped:
            return _broken(home, stopped.reason)


def _finish_forgetting(home: Home, memory: Memory, relearn_: LearnAgain, base: Base) -> None:
    """What was forgotten in a chat or by another program is unlearned here, at the latest."""
    if gone := forgotten(memory):
        scrub(home, gone)  # a crash may have come between the log and this
    if found := overdue(home, gone):
        erase(home, memory, found)
    elif pending(home):
        erase_again(home, memory)
    if consent(home).train:
        rebuild(home, relearn_, base=base.fingerprint)


def fitted_within(chosen: Settings, base: Base) -> NightConfig:
    """How a night trains on this base, within the memory that the budget allows."""
    found, most = fitted(chosen.night, base), chosen.budget.memory_mb
    return within(found, base, most) if most else found


def _night(doors: Doors, asked: Asked) -> Night:
    doors.store.publish()  # a crash may have come between the pack worn and the link to it
    with doors.wearing(doors.worn):
        pass  # a pack of another base is told now, not after hours of training
    journal = None if asked.dry_run else broken_off(doors, asked)
    if journal is None and asked.resume:
        given_up = "; ".join(doors.given_up)
        return Night("nothing", reason=given_up or "no night was broken off: there is nothing to go on with")
    if journal is None:
        exchanges = _collected(doors, asked.retry)
        if not exchanges:
            return Night("nothing", reason="nothing new was said since the last night")
        require_room(doors)
        journal = begun(doors, asked, (t for e in exchanges for t in e.new))
    elif not journal.has("lessons"):
        exchanges = _same(doors.memory, set(journal.record.turns))
        journal.save(turns=tuple(sorted(t for e in exchanges for t in e.new)))  # some may be forgotten since
    if not journal.has("lessons"):
        gather(doors, journal, exchanges)
    return go_on(doors, journal)


def _broken(home: Home, reason: str) -> Night:
    """What is told of a night that was stopped before its end."""
    running = [j for j in nights(home) if j.record.status == "running"]
    if not running:
        return Night("stopped", reason=f"{reason}; nothing was begun")
    journal = running[-1]
    done = ", ".join(journal.record.stages) or "nothing yet"
    told = f"{reason}; done: {done}; the next night goes on from there"
    log.info("night %s stopped: %s", journal.record.tag, reason)
    return Night("stopped", journal.record.tag, told, seconds=journal.seconds)


def _collected(doors: Doors, retry: bool) -> list[Exchange]:
    """What no passed night has learned, up to the budget; without `retry` not what was set aside."""
    most = doors.chosen.budget.turns
    if retry:
        family = doors.ancestors()
        for journal in doors.past:
            if journal.record.status == "passed" and journal.record.tag not in family:
                doors.memory.unlearn(journal.record.tag)
        return doors.memory.unlearned(most=most)
    return doors.memory.unlearned(most=most, without=_set_aside(doors))


def _set_aside(doors: Doors) -> set[str]:
    """Turns of failed nights, but those that were refused for drift alone, and not yet too often."""
    failed = [j.record for j in doors.past if j.record.status == "failed"]
    times = Counter(turn for record in failed for turn in record.turns)
    harmful = {turn for record in failed if not record.drifted for turn in record.turns}
    return harmful | {turn for turn, n in times.items() if n >= doors.chosen.night.chances}


def _same(memory: Memory, turns: set[str]) -> list[Exchange]:
    """Only what the night began with: what was said since then waits for the next one."""
    found = []
    for e in memory.unlearned(only=turns):
        last = max(i for i, turn in enumerate(e.turns) if turn.id in turns)
        found.append(dataclasses.replace(e, turns=e.turns[: last + 1]))
    return found

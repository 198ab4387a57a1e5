"""`plastic init`: what this machine can hold, what the person agrees to, and config.toml."""

from __future__ import annotations

import dataclasses
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from mlx_plastic.base.offers import Choice
    from mlx_plastic.home import Home

AT = "03:30"
NO = "no"
CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
LOG = "May what is said be kept on this machine, so that it can be looked up and learned?"
TRAIN = "May nights learn from what is kept?"


@dataclass(frozen=True)
class Answers:
    """What the person said; None: nothing, and what holds so far goes on."""

    base: str | None
    log: bool | None
    train: bool | None
    schedule: str | None
    download: bool = False


class At(click.ParamType[str]):
    """A time of day, or "no"."""

    name = "HH:MM|no"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == NO or CLOCK.fullmatch(str(value)):
            return str(value)
        self.fail(f"{value!r} is no time of day such as 03:30, nor {NO!r}", param, ctx)


@click.command()
@click.option("--base", metavar="REF", help="The base: nano, a folder, a hub id or an alias.")
@click.option("--log/--no-log", default=None, help="Whether what is said is kept.")
@click.option("--train/--no-train", default=None, help="Whether nights learn from what is kept.")
@click.option("--schedule", type=At(), help="When a night runs by itself, or no for never.")
@click.option("--download/--no-download", default=None, help="Whether a base from the hub is fetched now.")
@click.option("--yes", is_flag=True, help="Ask nothing: what no option names stays as it is.")
@click.option("--dry-run", is_flag=True, help="Show what would be set; ask and change nothing.")
@json_option
@pass_home
def init(
    home: Home,
    base: str | None,
    log: bool | None,
    train: bool | None,
    schedule: str | None,
    download: bool | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Set up a home: its base, what may be kept and learned, and when.

    It looks at memory and accelerator. Nothing is downloaded unless you say so. Every question has an option,
    so it works without a terminal; it can be run again, and keeps all else that stands in config.toml.

    Example: plastic init --base nano --log --train --schedule no
    """
    from mlx_plastic.backend.hardware import device, free_memory_bytes
    from mlx_plastic.base.offers import choose

    kind, free = device(), free_memory_bytes()
    found = choose(kind.kind, free)
    given = Answers(base, log, train, schedule, bool(download))
    if not (yes or dry_run):
        given = _asked(home, given, found, free, told=download, may_ask=_may_ask() and not as_json)
    _agree(home, given)
    done = _apply(home, given, dry_run)
    machine = {"kind": kind.kind, "device": kind.name, "memory_gb": round(free / 1e9, 1)}
    if as_json:
        print_json({"machine": machine, **_offers(found, kind.kind), **done, "dry_run": dry_run})
    else:
        _tell(home, machine, found, done, dry_run)


def _may_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _asked(
    home: Home, given: Answers, found: Choice, free: int, *, told: bool | None, may_ask: bool
) -> Answers:
    """Everything answered: by options, else at the terminal. Wrong usage where neither is there."""
    open_ = {"--base": given.base, "--log/--no-log": given.log, "--train/--no-train": given.train}
    missing = [name for name, value in (open_ | {"--schedule": given.schedule}).items() if value is None]
    if given.train is False or given.log is False:
        missing = [name for name in missing if name != "--schedule"]
    if missing and not may_ask:
        raise click.UsageError(f"nobody can be asked here: give {', '.join(missing)}, or --yes")
    if given.base is None:
        given = dataclasses.replace(given, base=_ask_base(found, free))
    if given.log is None:
        given = dataclasses.replace(given, log=click.confirm(LOG, default=None, err=True))
    if given.train is None:
        given = dataclasses.replace(given, train=click.confirm(TRAIN, default=None, err=True))
    if given.schedule is None:
        given = dataclasses.replace(given, schedule=_ask_schedule() if given.train and given.log else NO)
    if told is None and may_ask and (size := _to_download(home, given.base, found)) is not None:
        wanted = click.confirm(f"Download {given.base} now{size}?", default=False, err=True)
        given = dataclasses.replace(given, download=wanted)
    return given


def _ask_base(found: Choice, free: int) -> str:
    note(f"{free / 1e9:.1f} GB of memory are free. Bases that fit:")
    for number, offer in enumerate(found.fitting, 1):
        size = f"{offer.download_gb:g} GB to download, " if offer.download_gb else ""
        note(f"  {number}  {offer.ref}  ({size}{offer.licence}{'; ' + offer.about if offer.about else ''})")
    note(f"proposed: {found.proposed.ref}: {found.reason}. A folder or another hub id will do as well.")
    said = str(click.prompt("Base", default=found.proposed.ref, err=True)).strip()
    if said.isdecimal() and 1 <= int(said) <= len(found.fitting):
        return found.fitting[int(said) - 1].ref
    return said


def _ask_schedule() -> str:
    if not click.confirm("Shall a night run by itself, every day?", default=False, err=True):
        return NO
    return str(click.prompt("At (HH:MM)", default=AT, type=At(), err=True))


def _to_download(home: Home, base: str | None, found: Choice) -> str | None:
    """How much would come from the hub, in words; None if the base is here."""
    from mlx_plastic.base.offers import HUB, is_here
    from mlx_plastic.home.aliases import base_of

    ref = base_of(home, base or "")
    if is_here(ref):
        return None
    size = next((offer.download_gb for offer in HUB if offer.ref == ref), None)
    return f" ({size:g} GB)" if size else " (its size is not known here)"


def _agree(home: Home, given: Answers) -> None:
    """Raises for answers that contradict each other, and for a base that is none, before anything is set."""
    from mlx_plastic.base.checkpoint import is_hub_id, resolve
    from mlx_plastic.base.offers import is_here
    from mlx_plastic.errors import BaseNotFound
    from mlx_plastic.home import consent
    from mlx_plastic.home.aliases import base_of

    old = consent(home)
    keeps = old.log if given.log is None else given.log
    learns = keeps and (old.train if given.train is None else given.train)
    if given.schedule not in (None, NO) and not learns:
        raise click.UsageError("--schedule needs --log and --train: a night would have nothing to learn")
    if given.base is None:
        return
    ref = base_of(home, given.base)
    if is_here(ref):
        resolve(ref)
    elif not is_hub_id(ref):
        raise BaseNotFound(f"no checkpoint folder {ref!r}", hint="give nano, a folder, or a hub id: org/name")


def _apply(home: Home, given: Answers, dry_run: bool) -> dict[str, Any]:
    """The download first, since it may fail; then the settings in one write, then the schedule."""
    from mlx_plastic.base.offers import is_here
    from mlx_plastic.cli.config import change
    from mlx_plastic.cli.options import base_ref
    from mlx_plastic.home import consent

    ref = base_ref(home, given.base)
    if given.download and not dry_run and not is_here(ref):
        _download(ref)
    values = {("base", "ref"): given.base, ("consent", "log"): given.log, ("consent", "train"): given.train}
    changes: dict[tuple[str, ...], Any] = {path: value for path, value in values.items() if value is not None}
    text = change(home, changes, dry_run=dry_run)
    schedule = _schedule(home, given.schedule, dry_run)
    now = consent(home)
    return {
        "file": str(home.config_file),
        "text": text,
        "base": ref,
        "base_is_here": is_here(ref),
        "log": now.log if given.log is None else given.log,
        "train": now.train if given.train is None else given.train,
        "set": {".".join(path): value for path, value in changes.items()},
        "schedule": schedule,
    }


def _download(ref: str) -> None:
    from mlx_plastic.base import resolve

    note(f"downloading {ref} to the hub's cache; broken off, it goes on the next time")
    resolve(ref)


def _schedule(home: Home, at: str | None, dry_run: bool) -> dict[str, Any] | None:
    """What became of the nights' timer; None: it was not spoken of."""
    from mlx_plastic.cli.uninstall import of_this_home
    from mlx_plastic.sleep import schedule as timers
    from mlx_plastic.sleep.units import kind_here

    if at is None:
        return None
    if at == NO:
        if dry_run or not of_this_home(home, timers):
            return {"at": None, "files": []}
        return {"at": None, "files": list(timers.remove(home).files)}
    job = timers.job(home, at)
    if dry_run:
        return {"at": at, "files": [str(path) for path in timers.unit(kind_here(), job).files]}
    done = timers.install(home, job)
    return {"at": at, "files": list(done.files), "loaded": done.loaded, "notes": list(done.notes)}


def _offers(found: Choice, kind: Any) -> dict[str, Any]:
    def told(offer: Any) -> dict[str, Any]:
        return {**dataclasses.asdict(offer), "needs_gb": round(offer.needs_gb(kind), 1)}

    return {
        "proposed": found.proposed.ref,
        "reason": found.reason,
        "fitting": [told(offer) for offer in found.fitting],
        "too_large": [told(offer) for offer in found.too_large],
    }


def _tell(home: Home, machine: dict[str, Any], found: Choice, done: dict[str, Any], dry_run: bool) -> None:
    click.echo(f"{machine['kind']} ({machine['device']}), {machine['memory_gb']} GB of memory free")
    here = "" if done["base_is_here"] else f"fetched at first use, or now: hf download {done['base']}"
    rows = [
        ("base", done["base"], here),
        ("kept", _yes(done["log"]), "what is said"),
        ("learned", _yes(done["train"]), "by nights, from what is kept"),
    ]
    if done["schedule"] is not None:
        rows.append(("nights", done["schedule"]["at"] or NO, "by themselves"))
    print_table(("what", "set", ""), rows)
    for line in (done["schedule"] or {}).get("notes", []):
        note(line)
    if dry_run:
        click.echo(f"proposed: {found.proposed.ref}: {found.reason}")
        note(f"nothing was changed; {home.config_file} would hold:\n{done['text'].rstrip()}")
    else:
        note(f"set in {home.config_file}; next: plastic chat")


def _yes(value: bool) -> str:
    return "yes" if value else NO

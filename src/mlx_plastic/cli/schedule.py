"""`plastic schedule`: nights by themselves."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import base_option
from mlx_plastic.cli.output import json_option, note, print_json
from mlx_plastic.errors import Busy, PlasticError

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.sleep.schedule import Done

AT = "03:30"


@click.group()
def schedule() -> None:
    """Sleep by itself every night: launchd or systemd.

    Example: plastic schedule install --at 03:30
    """


@schedule.command()
@click.option("--at", default=AT, show_default=True, metavar="HH:MM", help="Local time.")
@click.option("--dry-run", is_flag=True, help="Show the files and write nothing.")
@json_option
@pass_home
def install(home: Home, at: str, dry_run: bool, as_json: bool) -> None:
    """Write and load a timer for this user, without root.

    A night missed while the machine was off runs at the next chance. On battery it waits, and asks again
    every half hour. To run while you are logged out, Linux needs: loginctl enable-linger

    Example: plastic schedule install --at 03:30 --dry-run
    """
    from mlx_plastic.sleep import schedule as timers

    job = timers.job(home, at)
    if dry_run:
        found = {str(p): data.decode() for p, data in timers.files(timers.kind_here(), job).items()}
        if as_json:
            print_json({"files": found, "dry_run": True})
        else:
            for path, text in found.items():
                click.echo(f"# {path}\n{text}")
        return
    _show(timers.install(home, job), as_json, f"every night at {at}")


@schedule.command()
@json_option
@pass_home
def remove(home: Home, as_json: bool) -> None:
    """Take the timer away; what was learned stays.

    Example: plastic schedule remove
    """
    from mlx_plastic.sleep.schedule import remove as remove_

    _show(remove_(home), as_json, "no more")


def _show(done: Done, as_json: bool, what: str) -> None:
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    click.echo(f"{done.kind}: {what if done.files else 'there was none'}")
    for file in done.files:
        click.echo(f"  {file}")
    if done.checked:
        click.echo(f"checked by {', '.join(done.checked)}")
    for line in done.notes:
        note(line)


@schedule.command()
@json_option
@pass_home
def status(home: Home, as_json: bool) -> None:
    """Tell what is scheduled, whether it is loaded, and how the last run ended.

    Example: plastic schedule status
    """
    from mlx_plastic.sleep.due import is_due, last_run, on_battery
    from mlx_plastic.sleep.schedule import status as status_

    found, now = status_(home), datetime.now().astimezone()
    ran = last_run(home)
    due = found.at is not None and is_due(home, found.at, now)
    if as_json:
        told = {"last_run": ran and ran.isoformat(), "due": due, "on_battery": on_battery()}
        print_json({**dataclasses.asdict(found), **told})
        return
    if not found.files:
        click.echo("nothing is scheduled: plastic schedule install")
        return
    loaded = {True: "loaded", False: "not loaded", None: "whether it is loaded cannot be told here"}
    click.echo(f"{found.kind}: every night at {found.at or '?'}, {loaded[found.loaded]}")
    click.echo(f"last run: {f'{ran:%Y-%m-%d %H:%M}' if ran else 'none'}{'; one is due' if due else ''}")
    for file in found.files:
        click.echo(f"  {file}")
    if found.says:
        note(found.says)


@schedule.command()
@click.option("--now", "at_once", is_flag=True, help="Even if no night is due, and on battery.")
@base_option
@json_option
@pass_home
def run(home: Home, at_once: bool, base: str | None, as_json: bool) -> None:
    """What the timer starts: a night if one is due, the digest, and a word on the desktop.

    Exit code 75 means not now (on battery, or another night runs) and asks to be started again later. A night
    that the gate refused is an end like another: it is told of, and the exit code is 0.

    Example: plastic schedule run --now
    """
    from mlx_plastic.sleep.due import is_due, note_run, on_battery
    from mlx_plastic.sleep.schedule import NOT_NOW
    from mlx_plastic.sleep.schedule import status as status_

    if not at_once:
        if not is_due(home, status_(home).at or AT, datetime.now().astimezone()):
            _tell("nothing", "no night is due", as_json)
            return
        if on_battery():
            _tell("not now", "the machine runs on its battery", as_json)
            raise SystemExit(NOT_NOW)
    try:
        outcome, text, urgent = _one_night(home, base)
    except Busy as error:
        _tell("not now", error.message, as_json)
        raise SystemExit(NOT_NOW) from error
    except PlasticError as error:
        outcome, text, urgent = "error", f"the night could not run: {error.message}", True
    except Exception:
        note_run(home, datetime.now().astimezone(), "crash")  # a fault of ours is not tried again all night
        raise
    note_run(home, datetime.now().astimezone(), outcome)
    shown = _notify(outcome, text, urgent)
    _tell(outcome, text, as_json, shown=shown)


def _one_night(home: Home, base: str | None) -> tuple[str, str, bool]:
    """How it ended, in a word and in a line, and whether a person should look."""
    from mlx_plastic.cli.sleep import chosen_settings, slept
    from mlx_plastic.sleep import digest

    night = slept(home, base, chosen=chosen_settings(home, None, None))
    found = digest.digest(home)
    digest.write(home, found)
    text = f"nothing done: {night.reason}" if night.outcome == "nothing" else found.headline
    return night.outcome, text, night.outcome == "failed"


def _notify(outcome: str, text: str, urgent: bool) -> bool:
    from mlx_plastic.sleep.notify import notify

    return outcome != "nothing" and notify(text, urgent=urgent)


def _tell(outcome: str, text: str, as_json: bool, *, shown: bool = False) -> None:
    if as_json:
        print_json({"outcome": outcome, "text": text, "notified": shown})
    else:
        click.echo(text)

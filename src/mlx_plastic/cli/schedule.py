"""`plastic schedule`: nights, and the server, by themselves."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import base_option
from mlx_plastic.cli.output import json_option, note, print_json
from mlx_plastic.errors import Busy, NoConsent, PlasticError

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.sleep.units import Done, Found, Unit

AT = "03:30"

server_option = click.option("--server", is_flag=True, help="Of `plastic serve`, not of the nights.")


@click.group()
def schedule() -> None:
    """Sleep every night, and serve from login on, by themselves.

    Example: plastic schedule install --at 03:30
    """


@schedule.command()
@click.option("--at", metavar="HH:MM", help=f"Local time of the nights; {AT} unless given.")
@server_option
@click.option("--dry-run", is_flag=True, help="Show the files and write nothing.")
@json_option
@pass_home
def install(home: Home, at: str | None, server: bool, dry_run: bool, as_json: bool) -> None:
    """Write and load a timer for this user, without root; with --server a service for `plastic serve`.

    A night missed while the machine was off runs at the next chance. On battery it waits, and asks again
    every half hour. The server starts at login, and again after a crash, with what config.toml says. To run
    while you are logged out, Linux needs: loginctl enable-linger

    Example: plastic schedule install --at 03:30 --dry-run
    """
    if server and at is not None:
        raise click.UsageError("--at is for nights; the server runs from login on")
    if server:
        _install_server(home, dry_run, as_json)
        return
    from mlx_plastic.sleep import schedule as timers
    from mlx_plastic.sleep.units import kind_here

    job = timers.job(home, at or AT)
    if dry_run:
        _show_files(timers.unit(kind_here(), job), as_json)
    else:
        _show(timers.install(home, job), as_json, f"every night at {job.at}")


def _install_server(home: Home, dry_run: bool, as_json: bool) -> None:
    from mlx_plastic.home import settings
    from mlx_plastic.serve.api.config import ServeConfig
    from mlx_plastic.serve.api.keys import read_keys
    from mlx_plastic.serve.api.server import require_key
    from mlx_plastic.sleep import server_unit as servers
    from mlx_plastic.sleep.units import kind_here

    config = settings(home, "serve", ServeConfig)
    require_key(config, read_keys(home))  # told now, not in a log at every login
    if dry_run:
        _show_files(servers.unit(home, kind_here(), grace_s=config.grace_s), as_json)
        return
    done = servers.install(home, grace_s=config.grace_s)
    _show(done, as_json, f"from login on, at port {config.port}")


def _show_files(unit: Unit, as_json: bool) -> None:
    found = {str(path): data.decode() for path, data in unit.files.items()}
    if as_json:
        print_json({"files": found, "dry_run": True})
        return
    for path, text in found.items():
        click.echo(f"# {path}\n{text}")


@schedule.command()
@server_option
@click.option("--dry-run", is_flag=True, help="Show which files would go, and delete none.")
@json_option
@pass_home
def remove(home: Home, server: bool, dry_run: bool, as_json: bool) -> None:
    """Take the timer away, or with --server the server's service; what was learned stays.

    Example: plastic schedule remove
    """
    from mlx_plastic.sleep import schedule as timers
    from mlx_plastic.sleep import server_unit as servers

    room = servers if server else timers
    if dry_run:
        files = room.status(home).files
        print_json({"files": files, "dry_run": True}) if as_json else click.echo("\n".join(files) or "none")
        return
    _show(room.remove(home), as_json, "no more")


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
    """Tell what is installed, whether it is loaded, how the last night ended and whether the server answers.

    Example: plastic schedule status
    """
    from mlx_plastic.cli.open import address_of, answers
    from mlx_plastic.sleep import server_unit as servers
    from mlx_plastic.sleep.due import is_due, last_run, on_battery
    from mlx_plastic.sleep.schedule import status as status_

    found, server, now = status_(home), servers.status(home), datetime.now().astimezone()
    ran, address = last_run(home), address_of(home)
    due = found.at is not None and is_due(home, found.at, now)
    if as_json:
        told = {"last_run": ran and ran.isoformat(), "due": due, "on_battery": on_battery()}
        served = dataclasses.asdict(server) | {"address": address, "answers": answers(address)}
        print_json({**dataclasses.asdict(found), **told, "server": served})
        return
    if not found.files:
        click.echo("no night is scheduled: plastic schedule install")
    else:
        _tell_found(found, f"every night at {found.at or '?'}")
        click.echo(f"last run: {f'{ran:%Y-%m-%d %H:%M}' if ran else 'none'}{'; one is due' if due else ''}")
    if server.files:
        _tell_found(server, "the server from login on")
        click.echo(f"it {'answers' if answers(address) else 'does not answer'} at {address}")


def _tell_found(found: Found, what: str) -> None:
    loaded = {True: "loaded", False: "not loaded", None: "whether it is loaded cannot be told here"}
    click.echo(f"{found.kind}: {what}, {loaded[found.loaded]}")
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
    except NoConsent as error:
        outcome, text, urgent = "nothing", f"nothing done: {error.message}", False
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
    from mlx_plastic.cli.sleep import slept
    from mlx_plastic.sleep import digest, read_settings

    night = slept(home, base, chosen=read_settings(home))
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

"""`plastic config`: what is set, where it comes from, and setting it."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from mlx_plastic.cli.sections import Setting
    from mlx_plastic.home import Home

WAIT_S = 10.0  # for another command's short write
HINT = "wait for the other command to end"
OWN = 0o600  # names of the family may stand in it


@click.group()
def config() -> None:
    """Show what is set and where it comes from; set it.

    Example: plastic config show --origin
    """


@config.command()
@click.argument("section", required=False)
@click.option("--origin", is_flag=True, help="Tell of each value where it comes from.")
@click.option("--changed", is_flag=True, help="Only what is not the default.")
@json_option
@pass_home
def show(home: Home, section: str | None, origin: bool, changed: bool, as_json: bool) -> None:
    """Show every setting as the commands read it, or those of one SECTION.

    What is printed can be put into config.toml as it is.

    Example: plastic config show night --origin
    """
    from mlx_plastic.cli.sections import around, read_all

    found = read_all(home, section)
    if section is None:
        option = click.get_current_context().find_root().params.get("home")
        found = [*around(home, option), *found]
    if changed:
        found = [one for one in found if one.origin != "default"]
    if as_json:
        print_json({"file": str(home.config_file), "settings": [dataclasses.asdict(one) for one in found]})
        return
    click.echo(f"# {home.config_file}{'' if home.config_file.exists() else ' (not there: all is default)'}")
    _print(found, origin)


def _print(found: list[Setting], origin: bool) -> None:
    from mlx_plastic.home.edit import literal

    section = ""
    for one in found:
        if one.section != section:
            section = one.section
            click.echo(f"\n[{section}]")
        values = one.value.items() if isinstance(one.value, dict) else [("", one.value)]
        for below, value in values:
            line = f"{one.key}{f'.{below}' if below else ''} = {literal(value)}"
            ahead = "" if section else "# "
            click.echo(f"{ahead}{line:<40}  # {one.origin}" if origin else f"{ahead}{line}")


@config.command("set", context_settings={"ignore_unknown_options": True})  # -1 is a value
@click.argument("pairs", nargs=-1, required=True, metavar="SECTION.KEY VALUE ...")
@click.option("--dry-run", is_flag=True, help="Check, show what would be written, write nothing.")
@json_option
@pass_home
def set_(home: Home, pairs: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Set settings in config.toml, after checking them as the commands would.

    Comments and all other lines stay as they are. Several can be set at once, where one needs another.

    Example: plastic config set night.epochs 8 chat.rag true
    """
    from mlx_plastic.cli.sections import parse, path_of

    if len(pairs) % 2:
        raise click.UsageError("give a value for each setting: plastic config set SECTION.KEY VALUE")
    paths = [path_of(name) for name in pairs[::2]]
    changes = {path: parse(path, text) for path, text in zip(paths, pairs[1::2], strict=True)}
    change(home, changes, dry_run=dry_run)
    _tell(home, changes, dry_run, as_json)


@config.command()
@click.argument("names", nargs=-1, required=True, metavar="SECTION.KEY ...")
@click.option("--dry-run", is_flag=True, help="Check and write nothing.")
@json_option
@pass_home
def unset(home: Home, names: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Take settings out of config.toml, so that their defaults hold.

    Example: plastic config unset night.epochs
    """
    from mlx_plastic.cli.sections import path_of

    changes = dict.fromkeys(map(path_of, names))
    change(home, changes, dry_run=dry_run)
    _tell(home, changes, dry_run, as_json)


def change(home: Home, changes: Mapping[tuple[str, ...], Any | None], *, dry_run: bool = False) -> str:
    """Write these values into config.toml (None takes one out), all or none; returns the file's new text.

    Raises BadConfig for what a command would refuse, or if it cannot be written without touching the rest.
    """
    from mlx_plastic.cli.sections import changed, config_text
    from mlx_plastic.home import locked, write_atomic
    from mlx_plastic.home.edit import with_value, without_value

    with locked(home, "config", hint=HINT, wait_s=WAIT_S):
        changed(home, changes)
        text = before = config_text(home)
        for path, value in changes.items():
            text = without_value(text, path) if value is None else with_value(text, path, value)
        if not dry_run and text != before:
            file = (
                home.config_file.resolve()
            )  # what a link leads to, as those who keep settings elsewhere want
            mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else OWN
            write_atomic(file, text.encode("utf-8"), mode=mode)
    return text


def _tell(home: Home, changes: Mapping[tuple[str, ...], Any | None], dry_run: bool, as_json: bool) -> None:
    from mlx_plastic.home.edit import literal

    if as_json:
        told = {".".join(path): value for path, value in changes.items()}
        print_json({"file": str(home.config_file), "changed": told, "dry_run": dry_run})
        return
    for path, value in changes.items():
        click.echo(f"{'.'.join(path)} = {'its default' if value is None else literal(value)}")
    note(f"{'not written: ' if dry_run else ''}{home.config_file}")

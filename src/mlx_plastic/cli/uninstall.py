"""`plastic uninstall`: schedule, services, caches and, unless it is kept, all that was said and learned."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.home.contents import Entry
    from mlx_plastic.home.remove import Removal
    from mlx_plastic.sleep.units import Done, Found

DISTRIBUTION = "mlx-plastic"
CACHES = ("blas", "survey")  # compiled code, below the platform's cache folder


class Room(Protocol):
    """What knows one kind of unit: the nights' timer, or the server's service."""

    def status(self, home: Home) -> Found: ...
    def remove(self, home: Home) -> Done: ...


@click.command()
@click.option("--keep-data", is_flag=True, help="Keep memory, packs, nights, settings and logs.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_home
def uninstall(home: Home, keep_data: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Take away schedule, services, caches and all that was kept.

    What is in the home and not ours stays, and so does the base in the hub's cache. To keep a copy first:
    plastic export FILE. The program itself is removed by the command that is told at the end.

    Example: plastic uninstall --keep-data --dry-run
    """
    from mlx_plastic.home.remove import plan, remove

    planned, caches = plan(home, keep_data=keep_data), _caches()
    units = [found for room in _rooms() if (found := of_this_home(home, room))]
    told = _as_dict(home, planned, units, caches)
    if not as_json:
        _tell(planned, units, caches)
    if not dry_run:
        if not yes:
            click.confirm("delete this for ever?", abort=True, err=True)
        _remove_units(home)
        with progress("removing") as tick:
            tick(0, 2, "home")
            remove(home, planned)
            tick(1, 2, "caches")
            _remove_caches(caches)
            tick(2, 2, "")
    if as_json:
        print_json({**told, "dry_run": dry_run})
    else:
        click.echo(f"the program itself is removed by: {command()}")


def _rooms() -> tuple[Room, ...]:
    from mlx_plastic.sleep import schedule, server_unit

    return schedule, server_unit


def of_this_home(home: Home, room: Any) -> Found | None:
    """What is installed and runs on this very home; another home's is not ours to touch."""
    from mlx_plastic.errors import PlasticError

    try:
        found: Found = room.status(home)
    except PlasticError:  # a platform for which there are no units
        return None
    words = found.command
    named = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--home"]
    return found if found.files and named == [str(home.root)] else None


def _remove_units(home: Home) -> None:
    for room in _rooms():
        if of_this_home(home, room):
            for line in room.remove(home).notes:
                note(line)


def _caches() -> list[Path]:
    import platformdirs

    root = platformdirs.user_cache_path(DISTRIBUTION)
    return [root / name for name in CACHES if (root / name).is_dir()]


def _remove_caches(caches: list[Path]) -> None:
    import contextlib

    from mlx_plastic.home.remove import delete

    for folder in caches:
        delete(folder)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # if it is empty


def command() -> str:
    """What removes the program, as it was installed."""
    from importlib import metadata

    try:
        installer = (metadata.distribution(DISTRIBUTION).read_text("INSTALLER") or "").strip()
    except metadata.PackageNotFoundError:
        return f"deleting {Path(__file__).parents[1]}"
    parts = Path(sys.prefix).parts
    if "pipx" in parts:
        return f"pipx uninstall {DISTRIBUTION}"
    if "uv" in parts and "tools" in parts:
        return f"uv tool uninstall {DISTRIBUTION}"
    if installer == "uv":
        return shlex.join(["uv", "pip", "uninstall", "--python", sys.executable, DISTRIBUTION])
    return shlex.join([sys.executable, "-m", "pip", "uninstall", DISTRIBUTION])


def _as_dict(home: Home, planned: Removal, units: list[Found], caches: list[Path]) -> dict[str, Any]:
    return {
        "home": str(home.root),
        "go": [dataclasses.asdict(entry) for entry in planned.go],
        "stay": [dataclasses.asdict(entry) for entry in planned.stay],
        "foreign": [entry.name for entry in planned.foreign],
        "bytes": planned.size_bytes,
        "units": [file for found in units for file in found.files],
        "caches": [str(folder) for folder in caches],
        "program": command(),
    }


def _tell(planned: Removal, units: list[Found], caches: list[Path]) -> None:
    fates = ((planned.go, "goes"), (planned.stay, "stays"), (planned.foreign, "stays"))
    rows = [(e.name, _what(e), e.files, _size(e.size_bytes), fate) for found, fate in fates for e in found]
    print_table(("in the home", "what", "files", "size", ""), rows)
    for found in units:
        for file in found.files:
            click.echo(f"{file}  goes")
    for folder in caches:
        click.echo(f"{folder}  goes")


def _what(entry: Entry) -> str:
    return f"{entry.what or 'not ours'}{', a link' if entry.is_link else ''}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"

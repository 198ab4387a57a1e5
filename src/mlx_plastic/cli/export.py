"""`plastic export`, `plastic import`: a whole home in one file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Number
from mlx_plastic.cli.output import json_option, note, print_json, progress

if TYPE_CHECKING:
    from mlx_plastic.home import Home


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be in it; write nothing.")
@json_option
@pass_home
def export(home: Home, file: Path, dry_run: bool, as_json: bool) -> None:
    """Write the whole home to one FILE: a backup, or to move it.

    Memory, packs, nights and settings, not the base: a gzipped tar with the SHA-256 of every file, readable
    by you alone. A chat may go on meanwhile, a night may not. For conversations alone: plastic memory export.

    Example: plastic export backup.tar.gz
    """
    from mlx_plastic.home.contents import carried
    from mlx_plastic.home.export import export as write

    if dry_run:
        found = list(carried(home))
        size = sum(path.stat().st_size for path in found)
        told = {"file": str(file), "files": len(found), "content_bytes": size, "dry_run": True}
        print_json(told) if as_json else click.echo(f"{len(found)} files, {size / 1e6:.1f} MB unpacked")
        return
    with progress("export") as tick:
        done = write(home, file, tick=tick)
    for link in done.links:
        note(f"{link} is a link and was left out: what it leads to is not in this home")
    if as_json:
        print_json(dataclasses.asdict(done))
    else:
        click.echo(f"{done.files} files of {home.root} in {file}, {done.size_bytes / 1e6:.1f} MB")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--max-gb", type=Number(min=0, min_open=True), default=20.0, show_default=True,
    help="Refuse what is larger when unpacked.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Read and check all of it; write nothing.")
@json_option
@pass_home
def import_(home: Home, file: Path, max_gb: float, dry_run: bool, as_json: bool) -> None:
    """Put an exported home back, from FILE into an empty home.

    Everything is checked before anything is written, and it is there at once or not at all. Homes are never
    merged. For conversations alone: plastic memory import.

    Another home is chosen by plastic --home DIR.

    Example: plastic import backup.tar.gz
    """
    from mlx_plastic.home.restore import read_archive, require_empty, restore

    require_empty(home)
    with progress("checking") as tick:
        found = read_archive(file, most_bytes=int(max_gb * 1e9), tick=tick)
    if not dry_run:
        with progress("writing") as tick:
            restore(found, home, check=_of_use, tick=tick)
        _publish(home)
        _remarks(home)
    if as_json:
        told = {"home": str(home.root), "files": len(found.files), "content_bytes": found.content_bytes}
        print_json({**told, "made_by": found.plastic, "dry_run": dry_run})
    else:
        could = "would be" if dry_run else "are"
        click.echo(f"{len(found.files)} files, {found.content_bytes / 1e6:.1f} MB, {could} in {home.root}")


def _of_use(home: Home) -> None:
    """Raises what a command would raise on such a home: told before it is there, not in the first chat."""
    from mlx_plastic.cli.sections import read_all
    from mlx_plastic.memory import Memory
    from mlx_plastic.packs import Store

    read_all(home)
    with Memory(home) as memory:
        memory.stats()
    store = Store(home)
    for name in store.active():
        store.read(name)


def _publish(home: Home) -> None:
    """The adapter for mlx-lm is no part of the file: it is made anew."""
    from mlx_plastic.packs import Store

    Store(home).publish()


def _remarks(home: Home) -> None:
    from mlx_plastic.base import resolve
    from mlx_plastic.cli.options import base_ref
    from mlx_plastic.errors import PlasticError

    ref = base_ref(home, None)
    if Path(ref).is_absolute() or ref.startswith((".", "~")):
        try:
            resolve(ref)
        except PlasticError as error:
            note(f"the base of this home is not here: {error.message}; plastic config set base.ref REF")
    note("nights are not scheduled by this: plastic schedule install")

"""`plastic memory`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.memory_audit import audit
from mlx_plastic.cli.memory_forget import OPENING, forget, tell_turns
from mlx_plastic.cli.memory_route import route
from mlx_plastic.cli.memory_scan import scan
from mlx_plastic.cli.memory_search import add, index_rows, reindex, search
from mlx_plastic.cli.output import (
    clock,
    json_option,
    note,
    print_json,
    print_table,
    printable,
    progress,
    short,
)

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.memory import ImportReport, Turn


@click.group()
def memory() -> None:
    """List, import, export and forget what was said.

    Example: plastic memory list
    """


@memory.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@json_option
@pass_home
def import_(home: Home, file: Path, dry_run: bool, as_json: bool) -> None:
    """Bring conversations in from a JSONL FILE, or from - (stdin).

    Each line is {"messages": [{"role": "user", "content": "..."}, ...]}. What is there already is not added
    again. Lines that cannot be used are kept aside, with their numbers and the reasons.

    Example: plastic memory import memories.jsonl --dry-run
    """
    from mlx_plastic.memory import Memory

    path = Path("/dev/stdin") if str(file) == "-" else file
    with Memory(home) as log, progress("importing") as tick:
        report = log.import_jsonl(
            path,
            dry_run=dry_run,
            on_progress=lambda p: tick(p.done_bytes, p.size_bytes, f"{p.lines} lines"),
        )
    if as_json:
        print_json(
            {**asdict(report), "rejected": report.rejected and str(report.rejected), "dry_run": dry_run}
        )
        _exit_if_useless(report)
        return
    would = "would add" if dry_run else "added"
    click.echo(f"{would} {report.turns} turns in {report.conversations} conversations")
    for count, what in ((report.duplicates, "known already"), (report.forgotten, "forgotten once, left out")):
        if count:
            click.echo(f"{count} lines {what}")
    for bad in report.bad[:10]:
        note(f"line {bad.number}: {bad.reason}")
    if report.bad:
        kept = f" are kept in {report.rejected}" if report.rejected else " cannot be used"
        click.echo(f"{len(report.bad)} lines{kept}")
    _exit_if_useless(report)


def _exit_if_useless(report: ImportReport) -> None:
    """With 1 where not one line could be used: a script must not take that for an import."""
    if report.bad and not (report.turns or report.duplicates or report.forgotten):
        raise click.exceptions.Exit(1)


@memory.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--yes", is_flag=True, help="Overwrite FILE without asking.")
@json_option
@pass_home
def export(home: Home, file: Path, yes: bool, as_json: bool) -> None:
    """Write all conversations to a JSONL FILE, or to - (stdout).

    An import of it, here or elsewhere, gives the same conversations. Undone turns are left out. Packs, nights
    and settings are not in it: for the whole home there is plastic export.

    Example: plastic memory export backup.jsonl
    """
    from mlx_plastic.memory import Memory, export_lines

    with Memory(home) as log:
        if str(file) == "-":
            for line, _ in export_lines(log):
                click.echo(line, nl=False)
            return
        if file.exists() and not yes:
            click.confirm(f"overwrite {file}?", abort=True, err=True)
        report = log.export_jsonl(file)
    if as_json:
        print_json(asdict(report))
    else:
        click.echo(f"wrote {report.turns} turns in {report.conversations} conversations to {file}")


@memory.command("list")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The latest so many."
)
@json_option
@pass_home
def list_(home: Home, limit: int, as_json: bool) -> None:
    """List the latest conversations.

    Example: plastic memory list --limit 5
    """
    from mlx_plastic.memory import Memory

    with Memory(home) as log:
        found = log.conversations()
    if as_json:
        print_json([_plain(asdict(c)) for c in found[-limit:]])
        return
    if not found:
        click.echo("nothing was said yet")
        return
    print_table(
        ("conversation", "last", "turns", "from", "begins"),
        [
            (printable(c.id), clock(c.last_at), c.turns, c.origin, short(c.opening, OPENING))
            for c in found[-limit:]
        ],
    )
    if len(found) > limit:
        note(f"and {len(found) - limit} earlier: --limit {len(found)} shows them all")


@memory.command()
@click.argument("refs", nargs=-1, required=True, metavar="ID...")
@json_option
@pass_home
def show(home: Home, refs: tuple[str, ...], as_json: bool) -> None:
    """Show what was said: turns or whole conversations, by ID or an unmistakable part of it.

    Example: plastic memory show 8fk2
    """
    from mlx_plastic.memory import Memory

    with Memory(home) as log:
        turns = log.pick(refs)
    if as_json:
        print_json([_turn(t) for t in turns])
        return
    for turn in turns:
        marks = [*sorted(turn.tags), *turn.worn, *(m for m in ("interrupted", "undone") if getattr(turn, m))]
        click.echo(f"{turn.id}  {clock(turn.created_at)}  {turn.role}  {' '.join(marks)}".rstrip())
        click.echo(f"{printable(turn.content)}\n")


@memory.command()
@click.argument("tag_name", metavar="TAG")
@click.argument("refs", nargs=-1, required=True, metavar="ID...")
@click.option("--remove", is_flag=True, help="Take the tag off.")
@click.option("--dry-run", is_flag=True, help="Only tell which turns are meant.")
@json_option
@pass_home
def tag(home: Home, tag_name: str, refs: tuple[str, ...], remove: bool, dry_run: bool, as_json: bool) -> None:
    """Tag turns or conversations: no-train, no-rag or private (both).

    A tag on a question or on its answer keeps both from being learned.

    Example: plastic memory tag no-train 8fk2
    """
    from mlx_plastic.memory import Memory

    with Memory(home) as log:
        turns = log.pick(refs)
        nights = log.nights(t.id for t in turns)
        changed = 0 if dry_run else log.tag((t.id for t in turns), tag_name, remove=remove)
    if as_json:
        meant = [t.id for t in turns]
        print_json({"turns": meant, "changed": changed, "nights": nights, "dry_run": dry_run})
        return
    if dry_run:
        tell_turns(turns)
    click.echo(f"{changed} of {len(turns)} turns changed")
    for night in nights:
        click.echo(f"night {night} has learned from them already; to unlearn it: plastic rollback")


@memory.command()
@json_option
@pass_home
def stats(home: Home, as_json: bool) -> None:
    """Count what is remembered and what waits for the next night.

    Example: plastic memory stats --json
    """
    from mlx_plastic.memory import Memory

    with Memory(home) as log:
        found = log.stats()
        index = log.recall().stats() if home.memory_index.exists() else None
    if as_json:
        print_json({**_plain(asdict(found)), "index": index and asdict(index)})
        return
    split = {"by role": found.by_role, "by origin": found.by_origin, "by tag": found.by_tag}
    rows: list[tuple[str, object]] = [
        ("conversations", found.conversations),
        ("turns", found.turns),
        *(
            (name, ", ".join(f"{k} {n}" for k, n in sorted(counts.items())) or "-")
            for name, counts in split.items()
        ),
        ("waiting", f"{found.waiting} questions for the next night"),
        ("undone", found.undone),
        ("interrupted", found.interrupted),
        ("forgotten", found.forgotten),
        ("from", f"{clock(found.oldest)} to {clock(found.newest)}"),
        ("on disk", f"{found.size_bytes / 1e6:.2f} MB"),
        *(index_rows(index) if index else []),
    ]
    for name, value in rows:
        click.echo(f"{name:<14} {value}")


memory.add_command(forget)
memory.add_command(route)
memory.add_command(add)
memory.add_command(search)
memory.add_command(reindex)
memory.add_command(scan)
memory.add_command(audit)


def _turn(turn: Turn) -> dict[str, Any]:
    return {**_plain(asdict(turn)), "tags": sorted(turn.tags)}


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in value.items()}

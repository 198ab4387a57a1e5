"""`plastic memory audit`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from mlx_plastic.home import Home

SHOWN = 50  # records, the newest


@click.command()
@click.option("--turn", "ref", metavar="ID", help="Only of this turn, also when it is forgotten.")
@click.option("--limit", type=click.IntRange(min=0), default=SHOWN, show_default=True, help="Records shown.")
@json_option
@pass_home
def audit(home: Home, ref: str | None, limit: int, as_json: bool) -> None:
    """Show what was done to what was said: masked, dropped, tagged, undone, forgotten.

    Times, ids, kinds and counts, never a text. storage: on the way into the log; training: by the last night
    that looked. by: the detectors, or the second reader where one is asked.

    Example: plastic memory audit --turn 8fk2
    """
    from mlx_plastic.memory import Memory

    with Memory(home) as log:
        records: list[dict[str, Any]] = [
            *({**asdict(r), "at": r.at.isoformat()} for r in log.redactions()),
            *({**asdict(r), "at": r.at.isoformat(), "destination": "", "by": ""} for r in log.audit()),
        ]
    if ref:
        records = [r for r in records if r["turn"].startswith(ref) or r["turn"].endswith(ref)]
    records.sort(key=lambda r: str(r["at"]))
    if as_json:
        print_json(records)
        return
    if not records:
        click.echo("nothing was done to it" if ref else "nothing was done yet")
        return
    columns = ("at", "turn", "action", "kind", "count", "destination", "by")
    shown = records[-limit:] if limit else []
    print_table(columns, [tuple(r[c] if c != "at" else r[c][:19] for c in columns) for r in shown])
    if len(records) > limit:
        note(f"and {len(records) - limit} older ones: --limit {len(records)} shows them all")

"""`plastic nights`: what was learned when, and how it was judged."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import clock, json_option, note, print_json, print_table

if TYPE_CHECKING:
    from mlx_plastic.home import Home


@click.group()
def nights() -> None:
    """List the nights, show one with its verdict, compare two.

    Example: plastic nights list
    """


@nights.command("list")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The latest so many."
)
@json_option
@pass_home
def list_(home: Home, limit: int, as_json: bool) -> None:
    """List the nights, the latest last.

    Example: plastic nights list --limit 7
    """
    from mlx_plastic.sleep.history import lines

    found = lines(home)
    if as_json:
        print_json([line.as_dict() for line in found[-limit:]])
        return
    if not found:
        click.echo("no night yet: plastic sleep")
        return
    print_table(
        ("night", "began", "ended", "pack", "turns", "learned", "s", "tokens/s", "MB"),
        [
            (
                *(
                    line.tag,
                    _when(line.started),
                    line.status,
                    line.pack + (", pinned" if line.pinned else ""),
                ),
                *(line.turns, line.learned, round(line.seconds), round(line.tokens_per_s)),
                round(line.peak_memory_mb),
            )
            for line in found[-limit:]
        ],
    )
    if len(found) > limit:
        note(f"and {len(found) - limit} earlier: --limit {len(found)} shows them all")


@nights.command()
@click.argument("tag")
@json_option
@pass_home
def show(home: Home, tag: str, as_json: bool) -> None:
    """Show one night: its stages, what was measured, and why it passed or not.

    Example: plastic nights show 2026-11-19
    """
    from mlx_plastic.sleep.history import whole
    from mlx_plastic.sleep.journal import find_night

    journal = find_night(home, tag)
    found = whole(home, journal)
    if as_json:
        print_json(found)
        return
    click.echo(f"night {tag}: {found['status']}, began {_when(found['started'])}, {found['turns']} turns")
    grown = "+".join(found["worn_before"]) or "the bare base"
    click.echo(f"base {found['base_id']}, grown from {grown if found['warm_start'] else 'the bare base'}")
    for name, stage in found["stages"].items():
        click.echo(f"  {name:<8} {stage['seconds']:8.1f} s  {_facts(stage['facts'])}")
    if pack := found["pack"]:
        told = f"{pack['tensor_bytes'] / 1e6:.2f} MB, {pack['tokens_per_s']:.0f} tokens/s"
        click.echo(f"pack {pack['status']}{', pinned' if pack['pinned'] else ''}: {told}")
    if verdict := found["evidence"].get("verdict"):
        print_table(("gate", "why"), [("ok" if r["ok"] else "FAILED", r["text"]) for r in verdict["reasons"]])
        note(f"all of it: {journal.path('verdict.json')}")


@nights.command()
@click.argument("one")
@click.argument("two")
@json_option
@pass_home
def diff(home: Home, one: str, two: str, as_json: bool) -> None:
    """Show in what two nights differ: settings, samples, figures, scores and tasks.

    Example: plastic nights diff 2026-11-19 2026-11-20
    """
    from mlx_plastic.sleep.history import difference
    from mlx_plastic.sleep.journal import find_night

    found = difference(home, find_night(home, one), find_night(home, two))
    if as_json:
        print_json(found)
        return
    parts = ("figures", "samples", "scores", "settings")
    rows = [(part, name, *values) for part in parts for name, values in found[part].items()]
    print_table(("", "what", one, two), rows)
    for name in ("tasks_lost", "tasks_won"):
        if found[name]:
            click.echo(f"{name.replace('_', ' ')}: {', '.join(found[name])}")


def _when(at: str) -> str:
    return clock(datetime.fromisoformat(at))


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v:g}" for k, v in facts.items() if isinstance(v, int | float))

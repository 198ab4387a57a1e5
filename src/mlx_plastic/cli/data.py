"""`plastic data`: sets to learn from that nobody has said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import LazyGroup, pass_home
from mlx_plastic.cli.options import base_option, open_base
from mlx_plastic.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.samples import Sample

SHOWN = 3  # chats of a dry run

TABLE = {"synth": ("mlx_plastic.cli.data", "synth", "Write a starter set of chats to sleep on.")}


@click.group(cls=LazyGroup, table=TABLE)
def data() -> None:
    """Write sets of chats to learn from.

    Example: plastic data synth
    """


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default="starter.jsonl", show_default=True,
    help="Where it is written.",
)  # fmt: skip
@click.option(
    "--from", "source", type=click.Path(path_type=Path, dir_okay=False),
    help='A text file of statements, one a line ("I live in Graz."), that questions are made of.',
)  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), help="At most so many chats.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws wordings and order.")
@click.option("--teacher", is_flag=True, help="Let the teacher named in config.toml write questions too.")
@click.option("--verbose", is_flag=True, help="A line on stderr for each request to the teacher.")
@click.option("--dry-run", is_flag=True, help="Write nothing; show a few and say how many there are.")
@click.option("--yes", is_flag=True, help="Replace a file that is there.")
@base_option
@json_option
@pass_home
def synth(
    home: Home,
    out: Path,
    source: Path | None,
    count: int | None,
    seed: int,
    teacher: bool,
    verbose: bool,
    dry_run: bool,
    yes: bool,
    base: str | None,
    as_json: bool,
) -> None:
    """Write a starter set of chats to sleep on.

    Without --from they are about this program itself, so that a new model can say how it is used. With --from
    the base writes questions about your own statements, and only answers that a statement bears out are
    kept; with --teacher a larger model that [teacher] of config.toml names is asked too. It is sent no line
    that is marked private or holds an address, a number or a secret.

    Example: plastic data synth --out starter.jsonl && plastic memory import starter.jsonl && plastic sleep
    """
    if teacher and source is None:
        raise click.UsageError("--teacher writes about your statements: name them with --from FILE")
    if out.exists() and not (yes or dry_run):
        raise click.UsageError(f"{out} is there already; replace it with --yes, or choose another --out")
    from mlx_plastic.home import write_atomic
    from mlx_plastic.sleep.synth import starter, to_chats

    found: dict[str, Any] = {}
    samples = starter(count, seed=seed) if source is None else None
    if samples is None and source is not None:
        samples, found = _written(home, base, source, seed=seed, teacher=teacher, verbose=verbose)
    samples = (samples or [])[:count]
    if not dry_run:
        write_atomic(out, to_chats(samples))
    found = {"chats": len(samples), "out": None if dry_run else str(out)} | found
    if as_json:
        print_json(found)
        return
    _told(samples, found, dry_run=dry_run)


def _written(
    home: Home, ref: str | None, source: Path, *, seed: int, teacher: bool, verbose: bool
) -> tuple[list[Sample], dict[str, Any]]:
    """The chats made of the statements in `source`, and figures about them."""
    import dataclasses

    from mlx_plastic.errors import BadConfig, BadData
    from mlx_plastic.home import settings
    from mlx_plastic.sleep.lessons import LessonConfig
    from mlx_plastic.sleep.synth import from_statements, read_statements
    from mlx_plastic.sleep.teacher import TeacherConfig, open_teacher

    notes, left_out = read_statements(source)
    asked = (
        open_teacher(settings(home, "teacher", TeacherConfig), note if verbose else None) if teacher else None
    )
    if teacher and asked is None:
        raise BadConfig("no teacher is named", hint="name one in config.toml: [teacher] kind, url, model")
    config = dataclasses.replace(settings(home, "lessons", LessonConfig), seed=seed)
    note(f"writing questions about {len(notes)} statements")
    samples = from_statements(open_base(home, ref), notes, config, teacher=asked)
    if not samples:
        raise BadData(
            f"none of {len(notes)} statements yielded a question that it answers",
            hint="write short, complete sentences, one fact each",
        )
    silent = len(notes) - len({s.turns for s in samples})
    found = {"statements": len(notes), "left_out": left_out, "without_questions": silent}
    return samples, found | ({"teacher": asked.bill.as_dict()} if asked else {})


def _told(samples: list[Sample], found: dict[str, Any], *, dry_run: bool) -> None:
    if dry_run:
        for sample in samples[:SHOWN]:
            click.echo("\n".join(f"{m.role}: {m.content}" for m in sample.messages) + "\n")
        click.echo(f"{len(samples)} chats would be written")
    else:
        click.echo(f"{len(samples)} chats in {found['out']}; next: plastic memory import {found['out']}")
    if found.get("left_out"):
        note(f"{found['left_out']} statements were left out: something in them may not be learned")
    if found.get("without_questions"):
        note(f"{found['without_questions']} statements yielded no question that they answer")
    if bill := found.get("teacher"):
        tokens = f"{bill['tokens_in']} + {bill['tokens_out']} tokens, ${bill['dollars']:.4f}"
        note(
            f"teacher: {bill['requests']} requests, {bill['failed']} failed, {bill['pairs']} pairs, {tokens}"
        )

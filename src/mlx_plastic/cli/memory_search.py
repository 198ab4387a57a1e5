"""`plastic memory add`, `search`, `reindex`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import clock, json_option, note, print_json, printable, progress, short

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.memory.index import Hit, IndexStats, Item
    from mlx_plastic.memory.recall import Recall

DAY = click.DateTime(["%Y-%m-%d"])
SHOWN = 300  # characters of a hit
LEAD = 60  # of these before the words that are asked for


@click.command()
@click.argument("text")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="no-train, no-rag or private.")
@json_option
@pass_home
def add(home: Home, text: str, tags: tuple[str, ...], as_json: bool) -> None:
    """Remember TEXT, or what comes from - (stdin), as if you had said it in a chat.

    Example: plastic memory add "My bicycle is in the shed of number 12."
    """
    from mlx_plastic.errors import BadData
    from mlx_plastic.memory import Memory

    said = sys.stdin.buffer.read().decode("utf-8", "replace") if text == "-" else text
    if not said.strip():
        raise BadData("there is nothing to remember", hint='give a text: plastic memory add "..."')
    with Memory(home) as log:
        turn = log.remember(log.new_conversation(), "user", said, tags=tags)
    if as_json:
        print_json({"turn": turn.id, "conversation": turn.conversation, "tags": sorted(turn.tags)})
    else:
        click.echo(f"remembered as {turn.id}{''.join(f' #{tag}' for tag in sorted(turn.tags))}")


@click.command()
@click.argument("question")
@click.option("--limit", type=click.IntRange(min=1), default=5, show_default=True, help="At most so many.")
@click.option("--since", type=DAY, metavar="YYYY-MM-DD", help="Only what was said from this day on.")
@click.option("--until", type=DAY, metavar="YYYY-MM-DD", help="Only what was said up to this day.")
@click.option(
    "--around", type=click.IntRange(min=0), default=0, help="Show so many turns before and after each, too."
)
@click.option("--no-model", is_flag=True, help="Search by words alone.")
@json_option
@pass_home
def search(
    home: Home,
    question: str,
    limit: int,
    since: datetime | None,
    until: datetime | None,
    around: int,
    no_model: bool,
    as_json: bool,
) -> None:
    """Find what was said about a QUESTION, by its words and by its meaning.

    Example: plastic memory search "Where did I leave the bicycle?"
    """
    from mlx_plastic.memory import Memory

    with Memory(home) as log:
        recall = log.recall(model=False if no_model else None)
        _tell_model(recall, wanted=not no_model)
        with progress("index") as tick:
            recall.catch_up(lambda what, done, total: tick(done, total, what))
        hits = recall.search(
            question,
            limit,
            since=since and _midnight(since),
            until=until and _midnight(until, days=1),
            around=around,
        )
        _tell_rebuilt(recall)
    if as_json:
        print_json([_hit(hit) for hit in hits])
        return
    if not hits:
        click.echo("nothing was found")
    for hit in hits:
        for item in hit.before:
            _print_beside(item)
        marks = " ".join(f"#{tag}" for tag in sorted(hit.tags))
        click.echo(f"{hit.turn}  {clock(hit.at)}  {hit.speaker}  {hit.score:.2f}  {marks}".rstrip())
        click.echo(f"    {_telling(hit.text, question)}")
        for item in hit.after:
            _print_beside(item)


@click.command()
@click.option("--full", is_flag=True, help="Throw the index away and make it anew from the log.")
@click.option(
    "--prune-days", type=click.IntRange(min=1), metavar="N", help="Take out what nothing asked for in N days."
)
@click.option("--no-model", is_flag=True, help="Leave out the vectors.")
@click.option("--dry-run", is_flag=True, help="Only tell how the index stands.")
@json_option
@pass_home
def reindex(
    home: Home, full: bool, prune_days: int | None, no_model: bool, dry_run: bool, as_json: bool
) -> None:
    """Bring the search index up to date, with vectors of the installed embedder, and compact it.

    The index holds nothing that the log does not: it can be thrown away at any time. What is pruned stays in
    the log.

    Example: plastic memory reindex --prune-days 365
    """
    from mlx_plastic.memory import Memory

    pruned = 0
    with Memory(home) as log:
        recall = log.recall(model=False if no_model else None)
        _tell_model(recall, wanted=not no_model)
        if not dry_run:
            if full:
                recall.rebuild()
            with progress("index") as tick:
                recall.catch_up(lambda what, done, total: tick(done, total, what))
            if prune_days:
                pruned = recall.prune(datetime.now(UTC) - timedelta(days=prune_days))
            recall.compact()
        _tell_rebuilt(recall)
        stats = recall.stats()
    if as_json:
        print_json({**asdict(stats), "pruned_now": pruned, "dry_run": dry_run})
        return
    if pruned:
        click.echo(f"took out {pruned} turns that nothing has asked for")
    for name, value in index_rows(stats):
        click.echo(f"{name:<14} {value}")


def index_rows(stats: IndexStats) -> list[tuple[str, object]]:
    """What the index holds, for a list of names and values."""
    return [
        ("in the index", f"{stats.items} turns in {stats.chunks} chunks, {stats.repeats} of them said again"),
        ("not yet in it", f"{stats.unread} turns"),
        ("pruned", f"{stats.pruned} turns"),
        (
            "vectors",
            f"{stats.embedded} of {stats.embedder}, {stats.waiting} chunks wait" if stats.embedder else "-",
        ),
        ("index on disk", f"{stats.size_bytes / 1e6:.2f} MB"),
    ]


def _midnight(day: datetime, *, days: int = 0) -> datetime:
    """The local time when a day begins, so many days later; as near as can be where no calendar goes."""
    try:
        return day.astimezone() + timedelta(days=days)
    except (ValueError, OverflowError):
        return (datetime.max if day.year > 5000 else datetime.min).replace(tzinfo=UTC)


def _tell_model(recall: Recall, *, wanted: bool) -> None:
    if wanted and not recall.model:
        from mlx_plastic.memory.recall import INSTALL

        note(f"found by words alone; to find by meaning too: {INSTALL}")


def _tell_rebuilt(recall: Recall) -> None:
    if recall.rebuilt:
        note(f"the index was made anew from the log: {recall.rebuilt}")


def _print_beside(item: Item) -> None:
    click.echo(f"  {clock(item.at)}  {item.speaker}: {short(item.text, SHOWN)}")


def _telling(text: str, question: str) -> str:
    """The part of a long text where most of the question's words stand."""
    from mlx_plastic.memory.index.terms import STOP_WORDS, terms_of, words

    line = printable(" ".join(text.split()))
    wanted = {t for word, _, _ in words(question) if word not in STOP_WORDS for t in terms_of(word)}
    met = [(start, t) for word, start, _ in words(line) for t in terms_of(word) if t in wanted]
    if len(line) <= SHOWN or not met:
        return short(line, SHOWN)

    def within(start: int) -> int:
        return len({t for at, t in met if start <= at < start + SHOWN - LEAD})

    best = max((start for start, _ in met), key=within)
    start = max(0, best - LEAD)
    return ("…" if start else "") + short(line[start:], SHOWN)


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        **asdict(hit),
        "at": hit.at and hit.at.isoformat(),
        "tags": sorted(hit.tags),
        "before": [_item(item) for item in hit.before],
        "after": [_item(item) for item in hit.after],
    }


def _item(item: Item) -> dict[str, Any]:
    return {
        "turn": item.turn,
        "at": item.at and item.at.isoformat(),
        "speaker": item.speaker,
        "text": item.text,
    }

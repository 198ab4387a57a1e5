"""`plastic eval retrieval`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.evaluate_common import FILE, keep
from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress, with_eta

if TYPE_CHECKING:
    from mlx_plastic.evals.retrieval import Opener, Said, Search
    from mlx_plastic.home import Home
    from mlx_plastic.memory.embed import Embedder


@click.command()
@click.option("--turns", type=FILE, help="What was said, one turn a line; else general talk of ours.")
@click.option("--queries", type=FILE, help="What is asked, with the turns that answer it.")
@click.option("--no-model", is_flag=True, help="Search by words alone.")
@click.option("--tag", default="", help="A name for this measurement, kept with it.")
@json_option
@pass_home
def retrieval(
    home: Home, turns: Path | None, queries: Path | None, no_model: bool, tag: str, as_json: bool
) -> None:
    """Measure how well what was said is found again, and how fast.

    A line of --turns is {"conversation", "session", "time", "turn_id", "speaker", "text"}, one of --queries
    {"conversation", "query", "evidence": [turn_id, ...], "category"}. Each question is asked in its own
    conversation.

    Example: plastic eval retrieval --no-model
    """
    from mlx_plastic.evals.ledger import append_summary
    from mlx_plastic.evals.retrieval import SEED, measure_retrieval, read_questions, read_turns

    if (turns is None) != (queries is None):
        raise click.UsageError("--turns and --queries belong together")
    said = read_turns(turns or SEED / "turns.jsonl")
    asked = read_questions(queries or SEED / "queries.jsonl")
    embedder = _embedder(no_model)
    with progress("retrieval") as tick:
        result = measure_retrieval(said, asked, _opener(embedder), on_progress=with_eta(tick))
    if result.unknown:
        note(f"{result.unknown} ids of evidence are of no turn; {result.left_out} questions left out for it")
    about = {"data": queries.name if queries else "built-in", "embedder": embedder.name if embedder else ""}
    values: dict[str, Any] = {**about, **result.as_dict()}
    when = keep(home, "retrieval", tag, values)
    append_summary(home, {"when": when, "tag": tag, "kind": "retrieval", **values})
    if as_json:
        print_json({"tag": tag, **values})
        return
    columns = ["recall@1", "recall@5", "recall@10", "recall@20", "hit@10", "mrr"]
    rows = [("all", result.scores), *result.categories.items()]
    print_table(
        ["category", "n", *columns],
        [[name, scores.n, *(scores.as_dict()[column] for column in columns)] for name, scores in rows],
    )
    click.echo(f"{result.p50_ms:.1f} ms a search, 95 % within {result.p95_ms:.1f} ms")


def _embedder(no_model: bool) -> Embedder | None:
    from mlx_plastic.memory.embed import INSTALL, find_embedder

    found = None if no_model else find_embedder()
    if not no_model and found is None:
        note(f"found by words alone; to find by meaning too: {INSTALL}")
    return found


def _opener(embedder: Embedder | None) -> Opener:
    """Searches in an index in RAM, as the memory's is on disk."""
    from mlx_plastic.memory.index import Index, Item

    def open_search(turns: Sequence[Said]) -> Search:
        index = Index(None, embedder=embedder)
        index.add(
            [
                Item(turn.turn, turn.session, place, turn.at, turn.speaker, turn.text)
                for place, turn in enumerate(turns)
            ]
        )
        index.embed()

        def search(text: str, limit: int, *, now: datetime.datetime | None) -> list[str]:
            return [hit.turn for hit in index.search(text, limit, now=now)]

        return search

    return open_search

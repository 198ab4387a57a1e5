"""`plastic eval`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlx_plastic.cli.evaluate_retrieval import retrieval
from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import base_option, open_base
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.home import Home

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def evaluate() -> None:
    """Measure loss and capabilities."""


def common_options(function: F) -> F:
    """What every measurement takes."""
    options = [
        base_option,
        click.option(
            "--pack", metavar="NAME", help='Wear this pack, or "base" for none; else the active one.'
        ),
        click.option("--max-samples", type=click.IntRange(min=1), help="At most so many, evenly spaced."),
        click.option("--tag", default="", help="A name for this measurement, kept with it."),
        click.option(
            "--csv", type=click.Path(dir_okay=False, path_type=Path), help="Append rows to this file."
        ),
        json_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function


@evaluate.command()
@click.option("--data", type=FILE, help='Chats, one {"messages": [...]} a line; else general ones of ours.')
@common_options
@pass_home
def loss(
    home: Home,
    data: Path | None,
    base: str | None,
    pack: str | None,
    max_samples: int | None,
    tag: str,
    csv: Path | None,
    as_json: bool,
) -> None:
    """Measure loss and perplexity on what the assistant says in chats.

    Example: plastic eval loss --pack base --data chats.jsonl --csv loss.csv
    """
    from mlx_plastic.evals import GENERAL, measure_loss, thinned
    from mlx_plastic.samples import read_chats

    chats, bad = read_chats(data or GENERAL)
    for line in bad:
        note(f"line {line.number} left out: {line.reason}")
    with _speaker(home, base, pack) as (speaker, about), progress("loss") as tick:
        samples, too_long = speaker.encode_chats(thinned(chats, max_samples))
        result = measure_loss(speaker, samples, on_progress=tick)
    if too_long:
        note(f"{too_long} of {len(samples) + too_long} chats are longer than the base's window: left out")
    row = {"tag": tag, **about, "data": (data or GENERAL).name, **result.as_dict()}
    _keep(home, "loss", tag, row, csv, [row])
    if as_json:
        print_json(row)
    else:
        shown = {name: value for name, value in row.items() if name not in ("tag", "fingerprint")}
        print_table(list(shown), [list(shown.values())])


@evaluate.command()
@click.option("--data", type=FILE, help='Tasks, one {"id", "domain", "prompt", "check"} a line; else ours.')
@click.option("--max-tokens", default=64, show_default=True, help="At most so many tokens an answer.")
@common_options
@pass_home
def harness(
    home: Home,
    data: Path | None,
    max_tokens: int,
    base: str | None,
    pack: str | None,
    max_samples: int | None,
    tag: str,
    csv: Path | None,
    as_json: bool,
) -> None:
    """Ask small tasks of many domains and judge the answers.

    Example: plastic eval harness --pack base --json
    """
    from mlx_plastic.evals import load_tasks, run_harness, thinned

    tasks = thinned(load_tasks(data), max_samples)
    with _speaker(home, base, pack) as (speaker, about), progress("harness") as tick:
        result = run_harness(speaker, tasks, max_tokens=max_tokens, on_progress=tick)
    about = {"tag": tag, **about, "data": data.name if data else "built-in"}
    rows = [{**about, **row} for row in result.rows()]
    _keep(home, "harness", tag, {**about, **result.as_dict()}, csv, rows)
    if as_json:
        print_json({**about, **result.as_dict(), "answers": dict(result.answers)})
    else:
        print_table(list(result.rows()[0]), [list(row.values()) for row in result.rows()])


evaluate.add_command(retrieval)


@contextmanager
def _speaker(home: Home, base: str | None, pack: str | None) -> Iterator[tuple[Base, dict[str, str]]]:
    """The base wearing what was asked for, and what to call that in a result."""
    from mlx_plastic.packs import BARE, Store
    from mlx_plastic.packs.wear.attach import attached

    store = Store(home)
    worn = store.active() if pack is None else tuple(name for name in (pack,) if name != BARE)
    packs = {name: store.read(name) for name in worn}  # first: a broken one is told before a long load
    loaded = open_base(home, base)
    with attached(loaded.model, packs, fingerprint=loaded.fingerprint):
        yield loaded, {"base": loaded.ref, "fingerprint": loaded.fingerprint, "pack": "+".join(worn) or BARE}


def _keep(
    home: Home, kind: str, tag: str, values: dict[str, Any], csv: Path | None, rows: list[dict[str, Any]]
) -> None:
    from mlx_plastic.evals import History, append_csv

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    values = {name: value for name, value in values.items() if name != "tag"}
    History(home.logs / "experiments.jsonl").append(when=now, tag=tag, kind=kind, **values)
    if csv:
        append_csv(csv, rows)
        note(f"{len(rows)} rows added to {csv}")

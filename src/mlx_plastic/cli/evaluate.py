"""`plastic eval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.evaluate_benchmarks import benchmarks
from mlx_plastic.cli.evaluate_canaries import canaries
from mlx_plastic.cli.evaluate_common import FILE, common_options, keep, speaker
from mlx_plastic.cli.evaluate_golden import golden
from mlx_plastic.cli.evaluate_recall import recall
from mlx_plastic.cli.evaluate_retrieval import retrieval
from mlx_plastic.cli.evaluate_trends import trends
from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.evals import Task
    from mlx_plastic.home import Home


@click.group()
def evaluate() -> None:
    """Measure loss and capabilities."""


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
    jsonl: Path | None,
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
    with speaker(home, base, pack) as (model, about), progress("loss") as tick:
        samples, too_long = model.encode_chats(thinned(chats, max_samples))
        result = measure_loss(model, samples, on_progress=tick)
    if too_long:
        note(f"{too_long} of {len(samples) + too_long} chats are longer than the base's window: left out")
    row = {"tag": tag, **about, "data": (data or GENERAL).name, **result.as_dict()}
    keep(home, "loss", tag, row, [row], csv=csv, jsonl=jsonl)
    if as_json:
        print_json(row)
    else:
        shown = {name: value for name, value in row.items() if name not in ("tag", "fingerprint")}
        print_table(list(shown), [list(shown.values())])


@evaluate.command()
@click.option("--data", type=FILE, help='Tasks, one {"id", "domain", "prompt", "check"} a line; else ours.')
@click.option("--only", metavar="TAG,...", help="Only tasks of these tags or domains.")
@click.option("--max-tokens", default=64, show_default=True, help="At most so many tokens an answer.")
@common_options
@pass_home
def harness(
    home: Home,
    data: Path | None,
    only: str | None,
    max_tokens: int,
    base: str | None,
    pack: str | None,
    max_samples: int | None,
    tag: str,
    csv: Path | None,
    jsonl: Path | None,
    as_json: bool,
) -> None:
    """Ask small tasks of many domains and judge the answers.

    Code in an answer is run in a child that can reach neither files nor network.

    Example: plastic eval harness --pack base --only arithmetic,refusal --json
    """
    from mlx_plastic.evals import load_tasks, run_harness, thinned

    tasks = thinned(_only(load_tasks(data), only), max_samples)
    with speaker(home, base, pack) as (model, about), progress("harness") as tick:
        result = run_harness(model, tasks, max_tokens=max_tokens, on_progress=tick)
    named = (data.name if data else "built-in") + (f" {only}" if only else "")
    about = {"tag": tag, **about, "data": named}
    rows = [{**about, **row} for row in result.rows()]
    keep(home, "harness", tag, {**about, **result.as_dict()}, rows, csv=csv, jsonl=jsonl)
    if as_json:
        print_json({**about, **result.as_dict(), "answers": dict(result.answers)})
    else:
        print_table(list(result.rows()[0]), [list(row.values()) for row in result.rows()])


def _only(tasks: Sequence[Task], only: str | None) -> Sequence[Task]:
    if only is None:
        return tasks
    wanted = {name.strip() for name in only.split(",")}
    if unknown := sorted(wanted - {name for task in tasks for name in (task.domain, *task.tags)}):
        known = ", ".join(sorted({task.domain for task in tasks}))
        raise click.UsageError(f"no task has the tag or domain {', '.join(unknown)}; there are {known}")
    return [task for task in tasks if wanted & {task.domain, *task.tags}]


for command in (golden, recall, retrieval, benchmarks, canaries, trends):
    evaluate.add_command(command)

"""`plastic eval recall`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.evaluate_common import FILE, common_options, keep, speaker
from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Listed
from mlx_plastic.cli.output import note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.home import Home

ANSWER_TOKENS = 32


@click.command()
@click.option("--data", type=FILE, help="Chats to fill the context with; else general ones of ours.")
@click.option(
    "--lengths", type=Listed(int, least=32), default="256,512,1024", show_default=True, help="In tokens."
)
@click.option(
    "--depths", type=Listed(float, least=0), default="0,0.25,0.5,0.75,1", show_default=True,
    help="Where it is told: 0 is the beginning, 1 the end.",
)  # fmt: skip
@click.option("--each", type=click.IntRange(min=1), default=4, show_default=True, help="Questions a place.")
@click.option("--seed", default=0, show_default=True)
@common_options
@pass_home
def recall(
    home: Home,
    data: Path | None,
    lengths: list[int],
    depths: list[float],
    each: int,
    seed: int,
    base: str | None,
    pack: str | None,
    max_samples: int | None,
    tag: str,
    csv: Path | None,
    jsonl: Path | None,
    as_json: bool,
) -> None:
    """Measure recall from a long context: one thing told amid other talk, asked for at its end.

    Lengths beyond the base's window are left out, and said so.

    Example: plastic eval recall --lengths 512,1024 --each 8
    """
    from mlx_plastic.evals import GENERAL, run_harness, thinned
    from mlx_plastic.evals.long_context import long_tasks, summary
    from mlx_plastic.samples import read_chats

    if max(depths) > 1:
        raise click.UsageError("a depth is between 0 and 1")
    chats, _ = read_chats(data or GENERAL)
    with speaker(home, base, pack) as (model, about), progress("recall") as tick:
        fitting = _fitting(model, lengths)
        tasks = long_tasks(fitting, depths, chats, lambda m: len(model.prompt(m)), each=each, seed=seed)
        result = run_harness(model, thinned(tasks, max_samples), max_tokens=ANSWER_TOKENS, on_progress=tick)
    rows = [
        {"tag": tag, **about, **row}
        for row in summary([t for t in tasks if t.id in result.passed], dict(result.passed))
    ]
    values: dict[str, Any] = {
        "data": (data or GENERAL).name,
        "seed": seed,
        "score": result.score,
        "rows": rows,
    }
    keep(home, "recall", tag, {**about, **values}, rows, csv=csv, jsonl=jsonl)
    if as_json:
        print_json({"tag": tag, **about, **values})
    else:
        shown = ("tokens", "depth", "n", "recall")
        print_table(shown, [[row[name] for name in shown] for row in rows])


def _fitting(model: Base, lengths: list[int]) -> list[int]:
    from mlx_plastic.errors import BadData

    room = model.window - ANSWER_TOKENS
    if over := [n for n in lengths if n > model.window]:
        note(f"the base's window is {model.window} tokens: {', '.join(map(str, over))} left out")
    fitting = [min(n, room) for n in lengths if n <= model.window]
    if not fitting:
        raise BadData(f"no length fits the window of {model.window} tokens", hint="ask for shorter ones")
    return fitting

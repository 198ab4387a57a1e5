"""`plastic survey watch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress, with_eta

if TYPE_CHECKING:
    from mlx_plastic.home import Home


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--text",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="A UTF-8 text.",
)
@click.option("--model", metavar="REF", help="Instead of the run's model_path: the one that is run.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=4096, show_default=True, help="Read at most."
)
@json_option
@pass_home
def watch(home: Home, run: Path, text: Path, model: str | None, max_tokens: int, as_json: bool) -> None:
    """Run a text through a mixture of experts and count which experts it goes to.

    Writes data/routing and two tables of RUN: the load by layer, and beside it the error of each expert.

    Example: plastic survey watch runs/OLMoE/default --text sample.txt
    """
    from mlx_plastic.base import load_base
    from mlx_plastic.errors import BadData
    from mlx_plastic.survey.folder import open_run
    from mlx_plastic.survey.watch import watch as read
    from mlx_plastic.survey.watch import write_watched

    folder = open_run(run)
    config = folder.config()
    try:
        words = text.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadData(f"{text} is no UTF-8 text", hint="give a plain text file") from error
    base = load_base(model or config.model_path, cache=home.cache)
    tokens = list(base.tokenizer.encode(words))[:max_tokens]
    if not tokens:
        raise BadData(f"{text} is empty", hint="some hundred words are enough")
    with progress("watch") as tick:
        found = read(base.model, tokens, on_progress=with_eta(tick))
    counts = write_watched(folder, found, config.output)
    layers = list(found.layers())
    if as_json:
        print_json({"run": str(run), "tokens": found.tokens, "rows": counts, "layers": layers})
        return
    shown = ["layer", "experts", "experts_per_token", "effective_experts", "unused", "largest_share"]
    if any(row["zero_experts"] for row in layers):
        shown.append("zero_experts")
    print_table([name.upper() for name in shown], [[row[name] for name in shown] for row in layers])
    note(f"{found.tokens} tokens; wrote {', '.join(counts)}")

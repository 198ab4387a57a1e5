"""`plastic packs eval`, `eval-batch`: what a pack does to the perplexity, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Listed, base_option, open_base, pack_name
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress, with_eta

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs.measure.inputs import Thinking
    from mlx_plastic.samples import LossMode

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
CSV = click.Path(dir_okay=False, path_type=Path)


@click.command("eval")
@base_option
@click.option("--pack", required=True, metavar="PACK", help="A pack's name, or its folder.")
@click.option(
    "--data-path", type=FILE, required=True, help='JSONL: "messages", "prompt" and "completion", or "text".'
)
@click.option("--csv", type=CSV, help="Append the row to this file.")
@click.option(
    "--loss-mode",
    type=click.Choice(["answer", "all"]),
    help="What counts: answers only, or every token. Answers, but for plain texts.",
)
@click.option("--max-samples", type=click.IntRange(min=1), help="At most so many, evenly spaced.")
@json_option
@pass_home
def evaluate(
    home: Home,
    base: str | None,
    pack: str,
    data_path: Path,
    csv: Path | None,
    loss_mode: LossMode | None,
    max_samples: int | None,
    as_json: bool,
) -> None:
    """Measure a pack on data: perplexity with and without it, speed, size and memory, as one row.

    The columns are pack_name, layers, rank_map, alpha, size_MB, load_ms, vram_GB, tps, ppl_base, ppl_pack,
    ppl_delta_pct and domain_metric: the share of the data's tokens that are the likeliest ones with the pack.

    Example: plastic packs eval --base nano --pack cooking --data-path test.jsonl --csv evals.csv
    """
    from mlx_plastic.evals import append_csv, thinned
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.create.data import encoded, read_data
    from mlx_plastic.packs.measure.measure import evaluate as measure

    store = Store(home)
    pack = pack_name(home, pack)
    store.open(pack)  # a broken pack, or broken data, is told before the base is loaded
    data = read_data(data_path)
    loaded = open_base(home, base)
    with progress("eval") as tick:
        mode = loss_mode or data.natural_mode
        samples = thinned(encoded(data, loaded, mode, on_progress=with_eta(tick)), max_samples)
        found = measure(loaded, lambda: store.open(pack), samples, on_progress=with_eta(tick))
    if csv:
        append_csv(csv, [found.row])
        note(f"a row added to {csv}")
    if as_json:
        print_json(found.as_dict())
    else:
        print_table(["", "VALUE"], list(found.row.items()))


@click.command("eval-batch")
@base_option
@click.option("--pack", required=True, metavar="PACK", help="A pack's name, or its folder.")
@click.option(
    "--input", "input_path", type=FILE, required=True, help="Plain text, an input a line, or JSONL."
)
@click.option(
    "--batch-size", type=Listed(int, least=1), default="8,16,32", show_default=True, help="Inputs at once."
)
@click.option(
    "--sequence-length",
    type=click.IntRange(min=2),
    default=256,
    show_default=True,
    help="Tokens of each input: longer ones are cut, shorter ones padded.",
)
@click.option(
    "--thinking",
    type=click.Choice(["strip", "keep"]),
    default="keep",
    show_default=True,
    help="strip: <think>...</think> of the inputs is left out.",
)
@click.option("--max-samples", type=click.IntRange(min=1), help="At most so many inputs, evenly spaced.")
@click.option("--csv", type=CSV, help="Append the rows to this file.")
@json_option
@pass_home
def eval_batch(
    home: Home,
    base: str | None,
    pack: str,
    input_path: Path,
    batch_size: list[int],
    sequence_length: int,
    thinking: Thinking,
    max_samples: int | None,
    csv: Path | None,
    as_json: bool,
) -> None:
    """Measure base against pack by batch size: perplexity, tokens/s, first-token ms, peak memory.

    Example: plastic packs eval-batch --base nano --pack cooking --input prompts.txt --batch-size 8,16
    """
    from mlx_plastic.evals import append_csv, thinned
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.measure.inputs import read_inputs
    from mlx_plastic.packs.measure.throughput import batch_rows

    read = Store(home).open(pack_name(home, pack))
    loaded = open_base(home, base)
    inputs, remark = read_inputs(input_path, loaded, length=sequence_length, thinking=thinking)
    if remark:
        note(remark)
    with progress("eval-batch") as tick:
        measured = batch_rows(
            *(loaded, {read.manifest.name: read}, thinned(inputs, max_samples)),
            batch_sizes=batch_size,
            length=sequence_length,
            thinking=thinking,
            on_progress=with_eta(tick),
        )
        rows = [row.as_dict() for row in measured]
    if csv:
        append_csv(csv, rows)
        note(f"{len(rows)} rows added to {csv}")
    if as_json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [list(row.values()) for row in rows])

"""`plastic eval golden`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.evaluate_common import FILE, common_options, keep, speaker
from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.home import Home


@click.command()
@click.option("--data", type=FILE, help="Golden transcripts; else those of [judge] golden.")
@click.option("--max-tokens", default=128, show_default=True, help="At most so many tokens an answer.")
@common_options
@pass_home
def golden(
    home: Home,
    data: Path | None,
    max_tokens: int,
    base: str | None,
    pack: str | None,
    max_samples: int | None,
    tag: str,
    csv: Path | None,
    jsonl: Path | None,
    as_json: bool,
) -> None:
    """Measure how near the answers come to golden transcripts: BLEU, chrF and perplexity.

    A line of --data is a chat as it should be, {"messages": [...]}. Each of its answers is asked for behind
    what was said before it. BLEU and chrF are counted by sacrebleu (pip install 'mlx-plastic[golden]').

    Example: plastic eval golden --data golden.jsonl --csv style.csv
    """
    from mlx_plastic.errors import BadData
    from mlx_plastic.evals import measure_loss, thinned
    from mlx_plastic.evals.golden import golden_turns, measure_style, require_sacrebleu
    from mlx_plastic.home import settings
    from mlx_plastic.samples import read_chats
    from mlx_plastic.sleep.judge import JudgeConfig

    require_sacrebleu()  # before a long load
    file = data or settings(home, "judge", JudgeConfig).golden_file
    if file is None:
        raise BadData("no golden transcripts", hint="name a file with --data, or golden under [judge]")
    chats, bad = read_chats(file)
    for line in bad:
        note(f"line {line.number} left out: {line.reason}")
    chosen = thinned(chats, max_samples)
    turns = golden_turns(chosen)
    with speaker(home, base, pack) as (model, about), progress("golden") as tick:
        style = measure_style(model, turns, max_tokens=max_tokens, on_progress=tick)
        loss = measure_loss(model, model.encode_chats(chosen)[0])
    row = {"tag": tag, **about, "data": file.name, **style.as_dict(), **loss.as_dict()}
    keep(home, "golden", tag, row, [row], csv=csv, jsonl=jsonl)
    if as_json:
        print_json(row)
        return
    shown = ("pack", "answers", "bleu", "bleu_margin", "chrf", "chrf_margin", "exact", "perplexity")
    print_table(shown, [[row[name] for name in shown]])

"""`plastic eval benchmarks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.evaluate_common import common_options, keep, speaker
from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from mlx_plastic.home import Home


@click.command()
@click.argument("tasks", nargs=-1, required=True)
@click.option("--shots", type=click.IntRange(min=0), help="Examples in the prompt; else as the task has it.")
@click.option("--chat", is_flag=True, help="Ask under the base's chat template.")
@click.option(
    "--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="More task files (YAML)."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@common_options
@pass_home
def benchmarks(
    home: Home,
    tasks: tuple[str, ...],
    shots: int | None,
    chat: bool,
    folder: Path | None,
    batch_size: int,
    base: str | None,
    pack: str | None,
    max_samples: int | None,
    tag: str,
    csv: Path | None,
    jsonl: Path | None,
    as_json: bool,
) -> None:
    """Run benchmarks of lm-evaluation-harness on the base and what it wears.

    Needs pip install 'mlx-plastic[lm-eval]'. Data sets come from the network the first time.

    Example: plastic eval benchmarks arc_easy hellaswag --max-samples 100 --pack base
    """
    from mlx_plastic.evals.lm_tasks import require_lm_eval, run_benchmarks

    require_lm_eval()  # before a long load
    with speaker(home, base, pack) as (model, about):
        note(f"{', '.join(tasks)}: the harness says how far it is")
        found = run_benchmarks(
            model.model,
            model.tokenizer,
            tasks,
            window=model.window,
            limit=max_samples,
            shots=shots,
            chat=chat,
            folder=folder,
            batch_size=batch_size,
        )
    rows = [{"tag": tag, **about, **metric.as_dict()} for metric in found]
    keep(
        home,
        "benchmarks",
        tag,
        {**about, "results": [m.as_dict() for m in found]},
        rows,
        csv=csv,
        jsonl=jsonl,
    )
    if as_json:
        print_json({"tag": tag, **about, "results": [m.as_dict() for m in found]})
    else:
        shown = ("task", "metric", "value", "spread", "n")
        print_table(shown, [[row[name] for name in shown] for row in rows])

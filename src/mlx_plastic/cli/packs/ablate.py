"""`plastic packs ablate`: which layers, ranks, dropouts, steps and rates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Listed, base_option, open_base
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress, with_eta

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs.measure.ablate import Cell, Grid
    from mlx_plastic.packs.ranks.ranks import Profile
    from mlx_plastic.samples import LossMode

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT = click.Path(dir_okay=False, path_type=Path)
SHOWN = ("layer_set", "ranks", "dropout", "steps", "lr", "seed", "size_MB", "valid_loss", "ppl_delta_pct")


@click.command()
@base_option
@click.option(
    "--data", type=FILE, required=True, help='JSONL: "messages", "prompt" and "completion", or "text".'
)
@click.option("--valid", type=FILE, help="Held-out samples to compare by; else a share of the data.")
@click.option(
    "--layers",
    default="qv,qkv,qkv+o,all",
    show_default=True,
    help="Sets: qv, qkv, qkv+o, mlp, all, or any roles joined by +.",
)
@click.option("--rank", type=Listed(int, least=1), default="8", show_default=True, help="Ranks.")
@click.option("--rank-map", type=FILE, multiple=True, help="A JSON rank map, as one more rank; may repeat.")
@click.option("--lora-dropout", type=Listed(float, least=0), default="0", show_default=True, help="Dropouts.")
@click.option("--steps", type=Listed(int, least=1), default="100", show_default=True, help="Steps.")
@click.option(
    "--lr",
    type=Listed(float, least=0, above=True),
    help="Peak learning rates: one for all, or several to take the best of.  [1e-4]",
)
@click.option("--seed", type=Listed(int, least=0), default="0", show_default=True, help="Seeds.")
@click.option("--batch-tokens", type=click.IntRange(min=1), help="In a step, padding included.  [512]")
@click.option("--loss-mode", type=click.Choice(["answer", "all"]), help="As in `packs create`.")
@click.option(
    "--profile", type=click.Choice(["lite", "heavy"]), default="lite", show_default=True, help="As in create."
)
@click.option(
    "--csv", type=OUT, required=True, help="A row for each combination; one that is there is skipped."
)
@click.option("--plot", type=OUT, help="Held-out loss against size, as SVG; else beside the CSV.")
@click.option("--dry-run", is_flag=True, help="Show the grid and what of it is done; train nothing.")
@json_option
@pass_home
def ablate(
    home: Home,
    /,
    base: str | None,
    data: Path,
    valid: Path | None,
    csv: Path,
    plot: Path | None,
    loss_mode: LossMode | None,
    profile: Profile,
    batch_tokens: int | None,
    dry_run: bool,
    as_json: bool,
    **axes: Any,
) -> None:
    """Train packs over a grid of settings on the same data and compare them: one CSV, one plot.

    Every row is written as it comes, so a run that was broken off goes on with the same command, and a larger
    grid adds to the rows of a smaller one. The packs themselves are not kept.

    Example: plastic packs ablate --base nano --data chats.jsonl --layers qv,all --rank 2,8 --csv grid.csv
    """
    from mlx_plastic.home import settings
    from mlx_plastic.packs.create.recipe import Recipe
    from mlx_plastic.packs.measure.ablate import ablate as measure
    from mlx_plastic.packs.measure.ablate import cells, rows_of
    from mlx_plastic.packs.train.config import TrainConfig

    config = settings(home, "train", TrainConfig)
    if batch_tokens:
        config = dataclasses.replace(config, batch_tokens=batch_tokens)
    recipe = Recipe("ablation", data, config, loss_mode=loss_mode, valid=valid, profile=profile)
    grid = _grid(axes, config.learning_rate)
    rows_of(csv)  # a file of another kind is told before the base is loaded
    loaded = open_base(home, base)
    with progress("ablate") as tick:
        reading = with_eta(tick)
        found = cells(loaded, recipe, grid, tick=lambda _, done, of, what: reading(done, of, what))
    known = {row["key"] for row in rows_of(csv)}
    todo = [cell for cell in found if cell.key not in known]
    note(f"{len(found)} combinations, {len(found) - len(todo)} of them measured before")
    if not dry_run:
        drawing = plot or csv.with_suffix(".svg")
        try:
            with progress("ablate") as tick:
                measure(home, loaded, todo, file=csv, plot=drawing, on_progress=with_eta(tick, "in all"))
        except KeyboardInterrupt:
            note(f"\nbroken off: what was measured is in {csv}; go on with the same command")
            raise
        note(f"rows in {csv}, plot in {drawing}")
    _show(found, rows_of(csv), dry_run=dry_run, as_json=as_json)


def _grid(axes: Mapping[str, Any], rate: float) -> Grid:
    from mlx_plastic.packs.measure.ablate import Grid
    from mlx_plastic.packs.ranks.ranks import read_rank_map

    return Grid(
        layer_sets=[name.strip() for name in axes["layers"].split(",") if name.strip()],
        ranks=axes["rank"],
        rank_maps={file.stem: read_rank_map(file) for file in axes["rank_map"]},
        dropouts=axes["lora_dropout"],
        steps=axes["steps"],
        rates=axes["lr"] or [rate],
        seeds=axes["seed"],
    )


def _show(found: Sequence[Cell], rows: Sequence[Mapping[str, str]], *, dry_run: bool, as_json: bool) -> None:
    """The combinations asked for, the best first; those that are not measured yet without results."""
    measured = {row["key"]: row for row in rows}
    table = [_row(cell, measured.get(cell.key)) for cell in found]
    table.sort(key=lambda row: row["valid_loss"] if row["valid_loss"] is not None else math.inf)
    if as_json:
        print_json({"dry_run": dry_run, "rows": table})
    else:
        print_table(SHOWN, [[row[name] for name in SHOWN] for row in table])


def _row(cell: Cell, measured: Mapping[str, str] | None) -> dict[str, Any]:
    plan = cell.plan
    planned = {"modules": len(plan.ranks), "size_MB": round(plan.pack_bytes / 1e6, 4), "key": cell.key}
    numbers = (
        "size_MB",
        "valid_loss",
        "valid_spread",
        "ppl_base",
        "ppl_pack",
        "ppl_delta_pct",
        "domain_metric",
    )
    results = {name: _number(measured, name) for name in numbers} if measured else {}
    fault = {"fault": measured["fault"]} if measured and measured["fault"] else {}
    blank = dict.fromkeys(numbers)
    return {
        **cell.settings,
        **blank,
        **planned,
        **{k: v for k, v in results.items() if v is not None},
        **fault,
    }


def _number(row: Mapping[str, str], name: str) -> float | None:
    return float(row[name]) if row[name] else None

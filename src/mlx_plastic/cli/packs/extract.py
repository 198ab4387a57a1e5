"""`plastic packs from-delta`: packs from two checkpoints, a finetuned or a quantized one and its base."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Number, base_option, base_ref
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress
from mlx_plastic.cli.packs.derive import STORAGES, derived, show_worst, to_bytes, told_size

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs.extract.extract import Extracted
    from mlx_plastic.packs.extract.repair import Repaired

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("from-delta")
@base_option
@click.option("--tuned", metavar="REF", help="The finetuned checkpoint: a folder or a hub id.")
@click.option("--quantized", metavar="REF", help="The base quantized: the pack then repairs this one.")
@click.option("--data", type=FILE, metavar="F.jsonl", help="Chats or texts to calibrate a repair with.")
@click.option("--name", required=True, help="What to call the new pack.")
@click.option("--rank", type=click.IntRange(1), help="Of every module, at most.")
@click.option("--budget-mb", type=Number(0, min_open=True), help="Of the pack; ranks then differ.")
@click.option("--storage", type=STORAGES, default="float16", show_default=True, help="Of the factors.")
@click.option(
    "--svd", type=click.Choice(["gram", "exact", "randomized"]), help="Of --tuned; gram unless given."
)
@click.option("--partial", is_flag=True, help="Go on although norms, biases or embeddings were tuned too.")
@click.option("--dry-run", is_flag=True, help="Compute and tell everything, but store no pack.")
@json_option
@pass_home
def from_delta(
    home: Home,
    /,
    base: str | None,
    tuned: str | None,
    quantized: str | None,
    data: Path | None,
    name: str,
    rank: int | None,
    budget_mb: float | None,
    storage: Any,
    svd: Any,
    partial: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a pack of what finetuning changed, or one that repairs a quantized checkpoint.

    Example: plastic packs from-delta --base nano --tuned ./nano-tuned --rank 8 --name tuned
    """
    from mlx_plastic.base.weights import open_weights
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.extract.extract import Extraction, extract
    from mlx_plastic.packs.extract.repair import Repairing, repair

    if (tuned is None) == (quantized is None):
        raise click.UsageError("give --tuned, or --quantized with --data")
    if quantized is not None and (data is None or svd or partial):
        raise click.UsageError("--quantized needs --data, and --svd and --partial belong to --tuned")
    store = Store(home)
    store.require_free(name)
    ref = base_ref(home, base)
    size = {"rank": rank, "budget_bytes": to_bytes(budget_mb), "storage": storage}
    made: Extracted | Repaired
    if quantized is not None and data is not None:
        with progress("repairing") as tick:
            made = repair(ref, quantized, data, name, Repairing(**size), cache=home.cache, on_progress=tick)
    else:
        old, new = (open_weights(r, cache=home.cache) for r in (ref, str(tuned)))
        how = Extraction(**size, svd=svd or "gram", partial=partial)
        with progress("comparing") as tick:
            made = extract(old, new, name, how, on_progress=tick)
    if not dry_run:
        store.add(made.factors, made.manifest)
    show(made, dry_run=dry_run, as_json=as_json)


def show(made: Extracted | Repaired, *, dry_run: bool, as_json: bool) -> None:
    from mlx_plastic.packs.extract.extract import Extracted, told

    if as_json:
        about = {"errors": made.errors, "notes": made.notes, "dry_run": dry_run}
        if isinstance(made, Extracted):
            left = [dataclasses.asdict(item) for item in made.left]
            print_json({**derived(made.manifest), "error": made.error, "left": left, **about})
        else:
            upgrades = [dataclasses.asdict(up) for up in made.worth.upgrades]
            print_json({**derived(made.manifest), **made.worth.as_dict(), "upgrades": upgrades, **about})
        return
    show_worst(made.manifest, made.errors)
    for text in made.notes:
        note(f"note: {text}")
    if isinstance(made, Extracted):
        if made.left:
            note(f"not carried: {told(made.left)}")
        told_size(made.manifest, dry_run=dry_run, error=made.error)
        return
    show_worth(made)
    told_size(made.manifest, dry_run=dry_run)
    click.echo(made.worth.verdict)


def show_worth(made: Repaired) -> None:
    worth = made.worth
    rows = [
        ("the full base", None, None, worth.full.perplexity),
        ("quantized", worth.quantized.kl_nats, worth.quantized.spread, worth.quantized.perplexity),
        ("with the pack", worth.repaired.kl_nats, worth.repaired.spread, worth.repaired.perplexity),
    ]
    if worth.more_bits is not None:
        more = worth.more_bits
        rows.append(("more bits instead", more.kl_nats, more.spread, more.perplexity))
    print_table(["HELD OUT", "KL", "SPREAD", "PERPLEXITY"], rows)

"""`plastic packs compose`, `ledger`: packs made of packs, and what they consist of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Number
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs.algebra.compose import Composed, Method
    from mlx_plastic.packs.algebra.ledger import Comparison, Ledger
    from mlx_plastic.packs.format.pack import Manifest

STORAGES = click.Choice(["float16", "int8", "int4"])


def parse_weights(_: click.Context, __: click.Parameter, text: str | None) -> list[float] | None:
    """Numbers between commas."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{text!r} are no numbers between commas, as in 1,0.5") from error


def to_bytes(megabytes: float | None) -> int | None:
    return None if megabytes is None else int(megabytes * 1e6)


@click.command()
@click.argument("packs", nargs=-1, required=True, metavar="PACK...")
@click.option("--name", required=True, help="What to call the new pack.")
@click.option(
    "--weights", callback=parse_weights, metavar="W,W,...", help="A factor per pack; 1 unless given."
)
@click.option(
    "--method",
    type=click.Choice(["concat", "svd", "ties", "dare"]),
    help="concat: exact; svd: cut to --rank or --budget-mb; ties, dare: merge single weights, then cut.",
)
@click.option("--rank", type=click.IntRange(1), help="Cut every module to this rank.")
@click.option("--budget-mb", type=Number(0, min_open=True), help="Cut to this size; ranks differ.")
@click.option("--storage", type=STORAGES, default="float16", show_default=True, help="Of the factors.")
@click.option("--compact", is_flag=True, help="Round uneven weights (error 2e-4) rather than add columns.")
@click.option("--density", type=Number(0, 1, min_open=True), help="Share kept by ties or dare.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draw of dare.")
@click.option("--force", is_flag=True, help="Take quarantined packs in as well.")
@click.option("--dry-run", is_flag=True, help="Compute and tell everything, but store no pack.")
@json_option
@pass_home
def compose(
    home: Home,
    /,
    packs: tuple[str, ...],
    name: str,
    weights: list[float] | None,
    method: Method | None,
    rank: int | None,
    budget_mb: float | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Make one pack of several: exact side by side, or cut to a rank or size with the error told.

    Example: plastic packs compose cooking travel --weights 1,0.5 --name both
    """
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.algebra.compose import Composing, open_parents
    from mlx_plastic.packs.algebra.compose import compose as make

    store = Store(home)
    store.require_free(name)
    settings = Composing.chosen(method, rank=rank, budget_bytes=to_bytes(budget_mb), **how)
    parents = open_parents(store, packs, weights, force=force)
    with progress("composing") as tick:
        made = make(parents, name, settings, on_progress=tick)
    if not dry_run:
        store.add(made.factors, made.manifest)
    show_composed(made, dry_run=dry_run, as_json=as_json)


def show_composed(made: Composed, *, dry_run: bool, as_json: bool) -> None:
    m = made.manifest
    if as_json:
        overlaps = [{"packs": c.names, **dataclasses.asdict(c.total)} for c in made.overlaps]
        print_json({**derived(m), "error": made.error, "errors": made.errors, "overlaps": overlaps,
                    "dry_run": dry_run})  # fmt: skip
        return
    if made.overlaps:
        print_table(
            ["PACKS", "COSINE", "COLUMNS", "CHANCE", "ROWS", "CHANCE"],
            [
                (
                    " + ".join(c.names),
                    t.cosine,
                    t.column_overlap,
                    t.column_chance,
                    t.row_overlap,
                    t.row_chance,
                )
                for c in made.overlaps
                for t in [c.total]
            ],
        )
    show_worst(m, made.errors)
    told_size(m, dry_run=dry_run, error=made.error)


def derived(m: Manifest) -> dict[str, Any]:
    """What the commands of this file tell of a new pack."""
    return {
        "name": m.name,
        "base": m.base_id,
        "parents": list(m.parents),
        "turns": len(m.lineage),
        "rank_map": m.rank_map,
        "storage": m.storage,
        "bytes": m.sizes.tensor_bytes,
    }


def show_worst(m: Manifest, errors: dict[str, float]) -> None:
    worst = sorted(errors, key=lambda path: -errors[path])[:5]
    print_table(
        ["MODULE", "RANK", "ERROR"], [(path, m.rank_map.get(path, 0), errors[path]) for path in worst]
    )
    if len(errors) > len(worst):
        note(f"the {len(worst)} modules with the largest error of {len(errors)}; all of them: --json")


def told_size(m: Manifest, *, dry_run: bool, error: float | None = None) -> None:
    from mlx_plastic.errors import BadPack
    from mlx_plastic.packs import check_lite

    ranks = sorted(set(m.rank_map.values()))
    rank = f"{ranks[0]}-{ranks[-1]}" if len(ranks) > 1 else str(ranks[0])
    did = "would be" if dry_run else "is"
    click.echo(
        f"pack {m.name} {did} made: {len(m.rank_map)} modules, rank {rank}, {m.storage}, "
        f"{m.sizes.tensor_bytes / 1e6:.2f} MB" + ("" if error is None else f", relative error {error:.2g}")
    )
    try:
        check_lite(m)
    except BadPack as fault:
        note(f"note: beyond the profile lite ({fault.message.splitlines()[-1].strip(' -')})")


@click.command()
@click.argument("pack")
@click.option("--compare", "other", metavar="PACK", help="How another pack lies to it.")
@click.option("--csv", type=click.Path(dir_okay=False, path_type=Path), help="Write the lines there, too.")
@json_option
@pass_home
def ledger(home: Home, pack: str, other: str | None, csv: Path | None, as_json: bool) -> None:
    """Show what a pack's ranks are spent on, and how two packs overlap.

    Example: plastic packs ledger cooking --compare travel
    """
    from mlx_plastic.home import write_atomic
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.algebra.ledger import as_csv, compare
    from mlx_plastic.packs.algebra.ledger import ledger as account

    store = Store(home)
    mine = store.open(pack)
    found = account(mine) if other is None else compare(mine, store.open(other))
    if csv:
        write_atomic(csv, as_csv([*found.lines, found.total]).encode())
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        show_lines(found)


def show_lines(found: Ledger | Comparison) -> None:
    names = [f.name for f in dataclasses.fields(found.total)]
    headers = [name.upper().replace("_", " ") for name in names]
    print_table(headers, [[getattr(line, name) for name in names] for line in (*found.lines, found.total)])

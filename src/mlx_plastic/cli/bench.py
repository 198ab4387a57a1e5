"""`plastic bench`: what things take, measured here."""

from __future__ import annotations

import click

from mlx_plastic.cli.main import LazyGroup
from mlx_plastic.cli.output import json_option, print_json, print_table, progress

TABLE = {
    "memory": (__name__, "memory", "What a matrix takes in each form, and what making its factors takes."),
}


@click.group(cls=LazyGroup, table=TABLE)
def bench() -> None:
    """Measure what things take on this machine.

    Example: plastic bench memory --m 4096 --n 1024
    """


@click.command()
@click.option("--m", type=click.IntRange(1, 1 << 20), default=1024, show_default=True, help="Rows.")
@click.option("--n", type=click.IntRange(1, 1 << 20), default=1024, show_default=True, help="Columns.")
@click.option("--rank", type=click.IntRange(1), help="Of the factors.  [an eighth of the shorter side]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@json_option
def memory(m: int, n: int, rank: int | None, seed: int, as_json: bool) -> None:
    """What a matrix takes in each form, and what making its factors takes.

    The matrix is random with a falling spectrum; one of more than 2^26 numbers is not made, only counted.

    Example: plastic bench memory --m 4096 --n 1024 --rank 64
    """
    import dataclasses

    from mlx_plastic.compress.memory import table

    rank = rank or max(1, min(m, n) // 8)
    if rank > min(m, n):
        raise click.UsageError(f"a matrix of {m} x {n} has no rank {rank}")
    with progress("measuring") as tick:
        found = table(m, n, rank, seed=seed, tick=lambda what: tick(0, 1, what))
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    columns = ["FORM", "BYTES", "OF_FLOAT16", "ERROR"]
    print_table(columns, [(f.form, f.nbytes, round(f.share, 4), f.error) for f in found.forms])
    click.echo(f"factors take less than the matrix below rank {found.break_even_rank}")
    if found.routes:
        routes = [(r.svd, r.peak_bytes, round(r.seconds, 4)) for r in found.routes]
        print_table(["SVD", "PEAK_BYTES", "SECONDS"], routes)

"""`plastic rank`: how many directions matrices have, and their factors as a file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import LazyGroup, pass_home
from mlx_plastic.cli.options import Number, base_option, base_ref
from mlx_plastic.cli.output import json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.base.weights import Weights
    from mlx_plastic.home import Home

TABLE = {
    "probe": (__name__, "probe", "Ranks of each matrix, and Pop's identity as a diagnostic of them."),
    "factor": (__name__, "factor", "Write the low-rank factors of one matrix to a SafeTensors file."),
}


@click.group(cls=LazyGroup, table=TABLE)
def rank() -> None:
    """See how many directions matrices have; write their factors.

    Example: plastic rank probe --base nano --layers attn.q_proj
    """


class PolynomialType(click.ParamType[tuple[Fraction, ...]]):
    """Coefficients, the highest power first, with commas between them: 1,-1/2,0 is x^2 - x/2."""

    name = "C,C,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            found = tuple(Fraction(part) for part in str(value).split(","))
        except (ValueError, ZeroDivisionError):
            found = ()
        if not any(found):
            self.fail(f"{value!r} is no polynomial: give coefficients as in 1,-1/2,0", param, ctx)
        return found


@click.command()
@base_option
@click.option("--layers", default="", metavar="NAMES", help="Roles or module paths, with commas; else all.")
@click.option(
    "--tolerance",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Directions under this share of the strongest count as none.",
)
@click.option("--f", type=PolynomialType(), help="A polynomial, instead of x^2 - x/2: 1,-1/2,0.")
@click.option("--g", type=PolynomialType(), help="The other, instead of x^2 + x/2: 1,1/2,0.")
@json_option
@pass_home
def probe(
    home: Home, /, base: str | None, layers: str, tolerance: float, f: Any, g: Any, as_json: bool
) -> None:
    """Ranks of each matrix, and Pop's identity as a diagnostic of them.

    rank f(M) + rank g(M) = rank gcd(M) + rank lcm(M) holds for exact ranks (arXiv:2010.00634). At a tolerance
    a defect says that the spectrum has no gap there, so that its "rank" is a matter of choice; what the check
    does not say is printed with it.

    Example: plastic rank probe --base nano --layers attn.q_proj,mlp.up_proj
    """
    from mlx_plastic.compress.probe import probe as look
    from mlx_plastic.lowrank.pop import CLAIM, GUIDE

    if (f is None) != (g is None):
        raise click.UsageError("give both --f and --g, or neither")
    roles = [name.strip() for name in layers.split(",") if name.strip()]
    with progress("probing") as tick:
        found = look(
            opened(home, base), roles=roles, tolerance=tolerance, pair=(f, g) if f else GUIDE, tick=tick
        )
    if as_json:
        print_json({"claim": CLAIM, "tolerance": tolerance, "matrices": [row.as_dict() for row in found]})
        return
    columns = "MODULE ROWS COLS STABLE ENERGY EFFECTIVE THEOREM F G GCD LCM DEFECT".split()
    print_table(
        columns,
        [
            (
                *(r.module, r.rows, r.cols, round(r.stable, 1), r.energy, round(r.effective, 1), r.theorem),
                *(r.rank_f, r.rank_g, r.rank_gcd, r.rank_lcm, r.defect),
            )
            for r in found
        ],
    )
    click.echo(CLAIM)


@click.command()
@base_option
@click.option("--module", required=True, metavar="PATH", help="Such as model.layers.0.mlp.up_proj.")
@click.option("--rank", "directions", type=click.IntRange(1), required=True, help="Of the factors.")
@click.option("--svd", type=click.Choice(["gram", "exact", "randomized"]), default="gram", show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the randomized SVD.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The new file.")
@click.option("--dry-run", is_flag=True, help="Tell the error and the size; write nothing.")
@json_option
@pass_home
def factor(
    home: Home,
    /,
    base: str | None,
    module: str,
    directions: int,
    svd: Any,
    dtype: str,
    seed: int,
    out: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the low-rank factors of one matrix to a SafeTensors file: u, s and vt, and what they lose.

    Example: plastic rank factor --module model.layers.0.mlp.up_proj --rank 32 --out up.safetensors
    """
    from mlx_plastic.compress.probe import factored
    from mlx_plastic.home import write_atomic

    made = factored(opened(home, base), module, directions, method=svd, dtype=dtype, seed=seed)
    if not dry_run:
        if out.exists():
            raise click.UsageError(f"{out} exists: name a new file")
        write_atomic(out, made.data)
    value = {**made.as_dict(), "out": None if dry_run else str(out)}
    if as_json:
        print_json(value)
        return
    print_table(["FACTORS", module], [(key, v) for key, v in value.items() if key != "module"])


def opened(home: Home, ref: str | None) -> Weights:
    from mlx_plastic.base.weights import open_weights

    return open_weights(base_ref(home, ref), cache=home.cache)

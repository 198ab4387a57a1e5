"""`plastic packs convert`, `fuse`: packs as others know them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import base_option, base_ref, open_base
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs.convert import Conversion, Kind
    from mlx_plastic.packs.convert.fuse import Dtype, Fused
    from mlx_plastic.packs.wear.attach import Proof


@click.command()
@click.argument("source", metavar="PACK|FOLDER")
@click.option("--to", "target", type=click.Choice(["peft", "mlx-lm", "gguf"]), help="Write PACK as this.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder, or for gguf the file, to write.")
@click.option("--from", "origin", type=click.Choice(["peft", "mlx-lm"]), help="Read FOLDER as this.")
@click.option("--name", help="What to call the pack that is read.")
@base_option
@click.option("--dry-run", is_flag=True, help="Do and measure everything, keep nothing.")
@json_option
@pass_home
def convert(
    home: Home,
    source: str,
    target: Kind | None,
    out: Path | None,
    origin: Literal["peft", "mlx-lm"] | None,
    name: str | None,
    base: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Exchange packs with PEFT, mlx-lm and llama.cpp, with proof that the answers stay the same.

    --to writes PACK, a name or a folder, to --out; with --base its effect there is measured. --from reads
    FOLDER and puts it into the store as --name, a candidate; --base is what it was trained on.

    Example: plastic packs convert cooking --to peft --out cooking-peft --base nano
    """
    if target and out and not origin and not name:
        done = _export(home, source, target, out, base, dry_run)
    elif origin and name and not target and not out:
        done = _import(home, source, origin, name, base, dry_run)
    else:
        raise click.UsageError("give either --to and --out, or --from and --name")
    _show(done, name=name, dry_run=dry_run, as_json=as_json)


def _export(home: Home, ref: str, target: Kind, out: Path, base: str | None, dry_run: bool) -> Conversion:
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.convert import export_pack

    pack = Store(home).open(ref)
    opened = open_base(home, base) if base or target == "gguf" else None
    return export_pack(pack, target, out, base=opened, dry_run=dry_run)


def _import(
    home: Home, folder: str, origin: Literal["peft", "mlx-lm"], name: str, base: str | None, dry_run: bool
) -> Conversion:
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.convert import import_adapter

    if not base:
        raise click.UsageError("--from needs --base: the adapter does not tell for sure what it learned on")
    made = import_adapter(Path(folder).expanduser(), origin, name=name, base=open_base(home, base))
    if not dry_run:
        Store(home).add(made.factors, made.manifest)
    return made.conversion


def _show(done: Conversion, *, name: str | None, dry_run: bool, as_json: bool) -> None:
    for text in done.notes:
        note(f"note: {text}")
    if as_json:
        print_json({**dataclasses.asdict(done), "name": name, "dry_run": dry_run})
        return
    head = f"pack {name}, a candidate" if name else f"written as {done.kind}"
    proof = done.proof
    rows: list[tuple[str, Any]] = [
        ("modules", done.modules),
        ("rank", f"{done.ranks[0]}-{done.ranks[1]}"),
        ("tensors", f"{done.dtype}, {done.size_bytes / 1e6:.2f} MB"),
        (
            "difference",
            "none: bit for bit" if done.exact else f"{done.error:.2g} of the worst module's update",
        ),
        ("mean KL", f"{proof.mean_kl_nats:.4g} nats/token" if proof else "not measured: no --base given"),
        ("largest logit change", f"{proof.max_logit_change:.4g}" if proof else "not measured"),
    ]
    print_table(["WOULD BE" if dry_run else "DONE", f"{head}: {done.path}"], rows)


@click.command()
@click.argument("ref", metavar="PACK")
@base_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder to write.")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Of the weights; else as they are."
)
@click.option("--quantize", "bits", type=int, metavar="BITS", help="Quantize the result; 4 or less: --force.")
@click.option("--group-size", default=64, show_default=True, help="Of --quantize.")
@click.option("--force", is_flag=True, help="Quantize although that destroys what the pack learned.")
@click.option("--dry-run", is_flag=True, help="Check and measure the pack, write nothing.")
@json_option
@pass_home
def fuse(
    home: Home,
    ref: str,
    base: str | None,
    out: Path,
    dtype: Dtype | None,
    bits: int | None,
    group_size: int,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fuse a pack into a dequantized copy of its base, and measure what that changed.

    Example: plastic packs fuse cooking --base nano --out nano-cooking
    """
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.convert.fuse import fuse as fuse_pack

    with progress("writing") as tick:
        done = fuse_pack(
            Store(home).open(ref),
            base_ref(home, base),
            out,
            cache=home.cache,
            dtype=dtype,
            bits=bits,
            group_size=group_size,
            force=force,
            dry_run=dry_run,
            on_progress=tick,
        )
    if as_json:
        print_json({**dataclasses.asdict(done), "dry_run": dry_run})
    else:
        _show_fused(done, dry_run=dry_run)


def _show_fused(done: Fused, *, dry_run: bool) -> None:
    def kl(proof: Proof | None) -> str:
        return f"{proof.mean_kl_nats:.4g} nats/token" if proof else "not measured in a dry run"

    rows: list[tuple[str, Any]] = [
        ("modules changed", f"{done.modules}, in {done.dtype}"),
        ("weights", f"{done.size_bytes / 1e6:.1f} MB" + (f" at {done.bits} bits" if done.bits else "")),
        ("KL base to base + pack", kl(done.pack)),
        ("KL base to fused", kl(done.fused)),
        ("KL base + pack to fused", kl(done.lost)),
    ]
    print_table(["WOULD BE" if dry_run else "DONE", done.path], rows)

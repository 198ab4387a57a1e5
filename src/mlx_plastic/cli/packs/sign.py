"""`plastic packs keygen`, `sign`, `verify`: who vouches for a pack, and whether it is what it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import base_option, base_ref
from mlx_plastic.cli.output import json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs.format.audit import Demand, Finding


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def keygen(file: Path, as_json: bool) -> None:
    """Make a key to sign packs with: the private one in FILE, the public one in FILE.pub.

    FILE is for its owner alone (0600) and never overwritten. Who gets FILE.pub can check your packs.

    Example: plastic packs keygen ~/.plastic-key
    """
    from mlx_plastic.packs.format.sign import make_key, public_file

    file = file.expanduser()
    public = make_key(file)
    if as_json:
        print_json({"private": str(file), "public": str(public_file(file)), "public_key": public})
    else:
        click.echo(f"private: {file}\npublic: {public_file(file)}\npublic key: {public}")


@click.command()
@click.argument("ref", metavar="PACK")
@click.option("--key", required=True, type=click.Path(path_type=Path), help="Your private key.")
@click.option("--dry-run", is_flag=True, help="Verify the pack, try the key and write nothing.")
@json_option
@pass_home
def sign(home: Home, ref: str, key: Path, dry_run: bool, as_json: bool) -> None:
    """Vouch for a pack with your key: the signature lies beside its tensors, in signature.json.

    It covers every number and all that the manifest says, save the eval results, which may be added later.

    Example: plastic packs sign cooking --key ~/.plastic-key
    """
    from mlx_plastic.packs import Store

    signature = Store(home).sign(ref, key.expanduser(), dry_run=dry_run)
    if as_json:
        print_json({**asdict(signature), "dry_run": dry_run})
    else:
        done = "would sign" if dry_run else "signed"
        click.echo(f"{done}: {signature.name}\npublic key: {signature.public_key}")


@click.command()
@click.argument("refs", nargs=-1, metavar="[PACK]...")
@base_option
@click.option("--trust", "keys", multiple=True, metavar="FILE", help="Demand a signature by this public key.")
@click.option("--require-signature", is_flag=True, help="Demand a signature, whoever made it.")
@json_option
@pass_home
def verify(
    home: Home,
    refs: tuple[str, ...],
    base: str | None,
    keys: tuple[str, ...],
    require_signature: bool,
    as_json: bool,
) -> None:
    """Read packs to their last byte: files, hashes, numbers, signatures, and with --base the base's too.

    Without PACK every pack of the store is read. Exits with 1 if any is not sound.

    Example: plastic packs verify
    """
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.format.audit import audit

    store, demand = Store(home), demanded(keys, require_signature)
    wanted = refs or tuple(dict.fromkeys([*store.names(), *store.active()]))
    with progress("verifying") as tick:
        fingerprint = _fingerprint(home, base)
        found = []
        for i, ref in enumerate(wanted):
            found.append(audit(store, ref, fingerprint=fingerprint, demand=demand))
            tick(i + 1, len(wanted), ref)
    if as_json:
        packs = [{**asdict(one), "sound": one.sound} for one in found]
        print_json({"sound": all(one.sound for one in found), "base": fingerprint, "packs": packs})
    else:
        _show(found)
    if not all(one.sound for one in found):
        raise click.exceptions.Exit(1)


def _fingerprint(home: Home, base: str | None) -> str | None:
    """That of the base, every byte of which is read for it."""
    if base is None:
        return None
    from mlx_plastic.base import fingerprint, resolve

    return fingerprint(resolve(base_ref(home, base)), cache=home.cache, rehash=True)


def demanded(keys: Sequence[str], required: bool) -> Demand:
    """What --trust FILE and --require-signature ask for."""
    from mlx_plastic.packs.format.audit import Demand
    from mlx_plastic.packs.format.sign import read_public

    trusted = frozenset(read_public(Path(key).expanduser()) for key in keys)
    return Demand(trusted or None, required)


def _show(found: Sequence[Finding]) -> None:
    rows = [
        (one.name, "sound" if one.sound else "NOT SOUND", _signature(one), "; ".join(one.faults[:3]))
        for one in found
    ]
    if rows:
        print_table(["PACK", "VERDICT", "SIGNATURE", "FAULTS"], rows)
    bad = sum(not one.sound for one in found)
    click.echo(f"{len(found)} packs read, {bad} not sound")


def _signature(one: Finding) -> str:
    if not one.signer:
        return one.signature
    renamed = "" if one.signed_name == one.name else f", as {one.signed_name}"
    return f"{one.signature}, {one.signer[:16]}{renamed}"

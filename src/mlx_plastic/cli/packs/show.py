"""`plastic packs list`, `inspect`: what was learned, and what of it is worn."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs import Entry, Manifest


@click.command("list")
@json_option
@pass_home
def list_packs(home: Home, as_json: bool) -> None:
    """List every pack and whether it is worn.

    Example: plastic packs list
    """
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.store import worn_name

    store = Store(home)
    entries = store.entries()
    if as_json:
        print_json({"active": list(store.active()), "packs": [_summary(entry) for entry in entries]})
        return
    rows = [list(_summary(entry).values()) for entry in entries]
    if rows:
        print_table(["NAME", "STATUS", "BASE", "RANK", "MB", "LEARNED FROM", "CREATED", "FAULT"], rows)
    click.echo(f"worn: {worn_name(store.active())}")


def _summary(entry: Entry) -> dict[str, Any]:
    m = entry.manifest
    return {
        "name": entry.name,
        "status": entry.status,
        "base": m and m.base_id,
        "rank": m and _ranks(m),
        "megabytes": m and round(m.sizes.tensor_bytes / 1e6, 2),
        "samples": m and m.data.samples,
        "created": m and m.created,
        "fault": entry.fault.split("\n")[-1].removeprefix("  - "),
    }


def _ranks(m: Manifest) -> str:
    found = sorted(set(m.rank_map.values()))
    return str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"


@click.command()
@click.argument("name")
@json_option
@pass_home
def inspect(home: Home, name: str, as_json: bool) -> None:
    """Show what a pack is: its base, ranks, data, lineage and eval results; its files are verified.

    Example: plastic packs inspect 2026-11-19
    """
    from mlx_plastic.packs import Store

    store = Store(home)
    manifest = store.read(name).manifest
    verdict = store.verdict(name)
    if as_json:
        print_json(
            {"status": store.status(name), "verdict": verdict, "manifest": dataclasses.asdict(manifest)}
        )
        return
    data, run = manifest.data, manifest.run
    print_table(
        ["PACK", name],
        [
            ("status", store.status(name)),
            ("base", f"{manifest.base_id} {manifest.base_fingerprint[:12]}"),
            ("created", manifest.created),
            ("modules", len(manifest.rank_map)),
            ("rank", _ranks(manifest)),
            ("alpha", ", ".join(f"{alpha:g}" for alpha in sorted(set(manifest.alpha_map.values())))),
            ("size", f"{manifest.sizes.tensor_bytes / 1e6:.2f} MB, {manifest.sizes.parameters} parameters"),
            ("data", f"{data.samples} samples, {data.supervised_tokens} of {data.tokens} tokens learned"),
            ("training", f"{run.steps} steps in {run.seconds:.1f} s, {run.tokens_per_s:.0f} tokens/s"),
            ("peak memory", f"{run.peak_memory_mb:.0f} MB"),
            ("lineage", f"{len(manifest.lineage)} turns"),
            ("parents", ", ".join(manifest.parents) or "none"),
            ("sha256", manifest.sha256),
            *((f"setting {key}", value) for key, value in manifest.training.items()),
            *((f"eval {key}", value) for key, value in manifest.evals.items()),
            *((f"verdict {key}", value) for key, value in (verdict or {}).items()),
        ],
    )

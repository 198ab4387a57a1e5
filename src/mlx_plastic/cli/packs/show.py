"""`plastic packs list`, `inspect`: what was learned, and what of it is worn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs import Entry, Manifest
    from mlx_plastic.packs.algebra.spectra import Spectrum
    from mlx_plastic.packs.format.audit import Finding


@click.command("list")
@json_option
@pass_home
def list_packs(home: Home, as_json: bool) -> None:
    """List every pack and whether it is worn.

    Example: plastic packs list
    """
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.store.store import worn_name

    store = Store(home)
    found = [_summary(entry) for entry in store.entries()]
    if as_json:
        print_json({"active": list(store.active()), "packs": found})
        return
    columns = {
        "name": "NAME",
        "status": "STATUS",
        "base": "BASE",
        "rank": "RANK",
        "storage": "STORAGE",
        "megabytes": "MB",
        "parents": "PARENTS",
        "samples": "SAMPLES",
        "created": "CREATED",
        "fault": "FAULT",
    }
    if found:
        marks = [{**one, "status": _marked(one)} for one in found]
        print_table(list(columns.values()), [[one[key] for key in columns] for one in marks])
    click.echo(f"worn: {worn_name(store.active())}")


def _summary(entry: Entry) -> dict[str, Any]:
    m = entry.manifest
    return {
        "name": entry.name,
        "status": entry.status,
        "pinned": entry.pinned,
        "signed": entry.signed,
        "base": m and m.base_id,
        "rank": m and _range(m.rank_map.values()),
        "storage": m and m.storage,
        "megabytes": m and round(m.sizes.tensor_bytes / 1e6, 2),
        "parents": m and len(m.parents),
        "samples": m and m.data.samples,
        "created": m and m.created,
        "fault": entry.fault.split("\n")[-1].removeprefix("  - "),
    }


def _marked(one: dict[str, Any]) -> str:
    return ", ".join([one["status"], *(mark for mark in ("pinned", "signed") if one[mark])])


def _range(values: Any) -> str:
    found = sorted(set(values))
    return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g}-{found[-1]:g}"


@click.command()
@click.argument("ref", metavar="PACK")
@click.option("--modules", is_flag=True, help="Show the update of every module, not their means by role.")
@json_option
@pass_home
def inspect(home: Home, ref: str, modules: bool, as_json: bool) -> None:
    """Show what a pack is: its base, ranks, data, lineage and eval results; its files are verified.

    PACK is a name, or a folder elsewhere with a slash in it. The spectrum is that of the updates: the
    singular values of (alpha / rank) B A, as shares of the largest.

    Example: plastic packs inspect 2026-11-19
    """
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.algebra.spectra import by_role, spectra
    from mlx_plastic.packs.format.audit import judge
    from mlx_plastic.packs.format.pack import manifest_value

    store = Store(home)
    pack = store.open(ref)
    finding, found = judge(pack, ref), spectra(pack)
    entry = next((e for e in store.entries() if e.name == ref), None)
    if as_json:
        print_json(
            {
                "status": entry and entry.status,
                "pinned": bool(entry and entry.pinned),
                "verdict": entry and entry.verdict,
                "signature": _signature(finding),
                "manifest": manifest_value(pack.manifest),
                "modules": [dataclasses.asdict(one) for one in found],
                "roles": [dataclasses.asdict(one) for one in by_role(found)],
            }
        )
        return
    print_table(["PACK", pack.manifest.name], _rows(pack.manifest, entry, finding))
    click.echo()
    _show_spectra(found if modules else by_role(found), "MODULE" if modules else "ROLE")


def _rows(m: Manifest, entry: Entry | None, finding: Finding) -> list[tuple[str, object]]:
    data, run, verdict = m.data, m.run, (entry and entry.verdict) or {}
    status = f"{entry.status}{', pinned' if entry.pinned else ''}" if entry else "not in the store"
    groups = f", groups of {m.group_size}" if m.group_size else ""
    return [
        ("status", status),
        ("base", f"{m.base_id} {m.base_fingerprint[:12]}"),
        ("created", m.created),
        ("modules", len(m.rank_map)),
        ("rank", _range(m.rank_map.values())),
        ("alpha", ", ".join(f"{alpha:g}" for alpha in sorted(set(m.alpha_map.values())))),
        (
            "size",
            f"{m.sizes.tensor_bytes / 1e6:.2f} MB, {m.sizes.parameters} parameters, {m.storage}{groups}",
        ),
        ("data", f"{data.samples} samples, {data.supervised_tokens} of {data.tokens} tokens learned"),
        ("training", f"{run.steps} steps in {run.seconds:.1f} s, {run.tokens_per_s:.0f} tokens/s"),
        ("peak memory", f"{run.peak_memory_mb:.0f} MB"),
        ("lineage", f"{len(m.lineage)} turns"),
        ("parents", ", ".join(m.parents) or "none"),
        ("sha256", f"{m.sha256}, verified"),
        ("signature", _told_signature(finding)),
        *((f"setting {key}", value) for key, value in m.training.items()),
        *((f"eval {key}", value) for key, value in m.evals.items()),
        *((f"verdict {key}", value) for key, value in verdict.items()),
    ]


def _signature(finding: Finding) -> dict[str, str] | None:
    if finding.signature == "none":
        return None
    return {"state": finding.signature, "public_key": finding.signer, "name": finding.signed_name}


def _told_signature(finding: Finding) -> str:
    if finding.signature == "none":
        return "none"
    return f"{finding.signature}, by {finding.signer}, as {finding.signed_name}"


def _show_spectra(found: Sequence[Spectrum], what: str) -> None:
    rows = [
        (
            one.module,
            one.modules,
            _range(one.ranks),
            _range(one.alphas),
            one.norm,
            one.singular_values[0],
            _shares(one.singular_values),
        )
        for one in found
    ]
    print_table([what, "MODULES", "RANK", "ALPHA", "NORM", "LARGEST", "SPECTRUM"], rows)


def _shares(values: Sequence[float], most: int = 8) -> str:
    """The singular values as shares of the first: "1 .62 .3"; of many the first seven and the last."""
    first = values[0] or 1.0
    shown = [f"{value / first:.2f}".removeprefix("0") for value in values]
    return " ".join(shown if len(shown) <= most else [*shown[: most - 1], "...", shown[-1]])

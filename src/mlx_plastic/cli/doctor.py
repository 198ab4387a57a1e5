"""`plastic doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.output import json_option, print_json

if TYPE_CHECKING:
    from mlx_plastic.backend.health import Machine


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show the device and the BLAS found, what is slow, and the fix.

    Measures for a few seconds and changes nothing.

    Example: plastic doctor --json
    """
    from mlx_plastic.backend import BLAS
    from mlx_plastic.backend.health import diagnose, measure_machine

    machine = measure_machine(BLAS)
    if as_json:
        print_json(machine.as_dict())
        return
    for name, value in _lines(machine):
        click.echo(f"{name:<10} {value}")
    for finding in diagnose(machine):
        click.echo(f"\nslow: {finding.problem}\n fix: {finding.fix}")


def _lines(machine: Machine) -> list[tuple[str, str]]:
    blas = machine.blas
    threads = f", {blas.threads} thread{'s' if blas.threads > 1 else ''}" if blas.threads else ""
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in machine.versions.items())
    return [
        ("device", f"{machine.device.kind}, {machine.device.name}"),
        ("blas", f"{blas.kind}{threads}{'  ' + blas.library if blas.library else ''}"),
        *[("", note) for note in blas.notes],
        ("float32", f"{machine.matmul_gflops:.1f} GFLOP/s"),
        ("bfloat16", f"{machine.matmul_gflops_bfloat16:.1f} GFLOP/s"),
        ("4-bit", f"{machine.matmul_gflops_4bit:.2f} GFLOP/s"),
        ("memory", f"{machine.available_memory_bytes / 1e9:.1f} GB available"),
        ("compiler", machine.compiler or "none"),
        ("versions", versions),
        ("platform", f"Python {machine.python}, {machine.platform}"),
    ]

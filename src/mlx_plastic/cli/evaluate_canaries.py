"""`plastic eval canaries`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.evaluate_common import keep
from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import base_option, open_base
from mlx_plastic.cli.output import json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.home import Home
    from mlx_plastic.sleep.canary_test import CanaryTest

POWER_SECRETS = 16  # of the control, which takes as long as the test itself


@click.command()
@base_option
@click.option("--count", type=click.IntRange(min=2), default=32, show_default=True, help="Secrets to plant.")
@click.option("--look-alikes", type=click.IntRange(min=1), default=1023, show_default=True, help="For each.")
@click.option("--power/--no-power", default=True, show_default=True, help="Also the control, filters off.")
@click.option("--seed", default="0", show_default=True, help="Draws other secrets.")
@click.option("--tag", default="", help="A name for this measurement, kept with it.")
@json_option
@pass_home
def canaries(
    home: Home,
    base: str | None,
    count: int,
    look_alikes: int,
    power: bool,
    seed: str,
    tag: str,
    as_json: bool,
) -> None:
    """Plant secrets in a night of their own, and see whether the model gives them away.

    They go through guard, router, lessons and training with your settings, in a home of their own; then each
    is ranked among look-alikes that nobody planted. The control is the same night with every filter off: if
    it does not give its secrets away, the test has no power and is void. Takes minutes. Exit code 1 tells
    that secrets are exposed, or that the test is void.

    Example: plastic eval canaries --json
    """
    from mlx_plastic.evals import Policy
    from mlx_plastic.home import settings
    from mlx_plastic.sleep.canary_test import POWER_BITS

    limit = settings(home, "gate", Policy).max_canary_bits
    loaded = open_base(home, base)
    found = _tested(home, loaded, "filters on", count, look_alikes, seed, filters=True)
    control = None
    if power:
        few = min(count, POWER_SECRETS)
        control = _tested(home, loaded, "filters off", few, look_alikes, seed, filters=False)
    void = control is not None and control.mean < POWER_BITS
    kept = found.mean <= limit
    values: dict[str, Any] = {
        "base": loaded.ref,
        "fingerprint": loaded.fingerprint,
        **found.as_dict(),
        "limit_bits": limit,
        "kept": kept,
        "control": control and control.as_dict(),
        "power_bits": POWER_BITS,
        "void": void,
    }
    keep(home, "canaries", tag, values)
    if as_json:
        print_json({"tag": tag, **values})
    else:
        _show(found, control, limit)
        click.echo(
            "void: the control gave too little away for the test to say anything"
            if void
            else f"the secrets are {'kept' if kept else 'EXPOSED'}"
        )
    if void or not kept:
        raise click.exceptions.Exit(1)


def _tested(
    home: Home, base: Base, label: str, count: int, others: int, seed: str, *, filters: bool
) -> CanaryTest:
    from mlx_plastic.sleep.canary_test import canary_test

    with progress(label) as tick:
        return canary_test(
            home,
            base,
            count=count,
            others=others,
            filters=filters,
            seed=seed,
            tick=lambda stage, done, of, detail: tick(done, of, f"{stage}: {detail}"),
        )


def _show(found: CanaryTest, control: CanaryTest | None, limit: float) -> None:
    from mlx_plastic.sleep.canary_test import POWER_BITS

    rows: list[list[object]] = []
    for name, test, wanted in (("on", found, f"<= {limit:g}"), ("off", control, f">= {POWER_BITS:g}")):
        if test is not None:
            chance, error = test.chance
            told = f"{chance:.2f} ± {error:.2f}"
            rows.append([name, len(test.exposures), test.reached, round(test.mean, 2), wanted, told])
    print_table(("filters", "secrets", "in samples", "mean bits", "wanted", "by chance"), rows)

"""`plastic sleep`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.sleep import Night


@click.command()
@click.option("--base", metavar="REF", help="The base: nano, a folder or a hub id; else as configured.")
@click.option("--tag", help="The name of the night and of its pack; else the date.")
@click.option("--dry-run", is_flag=True, help="Write the data and print the plan; train nothing.")
@click.option("--reset-adapter", is_flag=True, help="Start from the bare base, not from the pack worn now.")
@click.option("--retry", is_flag=True, help="Take also what failed or undone nights had tried to learn.")
@json_option
@pass_home
def sleep(
    home: Home,
    base: str | None,
    tag: str | None,
    dry_run: bool,
    reset_adapter: bool,
    retry: bool,
    as_json: bool,
) -> None:
    """Learn from the days since the last night, if the gate agrees.

    The new pack is worn only if it learned what was told, kept what was known and harmed nothing; else it is
    set apart with its evidence, and the pack worn before stays. A night that was broken off goes on. Exit
    code 1 tells that the gate refused.

    Example: plastic sleep --dry-run
    """
    from mlx_plastic.base import load_base
    from mlx_plastic.base.config import BaseConfig
    from mlx_plastic.home import settings
    from mlx_plastic.memory import Memory
    from mlx_plastic.sleep import sleep as one_night

    with Memory(home) as memory:
        waiting = memory.stats().waiting
    note(f"{waiting} user turns wait to be learned")
    model = load_base(base or settings(home, "base", BaseConfig).ref, cache=home.cache)
    if model.note:
        note(model.note)
    with Stages() as stages:
        night = one_night(
            home,
            model,
            tag=tag,
            dry_run=dry_run,
            reset_adapter=reset_adapter,
            retry=retry,
            tick=stages.tick,
        )
    if as_json:
        print_json(night.as_dict())
    else:
        tell(night)
    if night.outcome == "failed":
        raise SystemExit(1)


class Stages(ExitStack):
    """One progress display after another, as a night goes through its stages."""

    def __enter__(self) -> Stages:
        super().__enter__()
        self.now = ""
        return self

    def tick(self, stage: str, done: float, total: float, detail: str) -> None:
        if stage != self.now:
            self.close()
            self.now, self.show = stage, self.enter_context(progress(stage))
        self.show(done, total, detail)

    def tell(self, line: str) -> None:
        """A line of its own, below the display that is running."""
        self.close()
        self.now = ""
        note(line)


def tell(night: Night) -> None:
    """The end of a night for a person: what was learned, what the gate said."""
    if night.outcome == "nothing":
        click.echo(f"nothing done: {night.reason}")
        return
    counts = ", ".join(f"{n} {kind}" for kind, n in night.counts.items() if n)
    if night.routes:
        shares = night.routes["shares"].items()
        told = ", ".join(f"{night.routes[route]} {route} ({share:.0%})" for route, share in shares)
        click.echo(f"of {night.routes['turns']} new user turns: {told}; why: plastic memory route")
    if night.outcome == "dry-run":
        click.echo(f"night {night.tag} would learn from {counts}; {night.reason}")
        return
    words = {"passed": "passed; its pack is worn now", "failed": "failed; the pack worn before stays"}
    click.echo(f"night {night.tag} {words[night.outcome]} ({counts}; {night.seconds:.0f} s)")
    if night.verdict:
        rows = [("ok" if r.ok else "FAILED", r.text) for r in night.verdict.reasons]
        print_table(("gate", "why"), rows)
    if night.outcome == "failed":
        click.echo(f"evidence: plastic packs inspect {night.tag}")

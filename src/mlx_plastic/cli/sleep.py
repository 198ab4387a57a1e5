"""`plastic sleep`."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Number, base_option, open_base, pack_name, verbose_option
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.sleep import Night, Settings
    from mlx_plastic.sleep.launch import Hosts
    from mlx_plastic.sleep.preflight import Needs


STOPPED_BY = 128  # and the number of the signal: what a shell expects


@click.command()
@base_option
@click.option("--tag", help="The name of the night and of its pack; else the date.")
@click.option("--dry-run", is_flag=True, help="Write the data and print the plan; train nothing.")
@click.option("--preflight", is_flag=True, help="Only say what a night would need now; do nothing.")
@click.option("--resume", is_flag=True, help="Only go on with a night that was broken off, or clean it up.")
@click.option("--reset-adapter", is_flag=True, help="Start from the bare base, not from the pack worn now.")
@click.option("--adapter-tag", metavar="T", help='Grow from this pack instead of the one worn, or "base".')
@click.option("--retry", is_flag=True, help="Take also what failed or undone nights had tried to learn.")
@click.option("--minutes", type=Number(min=0, min_open=True), help="Take no longer than this.")
@click.option("--memory-mb", type=click.IntRange(min=1), help="Take no more memory than this.")
@click.option(
    "--launch",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Train on the hosts of this file, by mlx.launch; this machine comes first.",
)
@verbose_option
@json_option
@pass_home
def sleep(
    home: Home,
    base: str | None,
    tag: str | None,
    dry_run: bool,
    preflight: bool,
    resume: bool,
    reset_adapter: bool,
    adapter_tag: str | None,
    retry: bool,
    minutes: float | None,
    memory_mb: int | None,
    launch: Path | None,
    as_json: bool,
) -> None:
    """Learn from the days since the last night, if the gate agrees.

    The new pack is worn only if it learned what was told, kept what was known and harmed nothing; else it is
    set apart with its evidence, and the pack worn before stays. A night that was broken off goes on; Ctrl-C
    or SIGTERM stops one so that it can. With --minutes training ends in time, with the best it has, and is
    judged as ever. Exit code 1 tells that the gate refused.

    With --launch a process on each host trains its share of every step, and all get the same pack
    (docs/scale.md). Samples of your talks then go over the network to those hosts, unencrypted.

    Example: plastic sleep --dry-run
    """
    _agree(tag=tag, dry_run=dry_run, resume=resume, reset=reset_adapter, grown=adapter_tag, retry=retry)
    from mlx_plastic.sleep.preflight import told

    chosen = chosen_settings(home, minutes, memory_mb)
    hosts = _hosts(launch)
    found = _needs(home, chosen)
    if preflight:
        print_json(found.as_dict()) if as_json else click.echo("\n".join(told(found)))
        return
    for line in told(found):
        note(line)
    night = slept(
        home,
        base,
        chosen=chosen,
        tag=tag,
        dry_run=dry_run,
        resume=resume,
        reset_adapter=reset_adapter,
        adapter_tag=pack_name(home, adapter_tag) if adapter_tag else None,
        retry=retry,
        hosts=hosts,
    )
    command = _command(home, hosts, night) if hosts and dry_run else ""
    if as_json:
        print_json(night.as_dict() | ({"launch": command} if command else {}))
    else:
        tell(night)
        if command:
            click.echo(f"it would train by: {command}")
    if night.outcome == "failed":
        raise SystemExit(1)


def _agree(
    *, tag: str | None, dry_run: bool, resume: bool, reset: bool, grown: str | None, retry: bool
) -> None:
    """Options that contradict each other are wrong usage."""
    others = {"--tag": tag, "--dry-run": dry_run, "--reset-adapter": reset}
    others |= {"--adapter-tag": grown, "--retry": retry}
    if resume and (given := [name for name, value in others.items() if value]):
        raise click.UsageError(f"--resume goes on with a night as it began; {given[0]} would begin another")
    if reset and grown:
        raise click.UsageError("--reset-adapter starts from no pack, --adapter-tag from one: give one")


def _hosts(file: Path | None) -> Hosts | None:
    from mlx_plastic.sleep.launch import read_hosts

    return read_hosts(file) if file else None


def _command(home: Home, hosts: Hosts, night: Night) -> str:
    """What would start the training of a night, for a shell."""
    import shlex

    from mlx_plastic.sleep.launch import command

    return shlex.join(command(hosts, home.nights / (night.tag or "TAG") / "checkpoint"))


def chosen_settings(home: Home, minutes: float | None, memory_mb: int | None) -> Settings:
    """Those of config.toml, with a budget from the command line where one is given."""
    from mlx_plastic.sleep import read_settings

    found = read_settings(home)
    given: dict[str, Any] = {"minutes": minutes, "memory_mb": memory_mb}
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(found, budget=dataclasses.replace(found.budget, **given))


def _needs(home: Home, chosen: Settings) -> Needs:
    from mlx_plastic.memory import Memory
    from mlx_plastic.sleep.preflight import needs

    with Memory(home) as memory:
        waiting = memory.stats().waiting
    return needs(home, waiting, most=chosen.budget.turns)


def slept(home: Home, base: str | None, *, chosen: Settings, **asked: Any) -> Night:
    """One night with progress on stderr, which ends at a good place when a signal asks for it.

    Then the process ends with the code that a shell expects after that signal.
    """
    from mlx_plastic.sleep import Stop
    from mlx_plastic.sleep import sleep as one_night

    model = open_base(home, base)
    stop = Stop(minutes=chosen.budget.minutes)
    with stop.on_signals(), Stages() as stages:
        night = one_night(home, model, chosen=chosen, stop=stop, tick=stages.tick, **asked)
    if stop.signal and night.outcome == "stopped":
        note(f"night {night.tag} {night.reason}")
        raise SystemExit(STOPPED_BY + stop.signal)
    return night


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
    if night.outcome == "stopped":
        click.echo(f"night {night.tag} {night.reason}: plastic sleep --resume")
        return
    if night.outcome == "dry-run":
        click.echo(f"night {night.tag} would learn from {counts}; {night.reason}")
        return
    words = {"passed": "passed; its pack is worn now", "failed": "failed; the pack worn before stays"}
    click.echo(f"night {night.tag} {words[night.outcome]} ({counts}; {night.seconds:.0f} s)")
    if night.verdict:
        rows = [("ok" if r.ok else "FAILED", r.text) for r in night.verdict.reasons]
        print_table(("gate", "why"), rows)
    if night.outcome == "failed":
        click.echo(f"evidence: plastic nights show {night.tag}")

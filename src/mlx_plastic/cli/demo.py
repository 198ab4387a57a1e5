"""`plastic demo`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress
from mlx_plastic.cli.sleep import Stages


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("--days", type=click.IntRange(1, 3), default=1, show_default=True, help="Days to live.")
@click.option("--json", "json_file", metavar="FILE", help="Write the figures there; - for stdout.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where it happens: a new or empty folder.",
)
@click.option("--base", default="nano", metavar="REF", help="The base; nano, the built-in one, by default.")
def demo(context: click.Context, /, days: int, json_file: str | None, folder: Path | None, base: str) -> None:
    """Live a day, a night and a morning, and check every claim.

    Everything happens in a folder of its own and everything is real: a chat is logged, a pack is trained on
    it and judged, a poisoned night is tried, and all is rolled back. Ends with a table of claims; exit code
    1 if one does not hold.

    Example: plastic demo --days 3 --json figures.json
    """
    if context.invoked_subcommand:
        return
    import json

    from mlx_plastic.base import load_base
    from mlx_plastic.demo.picture import page
    from mlx_plastic.demo.story import claims, live, script
    from mlx_plastic.home import find_home, write_atomic, write_json

    home = find_home(_empty(folder))
    model = load_base(base, cache=home.cache)
    note(f"base {base} in {home.root}" + (f"; {model.note}" if model.note else ""))
    with Stages() as stages:
        story = live(home, model, script()[:days], tell=stages.tell, tick=stages.tick)
    figures = story.figures()
    held = claims(figures)
    picture = home.root / "demo.html"
    write_atomic(picture, page(story, held).encode("utf-8"))
    if json_file == "-":
        click.echo(json.dumps(figures, indent=2))
    else:
        print_table(
            ("claim", "measured", "wanted", ""),
            [(c.text, c.measured, c.wanted, "holds" if c.ok else "FAILS") for c in held],
        )
        click.echo(f"{story.seconds:.0f} s in all; a picture of it: {picture}")
    if json_file and json_file != "-":
        write_json(Path(json_file), figures)
    if not all(claim.ok for claim in held):
        raise SystemExit(1)


def _empty(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="plastic-demo-"))
    if folder.exists() and any(folder.iterdir()):
        raise click.UsageError(f"{folder} is not empty; the demo wants a folder of its own")
    return folder


@demo.command()
@click.option(
    "--policy",
    type=click.Choice(["gradient", "spectral", "activation"]),
    default="gradient",
    show_default=True,
    help="Which layers grow.",
)
@click.option("--steps", type=click.IntRange(20, 5000), default=400, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--events",
    "events_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write every decision there, as JSONL.",
)
@json_option
def plasticity(policy: Any, steps: int, seed: int, events_file: Path | None, as_json: bool) -> None:
    """Let small layers find their ranks: they grow, shrink, are parked and woken.

    Random data: four layers have to learn updates of rank 1, 2, 4 and 8 and are told none of these numbers.

    Example: plastic demo plasticity --policy spectral
    """
    import dataclasses
    import json

    from mlx_plastic.home import write_atomic
    from mlx_plastic.lowrank.demo import play

    with progress("learning") as tick:
        played = play(policy=policy, steps=steps, seed=seed, tick=tick)
    lines = [json.dumps(event.as_dict()) for event in played.events]
    if events_file:
        write_atomic(events_file, "".join(f"{line}\n" for line in lines).encode("utf-8"))
    if as_json:
        value = {"layers": [dataclasses.asdict(row) for row in played.rows], "losses": list(played.losses)}
        print_json({**value, "woken_equal": played.woken_equal, "events": [*map(json.loads, lines)]})
        return
    for line in lines if not events_file else ():
        note(line)
    columns = "LAYER TRUE_RANK RANK PARKED WEIGHT_BYTES ACTIVE_BYTES PARKED_BYTES ERROR".split()
    print_table(columns, [dataclasses.astuple(row) for row in played.rows])
    click.echo(f"held-out loss {played.losses[0]:.4g} -> {played.losses[1]:.4g} in {steps} steps")
    same = "the same bit for bit" if played.woken_equal else "NOT the same"
    click.echo(f"parked and woken again, every layer's output is {same}")
    if not played.woken_equal:
        raise SystemExit(1)

"""`plastic demo`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from mlx_plastic.cli.output import note, print_table
from mlx_plastic.cli.sleep import Stages


@click.command()
@click.option("--days", type=click.IntRange(1, 3), default=1, show_default=True, help="Days to live.")
@click.option("--json", "json_file", metavar="FILE", help="Write the figures there; - for stdout.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where it happens: a new or empty folder.",
)
@click.option("--base", default="nano", metavar="REF", help="The base; nano, the built-in one, by default.")
def demo(days: int, json_file: str | None, folder: Path | None, base: str) -> None:
    """Live a day, a night and a morning, and check every claim.

    Everything happens in a folder of its own and everything is real: a chat is logged, a pack is trained on
    it and judged, a poisoned night is tried, and all is rolled back. Ends with a table of claims; exit code
    1 if one does not hold.

    Example: plastic demo --days 3 --json figures.json
    """
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

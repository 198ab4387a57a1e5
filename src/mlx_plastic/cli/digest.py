"""`plastic digest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from mlx_plastic.home import Home


@click.command()
@click.option(
    "--nights", type=click.IntRange(min=1), default=1, show_default=True, help="The latest so many."
)
@click.option("--write", "keep", is_flag=True, help="Write it to digest.md in the home as well.")
@json_option
@pass_home
def digest(home: Home, nights: int, keep: bool, as_json: bool) -> None:
    """What the last nights brought, in a few lines.

    Counts, figures and the gate's reasons; nothing of what was said. A scheduled night writes it by itself.

    Example: plastic digest --nights 7
    """
    from mlx_plastic.sleep import digest as morning

    found = morning.digest(home, nights=nights)
    if keep:
        note(f"written to {morning.write(home, found)}")
    if as_json:
        print_json(found.as_dict())
    else:
        click.echo(morning.page(found), nl=False)

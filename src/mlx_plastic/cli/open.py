"""`plastic open`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.errors import PlasticError

if TYPE_CHECKING:
    from mlx_plastic.home import Home

WAIT_S = 2.0


@click.command(name="open")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Where plastic serve listens; else as configured."
)
@click.option("--print", "only_print", is_flag=True, help="Print the address and open nothing.")
@pass_home
def open_(home: Home, port: int | None, only_print: bool) -> None:
    """Open the page of days and nights in a browser.

    `plastic serve` has to be running.

    Example: plastic open --print
    """
    import webbrowser

    address = address_of(home, port)
    if not answers(address):
        raise PlasticError(f"nothing of ours answers at {address}", hint="start it: plastic serve")
    click.echo(address)
    if not only_print and not webbrowser.open(address):
        raise PlasticError("no browser could be opened", hint=f"open {address} in one yourself")


def address_of(home: Home, port: int | None = None) -> str:
    """Where this machine finds its own server."""
    from mlx_plastic.home import settings
    from mlx_plastic.serve.api.config import ServeConfig

    return f"http://127.0.0.1:{port or settings(home, 'serve', ServeConfig).port}/"


def answers(address: str) -> bool:
    """Whether one of ours answers there."""
    import json
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(f"{address}health", timeout=WAIT_S) as answer:
            return bool(json.load(answer)["status"] == "ok")
    except (OSError, ValueError, KeyError, TypeError):
        return False

"""`plastic serve`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import base_option, base_ref
from mlx_plastic.cli.output import json_option, note, print_json

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.serve.api.config import ServeConfig
    from mlx_plastic.serve.api.service import Service
    from mlx_plastic.serve.dashboard import Doors


@click.command()
@base_option
@click.option("--host", metavar="ADDRESS", help="Where to listen; 127.0.0.1 unless configured otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes any that is free.")
@click.option("--memory/--no-memory", default=None, help="Remember what is said; else as configured.")
@click.option("--rag/--no-rag", default=None, help="Look up what was said before; else as configured.")
@click.option("--new-key", is_flag=True, help="Make a key that lets clients in, print it once, and end.")
@json_option
@pass_home
def serve(
    home: Home,
    base: str | None,
    host: str | None,
    port: int | None,
    memory: bool | None,
    rag: bool | None,
    new_key: bool,
    as_json: bool,
) -> None:
    """Answer any OpenAI client; show the days and nights on a page.

    Clients find it at http://127.0.0.1:8377/v1; Ctrl-C ends it once what it says is said and logged.
    Where others can reach it, a key is needed: --new-key.

    Example: plastic serve --port 8377
    """
    from mlx_plastic.home import consent, require_log, settings
    from mlx_plastic.serve.api.config import ServeConfig
    from mlx_plastic.serve.api.keys import new_key as make_key

    if new_key:
        key = make_key(home)
        print_json({"key": key}) if as_json else click.echo(key)
        return
    options: dict[str, Any] = {"host": host, "port": port, "memory": memory, "rag": rag}
    given = {name: value for name, value in options.items() if value is not None}
    config = dataclasses.replace(settings(home, "serve", ServeConfig), **given)
    if memory:
        require_log(home)
    elif config.memory and not consent(home).log:
        note("what is said is not kept: you have not agreed to it (plastic config set consent.log true)")
    _serve(home, config, base, as_json=as_json)


def _serve(home: Home, config: ServeConfig, base: str | None, *, as_json: bool) -> None:
    from mlx_plastic.serve.api.app import make_app
    from mlx_plastic.serve.api.keys import read_keys
    from mlx_plastic.serve.api.opening import open_service
    from mlx_plastic.serve.api.server import listen, make_server
    from mlx_plastic.serve.dashboard import pages

    keys = read_keys(home)
    socket = listen(config, keys)  # before a long load: a taken port is told at once
    try:
        service = open_service(home, config, base=base_ref(home, base))
        address = f"http://{_in_url(config.host)}:{socket.getsockname()[1]}"
        try:
            app = make_app(service, keys=keys, pages=pages(service, _doors(home), keys))
            server = make_server(app, config, service.leaving)
            _tell(service, address, config, as_json=as_json)
            server.run(sockets=[socket])
        finally:
            service.memory.close()
    finally:
        socket.close()


def _tell(service: Service, address: str, config: ServeConfig, *, as_json: bool) -> None:
    if service.base.note:
        note(service.base.note)
    if as_json:
        print_json({"address": address, "api": f"{address}/v1", "base": service.base.ref})
        return
    worn = " + ".join(service.store.active()) or "no pack"
    note(f"{service.base.ref}, wearing {worn}, answers at {address}/v1")
    if service.nights.running():
        meanwhile = "are told to ask again" if config.nights == "wait" else "are answered, slower"
        note(f"a night is running: until it ends, requests {meanwhile}")
    note(f"days and nights are shown at {address} (plastic open); Ctrl-C ends")


def _doors(home: Home) -> Doors:
    """Nights and forgetting, for pages that know nothing of sleep. Packs are learned again by a night."""
    from pathlib import Path

    from mlx_plastic.serve.dashboard import Doors
    from mlx_plastic.sleep.config import read_settings
    from mlx_plastic.sleep.forget import plan
    from mlx_plastic.sleep.history import difference
    from mlx_plastic.sleep.journal import nights
    from mlx_plastic.sleep.unlearn import forget

    return Doors(
        nights=lambda: nights(home),
        difference=lambda one, two: difference(home, one, two),
        plan_forget=lambda turns: plan(home, [turn.id for turn in turns]),
        forget=lambda planned: forget(home, None, planned, chosen=read_settings(home)),
        runs=(Path("runs").resolve(), home.root / "runs"),
    )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host

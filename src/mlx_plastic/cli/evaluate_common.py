"""What the measurements of `plastic eval` share: options, the model they measure, where results are kept."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlx_plastic.cli.options import base_option, open_base, pack_name
from mlx_plastic.cli.output import json_option, note

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.home import Home

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT = click.Path(dir_okay=False, path_type=Path)


def common_options(function: F) -> F:
    """What every measurement of a model takes."""
    options = [
        base_option,
        click.option(
            "--pack",
            "--adapter-tag",
            "pack",
            metavar="NAME",
            help='Wear this pack, or "base" for none; else the active one.',
        ),
        click.option("--max-samples", type=click.IntRange(min=1), help="At most so many, evenly spaced."),
        click.option("--tag", default="", help="A name for this measurement, kept with it."),
        click.option("--csv", type=OUT, help="Append rows to this file."),
        click.option("--jsonl", type=OUT, help="Append rows to this file, an object a line."),
        json_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function


@contextmanager
def speaker(home: Home, base: str | None, pack: str | None) -> Iterator[tuple[Base, dict[str, str]]]:
    """The base wearing what was asked for, and what to call that in a result."""
    from mlx_plastic.packs import BARE, Store
    from mlx_plastic.packs.wear.attach import attached

    store = Store(home)
    worn = store.active() if pack is None else () if pack == BARE else (pack_name(home, pack),)
    packs = {name: store.read(name) for name in worn}  # first: a broken one is told before a long load
    loaded = open_base(home, base)
    with attached(loaded.model, packs, fingerprint=loaded.fingerprint):
        yield loaded, {"base": loaded.ref, "fingerprint": loaded.fingerprint, "pack": "+".join(worn) or BARE}


def keep(
    home: Home,
    kind: str,
    tag: str,
    values: dict[str, Any],
    rows: list[dict[str, Any]] | None = None,
    *,
    csv: Path | None = None,
    jsonl: Path | None = None,
) -> str:
    """Into the home's history, and as rows into the files asked for; returns the time it is kept under."""
    from mlx_plastic.evals import History

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    values = {name: value for name, value in values.items() if name != "tag"}
    History(home.logs / "experiments.jsonl").append(when=now, tag=tag, kind=kind, **values)
    write_rows(rows or [], csv=csv, jsonl=jsonl)
    return now


def write_rows(rows: list[dict[str, Any]], *, csv: Path | None, jsonl: Path | None) -> None:
    from mlx_plastic.evals import append_csv
    from mlx_plastic.home import write_atomic

    if csv:
        append_csv(csv, rows)
    if jsonl:
        old = jsonl.read_bytes() if jsonl.exists() else b""
        joint = b"" if not old or old.endswith(b"\n") else b"\n"
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        write_atomic(jsonl, old + joint + lines.encode("utf-8"))
    for file in filter(None, (csv, jsonl)):
        note(f"{len(rows)} rows added to {file}")

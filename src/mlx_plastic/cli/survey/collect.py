"""`plastic survey run`, `init`, `collect`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.survey.collect import Collected, Plan
    from mlx_plastic.survey.engines import Engine
    from mlx_plastic.survey.folder import RunFolder

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path)


def naming(function: F) -> F:
    """The options that say which run folder is meant, and what its new config holds."""
    for option in (
        click.option("--root", type=FOLDER, default="runs", show_default=True, help="Where run folders lie."),
        click.option("--model-id", metavar="ID", help="The model's folder below it."),
        click.option("--name", default="default", show_default=True, help="The run's folder below that."),
        click.option("--scheme", "schemes", multiple=True, help="As q4g64, q8, mxfp4; may repeat."),
        click.option("--experts-only", is_flag=True, help="Leave out what is no expert."),
        click.option("--no-spectra", is_flag=True, help="No singular values: many times faster."),
        click.option(
            "--config", "config_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Begin with this analysis_config.json.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def working(function: F) -> F:
    """The options of the work itself."""
    for option in (
        click.option(
            "--engine", type=click.Choice(["local", "dask", "ray"]), default="local", show_default=True
        ),
        click.option("--workers", type=click.IntRange(min=0), default=0, help="Processes; 0: one a core."),
        click.option("--address", default="", metavar="URL", help="Of a Dask scheduler or Ray cluster."),
        click.option("--fresh", is_flag=True, help="Do again what is done already."),
        click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing."),
    ):
        function = option(function)
    return function


@click.command()
@click.option(
    "--model", "--model-path", "model", required=True, metavar="PATH", help="A folder, file, URL or hub id."
)
@naming
@json_option
def init(model: str, as_json: bool, **chosen: Any) -> None:
    """Make a run folder with a config that can be edited; one that is there stays.

    It is runs/<model-id>/<run-name>, and its path is printed.

    Example: plastic survey init --model /models/Qwen3-30B-A3B --scheme q4g64 --scheme mxfp4
    """
    run, new = _init(model, **chosen)
    if as_json:
        print_json({"run": str(run.path), "config": str(run.config_file), "new": new})
        return
    note("a new config" if new else "the config that is there stays as it is")
    click.echo(run.path)


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--model-path", metavar="PATH", help="Instead of the config's.")
@working
@json_option
def collect(
    run: Path, model_path: str | None, engine: Engine, workers: int, address: str, fresh: bool, dry_run: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Read every weight once and write the rows of RUN; goes on where it was interrupted.

    Example: plastic survey collect runs/Qwen3-30B-A3B/default
    """
    from mlx_plastic.survey.collect import plan_collect
    from mlx_plastic.survey.folder import open_run

    folder = open_run(run)
    plan = plan_collect(folder, model_path=model_path, fresh=fresh)
    if dry_run:
        _show_plan(plan, as_json)
        return
    done = _collect(folder, plan, engine, workers, address)
    if as_json:
        print_json({"run": str(run), **done.as_dict()})
    else:
        _show(done)


@click.command("run")
@click.argument("model_or_run", metavar="MODEL_OR_RUN")
@naming
@working
@json_option
def run_all(
    model_or_run: str, engine: Engine, workers: int, address: str, fresh: bool, dry_run: bool, as_json: bool,
    **chosen: Any,
) -> None:  # fmt: skip
    """Survey a checkpoint (a folder, a file or a URL), or go on with a run folder: all four steps.

    A hub id like org/name and the built-in nano will do too.

    Example: plastic survey run /models/Qwen3-30B-A3B --scheme q4g64 --scheme q8 --scheme mxfp4
    """
    from mlx_plastic.survey.collect import plan_collect
    from mlx_plastic.survey.folder import is_run, open_run
    from mlx_plastic.survey.report import make_report
    from mlx_plastic.survey.tables import make_tables, overview, quant_sim

    known = "://" not in model_or_run and is_run(Path(model_or_run))
    if known:
        _no_options_of_a_new_run(**chosen)
    if dry_run and not known:
        with tempfile.TemporaryDirectory() as nowhere:
            folder = _init(model_or_run, **chosen | {"root": Path(nowhere)})[0]
            _show_plan(plan_collect(folder), as_json)
        return
    folder = open_run(Path(model_or_run)) if known else _init(model_or_run, **chosen)[0]
    plan = plan_collect(folder, fresh=fresh)
    if dry_run:
        _show_plan(plan, as_json)
        return
    done = _collect(folder, plan, engine, workers, address)
    counts = make_tables(folder)
    report = make_report(folder)
    if as_json:
        print_json({"run": str(folder.path), **done.as_dict(), "tables": counts, "report": str(report)})
        return
    _show(done)
    rows = overview(quant_sim(folder))
    if rows:
        print_table(["KIND", "PROJ", "SCHEME", "MATRICES", "BITS/WEIGHT", "ERROR", "WORST"],
                    [list(row.values()) for row in rows])  # fmt: skip
    click.echo(report)


def _init(
    model: str,
    *,
    root: Path,
    model_id: str | None,
    name: str,
    schemes: tuple[str, ...],
    experts_only: bool,
    no_spectra: bool,
    config_file: Path | None,
) -> tuple[RunFolder, bool]:
    from mlx_plastic.survey.config import read_config
    from mlx_plastic.survey.folder import init_run, model_name
    from mlx_plastic.survey.schemes import parse_schemes
    from mlx_plastic.survey.source import open_source

    where = _located(model)
    open_source(where).close()
    given = read_config(config_file).as_dict() if config_file else {}
    given["model_path"] = where
    if schemes:
        given["quant_schemes"] = parse_schemes(schemes)
    if experts_only:
        given["scan"] = given.get("scan", {}) | {"experts_only": True}
    if no_spectra:
        given["stats"] = given.get("stats", {}) | {"spectra": False}
    told = where if Path(model).expanduser().exists() else model  # a hub id lies in a folder of another name
    run, new = init_run(root.expanduser(), given, model_id=model_id or model_name(told), name=name)
    asked = schemes or experts_only or no_spectra or config_file
    if not new and asked and replace(run.config(), model_path=where).as_dict() != _as_told(given):
        raise click.UsageError(f"{run.path} has a config already: edit it, or choose another --name")
    return run, new


def _no_options_of_a_new_run(**chosen: Any) -> None:
    """A run folder has its config: what would be passed over in silence is refused."""
    given = [name for name in ("schemes", "experts_only", "no_spectra", "config_file") if chosen[name]]
    if given:
        options = {"schemes": "--scheme", "config_file": "--config"}
        named = ", ".join(options.get(name, f"--{name.replace('_', '-')}") for name in given)
        raise click.UsageError(
            f"{named}: of a run that is there its analysis_config.json decides; edit that, "
            "or give the model and another --name"
        )


def _located(model: str) -> str:
    """A URL as it is, a path made absolute, and where "nano" or what a hub id names lies."""
    from mlx_plastic.base.checkpoint import NANO, is_hub_id, resolve

    path = Path(model).expanduser()
    if "://" in model:
        return model
    if not path.exists() and (model == NANO or is_hub_id(model)):
        return str(resolve(model))
    return str(path.resolve())


def _as_told(given: dict[str, Any]) -> dict[str, Any]:
    from mlx_plastic.survey.config import parse_config

    return parse_config(given, where="the options").as_dict()


def _collect(folder: RunFolder, plan: Plan, engine: Engine, workers: int, address: str) -> Collected:
    from mlx_plastic.survey.collect import collect as work

    if len(plan.units) > len(plan.todo):
        note(f"{len(plan.units) - len(plan.todo)} of {len(plan.units)} units were done before")
    with progress("survey") as tick:
        done = work(folder, plan, engine=engine, workers=workers, address=address, on_progress=tick)
    for warning in done.warnings:
        note(f"warning: {warning}")
    return done


def _show_plan(plan: Plan, as_json: bool) -> None:
    told = plan.as_dict()
    if as_json:
        print_json(told)
        return
    print_table(
        ["", "VALUE"], [[k, json.dumps(v) if isinstance(v, dict | list) else v] for k, v in told.items()]
    )


def _show(done: Collected) -> None:
    told = done.as_dict()
    note(
        f"{told['matrices']} matrices of {told['tensors']} tensors in {told['files']} files; "
        f"{1e3 * told['gigabytes_read']:.0f} MB in {told['seconds']:.1f} s, "
        f"{told['unmatched']} tensors unmatched"
    )

"""`plastic packs create`: train a pack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Number, base_option, open_base
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress, with_eta

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.packs.create.create import Created
    from mlx_plastic.packs.create.recipe import Plan, Recipe

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

# option -> the field of TrainConfig that it sets; one that is not given keeps what config.toml says
TRAINING = {
    "layers": "roles",
    "rank": "rank",
    "alpha": "alpha",
    "steps": "steps",
    "epochs": "epochs",
    "lr": "learning_rate",
    "lora_dropout": "dropout",
    "max_tokens": "max_tokens",
    "batch_tokens": "batch_tokens",
    "seed": "seed",
    "dynamic_rank": "dynamic_rank",
    "rank_policy": "rank_policy",
}


def training_options(function: F) -> F:
    """What of the training a command line can say, by the names of TRAINING; None where it does not."""
    options = [
        click.option(
            "--layers",
            metavar="NAMES",
            help='Such as attn.q_proj,mlp or ends of paths; else all linear ones. "experts" too if asked.',
        ),
        click.option("--rank", type=click.IntRange(min=1), help="Rows of A.  [8]"),
        click.option(
            "--alpha",
            type=Number(min=0, min_open=True),
            help="The update is alpha / rank * B A.  [twice the rank]",
        ),
        click.option("--steps", type=click.IntRange(min=1), help="Instead of epochs."),
        click.option("--epochs", type=Number(min=0, min_open=True), help="Times through the data.  [3]"),
        click.option("--lr", type=Number(min=0, min_open=True), help="Peak learning rate.  [1e-4]"),
        click.option(
            "--lora-dropout",
            type=Number(0, 1, max_open=True),
            help="Share of the inputs the update does not see.  [0]",
        ),
        click.option(
            "--loss-mode",
            type=click.Choice(["answer", "all"]),
            help="Learn what assistants say, or every token.  [answer; all of plain texts]",
        ),
        click.option(
            "--max-tokens",
            type=click.IntRange(min=2),
            help="Of a window; longer samples are cut into several.  [1024]",
        ),
        click.option(
            "--batch-tokens", type=click.IntRange(min=1), help="In a step, padding included.  [512]"
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Of the order and the first A.  [0]"),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@click.option("--name", required=True, help="What the pack is to be called.")
@base_option
@click.option(
    "--data", type=FILE, required=True, help='JSONL: "messages", "prompt" and "completion", or "text".'
)
@click.option("--valid", type=FILE, help="Held-out samples; else a share of the data.")
@click.option(
    "--valid-share",
    type=Number(0, 1),
    default=0.1,
    show_default=True,
    help="Held out, chosen by a hash.",
)
@training_options
@click.option(
    "--rank-strategy",
    type=click.Choice(["stable", "theorem", "activation", "energy"]),
    help="Ranks by what each weight, or what comes into it, has of directions; --rank is then the highest.",
)
@click.option(
    "--target-compression",
    type=Number(min=0, min_open=True),
    help="Lower all ranks until the factors hold this share of the weights' numbers.",
)
@click.option(
    "--rank-map", type=FILE, help='JSON such as {"attn.k_proj": 4, "mlp": 8}: modules, roles or groups.'
)
@click.option("--rank-map-from-pack", metavar="PACK", help="The ranks of this pack.")
@click.option(
    "--dynamic-rank",
    is_flag=True,
    default=None,
    help="Grow ranks, then park what does not pay: at the end as many numbers as --rank takes.",
)
@click.option(
    "--rank-policy",
    type=click.Choice(["gradient", "spectral", "activation"]),
    help="Which layers grow first with --dynamic-rank.  [gradient]",
)
@click.option("--resume-pack", metavar="PACK", help="Begin with the factors of this pack.")
@click.option(
    "--budget-mb",
    type=Number(min=0, min_open=True),
    help="Cut what was trained to so many MB, in the way that predicts the held-out samples best.",
)
@click.option(
    "--profile",
    type=click.Choice(["lite", "heavy"]),
    default="lite",
    show_default=True,
    help="lite: attention ranks <= 8 and at most 10 MB.",
)
@click.option(
    "--train-fp16-fallback",
    is_flag=True,
    help="Dequantize, while training, the layers that have no backward pass here.",
)
@click.option(
    "--resume/--no-resume", default=None, help="Go on with a training that was broken off, or begin anew."
)
@click.option("--dry-run", is_flag=True, help="Read, check and count everything; train nothing.")
@json_option
@pass_home
def create(
    home: Home,
    /,
    name: str,
    base: str | None,
    resume_pack: str | None,
    resume: bool | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a pack on a file of chats, prompts or texts, prove that it acts, and keep it.

    The base is only read. The pack is a candidate until you wear it: plastic packs apply.

    Example: plastic packs create --name cooking --base nano --data chats.jsonl --steps 200 --lr 3e-3
    """
    from mlx_plastic.backend import world
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.create.create import check_free, create_pack, is_broken_off
    from mlx_plastic.packs.create.recipe import plan_pack

    _check_usage(resume_pack, options)
    store = Store(home)
    check_free(store, name, resume=resume)
    recipe = _recipe(home, name, options)
    start = store.open(resume_pack) if resume_pack else None
    loaded = open_base(home, base)
    first = world().first  # of the processes that mlx.launch started, if it did
    with _telling(name, quiet=not first) as tell:
        plan = plan_pack(loaded, recipe, start=start, tick=tell)
    for remark in plan.notes if first else ():
        note(remark)
    try:
        with _telling(name, quiet=not first) as tell:
            made = None if dry_run else create_pack(store, loaded, plan, resume=bool(resume), tick=tell)
    except KeyboardInterrupt:
        if is_broken_off(home, name):
            note("\nbroken off: the last checkpoint is kept; go on with the same command and --resume")
        raise
    if first:
        _show(plan, made, as_json=as_json)


RANKS = ("rank_strategy", "target_compression", "rank_map", "rank_map_from_pack")


def _check_usage(resume_pack: str | None, options: dict[str, Any]) -> None:
    """Raises click.UsageError where two options say each what the ranks are."""
    given = [
        f"--{name.replace('_', '-')}" for name in ("layers", "rank", *RANKS) if options[name] is not None
    ]
    if resume_pack and given:
        raise click.UsageError(
            f"--resume-pack goes on with its pack's layers and ranks: leave out {given[0]}"
        )
    if (options["rank_map"] or options["rank_map_from_pack"]) and sum(
        options[n] is not None for n in RANKS
    ) > 1:
        raise click.UsageError(
            "a rank map says all ranks: leave out the strategy, the target and the other map"
        )


def _recipe(home: Home, name: str, options: dict[str, Any]) -> Recipe:
    """What config.toml says of training, and what the command line says instead."""
    from mlx_plastic.home import settings
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.create.recipe import Recipe
    from mlx_plastic.packs.ranks.ranks import read_rank_map
    from mlx_plastic.packs.train.config import TrainConfig

    entries = None
    if options["rank_map"]:
        entries = read_rank_map(options["rank_map"])
    elif options["rank_map_from_pack"]:
        entries = Store(home).open(options["rank_map_from_pack"]).manifest.rank_map
    said = {field: options[option] for option, field in TRAINING.items() if options[option] is not None}
    if options["epochs"] and not options["steps"]:
        said["steps"] = 0  # whatever config.toml says
    return Recipe(
        name=name,
        data=options["data"],
        config=dataclasses.replace(settings(home, "train", TrainConfig), **said),
        loss_mode=options["loss_mode"],
        valid=options["valid"],
        valid_share=options["valid_share"],
        profile=options["profile"],
        rank_strategy=options["rank_strategy"],
        target_compression=options["target_compression"],
        rank_entries=entries,
        budget_mb=options["budget_mb"] or 0.0,
        fp16_fallback=options["train_fp16_fallback"],
    )


Tell = Callable[[str, float, float, str], None]  # stage, done, of how many, detail


@contextmanager
def _telling(name: str, *, quiet: bool) -> Iterator[Tell]:
    """The progress line of a stage; training tells itself how long it will take."""
    if quiet:
        yield lambda *_: None
        return
    with progress(name) as tick:
        ticks: dict[str, Callable[..., None]] = {"training": tick}

        def tell(stage: str, done: float, total: float, detail: str) -> None:
            if stage not in ticks:
                ticks[stage] = with_eta(tick)
            ticks[stage](done, total, f"{stage}: {detail}")

        yield tell


def _show(plan: Plan, made: Created | None, *, as_json: bool) -> None:
    value = plan.as_dict()
    if as_json:
        print_json({"dry_run": made is None, "plan": value} | ({"pack": made.as_dict()} if made else {}))
        return
    rows: list[tuple[str, object]] = [
        ("modules", value["modules"]),
        ("ranks", ", ".join(f"{role} {rank}" for role, rank in value["ranks"].items())),
        ("alpha, dropout", f"{_alpha(plan)}, {plan.recipe.config.dropout:g}"),
        ("samples", f"{value['samples']}, and {value['held_out']} held out"),
        ("windows", f"{value['windows']} ({value['samples_cut']} samples are longer than one)"),
        ("tokens", f"{value['learned_tokens']} of {value['tokens']} are learned"),
        ("steps", value["steps"]),
    ]
    if made is None:
        rows += [
            ("size", f"{value['pack_bytes'] / 1e6:.2f} MB"),
            ("memory", f"about {value['memory_mb']:.0f} MB"),
            ("trained", "no: this was a dry run"),
        ]
    else:
        rows += _made(made)
    print_table(["PACK", value["name"]], rows)


def _alpha(plan: Plan) -> str:
    alpha = plan.recipe.config.alpha
    return f"{alpha:g}" if alpha else "twice the rank"


def _made(made: Created) -> list[tuple[str, object]]:
    m, report = made.manifest, made.report
    rows: list[tuple[str, object]] = [
        ("trained", f"{report.steps} steps in {report.seconds:.1f} s, {report.tokens_per_s:.0f} tokens/s"),
        ("peak memory", f"{report.peak_memory_mb:.0f} MB"),
        ("size", f"{m.sizes.tensor_bytes / 1e6:.2f} MB, {m.storage}"),
        ("largest logit change", f"{made.proof.max_logit_change:.4g}"),
        ("KL from the bare base", f"{made.proof.mean_kl_nats:.4g} nats a token"),
        ("folder", made.folder),
    ]
    if made.losses:
        told = f"{made.losses[0]:.4f} -> {made.losses[1]:.4f} nats a token (step {report.best_step})"
        rows.insert(2, ("held-out loss", told))
    if report.stopped:
        rows.insert(1, ("stopped early", report.stopped))
    return rows

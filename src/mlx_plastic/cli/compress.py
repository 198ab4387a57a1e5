"""`plastic compress`: plan a smaller checkpoint, write it, judge it, and wake what was parked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import LazyGroup, pass_home
from mlx_plastic.cli.options import Number, base_option, base_ref
from mlx_plastic.cli.output import json_option, note, print_json, print_table, progress

if TYPE_CHECKING:
    from mlx_plastic.compress.judge import Judged
    from mlx_plastic.compress.plan import Plan
    from mlx_plastic.home import Home

TABLE = {
    "plan": (__name__, "plan", "Choose bits for each matrix under a budget, and write that to a file."),
    "apply": (__name__, "apply", "Write the checkpoint of a plan, and judge it."),
    "judge": (__name__, "judge", "Hold a compressed checkpoint against its base."),
    "wake": (__name__, "wake", "Give parked matrices back, bit for bit, in a new checkpoint."),
    "gguf": (__name__, "gguf", "Print the llama.cpp commands for a GGUF of the same plan."),
}
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(cls=LazyGroup, table=TABLE)
def compress() -> None:
    """Make a checkpoint smaller, to a budget of bytes.

    Example: plastic compress plan --base nano --budget 4.0bpw --data chats.jsonl --out plan.json
    """


@click.command()
@base_option
@click.option("--budget", required=True, metavar="SIZE", help="Of all weights: 4.0bpw, 2.5GB, 300MB.")
@click.option("--data", type=FILE, metavar="F.jsonl", help="Texts or chats of your own to price errors by.")
@click.option(
    "--survey",
    "run",
    type=click.Path(exists=True, path_type=Path, file_okay=False),
    help="A survey's run folder: its errors are taken instead of measured again.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="plan.json",
    show_default=True,
    help="The plan's file.",
)
@click.option("--calibration", type=FOLDER, help="Where rounding keeps what it needs.  [beside the plan]")
@click.option("--floor", type=click.IntRange(2, 8), help="Fewest bits of a matrix.  [3, or 2 if need be]")
@click.option("--floating", is_flag=True, help="Offer mxfp4, mxfp8 and nvfp4 too.")
@click.option("--dtype", type=click.Choice(["float16", "bfloat16"]), help="Of what is not quantized.")
@click.option("--tokens", type=click.IntRange(16), default=8192, show_default=True, help="To calibrate on.")
@click.option("--no-try", is_flag=True, help="Do not try single matrices: quicker, less exact.")
@click.option("--cut", is_flag=True, help="Park directions of matrices that do nothing on the texts.")
@click.option("--dequantize", is_flag=True, help="Consent to round a quantized checkpoint a second time.")
@click.option("--explain", is_flag=True, help="Tell every matrix, and why.")
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@json_option
@pass_home
def plan(
    home: Home,
    /,
    base: str | None,
    budget: str,
    data: Path | None,
    run: Path | None,
    out: Path,
    calibration: Path | None,
    explain: bool,
    dry_run: bool,
    no_try: bool,
    cut: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Choose bits for each matrix under a budget, and write that to a file.

    With --data every error is priced in nats per token on those texts; without, by rules of thumb. The plan
    is JSON that you can read and change before you apply it.

    Example: plastic compress plan --base nano --budget 4.0bpw --data chats.jsonl --explain
    """
    from mlx_plastic.compress.make import Planning, make_plan
    from mlx_plastic.compress.plan import write_plan
    from mlx_plastic.compress.price import Pricing

    if cut and not data:
        raise click.UsageError("--cut tries what does nothing on texts: give --data")
    if run and data:
        raise click.UsageError("texts price errors better than a survey: give --data or --survey")
    table = None
    if run:
        from mlx_plastic.survey.folder import open_run
        from mlx_plastic.survey.tables import quant_sim

        table = quant_sim(open_run(run))
    folder = None
    if data is not None and not dry_run:
        folder = (calibration or out.with_name(f"{out.stem}.calibration")).absolute()
    floor = options.pop("floor")
    how = Planning(budget, floor, cut=cut, pricing=Pricing(tried=not no_try, **options))
    with progress("planning") as tick:
        made = make_plan(
            *(base_ref(home, base), how),
            data=data,
            survey=table,
            metrics=folder,
            cache=home.cache,
            tick=tick,
        )
    if not dry_run:
        write_plan(out, made)
    if as_json:
        print_json({**made.as_dict(), "file": None if dry_run else str(out)})
        return
    _tell(made, everything=explain)
    click.echo("nothing was written: this was a dry run" if dry_run else f"plan: {out}")


@click.command()
@base_option
@click.option("--plan", "plan_file", type=FILE, default="plan.json", show_default=True)
@click.option("--out", type=FOLDER, required=True, help="The new checkpoint's folder.")
@click.option("--calibration", type=FOLDER, help="If it is no longer where the plan says.")
@click.option(
    "--data", type=FILE, metavar="F.jsonl", help="Judge it by the share of these texts kept for that."
)
@click.option(
    "--svd",
    type=click.Choice(["exact", "gram", "randomized"]),
    default="exact",
    show_default=True,
    help="Of matrices that the plan cuts to a rank.",
)
@click.option(
    "--batch-size",
    "rows",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    help="Rows of a matrix quantized at once: fewer take less memory, and give the same.",
)
@click.option(
    "--park",
    type=click.Choice(["none", "cut", "all"]),
    default="cut",
    show_default=True,
    help="Keep what is taken, of matrices that are cut to a rank or of all, so that it can be woken.",
)
@click.option("--no-gptq", is_flag=True, help="Round plainly, whatever the plan says.")
@click.option(
    "--tune/--no-tune",
    default=False,
    show_default=True,
    help="Then tune scales and biases towards the base on --data: no byte more, but both in memory.",
)
@click.option("--tune-steps", type=click.IntRange(1), help="Of tuning.  [60]")
@click.option("--tune-rate", type=Number(0, 0.1, min_open=True), help="Share of a scale a step.  [0.001]")
@click.option("--dequantize", is_flag=True, help="Consent to round a quantized checkpoint a second time.")
@click.option("--no-harness", is_flag=True, help="Judge by text alone.")
@click.option("--repair-mb", type=Number(0, min_open=True), help="Make a repair pack of that size.")
@click.option("--dry-run", is_flag=True, help="Check everything and tell the sizes; write nothing.")
@json_option
@pass_home
def apply(
    home: Home,
    /,
    base: str | None,
    plan_file: Path,
    out: Path,
    calibration: Path | None,
    data: Path | None,
    svd: Any,
    rows: int,
    park: Any,
    no_gptq: bool,
    tune: bool,
    tune_steps: int | None,
    tune_rate: float | None,
    dequantize: bool,
    no_harness: bool,
    repair_mb: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the checkpoint of a plan, and judge it.

    Tensor by tensor, so memory holds one of them, until --tune loads base and copy. Broken off, the same
    command goes on where it was. The base is only read. With --data the gate compares it with its base; exit
    code 1 if it does not pass.

    Example: plastic compress apply --plan plan.json --out nano-4bit --data chats.jsonl --tune
    """
    from mlx_plastic.compress.apply import Applying, checked
    from mlx_plastic.compress.apply import apply as write
    from mlx_plastic.compress.plan import read_plan
    from mlx_plastic.compress.tune import Tuning

    if repair_mb and not data:
        raise click.UsageError("--repair-mb learns from texts: give --data")
    if tune and not data:
        raise click.UsageError("--tune learns from texts: give --data")
    if (tune_steps or tune_rate) and not tune:
        raise click.UsageError("--tune-steps and --tune-rate are of --tune")
    made = read_plan(plan_file)
    ref = base or made.base
    tuning = Tuning(tune_steps or Tuning.steps, tune_rate or Tuning.rate) if tune else None
    how = Applying(svd, rows, park, gptq=not no_gptq, dequantize=dequantize, tuning=tuning)
    if dry_run:
        found = checked(made, ref, out, how, metrics=calibration, cache=home.cache)
        value = {"bytes": made.nbytes, "bits_per_weight": made.bits_per_weight, "resumes_at": found}
        print_json({**value, "dry_run": True}) if as_json else _tell(made, everything=False)
        return
    with progress("compressing") as tick:
        done = write(made, ref, out, how, metrics=calibration, data=data, cache=home.cache, tick=tick)
    verdict = _judged(home, ref, out, data, harness=not no_harness) if data else None
    repair = _repaired(home, ref, out, data, repair_mb) if data and repair_mb else None
    if as_json:
        print_json(
            {
                **done.as_dict(),
                "judged": verdict.as_dict() if verdict else None,
                "repair_pack": repair,
            }
        )
    else:
        _told({k: v for k, v in done.as_dict().items() if k != "tuned"})
        if done.tuned:
            click.echo(_tuned(done.tuned))
        if verdict:
            _verdict(verdict)
        if repair:
            click.echo(f"repair pack: {repair}")
    if verdict and not verdict.verdict.passed:
        raise SystemExit(1)


@click.command()
@base_option
@click.argument("folder", type=click.Path(exists=True, path_type=Path, file_okay=False))
@click.option(
    "--data", type=FILE, metavar="F.jsonl", required=True, help="Texts that the plan was made from."
)
@click.option("--no-harness", is_flag=True, help="By text alone.")
@json_option
@pass_home
def judge(home: Home, /, base: str | None, folder: Path, data: Path, no_harness: bool, as_json: bool) -> None:
    """Hold a compressed checkpoint against its base.

    KL and perplexity on the share of the texts that was kept back, and the tasks. Exit code 1 if it fails.

    Example: plastic compress judge nano-4bit --base nano --data chats.jsonl
    """
    found = _judged(home, base_ref(home, base), folder, data, harness=not no_harness)
    print_json(found.as_dict()) if as_json else _verdict(found)
    if not found.verdict.passed:
        raise SystemExit(1)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path, file_okay=False))
@click.option("--out", type=FOLDER, required=True, help="The new checkpoint's folder.")
@click.option("--module", "modules", multiple=True, metavar="PATH", help="Only this one; may be repeated.")
@click.option("--components", type=click.IntRange(1), help="Only so many removed components of each.")
@click.option("--dry-run", is_flag=True, help="Tell what is parked; write nothing.")
@json_option
@pass_home
def wake(
    home: Home,
    /,
    folder: Path,
    out: Path,
    modules: tuple[str, ...],
    components: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Give parked matrices back, bit for bit, in a new checkpoint.

    Example: plastic compress wake nano-4bit --out nano-again
    """
    from mlx_plastic.compress.park import Parked
    from mlx_plastic.compress.wake import wake as give_back

    if dry_run:
        entries = [vars(e) for e in Parked.open(folder).modules.values()]
        if as_json:
            print_json({"parked": entries, "dry_run": True})
        else:
            print_table(["MODULE", "RANK", "BYTES"], [(e["module"], e["rank"], e["nbytes"]) for e in entries])
        return
    with progress("waking") as tick:
        made = give_back(folder, out, modules=modules, components=components, cache=home.cache, tick=tick)
    value = {**vars(made), "folder": str(made.folder), "modules": list(made.modules)}
    print_json(value) if as_json else _told(value | {"modules": len(made.modules)})


@click.command()
@click.option("--plan", "plan_file", type=FILE, default="plan.json", show_default=True)
@click.option("--source", type=click.Path(exists=True, path_type=Path, file_okay=False), required=True)
@click.option("--name", default="model", show_default=True, help="Of the GGUF files.")
@click.option("--pack", help="A pack to go with it, as a GGUF LoRA.")
@json_option
def gguf(plan_file: Path, source: Path, name: str, pack: str | None, as_json: bool) -> None:
    """Print the llama.cpp commands for a GGUF of the same plan.

    Example: plastic compress gguf --plan plan.json --source ./base --name base-4bit
    """
    from mlx_plastic.compress.gguf import commands
    from mlx_plastic.compress.plan import read_plan

    lines = commands(read_plan(plan_file), source, name, pack=pack)
    if as_json:
        print_json({"commands": lines})
    else:
        click.echo("\n".join(lines))


def _tell(made: Plan, *, everything: bool) -> None:
    from mlx_plastic.compress.plan import explained

    if everything:
        columns = "MODULE BITS GROUP MODE GPTQ BYTES COST PLAIN_COST".split()
        print_table(
            columns,
            [
                (
                    *(m.module, m.bits, m.group_size or None, m.mode, "yes" if m.gptq else "no", m.nbytes),
                    *(m.kl_nats, m.rtn_nats),
                )
                for m in made.matrices
            ],
        )
    for line in explained(made):
        click.echo(line)


def _told(value: dict[str, Any]) -> None:
    print_table(["COMPRESSED", value["folder"]], [(k, v) for k, v in value.items() if k != "folder"])


def _tuned(told: dict[str, Any]) -> str:
    change = f"KL on held-out texts {told['kl_before']:.4g} -> {told['kl_after']:.4g} nats per token"
    if told["kept"]:
        return f"tuned: {change}, step {told['best_step']} of {told['how']['steps']}"
    return f"tuning was not kept, it gains nothing for sure: {change}"


def _judged(home: Home, ref: str, folder: Path, data: Path, *, harness: bool) -> Judged:
    """The verdict, which is kept in the checkpoint's meta as well."""
    from mlx_plastic.compress.apply import keep_verdict
    from mlx_plastic.compress.judge import Bounds
    from mlx_plastic.compress.judge import judge as hold
    from mlx_plastic.home import settings

    bounds = settings(home, "compress", Bounds)
    with progress("judging") as tick:
        found = hold(ref, folder, data, bounds, harness=harness, cache=home.cache, tick=tick)
    keep_verdict(folder, found.as_dict())
    return found


def _verdict(found: Judged) -> None:
    for reason in found.verdict.reasons:
        click.echo(f"{'ok   ' if reason.ok else 'FAILS'} {reason.text}")
    click.echo(f"perplexity {found.base.perplexity:.4g} -> {found.ours.perplexity:.4g}")
    if not found.verdict.passed:
        note("the gate does not pass it: give a larger budget, or bounds of your own in [compress]")


def _repaired(home: Home, ref: str, folder: Path, data: Path, megabytes: float) -> str:
    """A repair pack beside the checkpoint, in the store, worn only where it is asked for."""
    from mlx_plastic.packs import Store
    from mlx_plastic.packs.extract.repair import Repairing, repair

    name = f"repair-{folder.name}"
    store = Store(home)
    store.require_free(name)
    how = Repairing(budget_bytes=int(megabytes * 1e6), storage="int8")
    with progress("repairing") as tick:
        made = repair(ref, str(folder), data, name, how, cache=home.cache, on_progress=tick)
    store.add(made.factors, made.manifest)
    note(made.worth.verdict)
    return name

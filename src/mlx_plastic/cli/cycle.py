"""`plastic cycle`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Number, base_option, open_base
from mlx_plastic.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from mlx_plastic.home import Home


@click.command()
@click.option("--tag", required=True, help="The name of the night, of its pack and of every number.")
@base_option
@click.option("--retry", is_flag=True, help="Take also what failed or undone nights had tried to learn.")
@click.option("--reset-adapter", is_flag=True, help="Start from the bare base, not from the pack worn now.")
@click.option("--minutes", type=Number(min=0, min_open=True), help="The night takes no longer.")
@json_option
@pass_home
def cycle(
    home: Home,
    tag: str,
    base: str | None,
    retry: bool,
    reset_adapter: bool,
    minutes: float | None,
    as_json: bool,
) -> None:
    """Measure, sleep and measure again, every number kept.

    Loss and the harness are measured before and after the night, with the same tasks and texts. The numbers
    go to logs/experiments.jsonl, logs/loss.csv and logs/eval_summary.json of the home. Exit code 1 tells that
    the gate refused.

    Example: plastic cycle --tag monday
    """
    from mlx_plastic.cli.sleep import STOPPED_BY, Stages, chosen_settings, tell
    from mlx_plastic.home import require_train
    from mlx_plastic.sleep import Stop
    from mlx_plastic.sleep.cycle import cycle as one_cycle

    require_train(home)  # before minutes of measuring
    chosen = chosen_settings(home, minutes, None)
    model = open_base(home, base)
    stop = Stop(minutes=chosen.budget.minutes)
    with stop.on_signals(), Stages() as stages:
        found = one_cycle(
            home,
            model,
            tag=tag,
            chosen=chosen,
            stop=stop,
            tick=stages.tick,
            retry=retry,
            reset_adapter=reset_adapter,
        )
    if as_json:
        print_json(found.as_dict())
    else:
        tell(found.night)
        print_table(
            ("set", "nats/token before", "after", "perplexity before", "after"),
            [
                (name, loss.nll, after.nll, loss.perplexity, after.perplexity)
                for name, loss in found.before.losses.items()
                if (after := found.after.losses.get(name))
            ],
        )
        passed = [sum(m.harness.passed.values()) for m in (found.before, found.after)]
        click.echo(
            f"tasks passed: {passed[0]} before, {passed[1]} after, of {len(found.before.harness.passed)}"
        )
        note(f"kept in {home.logs}")
    if stop.signal and found.night.outcome == "stopped":
        raise SystemExit(STOPPED_BY + stop.signal)
    if found.night.outcome == "failed":
        raise SystemExit(1)

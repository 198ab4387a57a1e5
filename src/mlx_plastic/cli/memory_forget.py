"""`plastic memory forget`: out of the log, the index, the nights' data and the packs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import base_option, open_base
from mlx_plastic.cli.output import clock, json_option, note, print_json, short

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.memory import Turn
    from mlx_plastic.sleep.forget import Plan
    from mlx_plastic.sleep.unlearn import Forgetting

OPENING = 48  # characters of a turn in a list


@click.command()
@click.argument("refs", nargs=-1, metavar="[ID...]")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@click.option("--yes", is_flag=True, help="Forget without asking.")
@click.option("--later", is_flag=True, help="Set the packs apart now; the next night rebuilds them.")
@click.option("--purge", is_flag=True, help="Delete the packs that were set apart, once they are rebuilt.")
@click.option("--resume", is_flag=True, help="Go on with a forget that was broken off.")
@base_option
@json_option
@pass_home
def forget(
    home: Home,
    refs: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    later: bool,
    purge: bool,
    resume: bool,
    base: str | None,
    as_json: bool,
) -> None:
    """Delete turns or conversations for ever, and unlearn them.

    They leave the log, the index and the nights' data at once. Every pack that learned from them is set
    apart, and the nights behind the worn one are learned again from what remains. At the end it is measured
    whether the new pack still knows what was forgotten. Can be broken off; --resume goes on.

    Example: plastic memory forget 8fk2 --dry-run
    """
    from mlx_plastic.memory import Memory
    from mlx_plastic.sleep.forget import plan

    if resume == bool(refs):
        raise click.UsageError("name turns or conversations, or give --resume alone")
    if resume:
        _resume(home, base, dry_run=dry_run, as_json=as_json)
        return
    with Memory(home) as log:
        turns = log.pick(refs)
        learned = log.nights(turn.id for turn in turns)
    found = plan(home, [turn.id for turn in turns])
    if not yes:
        tell_turns(turns)
        _tell_plan(found, later=later, purge=purge)
    if dry_run:
        _show_dry_run(home, found, len({turn.conversation for turn in turns}), learned, as_json)
        return
    if not yes:
        click.confirm(f"forget these {len(turns)} turns for ever?", abort=True, err=True)
    done = _run(home, found, base if base else found.base_id, later=later, purge=purge)
    _show(home, done, as_json)


def _resume(home: Home, base: str | None, *, dry_run: bool, as_json: bool) -> None:
    from mlx_plastic.sleep.pending import pending

    waiting = pending(home)
    left = list(waiting.left) if waiting else []
    if waiting and not dry_run:
        ref = base or _base_of(home, waiting.nights)
        _show(home, _run(home, None, ref, later=False, purge=waiting.purge), as_json)
    elif as_json:
        print_json({"pending": waiting is not None, "left": left, "dry_run": dry_run})
    elif waiting:
        click.echo(f"would learn again: {', '.join(left) or 'nothing'}")
    else:
        click.echo("no forget was broken off: there is nothing to go on with")


def _base_of(home: Home, tags: tuple[str, ...]) -> str:
    """What the nights that are to be learned again call their base."""
    from mlx_plastic.sleep.journal import nights

    return next((j.record.base_id for j in nights(home) if j.record.tag in tags), "")


def _run(home: Home, found: Plan | None, base: str, *, later: bool, purge: bool) -> Forgetting:
    from mlx_plastic.cli.sleep import STOPPED_BY, Stages
    from mlx_plastic.sleep import Stop, read_settings
    from mlx_plastic.sleep.unlearn import forget as forget_

    needed = not later and (found is None or bool(found.rebuild))
    model = open_base(home, base or None) if needed else None
    stop = Stop()
    with stop.on_signals(), Stages() as stages:
        done = forget_(
            home,
            model,
            found,
            chosen=read_settings(home),
            purge=purge,
            stop=stop,
            tick=stages.tick,
        )
    if done.stopped:
        note(f"{done.stopped}; still to be rebuilt: {', '.join(done.left)}: plastic memory forget --resume")
        raise SystemExit(STOPPED_BY + stop.signal)
    return done


def tell_turns(turns: Iterable[Turn]) -> None:
    """A line on stderr for each."""
    for turn in turns:
        note(f"{turn.id}  {clock(turn.created_at)}  {turn.role:<9}  {short(turn.content, OPENING)}")


def _tell_plan(found: Plan, *, later: bool, purge: bool) -> None:
    for pack in found.packs:
        pinned = ", pinned" if pack.pinned else ""
        fate = "set apart" + (", deleted at the end" if purge else "")
        note(f"pack {pack.name} ({pack.status}{pinned}) learned from {pack.turns} of them: {fate}")
    for name in found.unread:
        note(f"pack {name} cannot be read: whether it learned from them is not known")
    if found.rebuild:
        when = "by the next night" if later else f"about {found.seconds / 60:.1f} minutes"
        note(f"learned again without them, {when}: nights {', '.join(found.rebuild)}")


def _show_dry_run(
    home: Home, found: Plan, conversations: int, learned: tuple[str, ...], as_json: bool
) -> None:
    if not as_json:
        click.echo(f"would delete {len(found.turns)} turns of {conversations} conversations")
        return
    told = {"turns": list(found.turns), "conversations": conversations, "nights": list(learned)}
    print_json({**told, "samples": 0, **found.as_dict(), "dry_run": True, "not_searched": _aside(home)})


def _aside(home: Home) -> list[str]:
    """Lines that an import could not read: nobody has searched them."""
    return sorted(map(str, home.memory_db.parent.glob("*.rejected.jsonl")))


def _show(home: Home, done: Forgetting, as_json: bool) -> None:
    erased = done.erased
    if as_json:
        found: dict[str, Any] = {
            **dataclasses.asdict(erased),
            "rebuilt": done.rebuilt,
            "left": list(done.left),
            "proof": done.proof and done.proof.as_dict(),
            "dry_run": False,
            "not_searched": _aside(home),
        }
        print_json(found)
        return
    click.echo(f"deleted {len(erased.turns)} turns of {erased.conversations} conversations")
    if erased.samples:
        click.echo(f"deleted {erased.samples} samples that nights had made of them")
    if erased.quarantined:
        click.echo(f"set apart: {', '.join(erased.quarantined)}; they still hold it: plastic packs remove")
    for tag, outcome in done.rebuilt.items():
        click.echo(f"night {tag} learned again: {outcome}")
    for tag in sorted(set(erased.nights) - set(done.rebuilt) - set(done.left)):
        click.echo(f"night {tag} had learned from them; no pack that was worn grew from it")
    if done.left:
        click.echo(f"still to be learned again, by the next night: {', '.join(done.left)}")
    if done.proof:
        p = done.proof
        told = "nothing of it is left" if p.forgotten else "more is left of it than chance explains"
        click.echo(
            f"exposure of {p.answers} answers: {p.before:.2f} bits before, {p.after:.2f} after; "
            f"chance is {p.chance:.2f} ± {p.spread:.2f}: {told}"
        )
    for file in _aside(home):
        note(f"not searched, lines that an import kept aside: {file}")

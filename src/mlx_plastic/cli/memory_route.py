"""`plastic memory route`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import clock, json_option, note, print_json, print_table, printable, short

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.memory import Memory, Turn
    from mlx_plastic.memory.router import Decision, RouterConfig

OPENING = 40  # characters of a turn in the table
SHOWN = 600  # characters of a turn that is to be labelled
CANDIDATES = 200  # the latest turns, of which the least sure are asked about
KEYS = "w weights, r retrieval, b both, n neither, Enter as it is, s skip, q quit"
AGO = re.compile(r"(\d{1,6})\s*([mhdw])")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Since(click.ParamType[datetime]):
    """A date, a time, or how long ago: 2026-11-20, 2026-11-20T18:00, 7d, 12h."""

    name = "WHEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if ago := AGO.fullmatch(value):
                return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no date and no time ago: write 2026-11-20 or 7d", param, ctx)


@click.command()
@click.option("--label", is_flag=True, help="Ask about the turns that are least sure, one at a time.")
@click.option("--set", "given", multiple=True, metavar="ID=ROUTE", help="Say where a turn goes; repeatable.")
@click.option("--unset", multiple=True, metavar="ID", help="Take that back; repeatable.")
@click.option("--since", type=Since(), help="Only turns from then on: 2026-11-20, 7d, 12h.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many turns.")
@click.option("--text", metavar="TEXT", help="Route this TEXT instead; nothing is kept.")
@click.option("--dry-run", is_flag=True, help="With --set or --unset: only tell which turns are meant.")
@json_option
@pass_home
def route(
    home: Home,
    label: bool,
    given: tuple[str, ...],
    unset: tuple[str, ...],
    since: datetime | None,
    limit: int,
    text: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """See where what you said goes, and correct it.

    Each thing you say goes into the weights (learned at night), to retrieval (looked up later), to both, or
    to neither. What you correct is heeded at once, and the router learns from it. ROUTE is one of weights,
    retrieval, both and neither, or its first letter; ID is a turn, a conversation or an unmistakable part.

    Example: plastic memory route --since 7d
    """
    from mlx_plastic.home import settings
    from mlx_plastic.memory import Memory
    from mlx_plastic.memory.router import RouterConfig

    if sum((label, bool(given or unset), text is not None)) > 1:
        raise click.UsageError("--label, --set/--unset and --text do not go together")
    config = settings(home, "router", RouterConfig)
    with Memory(home) as log:
        if given or unset:
            _set(log, given, unset, dry_run=dry_run, as_json=as_json)
        elif text is not None:
            _try(log, config, text, as_json=as_json)
        elif label:
            _ask(log, config, _said(log, since, max(limit, CANDIDATES)), limit, as_json=as_json)
        else:
            _show(log, config, _said(log, since, limit), as_json=as_json)


def _said(log: Memory, since: datetime | None, limit: int) -> list[Turn]:
    return [t for t in log.turns(since) if t.role == "user"][-limit:]


def _show(log: Memory, config: RouterConfig, turns: Sequence[Turn], *, as_json: bool) -> None:
    from mlx_plastic.memory.router import counts, recorded, route_turns

    decisions = route_turns(log, turns, config)
    if as_json:
        earlier = recorded(log)
        rows = [
            {
                **d.as_dict(),
                "logged": earlier[t.id].route if t.id in earlier else None,
                "time": t.created_at.isoformat(),
                "text": t.content,
            }
            for t, d in zip(turns, decisions, strict=True)
        ]
        print_json({"turns": rows, "counts": counts(decisions)})
        return
    if not turns:
        click.echo("nothing was said yet")
        return
    print_table(
        ("turn", "route", "score", "by", "why", "begins"),
        [
            (t.id, d.route, f"{d.score:.2f}", d.by, ", ".join(d.reasons[:2]), short(t.content, OPENING))
            for t, d in zip(turns, decisions, strict=True)
        ],
    )
    found = counts(decisions)
    shares = ", ".join(f"{found[name]} {name} ({share:.0%})" for name, share in found["shares"].items())
    click.echo(f"{len(turns)} turns: {shares}; {found['abstained']} unsure, {found['corrected']} by you")


def _try(log: Memory, config: RouterConfig, text: str, *, as_json: bool) -> None:
    from mlx_plastic.memory import Turn
    from mlx_plastic.memory.router import personal_router
    from mlx_plastic.memory.tags import tags_in

    turn = Turn("", "", "user", text, datetime.now(UTC), tags=tags_in(text))
    decision = personal_router(log, config).decide(turn)
    if as_json:
        print_json({k: v for k, v in decision.as_dict().items() if k != "turn"} | {"own_words": decision.own})
        return
    click.echo(f"{decision.route}  {decision.score:.2f}  by {decision.by}: {', '.join(decision.reasons)}")
    if decision.own != text.strip():
        click.echo(f"your own words: {printable(decision.own) or 'none'}")


def _set(log: Memory, given: Sequence[str], unset: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
    from mlx_plastic.memory.router import Route, parse_route, set_label

    wanted: dict[str, Route | None] = {}
    for pair in given:
        ref, found, name = pair.rpartition("=")
        if not found or not ref:
            raise click.BadParameter(f"{pair!r} is not ID=ROUTE", param_hint="--set")
        wanted |= dict.fromkeys(_asked(log, ref), parse_route(name))
    for ref in unset:
        wanted |= dict.fromkeys(_asked(log, ref))
    nights = log.nights(turn for turn, to in wanted.items() if to in ("retrieval", "neither"))
    changed = 0
    for route_ in set() if dry_run else set(wanted.values()):
        changed += set_label(log, [turn for turn, to in wanted.items() if to == route_], route_)
    if as_json:
        print_json({"turns": wanted, "changed": changed, "nights": nights, "dry_run": dry_run})
        return
    for turn, to in wanted.items() if dry_run else ():
        note(f"{turn}  {to or 'as the router decides'}")
    click.echo(f"{changed} of {len(wanted)} turns changed")
    _tell_nights(nights)


def _asked(log: Memory, ref: str) -> list[str]:
    """The user turns that are meant; of a conversation all of them."""
    return [t.id for t in log.pick([ref]) if t.role == "user"]


def _ask(log: Memory, config: RouterConfig, turns: Sequence[Turn], limit: int, *, as_json: bool) -> None:
    from mlx_plastic.memory.router import least_sure, parse_route, set_label

    answers, labelled = _answers(), dict[str, str]()
    asked = least_sure(log, turns, config)[:limit]
    if asked:
        note(KEYS)
    for place, (turn, decision) in enumerate(asked, 1):
        answer = _answer(answers, turn, decision, f"{place}/{len(asked)}")
        if answer == "q":
            break
        if answer != "s":
            chosen = parse_route(answer) if answer else decision.route
            set_label(log, [turn.id], chosen)  # at once: whoever breaks off keeps what they said
            labelled[turn.id] = chosen
    nights = log.nights(turn for turn, to in labelled.items() if to in ("retrieval", "neither"))
    if as_json:
        print_json({"labelled": labelled, "asked": len(asked), "nights": nights})
        return
    click.echo(
        f"{len(labelled)} turns labelled; the router learns from them" if asked else "nothing to label"
    )
    _tell_nights(nights)


def _answer(answers: Callable[[], str], turn: Turn, decision: Decision, place: str) -> str:
    """One of w, r, b, n, s, q, or "" for what the router says."""
    note(f"\n{place}  {clock(turn.created_at)}")
    note(short(turn.content, SHOWN))
    while True:
        click.echo(f"{decision.route} ({', '.join(decision.reasons)}) > ", nl=False, err=True)
        key = answers()
        note(key)
        if key in ("", "w", "r", "b", "n", "s", "q"):
            return key
        note(KEYS)


def _answers() -> Callable[[], str]:
    """What gives the next key, or the next line's first letter where no terminal is; "q" at the end."""
    if sys.stdin.isatty():

        def pressed() -> str:
            try:
                return click.getchar().strip().lower()
            except (EOFError, KeyboardInterrupt):
                return "q"

        return pressed
    lines = iter(sys.stdin)
    return lambda: next((line.strip().lower()[:1] for line in lines), "q")


def _tell_nights(nights: Sequence[str]) -> None:
    for night in nights:
        click.echo(f"night {night} may have learned from them; to unlearn it: plastic rollback")

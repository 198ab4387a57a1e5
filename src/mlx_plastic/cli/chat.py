"""`plastic chat`."""

from __future__ import annotations

import contextlib
import difflib
import io
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import Number, base_option, base_ref, pack_name
from mlx_plastic.cli.output import note, printable, progress
from mlx_plastic.errors import PlasticError

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.memory import Memory, Turn
    from mlx_plastic.serve import ChatConfig, Engine, Why
    from mlx_plastic.serve.notes import Notes

NOTE_SHOWN = 200  # characters
PRIVATE = "private session: nothing is remembered"
UNASKED = "nothing is remembered: you have not agreed to it; to agree: plastic config set consent.log true"


@click.command()
@base_option
@click.option("--pack", "--adapter-tag", "pack", metavar="NAME", help='Wear this pack, or "base", this time.')
@click.option("--max-tokens", type=click.IntRange(min=1), help="At most so many tokens an answer.")
@click.option("--temperature", type=Number(min=0), help="0 says the likeliest; 1 as it was trained.")
@click.option("--seed", type=int, help="Makes sampling repeatable.")
@click.option("--rag/--no-rag", default=None, help="Look up what was said before; else as configured.")
@click.option("--rag-verbose", is_flag=True, help="Show what was looked up, on stderr.")
@click.option("--no-log", is_flag=True, help="A private session: nothing of it is remembered.")
@pass_home
def chat(
    home: Home,
    base: str | None,
    pack: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    rag: bool | None,
    rag_verbose: bool,
    no_log: bool,
) -> None:
    """Talk with the model; every turn is remembered.

    Lines from a pipe are answered one by one. Answers go to stdout, all else to stderr. /help lists what
    can be done within a chat.

    Example: echo "What is my name?" | plastic chat
    """
    from mlx_plastic.base import load_base
    from mlx_plastic.home import consent, settings
    from mlx_plastic.memory import Memory
    from mlx_plastic.packs import Store
    from mlx_plastic.serve import ChatConfig, Engine

    config = settings(home, "chat", ChatConfig)
    ref = base_ref(home, base)
    private = no_log or not consent(home).log
    memory = Memory(None if private else home)  # first: a damaged log is told before a long load
    store, choice = Store(home), _choice(home, pack)
    engine = Engine(load_base(ref, cache=home.cache), memory, store, config.window_tokens, choice)
    if rag or (rag is None and (config.rag or rag_verbose)):
        engine.notes = _notes(home, memory, config, private=private)
    session = Session(
        engine,
        memory.new_conversation(),
        max_tokens=max_tokens or config.max_tokens,
        temperature=config.temperature if temperature is None else temperature,
        dice=random.Random(seed),
        interactive=_is_interactive(),
        shows_notes=rag_verbose,
    )
    _talk(session, private=PRIVATE if no_log else UNASKED if private else "")


@dataclass
class Session:
    """One conversation at the keyboard."""

    engine: Engine
    conversation: str
    max_tokens: int
    temperature: float
    dice: random.Random
    interactive: bool
    ended: bool = False
    told: tuple[str, ...] = ()  # packs that the person knows to be worn
    shows_notes: bool = False


def _talk(session: Session, *, private: str) -> None:
    """private: why nothing is remembered; "" if it is."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):  # a byte that is no character must not end the chat
            stream.reconfigure(errors="replace")
    session.told = session.engine.sync()  # a pack that does not fit is told before the first word
    if session.engine.base.note:
        note(session.engine.base.note)
    if private:
        note(private)
    if session.interactive:
        note(f"{session.engine.base.ref}, wearing {_names(session.told)}; /help lists commands, Ctrl-D ends")
    for line in _lines(session.interactive):
        try:
            _handle(session, line.strip())
        except PlasticError as error:
            if not session.interactive:
                raise
            note(f"error: {error}")
        if session.ended:
            return


def _notes(home: Home, memory: Memory, config: ChatConfig, *, private: bool) -> Notes:
    """What looks things up: in this home's memory, also for a private session, of which it keeps nothing."""
    from mlx_plastic.memory import Memory
    from mlx_plastic.memory.recall import INSTALL
    from mlx_plastic.serve.notes import Notes

    recall = (Memory(home) if private else memory).recall()
    if not recall.model:
        note(f"notes are found by words alone; to find them by meaning too: {INSTALL}")
    with progress("index") as tick:
        recall.read(tick)
    return Notes(recall, config.notes, config.least_match, count=not private)


def _is_interactive() -> bool:
    return sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())


def _lines(interactive: bool) -> Iterator[str]:
    if not interactive:
        yield from sys.stdin
        return
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    # on stderr where possible: stdout holds the answers only
    screen = sys.stderr if sys.stderr.isatty() else sys.stdout
    prompts: PromptSession[str] = PromptSession("> ", output=create_output(screen))
    while True:
        try:
            yield prompts.prompt()
        except KeyboardInterrupt:
            note("(Ctrl-D or /quit ends)")
        except EOFError:
            return


def _handle(session: Session, line: str) -> None:
    if line.startswith("//"):
        _answer(session, line[1:])
    elif line.startswith("/"):
        name, _, rest = line.partition(" ")
        _command(name)(session, rest.strip())
    elif line:
        _answer(session, line)


def _answer(session: Session, text: str) -> None:
    """Say what the model says as it comes; Ctrl-C stops it, and from a pipe ends the program as well."""
    seed = session.dice.getrandbits(31)
    try:
        pieces = session.engine.reply(
            session.conversation,
            text,
            max_tokens=session.max_tokens,
            temperature=session.temperature,
            seed=seed,
        )
        _tell_notes(session)
        with contextlib.closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                click.echo(printable(piece), nl=False)
        click.echo()
    except KeyboardInterrupt:
        if not session.interactive:
            raise
        click.echo()
        note("(stopped)")
    _tell_packs(session)


def _tell_notes(session: Session) -> None:
    for hit in session.engine.recalled if session.shows_notes else ():
        text = printable(" ".join(hit.text.split()))
        day = f"{hit.at.astimezone():%Y-%m-%d}" if hit.at else "-"
        note(f"(note {hit.turn}  {day}  {hit.speaker}  {hit.match:.2f}  {text[:NOTE_SHOWN]})")


def _tell_packs(session: Session) -> None:
    if (worn := session.engine.worn) != session.told:
        note(f"(wearing {_names(worn)} now)")
        session.told = worn


# -- slash commands


def _undo(session: Session, rest: str) -> None:
    """Take back the last question and its answer; they are neither used nor learned."""
    taken = session.engine.memory.undo(session.conversation)
    note(f"took back {_turns(len(taken))}" if taken else "nothing to take back")


def _forget(session: Session, rest: str) -> None:
    """Delete the last question and its answer from the disk for ever."""
    from mlx_plastic.sleep.journal import scrub

    memory, turns = session.engine.memory, _last(session)
    if not turns:
        note("nothing to forget")
    elif rest != "yes":
        note(f"this deletes the last {_turns(len(turns))} for ever; to do so: /forget yes")
    else:
        done = memory.forget(t.id for t in turns)
        scrub(session.engine.store.home, done.turns)
        note(f"forgot {_turns(len(done.turns))}")
        for night in done.nights:
            note(f"night {night} has learned from them; the next one unlearns it: plastic sleep")


def _no_train(session: Session, rest: str) -> None:
    """Keep the last question and its answer out of every night; #no-train in a message does the same."""
    turns = _last(session)
    session.engine.memory.tag((t.id for t in turns), "no-train")
    note(f"no night will learn from the last {_turns(len(turns))}" if turns else "nothing was said yet")


def _pack(session: Session, rest: str) -> None:
    """Show the packs; NAME or "base" wears another in this chat only, "active" the usual one."""
    if rest:
        session.told = session.engine.wear(
            _choice(session.engine.store.home, None if rest == "active" else rest)
        )
        note(f"wearing {_names(session.told)} in this chat")
        return
    note(f"wearing {_names(session.engine.worn)}")
    for entry in session.engine.store.entries():
        note(f"  {entry.name}  {entry.status}{'  broken: ' + entry.fault if entry.fault else ''}")


def _why(session: Session, rest: str) -> None:
    """Show what went into the last answer."""
    why = session.engine.why()
    for name, value in _reasons(why) if why else [("", "nothing was said yet")]:
        note(f"{name:<12} {value}".strip())


def _quit(session: Session, rest: str) -> None:
    """End the chat."""
    session.ended = True


def _help(session: Session, rest: str) -> None:
    """Show this list."""
    for name, run in COMMANDS.items():
        note(f"{name:<10} {(run.__doc__ or '').strip()}")
    note("//TEXT     Say something that begins with a slash.")


COMMANDS: dict[str, Callable[[Session, str], None]] = {
    "/undo": _undo,
    "/forget": _forget,
    "/no-train": _no_train,
    "/pack": _pack,
    "/why": _why,
    "/help": _help,
    "/quit": _quit,
}


def _command(name: str) -> Callable[[Session, str], None]:
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else "/help lists the commands"
        raise PlasticError("no such command in a chat", hint=f"{hint} To say a line with a slash: //...")
    return COMMANDS[name]


def _last(session: Session) -> list[Turn]:
    return session.engine.memory.last_exchange(session.conversation)


def _choice(home: Home, pack: str | None) -> tuple[str, ...] | None:
    from mlx_plastic.packs import BARE

    if pack is None:
        return None
    return () if pack == BARE else (pack_name(home, pack),)


def _names(worn: tuple[str, ...]) -> str:
    return " + ".join(worn) or "no pack"


def _turns(n: int) -> str:
    return f"{n} turn{'' if n == 1 else 's'}"


def _reasons(why: Why) -> list[tuple[str, str]]:
    speed = f"{why.answer_tokens / why.seconds:.0f} tokens/s" if why.seconds else "-"
    left_out = f", {why.dropped} old exchanges left out" if why.dropped else ""
    merged = f", {why.merged} joined" if why.merged else ""
    return [
        ("base", f"{why.base} ({why.fingerprint[:12]})"),
        ("packs", f"{_names(why.worn)}{' (chosen in this chat)' if why.chosen else ''}"),
        ("read", f"{why.messages} messages{merged}{left_out}"),
        ("prompt", f"{why.prompt_tokens} of {why.window_tokens} tokens"),
        ("recalled", " ".join(why.recalled) or "-"),
        ("sampling", f"temperature {why.temperature:g}, seed {why.seed}, at most {why.max_tokens} tokens"),
        ("answer", f"{why.answer_tokens} tokens in {why.seconds:.2f} s, {speed}"),
        ("turns", f"{why.question} {why.answer or '-'}{' (interrupted)' if why.interrupted else ''}"),
    ]

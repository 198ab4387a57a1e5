"""The commands that the pages name: found in blocks and in running text, one shell line each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from mlx_plastic.cli.main import plastic

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OURS = ("plastic", "packs")
SHELL = ("", "sh", "bash", "console", "shell")  # what a fence with commands may call itself


@dataclass(frozen=True)
class Said:
    """One line of shell on a page. block: it stands in a block, to be typed as it is; else in a sentence."""

    page: str
    line: int
    text: str
    block: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text}"


def pages() -> list[Path]:
    """README and all of docs; not the page that is made of the commands themselves."""
    return [ROOT / "README.md", *sorted(p for p in DOCS.glob("*.md") if p.name != "cli.md")]


def said(page: Path) -> list[Said]:
    """Each shell line with a command of ours on this page, in order; continued lines are joined."""
    found = [*_in_blocks(page), *_in_sentences(page)]
    return sorted((s for s in found if ours(s.text)), key=lambda s: s.line)


def ours(text: str) -> list[str]:
    """The arguments of our command in a shell line, the name included; [] if there is none."""
    for part in re.split(r"\s\|\s|&&|;\s", text):
        words = _words(part)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if "--" in words and words[0] == "mlx.launch":
            words = words[words.index("--") + 1 :]
        if words and words[0] in OURS:
            return words
    return []


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:  # an apostrophe in a sentence
        return []


def _in_blocks(page: Path) -> Iterator[Said]:
    lines = page.read_text(encoding="utf-8").split("\n")
    fence, before = "", ""
    joined, began = "", 0
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            fence = "" if fence else (line[3:].strip() or "none")
            before = ""
            continue
        indented = not fence and line.startswith("    ") and (before == "" or before.startswith("    "))
        if fence in ("none", *SHELL) if fence else indented:
            text = line.strip().removeprefix("$ ")
            joined, began = (f"{joined} {text}", began) if joined else (text, number)
            if joined.endswith("\\"):
                joined = joined[:-1].strip()
            else:
                yield Said(page.name, began, joined, True)
                joined = ""
        before = line.rstrip()


def _in_sentences(page: Path) -> Iterator[Said]:
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").split("\n"), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside and not line.startswith("    "):
            for text in re.findall(r"`([^`]+)`", line):
                yield Said(page.name, number, text, False)


def fault(words: list[str], *, whole: bool) -> str:
    """What is wrong with a command of ours, "" if nothing: its names, options, choices and arguments.

    whole: what is required has to be there as well; a sentence may name a command alone.
    """
    command, rest, context = _command(words)
    if isinstance(rest, str):
        return rest
    if not isinstance(command, click.Command):
        return "no command"
    parser = command.make_parser(context)
    try:
        given, left, _ = parser.parse_args(args=list(rest))
    except click.UsageError as error:
        return "" if not whole and isinstance(error, click.MissingParameter) else error.format_message()
    if left:
        return f"unexpected {left}"
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if not _is_set(value):
            if whole and parameter.required and not _is_set(parameter.get_default(context)):
                return f"{parameter.name} is missing"
        elif isinstance(parameter.type, click.Choice) and (bad := _no_choice(parameter, value)):
            return bad
    return ""


def _is_set(value: object) -> bool:
    """Not None, nothing, or click's own mark of what was not given (a private name since 8.3)."""
    return value is not None and value != () and "UNSET" not in str(value)


def _no_choice(parameter: click.Parameter, value: object) -> str:
    assert isinstance(parameter.type, click.Choice)
    for one in value if isinstance(value, tuple) else (value,):
        try:
            parameter.type.convert(one, parameter, None)
        except click.BadParameter as error:
            return error.message
    return ""


def _command(words: list[str]) -> tuple[click.Command | None, list[str] | str, click.Context]:
    """The command that the words name, what is left for it (or a fault), and its context."""
    found: click.Command = plastic
    rest = words[1:] if words[0] == "plastic" else ["packs", *words[1:]]
    context = click.Context(found, info_name="plastic", **found.context_settings)
    while isinstance(found, click.Group):
        try:
            _, rest, _ = found.make_parser(context).parse_args(args=list(rest))
        except click.UsageError as error:
            return None, error.format_message(), context
        below = found.get_command(context, rest[0]) if rest else None
        if below is None:
            if rest and not found.invoke_without_command:
                return None, f"no command {rest[0]!r} of {context.command_path}", context
            return found, [], context
        context = click.Context(below, info_name=rest[0], parent=context, **below.context_settings)
        found, rest = below, rest[1:]
    return found, rest, context

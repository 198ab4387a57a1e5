"""`plastic memory scan`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.output import json_option, note, print_json, print_table, printable

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.memory.privacy import Destination, Redacted

SHOWN = 200  # lines with finds


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--policy",
    "destination",
    type=click.Choice(["training", "storage", "index"]),
    default="training",
    show_default=True,
    help="What would be done on the way to there.",
)
@click.option("--jsonl", is_flag=True, help="Print one JSON object per line of FILE, as they come.")
@click.option("--limit", type=click.IntRange(min=0), default=SHOWN, show_default=True, help="Lines shown.")
@json_option
@pass_home
def scan(home: Home, file: Path, destination: Destination, jsonl: bool, limit: int, as_json: bool) -> None:
    """Show what is personal or secret in a FILE, or in - (stdin), and what would be done with it.

    Nothing is changed or remembered. With --json or --jsonl each line of FILE is a text of its own: as it
    stands, as a JSON string, as {"text": ...} or as {"messages": [{"content": ...}, ...]}; so is each line of
    a file that ends in .jsonl. Otherwise FILE is one text.

    Example: plastic memory scan notes.txt --policy training
    """
    from mlx_plastic.memory.privacy import lines, read_policy, redact

    policy = read_policy(home, destination)
    with lines.opened(Path("/dev/stdin") if str(file) == "-" else file) as opened:
        if jsonl or as_json:
            found = (
                lines.as_json(number, texts, done, policy)
                for number, (texts, done) in enumerate(lines.redacted_lines(opened, policy), 1)
            )
            if jsonl:
                for value in found:
                    click.echo(json.dumps(value, ensure_ascii=False))
            else:
                print_json(list(found))
            return
        if file.suffix == ".jsonl":
            pairs = [
                (text, done)
                for texts, found_in in lines.redacted_lines(opened, policy)
                for text, done in zip(texts.texts, found_in, strict=True)
            ]
        else:
            whole = opened.read().decode("utf-8", "replace")
            pairs = [(whole, redact(whole, policy))]
    _tell(pairs, destination, limit)


def _tell(pairs: Sequence[tuple[str, Redacted]], destination: str, limit: int) -> None:
    changed = [line for text, done in pairs for line in _diff(text, done)]
    for line in changed[:limit]:
        click.echo(line)
    if len(changed) > limit:
        note(f"and {len(changed) - limit} more lines: --limit {len(changed)} shows them all")
    total: Counter[tuple[str, str]] = Counter()
    for _, done in pairs:
        total.update(done.actions)
    if not total:
        click.echo(f"nothing in it that is looked for on the way to {destination}")
        return
    click.echo()
    print_table(("kind", "action", "found"), [(*key, count) for key, count in sorted(total.items())])
    if dropped := sum(done.dropped for _, done in pairs):
        click.echo(f"{dropped} of {len(pairs)} texts would be left out")


def _diff(text: str, done: Redacted) -> list[str]:
    """The lines with finds: [-what goes-]{+what comes+}, {=what stays=}; in colours on a terminal."""
    pieces, at = [], 0
    for span, placeholder in zip(done.spans, done.placeholders, strict=True):
        found = text[span.start : span.end]
        pieces.append(text[at : span.start])
        if placeholder:
            pieces += [_marked("-", found), _marked("+", placeholder)]
        else:
            pieces.append(_marked("=", found))
        at = span.end
    lines = "".join([*pieces, text[at:]]).split("\n")
    return [_coloured(printable(line)) for line in lines if _MARK.search(line)]


_OPEN, _CLOSE = "\ue000", "\ue001"  # private characters, so that nothing in a text is taken for a mark
_MARK = re.compile(f"{_OPEN}([-+=])(.*?){_CLOSE}")
_LOOK = {"-": ("red", "[-", "-]"), "+": ("green", "{+", "+}"), "=": ("yellow", "{=", "=}")}


def _marked(sign: str, text: str) -> str:
    """Each of its lines by itself."""
    return "\n".join(f"{_OPEN}{sign}{line}{_CLOSE}" for line in text.split("\n"))


def _coloured(line: str) -> str:
    def look(match: re.Match[str]) -> str:
        colour, opening, closing = _LOOK[match[1]]
        return click.style(f"{opening}{match[2]}{closing}", fg=colour)

    return _MARK.sub(look, line)

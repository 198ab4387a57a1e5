"""`plastic memory scan`."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from mlx_plastic.cli.main import pass_home
from mlx_plastic.cli.options import base_option
from mlx_plastic.cli.output import json_option, note, print_json, print_table, printable, progress

if TYPE_CHECKING:
    from mlx_plastic.home import Home
    from mlx_plastic.memory.privacy import Destination, Redacted
    from mlx_plastic.memory.privacy.lines import Texts
    from mlx_plastic.memory.privacy.second import SecondReader

SHOWN = 200  # lines with finds
QUIET_S = 1.0  # a scan that is over by then says nothing on its way


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
@click.option("--second-reader", is_flag=True, help="Ask the base too, as a night can; slow.")
@base_option
@json_option
@pass_home
def scan(
    home: Home,
    file: Path,
    destination: Destination,
    jsonl: bool,
    limit: int,
    second_reader: bool,
    base: str | None,
    as_json: bool,
) -> None:
    """Show what is personal or secret in a FILE, or in - (stdin), and what would be done with it.

    Nothing is changed or remembered. With --json or --jsonl each line of FILE is a text of its own: as it
    stands, as a JSON string, as {"text": ...} or as {"messages": [{"content": ...}, ...]}; so is each line of
    a file that ends in .jsonl. Otherwise FILE is one text.

    Example: plastic memory scan notes.txt --policy training
    """
    from mlx_plastic.memory.privacy import lines, read_policy

    if second_reader and destination != "training":
        raise click.UsageError("--second-reader reads what is on its way to training, as a night does")
    if base and not second_reader:
        raise click.UsageError("--base is for --second-reader")
    policy = read_policy(home, destination)
    path = Path("/dev/stdin") if str(file) == "-" else file
    by_line = jsonl or as_json or path.suffix == ".jsonl"
    seen = _Seen()
    with lines.opened(path) as opened, progress("scanning") as tick:
        reader = _reader(home, base) if second_reader else None
        size = 0 if jsonl and sys.stdout.isatty() else path.stat().st_size  # the lines tell how far it is
        raw = seen.counted(opened, size, tick)
        read = map(lines.texts_of, raw) if by_line else lines.pieces_of(raw)
        found = seen.noted(lines.redacted(read, policy, together=not by_line, reader=reader))
        if jsonl or as_json:
            rows = (lines.as_json(n, texts, done, policy) for n, (texts, done) in enumerate(found, 1))
            if jsonl:
                for row in rows:
                    click.echo(json.dumps(row, ensure_ascii=False))
            else:
                print_json(list(rows))
        else:
            total, changed = _summed(found, limit)
    seen.tell()
    if reader:
        left = f"; {reader.unread} too long or too many" if reader.unread else ""
        note(f"second reader: {reader.read} texts read{left}; {reader.named} finds of its own")
    if not (jsonl or as_json):
        _tell(total, changed, destination, limit, by_line=by_line)


def _reader(home: Home, ref: str | None) -> SecondReader:
    from mlx_plastic.cli.options import open_base
    from mlx_plastic.home import settings
    from mlx_plastic.memory.privacy import PrivacyConfig
    from mlx_plastic.memory.privacy.second import SecondReader

    return SecondReader(open_base(home, ref), settings(home, "privacy", PrivacyConfig).second_reader_texts)


class _Seen:
    """What a person should know of how the file was read, besides what was found in it."""

    def __init__(self) -> None:
        self.broken: list[int] = []
        self.garbled = 0

    def counted(self, opened: IO[bytes], size: int, tick: Callable[..., None]) -> Iterator[bytes]:
        """The lines. Progress is told of files whose size is known, once they take time."""
        done, began = 0, time.monotonic()
        for line in opened:
            yield line
            done += len(line)
            if size and time.monotonic() - began > QUIET_S:
                tick(done, size)

    def noted(self, found: Iterable[tuple[Texts, list[Redacted]]]) -> Iterator[tuple[Texts, list[Redacted]]]:
        for number, (texts, done) in enumerate(found, 1):
            if texts.broken:
                self.broken.append(number)
            self.garbled += texts.garbled
            yield texts, done

    def tell(self) -> None:
        if self.broken:
            few = ", ".join(map(str, self.broken[:5])) + (", ..." if len(self.broken) > 5 else "")
            note(f"read as it stands, though it begins as JSON does: line {few} ({len(self.broken)} in all)")
        if self.garbled:
            note(f"{self.garbled} bytes are no UTF-8 and were read as \ufffd")


class _Total:
    """Counts over all texts."""

    def __init__(self) -> None:
        self.texts = self.dropped = self.lines = 0
        self.actions: Counter[tuple[str, str]] = Counter()


def _summed(found: Iterable[tuple[Texts, list[Redacted]]], limit: int) -> tuple[_Total, list[str]]:
    """The counts, and the first lines with finds as they are to be shown."""
    total, changed = _Total(), list[str]()
    for texts, done in found:
        for text, one in zip(texts.texts, done, strict=True):
            total.texts += 1
            total.dropped += one.dropped
            total.actions.update(one.actions)
            shown = _diff(text, one) if one.spans else []
            total.lines += len(shown)
            changed += shown[: limit - len(changed)]
    return total, changed


def _tell(total: _Total, changed: Sequence[str], destination: str, limit: int, *, by_line: bool) -> None:
    for line in changed:
        click.echo(line)
    if total.lines > limit:
        note(f"and {total.lines - limit} more lines: --limit {total.lines} shows them all")
    if not total.actions:
        click.echo(f"nothing in it that is looked for on the way to {destination}")
        return
    click.echo()
    print_table(("kind", "action", "found"), [(*key, count) for key, count in sorted(total.actions.items())])
    if total.dropped:
        texts = f"{total.dropped} of {total.texts} texts" if by_line else "all of it"
        click.echo(f"{texts} would be left out")


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

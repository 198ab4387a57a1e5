"""The log in and out as JSONL: one conversation a line, {"messages": [{"role": ..., "content": ...}, ...]}.

On top of that, all optional: "conversation" (or "id") at the line, "time" (ISO 8601 or seconds since 1970),
"tags" and "interrupted" at a message. Other tools' further keys are passed over.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count, groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mlx_plastic.errors import BadData, MemoryFault
from mlx_plastic.home import sync, sync_folder
from mlx_plastic.memory.privacy import Redacted
from mlx_plastic.memory.records import Turn, iso
from mlx_plastic.memory.tags import known, tags_in
from mlx_plastic.samples import BadLine, Message, parse_messages

if TYPE_CHECKING:
    from mlx_plastic.memory.log import Memory

log = logging.getLogger(__name__)

BATCH_LINES = 1000  # one transaction: a crash loses at most this much, and the next run brings it
MAX_LINE_BYTES = 16 * 2**20
KEPT_OF_TOO_LONG = 1000  # bytes


@dataclass(frozen=True)
class ImportProgress:
    lines: int
    done_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class ImportReport:
    """What an import did, or in a dry run would do.

    conversations: new or longer ones. duplicates: lines that were in the log already. forgotten: lines of
    conversations from which turns have been forgotten; they stay forgotten. rejected: where the bad lines
    are kept, with their numbers and reasons.
    """

    conversations: int
    turns: int
    duplicates: int
    forgotten: int
    bad: tuple[BadLine, ...]
    rejected: Path | None


@dataclass(frozen=True)
class ExportReport:
    conversations: int
    turns: int


@dataclass(frozen=True)
class _Line:
    """A line that parsed. digest: keyed with the log's own secret, so that it tells nothing elsewhere."""

    conversation: str | None
    turns: tuple[Turn, ...]  # without id and conversation
    digest: bytes


def import_jsonl(
    memory: Memory,
    path: Path,
    *,
    dry_run: bool = False,
    on_progress: Callable[[ImportProgress], None] | None = None,
) -> ImportReport:
    """Bring the conversations of a JSONL file into the log; the same file twice adds nothing.

    A line that cannot be used is kept aside in "<name>.rejected.jsonl" beside the log, with its number and
    the reason, and the others go in. A conversation that grew since the last import gets its new turns.
    Raises MemoryFault if the file cannot be read.
    """
    importer = _Importer(memory, dry_run=dry_run)
    aside = _Aside(memory.path.parent if memory.path and not dry_run else None, path.name)
    with _opened(path) as file, aside:
        size = os.fstat(file.fileno()).st_size
        for batch in _batches(_numbered(file)):
            with memory.writing():
                for number, line in batch:
                    try:
                        importer.take(_parse(line, importer.key))
                    except BadData as error:
                        aside.keep(BadLine(number, error.message), line)
            if on_progress:
                on_progress(ImportProgress(batch[-1][0], file.tell() if file.seekable() else 0, size))
    report = replace(importer.report, bad=tuple(aside.bad), rejected=aside.path)
    if not dry_run:
        with memory.writing():
            memory.note("import", count=report.turns)
    log.info(
        "import: %d turns in %d conversations; lines: %d duplicate, %d forgotten, %d kept aside",
        *(report.turns, report.conversations, report.duplicates, report.forgotten, len(report.bad)),
    )
    return report


def export_jsonl(memory: Memory, path: Path) -> ExportReport:
    """Write the log, without undone turns, so that an import of it elsewhere has the same conversations.

    The file is private (0600) and appears whole or not at all. Raises MemoryFault if it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    conversations = turns = 0
    try:
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            for line, said in export_lines(memory):
                file.write(line)
                conversations, turns = conversations + 1, turns + said
            file.flush()
            sync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise MemoryFault(f"cannot write {path}: {error.strerror}", hint="check the folder") from error
    finally:
        beside.unlink(missing_ok=True)
    with memory.writing():
        memory.note("export", count=turns)
    log.info("exported %d turns in %d conversations", turns, conversations)
    return ExportReport(conversations, turns)


def export_lines(memory: Memory) -> Iterator[tuple[bytes, int]]:
    """The lines of an export and how many turns each holds."""
    for conversation in memory.conversations():
        turns = memory.turns(conversation=conversation.id)
        value = {"conversation": conversation.id, "messages": [_as_dict(t) for t in turns]}
        if turns:
            yield (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8"), len(turns)


def _as_dict(turn: Turn) -> dict[str, Any]:
    value: dict[str, Any] = {**turn.message.as_dict(), "time": iso(turn.created_at)}
    if turn.tags:
        value["tags"] = sorted(turn.tags)
    if turn.interrupted:
        value["interrupted"] = True
    return value


class _Importer:
    """Decides for each parsed line what is new in it, and inserts that. Runs inside `writing`."""

    def __init__(self, memory: Memory, *, dry_run: bool) -> None:
        self.memory, self.dry_run = memory, dry_run
        self.key: bytes = memory.run("SELECT key FROM secret")[0][0]
        self.report = ImportReport(0, 0, 0, 0, (), None)
        self._done: dict[Turn, Redacted] = {}  # what privacy did to the turns of the line at hand
        self._seen: set[bytes] = set()  # of a dry run, which leaves no trace in the log

    def take(self, line: _Line) -> None:
        if line.digest in self._seen or self._known_digest(line.digest):
            self._count(duplicates=1)
            return
        self._seen |= {line.digest} if self.dry_run else set()
        line = self._stored(line)
        said = self.memory.turns(conversation=line.conversation, undone=True) if line.conversation else []
        if line.conversation and (said or self._forgotten(line.conversation)):
            self._grow(line, said)
        else:
            self._add(line, line.turns, line.conversation)

    def _grow(self, line: _Line, said: list[Turn]) -> None:
        """A conversation of that name is there: is it the same one, and does the line go on from its end?"""
        given, every = _texts(line.turns), _texts(said)
        live = _texts(t for t in said if not t.undone)
        if given in (every[: len(given)], live[: len(given)]):
            self._count(duplicates=1)
        elif self._forgotten(str(line.conversation)) and _within(live, given):
            self._count(forgotten=1)
        elif given[: len(live)] == live:
            self._add(line, line.turns[len(live) :], line.conversation)
        else:  # another conversation that happens to bear the same name
            self._add(line, line.turns, None)

    def _add(self, line: _Line, turns: Iterable[Turn], conversation: str | None) -> None:
        name = conversation or self.memory.new_conversation()
        new = [replace(t, id=self.memory.new_turn(), conversation=name) for t in turns]
        if not self.dry_run:
            self.memory.insert(new)
            done = {t.id: d for t in new if (d := self._done.get(replace(t, id="", conversation="")))}
            self.memory.guard.note("storage", done)
            self.memory.run("INSERT INTO imports VALUES (?, ?)", [line.digest, name])
        self._count(conversations=1, turns=len(new))

    def _stored(self, line: _Line) -> _Line:
        """The line as the log is to hold it: an import of the same line again has the same placeholders."""
        done = self.memory.guard.stored_all([turn.content for turn in line.turns])
        if done is None:
            return line
        turns = tuple(replace(turn, content=d.text) for turn, d in zip(line.turns, done, strict=True))
        self._done = {turn: d for turn, d in zip(turns, done, strict=True) if d.masked}
        return replace(line, turns=turns)

    def _known_digest(self, digest: bytes) -> bool:
        return bool(self.memory.run("SELECT 1 FROM imports WHERE digest = ?", [digest]))

    def _forgotten(self, conversation: str) -> bool:
        sql = "SELECT 1 FROM conversations WHERE id = ? AND forgotten > 0"
        return bool(self.memory.run(sql, [conversation]))

    def _count(self, **more: int) -> None:
        self.report = replace(self.report, **{k: getattr(self.report, k) + n for k, n in more.items()})


class _Aside:
    """Keeps bad lines in a file of their own, which appears when the import ends, if there were any.

    folder: None only lists them. An earlier import's file with other lines in it is never overwritten.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self.folder, self.name = folder, Path(name).stem or "stdin"
        self.bad: list[BadLine] = []
        self.path: Path | None = None
        self._file: IO[bytes] | None = None
        self._beside = (folder or Path()) / f".{self.name}.{secrets.token_hex(4)}.part"

    def __enter__(self) -> _Aside:
        return self

    def keep(self, bad: BadLine, line: bytes) -> None:
        self.bad.append(bad)
        if self.folder is None:
            return
        if self._file is None:
            self._file = os.fdopen(os.open(self._beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
        if len(line) > MAX_LINE_BYTES:
            line = line[:KEPT_OF_TOO_LONG]
        text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        record = {"number": bad.number, "reason": bad.reason, "line": text}
        self._file.write(json.dumps(record).encode("ascii") + b"\n")  # ASCII: any byte can be got back

    def __exit__(self, *_: object) -> None:
        if self._file is None or self.folder is None:
            return
        self._file.close()
        kept = self._beside.read_bytes()
        names = (f"{self.name}{'' if n == 1 else f'-{n}'}.rejected.jsonl" for n in count(1))
        paths = (self.folder / name for name in names)
        self.path = next(p for p in paths if not p.exists() or p.read_bytes() == kept)
        self._beside.replace(self.path)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise MemoryFault(f"cannot read {path}: {error.strerror}", hint="check the path") from error


def _numbered(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Line numbers and lines; a line over the bound comes cut off one byte beyond it."""
    for number in count(1):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
        if line.strip():
            yield number, line


def _batches(lines: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    for _, batch in groupby(enumerate(lines), key=lambda item: item[0] // BATCH_LINES):
        yield [line for _, line in batch]


def _parse(line: bytes, key: bytes) -> _Line:
    """Raises BadData with a reason that holds none of the line's text."""
    if len(line) > MAX_LINE_BYTES:
        raise BadData(f"longer than {MAX_LINE_BYTES >> 20} MB; only its beginning is kept")
    try:
        value = json.loads(line.decode("utf-8-sig"))
        messages = parse_messages(value)
    except UnicodeError:
        raise BadData("not Unicode text") from None  # the cause would quote the line
    except (ValueError, RecursionError):
        raise BadData("not JSON") from None
    conversation, now = _conversation(value), datetime.now(UTC)
    turns = tuple(_turn(i, m, value["messages"][i], now) for i, m in enumerate(messages))
    said = json.dumps([conversation, [[m.role, m.content] for m in messages]])
    return _Line(conversation, turns, hmac.digest(key, said.encode("utf-8"), hashlib.sha256))


def _conversation(value: dict[str, Any]) -> str | None:
    given = value.get("conversation", value.get("id"))
    if given is None:
        return None
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or not 0 < len(given) <= 200 or not given.isprintable():
        raise BadData("the conversation's id is no printable text of 1 to 200 characters")
    return given


def _turn(index: int, message: Message, value: dict[str, Any], now: datetime) -> Turn:
    tags, interrupted = value.get("tags") or [], value.get("interrupted") or False
    ours = isinstance(tags, list) and all(isinstance(t, str) for t in tags) and isinstance(interrupted, bool)
    if not ours:
        raise BadData(f"messages[{index}] has tags or a mark of another kind than ours")
    try:
        tags = known(tags) | tags_in(message.content)
    except BadData:
        raise BadData(f"messages[{index}].tags holds an unknown tag") from None
    at = _time_of(index, value.get("time"), now)
    return Turn("", "", message.role, message.content, at, "import", (), tags, interrupted)


def _time_of(index: int, value: object, now: datetime) -> datetime:
    if value is None:
        return now
    with suppress(ValueError, OverflowError, OSError):
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    raise BadData(f"messages[{index}].time is no time")


def _texts(turns: Iterable[Turn]) -> list[tuple[str, str]]:
    return [(t.role, t.content) for t in turns]


def _within(some: list[tuple[str, str]], every: list[tuple[str, str]]) -> bool:
    """Whether `some` is `every` with gaps."""
    rest = iter(every)
    return all(text in rest for text in some)

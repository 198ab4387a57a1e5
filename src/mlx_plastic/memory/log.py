"""Every turn, in the order it was said, on the disk before anything else happens to it."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_plastic.errors import Busy, MemoryFault
from mlx_plastic.home import Home, require_log
from mlx_plastic.memory import database, jsonl
from mlx_plastic.memory.guard import Guard
from mlx_plastic.memory.records import (
    AuditRecord,
    Conversation,
    Exchange,
    Forgotten,
    Redaction,
    Stats,
    Turn,
    exchanges,
    iso,
    parse_time,
)
from mlx_plastic.memory.tags import UNTAUGHT, known, tags_in
from mlx_plastic.samples import ROLES, Role

if TYPE_CHECKING:
    from mlx_plastic.memory.recall import Recall

log = logging.getLogger(__name__)

CHUNK = 64  # conversations that are read at once while a night's lessons are looked for

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # in ASCII order, without look-alikes: ids sort by time
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]  # ten bits each


class Memory:
    """The log of one home. Safe to share between threads; other processes may use the same home.

    home: None keeps everything in RAM and nothing on disk (a private session).
    Opening raises MemoryFault for a log that is damaged, foreign or of a newer format.
    """

    def __init__(self, home: Home | None) -> None:
        self.path: Path | None = home.memory_db if home else None
        self._lock = threading.RLock()
        self._clock_us = 0
        self._home = home
        self._recall: Recall | None = None
        self.guard = Guard(self, home)
        self._db = database.connect(self.path)

    def close(self) -> None:
        if self._recall:
            self._recall.close()
        with self._lock:
            self._db.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing

    def new_conversation(self) -> str:
        """An id for a conversation; it is in the log from its first turn on."""
        return self._id("c")

    def new_turn(self) -> str:
        return self._id("t")

    def remember(
        self,
        conversation: str,
        role: Role,
        content: str,
        *,
        worn: Sequence[str] = (),
        tags: Iterable[str] = (),
        interrupted: bool = False,
    ) -> Turn:
        """Append a turn; when this returns it is on the disk. Tags written in the text count too.

        Secrets are masked (see `Guard.stored`): the turn that is given back is what the log holds.
        Characters that are no Unicode text (half a surrogate pair) become "?".
        Raises ValueError for an unknown role or a blank content, MemoryFault if it cannot be kept, NoConsent
        if the person has not agreed that what is said is kept, or has taken that back.
        """
        if role not in ROLES or not content.strip():
            raise ValueError(f"a turn needs a role of {ROLES} and a text")
        if self._home:
            require_log(self._home)
        content = content.encode("utf-8", "replace").decode("utf-8")
        tags = known(tags) | tags_in(content)
        masked = self.guard.stored(conversation, content)
        with self.writing():
            text = masked.text if masked else content
            said = (self.new_turn(), conversation, role, text, self.now())
            turn = Turn(*said, worn=tuple(worn), tags=tags, interrupted=interrupted)
            self.insert([turn])
            if masked:
                self.guard.note("storage", {turn.id: masked})
        return turn

    def insert(self, turns: Sequence[Turn]) -> None:
        """Append turns and, where new, their conversations. For the import, inside `writing`."""
        self._db.executemany(
            "INSERT OR IGNORE INTO conversations (id, origin, created_at) VALUES (?, ?, ?)",
            {t.conversation: (t.conversation, t.origin, iso(t.created_at)) for t in reversed(turns)}.values(),
        )
        self._db.executemany(
            "INSERT INTO turns (id, conversation, role, content, created_at, origin, worn, interrupted)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (t.id, t.conversation, t.role, t.content, iso(t.created_at), t.origin, worn, t.interrupted)
                for t, worn in ((t, json.dumps(t.worn)) for t in turns)
            ],
        )
        self._db.executemany("INSERT INTO tags VALUES (?, ?)", [(t.id, tag) for t in turns for tag in t.tags])

    def undo(self, conversation: str) -> tuple[Turn, ...]:
        """Take back the last user turn and what followed it; () if there is none.

        Nothing uses an undone turn any more, but its text stays until it is forgotten.
        """
        with self.writing():
            taken = tuple(self.last_exchange(conversation))
            self._db.executemany("UPDATE turns SET undone = 1 WHERE id = ?", [(t.id,) for t in taken])
            self.note("undo", turns=[t.id for t in taken])
        return taken

    def tag(self, turns: Iterable[str], tag: str, *, remove: bool = False) -> int:
        """Put a tag on turns, or take it off; how many turns that changed.

        turns: as for `pick`. Raises BadData for an unknown tag.
        """
        known([tag])
        ids = [t.id for t in self.pick(turns)]
        add, drop = "INSERT OR IGNORE INTO tags VALUES (?, ?)", "DELETE FROM tags WHERE turn = ? AND tag = ?"
        with self.writing():
            changed = [i for i in ids if self._db.execute(drop if remove else add, (i, tag)).rowcount > 0]
            self.note("untag" if remove else "tag", kind=tag, turns=changed)
        return len(changed)

    def forget(self, turns: Iterable[str]) -> Forgotten:
        """Delete turns so that no file of log or index holds their text; only ids and counts stay.

        turns: ids. Ones forgotten earlier may be among them: a forget can be repeated, and tells of all.
        Raises MemoryFault for an id that never was, or if there is no space to rewrite the files; Busy if
        another process keeps old pages in use.
        """
        wanted = set(turns)
        with self.writing():
            here = dict(self.run("SELECT id, conversation FROM turns"))
            gone = {i for (i,) in self.run("SELECT turn FROM audit WHERE action = 'forget'")}
            if unknown := sorted(wanted - here.keys() - gone):
                raise MemoryFault(f"no such turn: {', '.join(unknown)}", hint="see plastic memory list")
            ids = sorted(wanted & here.keys())
            nights = self.nights(wanted)
            for turn in ids:
                self.run("UPDATE conversations SET forgotten = forgotten + 1 WHERE id = ?", [here[turn]])
                self.run("DELETE FROM turns WHERE id = ?", [turn])
            self.note("forget", turns=ids)
        self._wipe()
        if self._recall or (self._home and self._home.memory_index.exists()):
            self.recall().forget(sorted(wanted))
        log.info("forgot %d turns; %d nights had learned from them", len(ids), len(nights))
        return Forgotten(tuple(sorted(wanted)), len({here[i] for i in ids}), nights)

    def learned(self, turns: Iterable[str], night: str) -> None:
        """A night that passed has learned from these turns."""
        with self.writing():
            self._db.executemany("INSERT OR IGNORE INTO learned VALUES (?, ?)", [(t, night) for t in turns])

    def unlearn(self, night: str) -> int:
        """The night is taken back: its turns wait again. How many it had learned from."""
        with self.writing():
            return self._db.execute("DELETE FROM learned WHERE night = ?", (night,)).rowcount

    # -- reading

    def turns(
        self,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        *,
        conversation: str | None = None,
        undone: bool = False,
    ) -> list[Turn]:
        """Turns in the order they were logged, undone ones only on request.

        since, until: a turn id (itself not included by since, included by until) or a time (both included).
        """
        where = [
            "1" if undone else "NOT undone",
            "1" if conversation is None else "conversation = :conversation",
            _bound("since", since),
            _bound("until", until),
        ]
        values = {"conversation": conversation, "since": _value(since), "until": _value(until)}
        return self._select(" AND ".join(where), values)

    def latest(self, most: int) -> list[Turn]:
        """The last so many turns that stand, in order."""
        last = "SELECT seq FROM turns WHERE NOT undone ORDER BY seq DESC LIMIT :most"
        return self._select(f"seq IN ({last})", {"most": most})

    def last_exchange(self, conversation: str) -> list[Turn]:
        """The last user turn that stands and what followed it; [] if there is none."""
        turns = self.turns(conversation=conversation)
        asked = [i for i, t in enumerate(turns) if t.role == "user"]
        return turns[asked[-1] :] if asked else []

    def pick(self, refs: Iterable[str]) -> list[Turn]:
        """The turns meant by ids of turns or of conversations, or by the unique beginning or end of one.

        Undone turns included. Raises MemoryFault for a reference that means nothing, or several things.
        """
        found: dict[str, Turn] = {}
        for ref in refs:
            found |= {t.id: t for t in self._picked(ref)}
        return sorted(found.values(), key=lambda t: t.id)

    def conversations(self) -> list[Conversation]:
        """All conversations that still have turns, the oldest first."""
        rows = self.run(
            "SELECT c.id, c.origin, c.created_at, MAX(t.created_at), COUNT(t.id),"
            " (SELECT content FROM turns u WHERE u.conversation = c.id AND u.role = 'user' AND NOT u.undone"
            "  ORDER BY seq LIMIT 1)"
            " FROM conversations c JOIN turns t ON t.conversation = c.id AND NOT t.undone"
            " GROUP BY c.id ORDER BY MIN(t.seq)"
        )
        return [
            Conversation(name, origin, parse_time(at), parse_time(last), turns, opening or "")
            for name, origin, at, last, turns, opening in rows
        ]

    def unlearned(
        self, *, most: int | None = None, without: Set[str] = frozenset(), only: Set[str] | None = None
    ) -> list[Exchange]:
        """Every conversation with a user turn that may be learned from and no passed night has, redacted.

        without, only: turns that do not count as such, or that alone do. most: so many of them, the longest
        waiting first; only what is needed for these is read and redacted, however much is logged.
        """
        found, left = list[Exchange](), most
        wanted = _Wanted(without, only)
        waiting = self._conversations_waiting(wanted)
        while waiting and (left is None or left > 0):
            some, waiting = (waiting, []) if left is None else (waiting[:CHUNK], waiting[CHUNK:])
            for talk in self.guard.learnable(_cut(self._exchanges(wanted, some), left)):
                (talk,) = _cut([talk], left)
                asked = sum(t.role == "user" and t.id in talk.new for t in talk.turns)
                found += [talk] if asked else []
                left = None if left is None else left - asked
        return found

    def _conversations_waiting(self, wanted: _Wanted) -> list[str]:
        """Conversations with a user turn that was not learned, the longest waiting first."""
        rows = self.run(
            "SELECT id, conversation FROM turns WHERE role = 'user' AND NOT undone"
            " AND id NOT IN (SELECT turn FROM learned) ORDER BY seq"
        )
        return list(dict.fromkeys(talk for turn, talk in rows if turn in wanted))

    def nights(self, turns: Iterable[str]) -> tuple[str, ...]:
        """The passed nights that learned from any of these turns."""
        wanted = json.dumps(list(turns))
        rows = self.run(
            "SELECT DISTINCT night FROM learned WHERE turn IN (SELECT value FROM json_each(?))", [wanted]
        )
        return tuple(sorted(night for (night,) in rows))

    def stats(self) -> Stats:
        with self._lock, database.plainly(self._where):

            def counts(sql: str) -> dict[str, int]:
                return dict(self._db.execute(sql).fetchall())

            by_state = counts("SELECT undone, COUNT(*) FROM turns GROUP BY undone")
            conversations, interrupted, oldest, newest = self._db.execute(
                "SELECT COUNT(DISTINCT conversation), TOTAL(interrupted), MIN(created_at), MAX(created_at)"
                " FROM turns WHERE NOT undone"
            ).fetchone()
            (forgotten,) = self._db.execute("SELECT TOTAL(forgotten) FROM conversations").fetchone()
            return Stats(
                conversations=conversations,
                turns=sum(n for undone, n in by_state.items() if not undone),
                by_role=counts("SELECT role, COUNT(*) FROM turns WHERE NOT undone GROUP BY role"),
                by_origin=counts("SELECT origin, COUNT(*) FROM turns WHERE NOT undone GROUP BY origin"),
                by_tag=counts(
                    "SELECT tag, COUNT(*) FROM tags JOIN turns ON id = turn WHERE NOT undone GROUP BY tag"
                ),
                undone=sum(n for undone, n in by_state.items() if undone),
                interrupted=int(interrupted),
                forgotten=int(forgotten),
                waiting=self._waiting(),
                oldest=parse_time(oldest) if oldest else None,
                newest=parse_time(newest) if newest else None,
                size_bytes=sum(file.stat().st_size for file in self.files()),
            )

    def audit(self) -> list[AuditRecord]:
        rows = self.run("SELECT at, action, kind, turn, count FROM audit ORDER BY seq")
        return [AuditRecord(parse_time(at), *rest) for at, *rest in rows]

    def redactions(self) -> list[Redaction]:
        """What privacy did to turns, in counts."""
        return self.guard.noted()

    def files(self) -> list[Path]:
        """The files that hold the log."""
        return database.files(self.path)

    def recall(self, *, model: bool | None = None) -> Recall:
        """Finds again what was said; opened when first asked for. model: see `open_recall`."""
        with self._lock:
            if self._recall is None:
                from mlx_plastic.memory.recall import open_recall  # NumPy and the detectors

                self._recall = open_recall(self, self._home, model=model)
            return self._recall

    # -- in and out

    def import_jsonl(
        self,
        path: Path,
        *,
        dry_run: bool = False,
        on_progress: Callable[[jsonl.ImportProgress], None] | None = None,
    ) -> jsonl.ImportReport:
        """See `jsonl.import_jsonl`."""
        return jsonl.import_jsonl(self, path, dry_run=dry_run, on_progress=on_progress)

    def export_jsonl(self, path: Path) -> jsonl.ExportReport:
        """See `jsonl.export_jsonl`."""
        return jsonl.export_jsonl(self, path)

    # -- for this room

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: on the disk when it ends, as if never begun when it fails."""
        with self._lock, database.plainly(self._where):
            if self._db.in_transaction:  # a caller of ours has begun it
                yield
                return
            with database.transaction(self._db):
                yield

    def run(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """All rows at once: a cursor left open would keep another process's forget from finishing."""
        with self._lock, database.plainly(self._where):
            return self._db.execute(sql, values).fetchall()

    def run_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """The same for each of the rows. Inside `writing`."""
        self._db.executemany(sql, rows)

    def placed(self, where: str, values: Mapping[str, object]) -> list[tuple[int, Turn]]:
        """The turns of which a condition in SQL holds, in order, each with its place in the log."""
        rows = self.run(
            "SELECT seq, id, conversation, role, content, created_at, origin, worn, interrupted, undone,"
            f" (SELECT group_concat(tag) FROM tags WHERE turn = id) FROM turns WHERE {where} ORDER BY seq",
            values,
        )
        return [
            (
                seq,
                Turn(
                    *(i, c, role, text, parse_time(at), origin),
                    worn=tuple(json.loads(worn)),
                    tags=frozenset(tags.split(",")) if tags else frozenset(),
                    interrupted=bool(interrupted),
                    undone=bool(undone),
                ),
            )
            for seq, i, c, role, text, at, origin, worn, interrupted, undone, tags in rows
        ]

    def now(self) -> datetime:
        return datetime.now(UTC)

    def note(
        self, action: str, *, kind: str = "", turns: Iterable[str] = (), count: int | None = None
    ) -> None:
        """Audit records: one per turn, or one with a count. Inside `writing`."""
        at = iso(self.now())
        rows = [(at, action, kind, t, 1) for t in turns] if count is None else [(at, action, kind, "", count)]
        self._db.executemany("INSERT INTO audit (at, action, kind, turn, count) VALUES (?, ?, ?, ?, ?)", rows)

    @property
    def _where(self) -> str:
        return str(self.path or "in RAM")

    def _wipe(self) -> None:
        """Leave no deleted byte: rewrite the database without gaps, then empty its journal."""
        try:
            self.run("VACUUM")
            wiped = self.run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
        except Busy:
            wiped = False
        except MemoryFault as error:
            raise MemoryFault(
                f"the turns are deleted, but {self._where} could not be rewritten without their bytes",
                hint=f"free as much disk space as it takes; {database.AGAIN}",
            ) from error
        if not wiped:
            raise Busy(
                f"the turns are deleted, but another process still uses old pages of {self._where}",
                hint=f"end the programs that use this home; {database.AGAIN}",
            )

    def untaught(self) -> set[str]:
        """Turns that are not to be learned, nor learned again: tagged so, beside one that is, or undone."""
        tagged = self.run(
            "SELECT DISTINCT conversation FROM turns JOIN tags ON turn = id "
            "WHERE tag IN (SELECT value FROM json_each(?))",
            [json.dumps(sorted(UNTAUGHT))],
        )
        groups = [g for (talk,) in tagged for g in exchanges(self.turns(conversation=talk))]
        found = {t.id for group in groups if any(t.tags & UNTAUGHT for t in group) for t in group}
        return found | {turn for (turn,) in self.run("SELECT id FROM turns WHERE undone")}

    def _exchanges(self, wanted: _Wanted, conversations: Iterable[str]) -> list[Exchange]:
        """Of these conversations those with at least one user turn that is wanted and was not learned."""
        learned = {turn for (turn,) in self.run("SELECT DISTINCT turn FROM learned")}
        said: dict[str, list[Turn]] = {conversation: [] for conversation in conversations}
        wholes = "NOT undone AND conversation IN (SELECT value FROM json_each(:talks))"
        for turn in self._select(wholes, {"talks": json.dumps(list(said))}):
            said[turn.conversation].append(turn)
        found = []
        for conversation, talk in said.items():
            groups = [g for g in exchanges(talk) if not any(t.tags & UNTAUGHT for t in g)]
            turns = tuple(t for group in groups for t in group)
            new = frozenset(t.id for t in turns if t.id in wanted and t.id not in learned)
            if any(t.role == "user" and t.id in new for t in turns):
                found.append(Exchange(conversation, turns[0].origin, turns, new))
        return found

    def _waiting(self) -> int:
        """User turns for the next night; what the last one had to drop does not wait."""
        wanted = _Wanted(self.guard.dropped(), None)
        talks = self._exchanges(wanted, self._conversations_waiting(wanted))
        return sum(turn.role == "user" and turn.id in talk.new for talk in talks for turn in talk.turns)

    def _picked(self, ref: str) -> list[Turn]:
        ref = ref.encode("utf-8", "replace").decode("utf-8")  # SQLite takes no half of a surrogate pair
        if turns := self._select("id = :ref OR conversation = :ref", {"ref": ref}):
            return turns
        like = ref.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        names = self.run(
            "SELECT id FROM turns WHERE id LIKE ? || '%' ESCAPE '\\' OR id LIKE '%' || ? ESCAPE '\\' UNION"
            " SELECT DISTINCT conversation FROM turns"
            " WHERE conversation LIKE ? || '%' ESCAPE '\\' OR conversation LIKE '%' || ? ESCAPE '\\' LIMIT 4",
            [like] * 4,
        )
        if len(names) != 1 or not ref:
            several = f"{ref!r} may mean {', '.join(n for (n,) in names)}"
            raise MemoryFault(
                several if names else f"no turn or conversation {ref!r}",
                hint="give more of the id: plastic memory list shows them",
            )
        return self._select("id = :ref OR conversation = :ref", {"ref": names[0][0]})

    def _select(self, where: str, values: Mapping[str, object]) -> list[Turn]:
        return [turn for _, turn in self.placed(where, values)]

    def _id(self, kind: str) -> str:
        """kind, 12 characters of time in microseconds (never the same twice in one process), 8 of chance."""
        with self._lock:
            self._clock_us = max(time.time_ns() // 1000, self._clock_us + 1)
            number = self._clock_us << 40 | secrets.randbits(40)
        return kind + "".join(_PAIRS[number >> bits & 1023] for bits in range(90, -1, -10))


@dataclass(frozen=True)
class _Wanted:
    """Which turns are asked for: all but `without`, or of these `only` some."""

    without: Set[str]
    only: Set[str] | None

    def __contains__(self, turn: object) -> bool:
        return turn not in self.without and (self.only is None or turn in self.only)


def _cut(talks: Sequence[Exchange], most: int | None) -> list[Exchange]:
    """Each talk up to where it has `most` new user turns, the last of them with its answer."""
    found = []
    for talk in talks:
        asked = [i for i, turn in enumerate(talk.turns) if turn.role == "user" and turn.id in talk.new]
        if most is None or len(asked) <= most:
            found.append(talk)
            continue
        turns = talk.turns[: asked[most]]
        found.append(replace(talk, turns=turns, new=talk.new & {t.id for t in turns}))
    return found


def _bound(name: str, value: str | datetime | None) -> str:
    if value is None:
        return "1"
    if isinstance(value, datetime):
        return f"created_at {'>=' if name == 'since' else '<='} :{name}"
    here = f"(SELECT seq FROM turns WHERE id = :{name})"
    near = f"(SELECT MAX(seq) FROM turns WHERE id < :{name})"  # a forgotten turn's place, by its id alone
    return f"seq {'>' if name == 'since' else '<='} COALESCE({here}, {near}, 0)"


def _value(bound: str | datetime | None) -> str | None:
    return iso(bound) if isinstance(bound, datetime) else bound

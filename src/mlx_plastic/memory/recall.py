"""The index of a log, kept in step with it: what may be found again, and finding it."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlx_plastic.errors import Busy, PlasticError
from mlx_plastic.home import Home, settings
from mlx_plastic.home.config import check_bounds
from mlx_plastic.memory.embed import INSTALL, Embedder, find_embedder
from mlx_plastic.memory.index import Hit, Index, IndexStats, store
from mlx_plastic.memory.index.sync import Admit, follow, unread

if TYPE_CHECKING:
    from mlx_plastic.memory.log import Memory

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class RetrievalConfig:
    """[retrieval] of config.toml."""

    model: bool = True  # find by meaning too, if an embedder is installed
    embed_s: float = 0.5  # how long a question may wait for vectors of new turns; the rest come meanwhile

    def __post_init__(self) -> None:
        """Raises BadConfig for a time that makes no sense."""
        check_bounds("retrieval", self, {"embed_s": (0, math.inf)})


class Recall:
    """What was said, found again. One for a Memory; see `Memory.recall`.

    memory: the log. path: of the index; None keeps it in RAM. admit: a conversation's turns -> the text of
    each as it may be found, None for one that may not.
    rebuilt: why the index had to be made anew since this was opened; "" if it had not.
    """

    def __init__(
        self,
        memory: Memory,
        path: Path | None,
        *,
        embedder: Embedder | None,
        admit: Admit,
        rules: str = "",
        embed_s: float = RetrievalConfig.embed_s,
    ) -> None:
        self.rebuilt = ""
        self._memory = memory
        self._path = path
        self._embedder = embedder
        self._admit = admit
        self._origin = _origin(memory, rules)
        self._embed_s = embed_s
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._index = self._open()

    def close(self) -> None:
        self._closing.set()
        if self._thread:
            self._thread.join()
        self._index.close()

    @property
    def model(self) -> str:
        """The embedder's name; "" if turns are found by their words alone."""
        return self._embedder.name if self._embedder else ""

    def search(
        self,
        question: str,
        limit: int = 10,
        *,
        exclude: Iterable[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        around: int = 0,
    ) -> list[Hit]:
        """The turns that answer best; see `Index.search`. All that the log holds by now can be found."""

        def found() -> list[Hit]:
            self._follow()
            if self._index.embed(seconds=self._embed_s):
                self._embed_meanwhile()
            return self._index.search(
                question,
                limit,
                exclude=frozenset(exclude),
                since=since,
                until=until,
                around=around,
            )

        return self._mending(found)

    def bring_up(self, turns: Iterable[str]) -> None:
        """See `Index.bring_up`."""
        named = list(turns)
        self._mending(lambda: self._index.bring_up(named))

    def catch_up(self, on_progress: Callable[[str, int, int], None] | None = None) -> None:
        """Take in everything that the log holds, with its vectors. on_progress(what, done, total)."""
        tell = on_progress or (lambda what, done, total: None)

        def caught_up() -> None:
            self._follow(lambda done, total: tell("reading", done, total))
            self._index.embed(on_progress=lambda done, total: tell("embedding", done, total))

        self._mending(caught_up)

    def read(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Take in everything that the log holds, without vectors: those come with the questions."""
        self._mending(lambda: self._follow(on_progress))

    def compact(self) -> None:
        """Rewrite the file without gaps."""
        self._mending(lambda: self._index.wipe())

    def rebuild(self) -> None:
        """Throw the index away; the next use makes it anew from the log, also what was pruned."""
        with self._lock:
            self._renew()

    def prune(self, before: datetime) -> int:
        """See `Index.prune`."""

        def pruned() -> int:
            self._follow()
            return self._index.prune(before)

        return self._mending(pruned)

    def forget(self, turns: Sequence[str]) -> None:
        """Leave nothing of these turns in any byte of the index; the log has forgotten them already.

        Raises Busy if another process keeps old pages in use.
        """

        def forgotten() -> None:
            self._follow(wipe=False)  # brings in what was not kept because one of these said the same
            self._index.drop(turns)
            self._index.wipe()

        self._mending(forgotten)

    def stats(self) -> IndexStats:
        def counted() -> IndexStats:
            return replace(self._index.stats(), unread=unread(self._memory, self._index))

        return self._mending(counted)

    # -- keeping in step

    def _follow(self, on_progress: Callable[[int, int], None] | None = None, *, wipe: bool = True) -> None:
        """Take in and out what the log did since. wipe: if it forgot something, leave no byte of it."""
        if self._index.number("origin") != self._origin:
            if self._index.number("log_seq"):
                self._told("it is of another log, or privacy has other rules now")
            with self._index.writing():
                self._index.empty()
                self._index.set_number("origin", self._origin)
        forgot = follow(self._memory, self._index, self._admit, on_progress)
        if forgot and wipe:
            try:
                self._index.wipe()
            except Busy as error:  # the log's own forget told the person
                log.warning("%s", error.message)

    def _embed_meanwhile(self) -> None:
        """Vectors for what is left, while other things go on; until then it is found by its words."""
        if self._thread and self._thread.is_alive():
            return

        def work() -> None:
            try:
                while not self._closing.is_set() and self._index.embed(seconds=0):
                    pass
            except (PlasticError, store.Damaged) as error:  # the next search meets it too, and tells
                log.info("embedding stopped: %s", type(error).__name__)

        self._thread = threading.Thread(target=work, name="embed", daemon=True)
        self._thread.start()

    def _mending(self, action: Callable[[], T]) -> T:
        """Do it; with an index made anew from the log if this one turns out to be damaged.

        If another process made it anew, what we have open is no longer at its place: a forget would leave
        the text in the new one.
        """
        with self._lock:
            if self._index.identity != store.identity(self._path):
                self._index.close()
                self._index = self._open()
            try:
                return action()
            except store.Damaged as error:
                self._told(str(error))
                self._renew()
                return action()

    def _open(self) -> Index:
        known = store.identity(self._path)
        try:
            return Index(self._path, embedder=self._embedder)
        except store.Damaged as error:
            assert self._path is not None
            self._told(str(error))
            store.replace(self._path, known)
            return Index(self._path, embedder=self._embedder)

    def _renew(self) -> None:
        self._index.close()
        if self._path:
            store.replace(self._path, self._index.identity)
        self._index = self._open()

    def _told(self, reason: str) -> None:
        self.rebuilt = reason
        log.warning("the index of the memory is made anew from the log: %s", reason)


def open_recall(memory: Memory, home: Home | None, *, model: bool | None = None) -> Recall:
    """The index of a home's log as config.toml has it; of a private session, in RAM.

    model: False finds by words alone, whatever is configured.
    """
    from mlx_plastic.memory.index.admit import admission

    config = settings(home, "retrieval", RetrievalConfig)
    wanted = config.model if model is None else model
    admit, rules = admission(home)
    return Recall(
        memory,
        home.memory_index if home else None,
        embedder=find_embedder() if wanted else None,
        admit=admit,
        rules=rules,
        embed_s=config.embed_s,
    )


def _origin(memory: Memory, rules: str) -> int:
    """Which log this is, and by which rules its texts are taken in; 60 bits."""
    key: Any = memory.run("SELECT key FROM secret")[0][0]
    digest = hashlib.blake2b(rules.encode("utf-8"), key=bytes(key), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 4


__all__ = ["INSTALL", "Recall", "RetrievalConfig", "open_recall"]

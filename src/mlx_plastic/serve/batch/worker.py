"""The one thread that computes: it takes requests as they come and decodes them together."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from mlx_plastic.errors import Busy, PlasticError
from mlx_plastic.serve.batch.config import BatchConfig
from mlx_plastic.serve.batch.jobs import Asked, End, Job, Wanted

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.packs import Pack
    from mlx_plastic.packs.wear.mixed import Outfit
    from mlx_plastic.serve.batch.fill import Unread
    from mlx_plastic.serve.batch.lane import Lane
    from mlx_plastic.serve.batch.loaded import Loaded

log = logging.getLogger(__name__)

T = TypeVar("T")


class Worker:
    """Everything that touches the model runs on its thread; everything public may be called from any.

    load: gives the base; called when it is first needed, and again after it left memory for being idle.
    """

    def __init__(self, load: Callable[[], Base], config: BatchConfig | None = None) -> None:
        self.config = config or BatchConfig()
        self.counts: Counter[str] = Counter()  # what was done so far; numbers only
        self._load = load
        self._loaded: Loaded | None = None
        self._wake = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._waiting: deque[Job] = deque()
        self._fills: deque[tuple[list[Unread], Generator[None, None, Lane]]] = deque()
        self._lanes: dict[Outfit, Lane] = {}
        self._closing = False
        self._resting = False
        self._idle_since = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)

    # -- from any thread

    def start(self) -> Base:
        """Begin; the base without its model, once it is loaded. Raises whatever that raises."""
        self.begin()
        try:
            return self.call(lambda loaded: replace(loaded.base, model=None)).result()
        except BaseException:
            self.stop()
            raise

    def begin(self) -> None:
        """Begin without a base in memory: it is loaded when something is asked."""
        self._thread.start()

    def rest(self, on: bool) -> None:
        """While on, the base leaves memory whenever nothing runs or waits; what is asked loads it again."""
        with self._wake:
            changed, self._resting = on != self._resting, on
            if changed:
                self._wake.notify()

    def submit(self, wanted: Wanted, tell: Asked) -> Job:
        """Queue an answer. tell gets its pieces, then one End. Raises Busy if too many wait already."""
        job = Job(wanted, tell)
        with self._wake:
            if self._closing:
                raise Busy("the server is going down", hint="ask again in a moment")
            if len(self._waiting) >= self.config.queue:
                raise Busy(f"{len(self._waiting)} requests wait already", hint="ask again in a moment")
            self._waiting.append(job)
            self._wake.notify()
        return job

    def admit(self, packs: Mapping[str, Pack], scales: Mapping[str, float]) -> Future[Outfit]:
        """Check that the base can wear these packs and that they act, before a request is promised."""
        return self.call(lambda loaded: loaded.admit(packs, scales))

    def call(self, action: Callable[[Loaded], T]) -> Future[T]:
        """Run something on the worker's thread, between two steps."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(action(self._ready()))
                except BaseException as error:
                    future.set_exception(error)

        with self._wake:
            if self._closing:
                future.set_exception(Busy("the server is going down", hint="ask again in a moment"))
            else:
                self._calls.append(run)
                self._wake.notify()
        return future

    def load_now(self) -> tuple[int, int]:
        """Rows that are read or decoded, and requests that wait."""
        filling = sum(len(group) for group, _ in tuple(self._fills))
        return filling + sum(len(lane.rows) for lane in tuple(self._lanes.values())), len(self._waiting)

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    @property
    def prefix_bytes(self) -> int:
        loaded = self._loaded
        return loaded.prefixes.nbytes if loaded else 0

    def stop(self, grace_s: float = 0.0) -> None:
        """Take nothing new; let what runs come to its end for `grace_s` seconds, then cut it short."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(grace_s)
        for job in self._jobs():
            job.cancel()
        if self._thread.is_alive():
            self._thread.join()

    # -- on the worker's thread

    def _run(self) -> None:
        while self._wait():
            while self._calls:
                self._calls.popleft()()
            try:
                self._tick()
            except Exception as error:
                log.exception("decoding failed: %s", type(error).__name__)
                self._fail_all(error)
        self._loaded = None

    def _wait(self) -> bool:
        """Until there is something to do; False when all is done and nothing more may come."""
        with self._wake:
            while not (self._calls or self._waiting or self._fills or self._lanes):
                if self._closing:
                    return False
                left = self._idle_left()
                self._wake.wait(left)
                if left is not None and self._idle_left() == 0:
                    self._unload()
            self._idle_since = time.monotonic()
        return True

    def _idle_left(self) -> float | None:
        if self._loaded is None:
            return None
        if self._resting:
            return 0.0
        if not self.config.idle_s:
            return None
        return max(0.0, self._idle_since + self.config.idle_s - time.monotonic())

    def _unload(self) -> None:
        from mlx_plastic.backend import mx

        why = (
            "it is needed elsewhere" if self._resting else f"nothing was asked for {self.config.idle_s:.0f} s"
        )
        log.info("the base leaves memory: %s", why)
        self._loaded = None
        mx.clear_cache()

    def _ready(self) -> Loaded:
        if self._loaded is None:
            from mlx_plastic.serve.batch.loaded import Loaded

            self._loaded = Loaded(self._load(), self.config)
            self.counts["loads"] += 1
        return self._loaded

    def _tick(self) -> None:
        if self._waiting:
            self._take(self._ready())
        if self._fills:
            self._read(self._ready())
        for key in list(self._lanes):
            self._step(self._ready(), key)

    def _take(self, loaded: Loaded) -> None:
        """Jobs for which there is room become rows that are to be read."""
        from mlx_plastic.serve.batch.fill import fill, grouped

        self._drop_gone()
        unread: dict[Outfit, list[Unread]] = {}
        rows, _ = self.load_now()
        most = self.config.rows if loaded.batched else 1
        busy = self._positions()
        while self._waiting and rows < most:
            job = self._waiting[0]
            need = len(job.wanted.tokens) + job.wanted.max_tokens
            if rows and busy + need > loaded.positions:
                break  # it waits until others have ended
            self._waiting.popleft()
            if (one := self._begun(loaded, job)) is not None:
                unread.setdefault(self._lane_key(loaded, one.row.outfit), []).append(one)
                rows, busy = rows + 1, busy + need
        for together in unread.values():
            for group in grouped(together, most=most, chunk=self.config.chunk_tokens):
                reading = fill(
                    loaded.base.model,
                    loaded.mixer,
                    group,
                    chunk=self.config.chunk_tokens,
                    batched=loaded.batched,
                )
                self._fills.append((group, reading))

    def _drop_gone(self) -> None:
        with self._wake:
            gone = [job for job in self._waiting if job.gone.is_set()]
            for job in gone:
                self._waiting.remove(job)
        for job in gone:
            job.tell(End("cancelled", len(job.wanted.tokens)))

    def _begun(self, loaded: Loaded, job: Job) -> Unread | None:
        try:
            one = loaded.unread(job)
        except PlasticError as error:
            job.tell(End("error", fault=error.message, hint=error.hint))
            return None
        except Exception as error:
            log.exception("a request cannot be begun: %s", type(error).__name__)
            job.tell(End("error", fault=f"it cannot be begun: {type(error).__name__}"))
            return None
        self.counts["prompt_tokens"] += len(job.wanted.tokens)
        self.counts["reused_tokens"] += one.row.reused
        return one

    def _read(self, loaded: Loaded) -> None:
        """One chunk of the oldest prompts."""
        group, reading = self._fills[0]
        try:
            if all(one.row.job.gone.is_set() for one in group):
                self._fills.popleft()
                for one in group:
                    one.row.end("cancelled")
                return
            next(reading)
            self._fills.rotate(-1)
        except StopIteration as done:
            self._fills.popleft()
            lane: Lane = done.value
            key = self._lane_key(loaded, lane.rows[0].outfit)
            if key in self._lanes:
                self._lanes[key].join(lane)
            else:
                self._lanes[key] = lane

    def _step(self, loaded: Loaded, key: Outfit) -> None:
        from mlx_plastic.serve.batch.lane import step

        lane = self._lanes[key]
        ended = step(loaded.base.model, loaded.mixer, lane, loaded.ends)
        loaded.mixer.rest()
        self.counts["steps"] += 1
        self.counts["said_tokens"] += len(lane.rows)
        for row, finish, place in ended:
            loaded.keep(lane, row, place)
            row.end(finish)
        gone = {place for _, _, place in ended}
        lane.keep([place for place in range(len(lane.rows)) if place not in gone])
        if not lane.rows:
            del self._lanes[key]

    def _lane_key(self, loaded: Loaded, outfit: Outfit) -> Outfit:
        return () if loaded.mixer.mixes(outfit) and loaded.batched else outfit

    def _positions(self) -> int:
        """Cached positions that what runs may come to need."""
        return sum(len(job.wanted.tokens) + job.wanted.max_tokens for job in self._running())

    def _running(self) -> list[Job]:
        filling = [one.row.job for group, _ in tuple(self._fills) for one in group]
        return filling + [row.job for lane in tuple(self._lanes.values()) for row in lane.rows]

    def _jobs(self) -> list[Job]:
        return [*self._running(), *tuple(self._waiting)]

    def _fail_all(self, error: Exception) -> None:
        """A fault of ours or of the machine: everyone is told, and the model is made anew."""
        for job in self._jobs():
            job.tell(End("error", fault=f"decoding failed: {type(error).__name__}"))
        self._waiting.clear()
        self._fills.clear()
        self._lanes.clear()
        self._loaded = None

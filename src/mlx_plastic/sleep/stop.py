"""When a night has to end before its end: the person wants the machine back, or a budget is spent."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


class Stopped(BaseException):
    """The night stops here and goes on from its journal later; no `except Exception` may swallow it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Stop:
    """Whether a night is to stop. Asked for by a signal, by another thread (`ask`), or by the clock.

    minutes: how long it may take, judging included; 0: as long as it needs. clock: seconds that only grow,
    whatever the date does. signal: the number that asked, 0 if none did.
    """

    def __init__(self, *, minutes: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.signal = 0
        self._asked = ""
        self._until = clock() + 60 * minutes if minutes else None
        self._minutes = minutes
        self._clock = clock
        self._held = 0

    def ask(self, reason: str = "asked to stop") -> None:
        """Stop as soon as nothing is lost by it."""
        self._asked = self._asked or reason

    @property
    def asked(self) -> str:
        """Why somebody wants the night to stop; empty: nobody does."""
        return self._asked

    def spent(self, reserve_s: float = 0.0) -> str:
        """That the time is up, `reserve_s` before it is; empty: it is not."""
        if self._until is None or self._clock() + reserve_s < self._until:
            return ""
        return f"the {self._minutes:g} minutes are spent"

    def check(self) -> None:
        """Raises Stopped if somebody has asked."""
        if self._asked:
            raise Stopped(self._asked)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal waits for the next `check`: what was begun is brought to a good place first."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take the signals that end a program as requests; the second one ends it at once.

        In the main thread only: elsewhere no signal can be taken, and nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | Any) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        self.ask(f"stopped by {signal.Signals(number).name}")
        if not self._held:
            self.check()  # every stage may be broken off, so there is nothing to wait for
